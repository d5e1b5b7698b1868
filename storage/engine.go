package storage

import (
	"maps"

	"github.com/hashicorp/raft"
)

// engine is a file that keeps the logs of all groups. Log and GroupLog stand on
// it alone, so that another format (a segment log needs one fsync a commit,
// bbolt two) is another engine and no other change. Only the committer calls
// commit and sweep; read may be called beside them.
type engine interface {
	// encode turns entries into what commit writes. It may be called by many
	// at once, and is where the time goes that need not be the committer's.
	encode(group uint32, logs []*raft.Log) *batch
	// commit makes all changes durable, or none.
	commit([]*change) error
	// sweep reports whether space is left to be freed; each commit, an empty
	// one too, frees some.
	sweep() bool
	// read returns an entry, raft.ErrLogNotFound if it is not there.
	read(group uint32, index uint64, out *raft.Log) error
	// sizes visits what the entries from last down take, until visit returns
	// false or one is not there.
	sizes(group uint32, last uint64, visit func(bytes int) bool) error
	close() error
}

// head is what a group has in the log.
type head struct {
	first, last uint64 // inclusive; both 0: no entries
	commit      uint64
	stable      map[string][]byte
}

// holds reports whether the entry is in the log.
func (h *head) holds(index uint64) bool {
	return h.first <= index && index <= h.last && index > 0
}

func (h *head) clone() head {
	c := *h
	c.stable = maps.Clone(h.stable)
	return c
}

// change is what one commit does to one group.
type change struct {
	group uint32
	head  head // after all steps
	steps []step
}

// step is one append or one cut at the end; what leaves at the front, or all at
// once, is said by the change's head alone.
type step struct {
	// cut drops the entries from this index on; 0 in an append.
	cut uint64
	// append follows the entries there are.
	append *batch
	// fresh says that the log had no entries before this append.
	fresh bool
}
