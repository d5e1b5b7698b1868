package cluster

import (
	"sync"
	"time"
)

// clockDrift is the share by which an estimate of a shard's clock is allowed to
// run ahead of what was heard since: above the drift of any usable oscillator,
// so that a follower's estimate is bound to what leaders say, and small enough
// that one that hears of old entries only does not lose what it knew.
const clockDrift = 5000 // 1 / 5000, 200 ppm

// shardClock is one replica's estimate of its shard's clock, by this node's
// boot-time clock. It never runs ahead of the truth but by drift: what an entry
// says was true when its leader made it, so with the time since this replica
// applied it the estimate is a little low, and the highest estimate is the best.
// While this node leads the shard the estimate is the clock.
type shardClock struct {
	// boot is the clock that it is measured by.
	boot func() time.Duration
	// old is the last index of the log when the replica was opened: entries up
	// to there tell nothing of the time that has passed since.
	old uint64

	mu sync.Mutex
	// at was the shard's clock when boot was noted; known says that there is an
	// estimate at all, live that it holds over the whole time since.
	at, noted   time.Duration
	known, live bool
}

func newShardClock(boot func() time.Duration) *shardClock { return &shardClock{boot: boot} }

// now is the shard's clock in milliseconds, 0 as long as nothing is known.
func (c *shardClock) now() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known {
		return 0
	}
	return milliseconds(c.at + c.boot() - c.noted)
}

func milliseconds(d time.Duration) uint64 { return uint64(d / time.Millisecond) }

// heard takes the clock that a follower has after the entry at index moved it.
func (c *shardClock) heard(index, clockMs uint64) {
	now := c.boot()
	c.mu.Lock()
	defer c.mu.Unlock()
	at := time.Duration(clockMs) * time.Millisecond
	if c.known {
		since := now - c.noted
		at = max(at, c.at+since-since/clockDrift)
	}
	c.at, c.noted, c.known = at, now, true
	c.live = c.live || index > c.old
}

// raise moves the estimate forward to clockMs.
func (c *shardClock) raise(clockMs uint64) {
	now := c.boot()
	c.mu.Lock()
	defer c.mu.Unlock()
	at := time.Duration(clockMs) * time.Millisecond
	if c.known {
		at = max(at, c.at+now-c.noted)
	}
	c.at, c.noted, c.known = at, now, true
}

// isLive tells that this replica has known the clock since some entry that was
// new to it. One that has only read its disk does not know for how long all
// nodes were down.
func (c *shardClock) isLive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live
}

// setLive ends the search for the time that was missed.
func (c *shardClock) setLive() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.live = true
}
