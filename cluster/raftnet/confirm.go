package raftnet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// ErrLaterTerm is returned by Confirm when a peer has answered with a higher
// term: this server does not lead any more.
var ErrLaterTerm = errors.New("a peer is in a later term")

// confirmations remembers when requests that peers have answered were sent.
type confirmations struct {
	mu    sync.Mutex
	peers map[raft.ServerAddress]answered
	// latest is the highest term seen in an answer.
	latest uint64
	// changed is closed at the next change; nil while nobody waits.
	changed chan struct{}
	// nudging: a goroutine is calling nudge; again: once more after that.
	nudging, again bool
	// logs are how far peers' logs are known to agree with this server's.
	logs map[raft.ServerAddress]matched
}

// answered is the sending time of the latest request of term, a peer's highest,
// that the peer answered with that term.
type answered struct {
	term uint64
	sent time.Duration
}

// record notes an answer with term to a request of asked that was sent at sent.
func (c *confirmations) record(peer raft.ServerAddress, asked, term uint64, sent time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.latest = max(c.latest, term)
	if term == asked {
		old := c.peers[peer]
		if asked < old.term || asked == old.term && sent <= old.sent {
			return
		}
		if c.peers == nil {
			c.peers = make(map[raft.ServerAddress]answered)
		}
		c.peers[peer] = answered{asked, sent}
	}
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// confirmed needs mu.
func (c *confirmations) confirmed(term uint64, voters []raft.ServerAddress, self raft.ServerAddress) time.Duration {
	if len(voters) == 0 {
		return 0
	}
	var room [8]time.Duration
	times := room[:0]
	for _, v := range voters {
		switch a := c.peers[v]; {
		case v == self:
			times = append(times, Now())
		case a.term == term:
			times = append(times, a.sent)
		default:
			times = append(times, 0)
		}
	}
	slices.Sort(times)
	quorum := len(times)/2 + 1
	return times[len(times)-quorum]
}

// Confirmed returns the newest instant, on the clock of Now, such that a quorum
// of voters has answered, in term, AppendEntries that this server sent at or
// after it; 0 if there is none. This server, if it is a voter, counts as
// answering at once. The answers prove that no leader of a later term had been
// elected at that instant; that this server leads in term is the caller's
// knowledge.
func (t *Transport) Confirmed(term uint64, voters []raft.ServerAddress, self raft.ServerAddress) time.Duration {
	t.answers.mu.Lock()
	defer t.answers.mu.Unlock()
	return t.answers.confirmed(term, voters, self)
}

// Confirm waits until Confirmed is not before the moment of the call. nudge
// makes raft send heartbeats now (raft.VerifyLeader does); it runs on a
// goroutine of its own, never twice at a time, and starts after the call.
// Confirm fails with ErrLaterTerm, ErrClosed or ctx's error.
func (t *Transport) Confirm(ctx context.Context, term uint64, voters []raft.ServerAddress, self raft.ServerAddress, nudge func()) error {
	asked, nudged := Now(), false
	c := &t.answers
	for {
		c.mu.Lock()
		confirmed, latest := c.confirmed(term, voters, self), c.latest
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		if confirmed >= asked {
			return nil
		}
		if latest > term {
			return fmt.Errorf("confirm leadership of term %d: %w (%d)", term, ErrLaterTerm, latest)
		}
		if !nudged {
			nudged = true
			c.nudge(nudge)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("confirm leadership of term %d: %w", term, ctx.Err())
		case <-t.ctx.Done():
			return fmt.Errorf("confirm leadership of term %d: %w", term, ErrClosed)
		}
	}
}

// nudge has f called soon: by a new goroutine, or by the one that is calling it
// already, when that is done.
func (c *confirmations) nudge(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.again = true
	if c.nudging {
		return
	}
	c.nudging = true
	go func() {
		for c.nudgeAgain() {
			f()
		}
	}()
}

func (c *confirmations) nudgeAgain() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nudging, c.again = c.again, false
	return c.nudging
}
