package cluster

import (
	"testing"
	"time"
)

// TestPulse: what makes a process unsteady, how soon, and for how long.
func TestPulse(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name      string
		stop, run time.Duration
		rounds    int
		within    time.Duration // 0: it stays steady
	}{
		{"0.9 s of each second", 900 * ms, 100 * ms, 20, 2 * time.Second},
		{"0.7 s of each second", 700 * ms, 300 * ms, 20, 3 * time.Second},
		{"0.4 s of each half", 400 * ms, 100 * ms, 20, 4 * time.Second},
		{"3 s, twice", 3 * time.Second, 500 * ms, 2, 7 * time.Second},
		{"a laptop that was closed", time.Hour, time.Second, 1, 0},
		{"a turn of fifteen on two processors", 150 * ms, 20 * ms, 200, 0},
		{"0.3 s now and then", 300 * ms, 2 * time.Second, 50, 0},
	} {
		var p pulse
		now, next := time.Hour, time.Hour
		begin, found := now, time.Duration(0)
		step := func(to time.Duration) {
			for ; next <= to; next = max(next+pulseTick, now) {
				if now = max(now, next); p.tick(now) && found == 0 {
					found = now - begin
				}
			}
			now = to
		}
		step(now + time.Second)
		begin = now
		for range c.rounds {
			now += c.stop // no ticks meanwhile
			step(now + c.run)
		}
		switch {
		case c.within == 0 && found != 0:
			t.Errorf("%s: unsteady after %v", c.name, found)
		case c.within != 0 && (found == 0 || found > c.within):
			t.Errorf("%s: unsteady after %v, want at most %v", c.name, found, c.within)
		}
		end := now
		for p.tick(now) {
			now += pulseTick
		}
		if c.within != 0 && (now-end < calmTime-c.run-pulseTick || now-end > calmTime+standWindow) {
			t.Errorf("%s: steady again %v later", c.name, now-end)
		}
	}
}
