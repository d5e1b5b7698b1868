package raftnet

import (
	"math"
	"time"

	"github.com/hashicorp/raft"
)

// matched is the index up to which a peer's log agreed with this server's when
// it answered an AppendEntries of term, this server's as leader.
type matched struct {
	term, index uint64
	// since is when Unmatch was called: answers to what was sent before it say
	// nothing of the log that the peer has now.
	since time.Duration
}

// match notes a successful answer of term to entries up to index, sent at sent.
func (c *confirmations) match(peer raft.ServerAddress, term, index uint64, sent time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.logs[peer]
	if term < old.term || term == old.term && index <= old.index || sent < old.since {
		return
	}
	if c.logs == nil {
		c.logs = make(map[raft.ServerAddress]matched)
	}
	c.logs[peer] = matched{term, index, old.since}
}

// Progress returns the index up to which a peer's log is known to agree with
// this server's log as leader of term, 0 if unknown, and how long ago a request
// of this term was sent that the peer has answered; the longest duration if none
// was. raft keeps both to itself.
func (t *Transport) Progress(term uint64, peer raft.ServerAddress) (index uint64, silent time.Duration) {
	c := &t.answers
	c.mu.Lock()
	defer c.mu.Unlock()
	silent = math.MaxInt64
	if a := c.peers[peer]; a.term == term {
		silent = Now() - a.sent
	}
	if m := c.logs[peer]; m.term == term {
		index = m.index
	}
	return index, silent
}

// Unmatch forgets the progress of a peer that is to become a member of the
// group: it may have thrown away a log that it had as an earlier one.
func (t *Transport) Unmatch(peer raft.ServerAddress) {
	c := &t.answers
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.logs == nil {
		c.logs = make(map[raft.ServerAddress]matched)
	}
	c.logs[peer] = matched{since: Now()}
	t.mux.ends.unmatch(t.group, string(peer))
}
