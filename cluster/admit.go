package cluster

import (
	"sync"
	"time"
)

// admission bounds the Opens of one process that are under way to one shard.
// The bound follows what the shard does: while Opens are answered in time it
// grows, when they are late it shrinks (additive increase, multiplicative
// decrease, as TCP's window). So a storm of CONNECTs is served as fast as the
// shard commits, and what is beyond that is refused at once instead of waiting
// until it gives up. Safe for concurrent use.
type admission struct {
	mu    sync.Mutex
	limit float64
	under int       // Opens under way
	cut   time.Time // the bound last shrank
}

func newAdmission() *admission { return &admission{limit: openStart} }

// enter admits an Open, or not. Each one admitted must leave.
func (a *admission) enter() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.under >= int(a.limit) {
		return false
	}
	a.under++
	return true
}

// leave ends an Open that took so long.
func (a *admission) leave(took time.Duration, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	full := 2*a.under >= int(a.limit)
	a.under--
	switch {
	case took <= openGoal && full: // a bound that binds nobody says nothing
		a.limit = min(a.limit+openStep/a.limit, openMost)
	case took > openGoal && now.Sub(a.cut) > openGoal: // those behind it will be late too
		a.limit, a.cut = max(a.limit*openBackoff, openLeast), now
	}
}

// bound is how many Opens may be under way.
func (a *admission) bound() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return int(a.limit)
}
