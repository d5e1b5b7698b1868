package broker

import (
	"context"
	"sync"
	"time"
)

// gate bounds what connections may cost before anybody knows whose they are:
// how many are accepted per second, and how many may be without a CONNECT. What
// it does not accept waits in the listeners' backlog, where it costs the kernel
// little and this process nothing; when that is full clients try again by
// themselves. So a storm leaves time for everything else, above all for raft.
// Safe for concurrent use.
type gate struct {
	rate, burst float64
	halfOpen    int

	mu     sync.Mutex
	tokens float64
	at     time.Time // tokens is as of
	// awaiting are the connections in order of accept, those that have sent
	// CONNECT only as long as an older one has not.
	awaiting []*conn
	waiting  int // of awaiting, in phase awaiting
}

func newGate(c *Config) *gate {
	rate := float64(c.ConnectRate)
	return &gate{rate: rate, burst: rate, tokens: rate, at: time.Now(), halfOpen: c.MaxHalfOpen}
}

// wait takes a token, as soon as there is one. It reports false when ctx or the
// broker ended first.
func (g *gate) wait(ctx context.Context, done <-chan struct{}) bool {
	for {
		d := g.take(time.Now())
		if d <= 0 {
			return true
		}
		t := time.NewTimer(d)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return false
		case <-done:
			t.Stop()
			return false
		}
	}
}

// take takes a token, or tells how long to wait for some.
func (g *gate) take(now time.Time) (wait time.Duration) {
	if g.rate <= 0 {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tokens = min(g.tokens+g.rate*now.Sub(g.at).Seconds(), g.burst)
	g.at = now
	if g.tokens < 1 {
		return max(time.Duration((1-g.tokens)/g.rate*float64(time.Second)), acceptPause)
	}
	g.tokens--
	return 0
}

// enter notes a new connection. If there are too many without CONNECT it
// returns the oldest, to be closed: a client that means it sends CONNECT at
// once.
func (g *gate) enter(c *conn) (oldest *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.awaiting) > 0 && g.awaiting[0].phase.Load() != awaiting {
		g.awaiting[0] = nil
		g.awaiting = g.awaiting[1:]
	}
	g.awaiting = append(g.awaiting, c)
	g.waiting++
	if g.waiting > g.halfOpen && g.awaiting[0] != c {
		oldest = g.awaiting[0]
	}
	return oldest
}

// leave notes that a connection is not waited for any more.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting--
}

// count is how many connections have not sent CONNECT.
func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting
}
