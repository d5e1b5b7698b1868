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
// themselves. So a storm leaves time for everything else, above all for raft,
// whose leaders may be silent for a quarter of a second: while connections come
// a probe wakes up every few ms, and when it comes too late, because too much is
// to be run, fewer are accepted. Safe for concurrent use.
type gate struct {
	most     float64 // the highest rate, 0 for no bound
	halfOpen int

	mu      sync.Mutex
	rate    float64 // accepted per second, now
	tokens  float64
	at      time.Time // tokens is as of; the last accept
	probing bool
	// awaiting are the connections in order of accept, those that have sent
	// CONNECT only as long as an older one has not.
	awaiting []*conn
	waiting  int // of awaiting, in phase awaiting or proving
}

func newGate(c *Config) *gate {
	most := max(float64(c.ConnectRate), 0)
	return &gate{most: most, rate: most, tokens: most, at: time.Now(), halfOpen: c.MaxHalfOpen}
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
	if g.most == 0 {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tokens = min(g.tokens+g.rate*now.Sub(g.at).Seconds(), max(g.rate*acceptBurst, 1))
	g.at = now
	if g.tokens < 1 {
		return max(time.Duration((1-g.tokens)/g.rate*float64(time.Second)), acceptPause)
	}
	g.tokens--
	return 0
}

// accepted is told of each accept. It reports true when nobody probes: then the
// caller sees to it that probe runs.
func (g *gate) accepted() (probe bool) {
	if g.most == 0 {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	probe = !g.probing
	g.probing = true
	return probe
}

// probe looks how late it wakes up, until no connection has come for a while.
func (g *gate) probe(done <-chan struct{}) {
	t := time.NewTimer(probeTick)
	defer t.Stop()
	for {
		due := time.Now().Add(probeTick)
		t.Reset(probeTick)
		select {
		case <-t.C:
		case <-done:
			return
		}
		now := time.Now()
		if !g.adapt(now.Sub(due), now) {
			return
		}
	}
}

// adapt takes how late a probe was. It reports false when probing is over.
func (g *gate) adapt(late time.Duration, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if late > probeLate {
		g.rate = max(g.rate*probeBackoff, min(g.most, acceptLeast))
		g.tokens = min(g.tokens, 1)
	} else {
		g.rate = min(g.rate+g.most*probeStep, g.most)
	}
	g.probing = now.Sub(g.at) < probeQuiet || g.rate < g.most
	return g.probing
}

// enter notes a new connection. If there are too many without CONNECT it
// returns the oldest, to be closed: a client that means it sends CONNECT at
// once.
func (g *gate) enter(c *conn) (oldest *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.awaiting) > 0 && g.awaiting[0].phase.Load() > proving {
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

// leave notes that a connection is not waited for any more: its CONNECT has come,
// and, if that asked for an exchange of AUTH, has been proved.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting--
}

// now is the rate now.
func (g *gate) now() float64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rate
}

// count is how many connections have not sent CONNECT.
func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting
}
