package storage

import (
	"fmt"

	"github.com/hashicorp/raft"
)

// CheckStart makes a group's log fit its state before raft is started, and in
// an install before that is reported as done. has is false if there is no
// marker; then m counts as index 0.
//
// A log that holds the marker's entry is kept, also one that begins right behind
// it. One that ends at or below the marker, or has an entry of another term
// there, is emptied: an install was cut short, and what it has replaced is in
// the state. One that begins later has lost entries: *BadDiskError. Damaged and
// missing entries were found by OpenLog.
func CheckStart(log *GroupLog, m Marker, has bool) error {
	if !has {
		m = Marker{}
	}
	if err := log.fit(m); err != nil {
		return err
	}
	if m.Index != 0 {
		log.mu.Lock()
		defer log.mu.Unlock()
		log.base = raft.Log{Index: m.Index, Term: m.Term, Type: raft.LogNoop}
	}
	return nil
}

// fit empties a log that does not fit a state that ends with m.
func (g *GroupLog) fit(m Marker) error {
	h := g.currentHead()
	switch {
	case h.last == 0 || h.first == m.Index+1:
		return nil
	case h.first > m.Index:
		return badDisk(g.log.path, "the log of group %d begins at %d, its state ends at %d", g.id, h.first, m.Index)
	case h.last < m.Index:
		return g.Empty()
	}
	var l raft.Log
	if err := g.GetLog(m.Index, &l); err != nil {
		return fmt.Errorf("check log of group %d: %w", g.id, err)
	}
	if l.Term != m.Term {
		return g.Empty()
	}
	return nil
}
