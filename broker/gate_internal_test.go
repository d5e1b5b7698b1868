package broker

import (
	"runtime"
	"testing"
	"time"
)

func TestGateLetsBurstsThroughAndKeepsTheRate(t *testing.T) {
	now := time.Unix(1000, 0)
	g := newGate(&Config{ConnectRate: 100, MaxHalfOpen: 1})
	g.at = now
	accepted := func(lasts time.Duration) (n int) {
		for end := now.Add(lasts); now.Before(end); {
			if d := g.take(now); d > 0 {
				now = now.Add(d)
				continue
			}
			n++
			now = now.Add(time.Microsecond)
		}
		return n
	}
	if n := accepted(time.Millisecond); n < 25 || n > 26 {
		t.Errorf("%d of a burst of 25", n)
	}
	if n := accepted(10 * time.Second); n < 950 || n > 1001 {
		t.Errorf("%d in 10 s at 100/s", n)
	}
	now = now.Add(time.Hour)
	if n := accepted(time.Millisecond); n < 25 || n > 26 {
		t.Errorf("%d after a quiet hour", n)
	}
	if g := newGate(&Config{ConnectRate: -1}); g.take(now) != 0 {
		t.Error("no bound, and waits")
	}
}

// When what is to be run waits, fewer connections are accepted; then more again.
func TestGateAdapts(t *testing.T) {
	now := time.Unix(1000, 0)
	g := newGate(&Config{ConnectRate: 2000})
	g.at = now
	for range 5 {
		g.adapt(100*time.Millisecond, now)
	}
	if g.rate > 400 {
		t.Errorf("%v per second after five late probes", g.rate)
	}
	for range 50 {
		g.adapt(time.Second, now)
	}
	if g.rate != acceptLeast {
		t.Errorf("%v per second at least", g.rate)
	}
	for n := 0; g.adapt(0, now.Add(time.Hour)); n++ {
		if n > 1000 {
			t.Fatalf("%v per second after %d probes in time", g.rate, n)
		}
	}
	if g.rate != 2000 {
		t.Errorf("%v per second when probing ends", g.rate)
	}
}

func TestMemoryLevels(t *testing.T) {
	m := &memory{limit: 1000}
	for _, step := range []struct {
		used uint64
		want int32
	}{
		{100, memoryEnough}, {699, memoryEnough}, {700, memoryRefuse}, {661, memoryRefuse}, {659, memoryEnough},
		{950, memoryClose}, {870, memoryClose}, {859, memoryDrop}, {790, memoryPause}, {0, memoryEnough}, {1e6, memoryClose},
	} {
		got := m.at(step.used)
		m.level.Store(got)
		if got != step.want {
			t.Errorf("%d used: %s, want %s", step.used, memoryNames[got], memoryNames[step.want])
		}
	}
}

// The measure is of this process: it sees what is alive, and not what is free.
func TestMemoryUsed(t *testing.T) {
	used := memoryUsed()
	before, _ := used()
	held := make([]byte, 64<<20)
	for i := range held {
		held[i] = 1
	}
	runtime.GC()
	with, cycles := used()
	if with < before+32<<20 || cycles == 0 {
		t.Errorf("%d MiB, then with 64 MiB more %d, after %d collections", before>>20, with>>20, cycles)
	}
	held[0]++
	held = nil
	runtime.GC()
	if after, _ := used(); after > with-32<<20 {
		t.Errorf("%d MiB after 64 of %d were given up", after>>20, with>>20)
	}
}
