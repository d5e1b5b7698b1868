package storage

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
)

// Keys under which raft keeps what it must not forget: its term, and in which
// term it has voted for whom.
var (
	keyCurrentTerm  = []byte("CurrentTerm")
	keyLastVoteTerm = []byte("LastVoteTerm")
	keyLastVoteCand = []byte("LastVoteCand")
)

// Set stores a stable value and returns when it is durable. It guards raft's
// election safety where raft v1.8.0 leaves holes:
//
//   - A term that falls is refused, of which raft panics. It sets the term from
//     two goroutines, the main loop and the heartbeat handler; a server whose
//     term went back could acknowledge entries of a leader after it has voted
//     for the next one.
//   - A later term of the vote drops the candidate of the earlier one with it.
//     Raft stores first the one, then the other; after a crash in between it
//     would take the old candidate for the one it has voted for in the new term,
//     and grant its vote again without comparing logs.
func (g *GroupLog) Set(key, val []byte) error {
	k, v := string(key), slices.Clone(val)
	return g.log.do(&op{group: g, edit: func(h *head, _ *change) error {
		if isTerm := bytes.Equal(key, keyCurrentTerm) || bytes.Equal(key, keyLastVoteTerm); isTerm {
			switch c := bytes.Compare(v, h.stable[k]); { // big-endian numbers
			case c < 0:
				return fmt.Errorf("set %s of group %d to %x, which is %x: %w", k, g.id, v, h.stable[k], ErrTermFalls)
			case c > 0 && k == string(keyLastVoteTerm):
				delete(h.stable, string(keyLastVoteCand))
			}
		}
		if h.stable == nil {
			h.stable = make(map[string][]byte)
		}
		h.stable[k] = v
		return nil
	}})
}

// Get returns a copy of a stable value, nil for none.
func (g *GroupLog) Get(key []byte) ([]byte, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return slices.Clone(g.head.stable[string(key)]), nil
}

// SetUint64 stores a number as a stable value: see Set.
func (g *GroupLog) SetUint64(key []byte, val uint64) error {
	return g.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// GetUint64 returns a number stored by SetUint64, 0 for none.
func (g *GroupLog) GetUint64(key []byte) (uint64, error) {
	b, err := g.Get(key)
	if err != nil || len(b) == 0 {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("read stable value %q of group %d: %d bytes are no number", key, g.id, len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}
