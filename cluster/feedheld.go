package cluster

import (
	"slices"
	"time"

	"github.com/shoalmq/shoal/cluster/shard"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// heldVolatile is a QoS 0 delivery to a session whose node has not asked for it
// here yet: it has just connected, or this leader has just been elected and the
// feeds are on their way to it. It is kept for a moment, and handed over with
// the Fetch, before anything that comes later; else it is dropped and counted.
type heldVolatile struct {
	v     shard.Volatile
	until time.Time
}

// hand gives deliveries to the feeds of their sessions, and holds the rest.
func (l *shardLead) hand(all []shard.Volatile) {
	if len(all) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range all {
		if !l.give(v) {
			l.hold(v)
		}
	}
}

// give puts v into the seat of its session's node, if it is there. Called with
// mu held.
func (l *shardLead) give(v shard.Volatile) (taken bool) {
	for s := range l.seats {
		s.mu.Lock()
		taken = s.volatile(l.n, v)
		s.mu.Unlock()
		if taken {
			s.wake.set()
			return true
		}
	}
	return false
}

// hold keeps v for a moment. Called with mu held.
func (l *shardLead) hold(v shard.Volatile) {
	size := messageBytes(v.Message)
	if l.heldBytes+size > volatileBytes || l.over {
		l.lose(1)
		return
	}
	if len(l.held) == 0 {
		time.AfterFunc(holdTime, l.expireHeld)
	}
	l.held = append(l.held, heldVolatile{v, time.Now().Add(holdTime)})
	l.heldBytes += size
}

// asked hands over what is held for the sessions of these fetches.
func (l *shardLead) asked(fetches []*shoalpb.Fetch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.held) == 0 || len(fetches) == 0 {
		return
	}
	l.dropHeld(func(h *heldVolatile) bool { return l.give(h.v) })
}

// expireHeld drops what nobody has asked for in time.
func (l *shardLead) expireHeld() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	before := len(l.held)
	l.dropHeld(func(h *heldVolatile) bool { return !now.Before(h.until) })
	l.lose(before - len(l.held))
	if len(l.held) > 0 {
		time.AfterFunc(time.Until(l.held[0].until), l.expireHeld)
	}
}

// dropHeld takes out what over says. Called with mu held.
func (l *shardLead) dropHeld(over func(*heldVolatile) bool) {
	l.held = slices.DeleteFunc(l.held, func(h heldVolatile) bool {
		gone := over(&h)
		if gone {
			l.heldBytes -= messageBytes(h.v.Message)
		}
		return gone
	})
}

// end counts what the lead takes with it.
func (l *shardLead) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.lose(len(l.held))
	l.held, l.heldBytes = nil, 0
}

// lose counts QoS 0 deliveries that were lost because their shard's leader has
// changed, or because their session was not fetched in time.
func (l *shardLead) lose(n int) { l.n.metrics.leaderMoved(n) }
