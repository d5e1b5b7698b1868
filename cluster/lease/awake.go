package lease

import "time"

// awake tells the time that a process has run from the time that it was
// suspended, stopped, or without a processor. What it did not hear in the latter
// says nothing about others. It matters that such times are left out one by one: a
// process that is stopped again and again still runs out of patience at last.
type awake struct {
	last time.Duration // the last tick
}

// tick returns for how long the process has run since the last tick: all of the
// time between the two, or nothing if it is longer than a process that runs lets
// pass.
func (a *awake) tick(now time.Duration) time.Duration {
	d := max(0, now-a.last)
	a.last = max(a.last, now)
	if d > stall {
		return 0
	}
	return d
}
