package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// chaosRun is how much a chaos test does: in go test a little, with
// SHOAL_CHAOS=long as much as SHOAL_CHAOS_FOR says.
type chaosRun struct {
	seed   uint64
	faults int           // at least
	acked  int           // at least
	least  time.Duration // at least
}

func chaosConfig(t testing.TB, faults, acked int) chaosRun {
	t.Helper()
	r := chaosRun{seed: rand.Uint64(), faults: faults, acked: acked}
	if s := os.Getenv("SHOAL_CHAOS_SEED"); s != "" {
		var err error
		if r.seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("SHOAL_CHAOS_SEED: %v", err)
		}
	}
	if os.Getenv("SHOAL_CHAOS") == "long" {
		r.least = 3 * time.Minute
		if s := os.Getenv("SHOAL_CHAOS_FOR"); s != "" {
			var err error
			if r.least, err = time.ParseDuration(s); err != nil {
				t.Fatalf("SHOAL_CHAOS_FOR: %v", err)
			}
		}
	}
	t.Logf("SHOAL_CHAOS_SEED=%d", r.seed)
	return r
}

// load says what the clients do: in a long run each time something else.
func (r chaosRun) load() loadConfig {
	c := loadConfig{seed: r.seed, window: 30, pace: 2 * time.Millisecond}
	if r.least > 0 {
		rng := rand.New(rand.NewPCG(r.seed, 6))
		c.window = []int{3, 30, 200}[rng.IntN(3)]
		c.pace = []time.Duration{500 * time.Microsecond, 2 * time.Millisecond, 20 * time.Millisecond}[rng.IntN(3)]
	}
	return c
}

// again calls fault until the run has done enough, and returns how often.
func (r chaosRun) again(l *load, fault func(rng *rand.Rand)) int {
	rng := rand.New(rand.NewPCG(r.seed, 2))
	begin := time.Now()
	for i := 0; ; i++ {
		if i >= r.faults && time.Since(begin) >= r.least && l.ackedNow() >= r.acked {
			return i
		}
		fault(rng)
		if l.t.Failed() {
			return i
		}
	}
}

// pause is the pace of faults.
func pause(rng *rand.Rand, least, most time.Duration) {
	time.Sleep(least + time.Duration(rng.Int64N(int64(most-least))))
}

// eachShardCount runs a test with one shard and with several: nothing promised
// may depend on their number.
func eachShardCount(t *testing.T, test func(t *testing.T, shards int)) {
	for _, shards := range []int{1, 6} {
		t.Run(fmt.Sprintf("shards=%d", shards), func(t *testing.T) { test(t, shards) })
	}
}

// TestChaosKill: nothing acknowledged is lost, nothing of QoS 2 doubled and
// order kept when random nodes die by kill -9 and come back, again and again.
func TestChaosKill(t *testing.T) {
	eachShardCount(t, func(t *testing.T, shards int) {
		r := chaosConfig(t, 4, 10_000)
		c := startCluster(t, shards)
		l := startLoad(t, c, r.load())
		kills := r.again(l, func(rng *rand.Rand) {
			pause(rng, 500*time.Millisecond, 2*time.Second)
			n := c.nodes[rng.IntN(len(c.nodes))]
			n.kill()
			pause(rng, 500*time.Millisecond, 2500*time.Millisecond)
			n.start()
			// Mostly it may come back before the next one dies; else a quorum is
			// gone for a while.
			if rng.IntN(4) > 0 {
				c.awaitReady()
			}
		})
		c.heal()
		v := l.finish()
		c.awaitEqual()
		t.Logf("%d kills", kills)
		if v.acked < r.acked {
			t.Errorf("%d acknowledged, want %d", v.acked, r.acked)
		}
	})
}

// TestChaosFreeze: the same with processes that stop for 3 to 10 s and go on
// with whatever waits in their buffers.
func TestChaosFreeze(t *testing.T) {
	eachShardCount(t, func(t *testing.T, shards int) {
		r := chaosConfig(t, 2, 1_000)
		c := startCluster(t, shards)
		lc := r.load()
		lc.patient = true
		l := startLoad(t, c, lc)
		freezes := r.again(l, func(rng *rand.Rand) {
			pause(rng, 500*time.Millisecond, 2*time.Second)
			n := c.nodes[rng.IntN(len(c.nodes))]
			n.freeze()
			pause(rng, 3*time.Second, 10*time.Second)
			n.thaw()
			if rng.IntN(4) > 0 {
				c.awaitReady()
			}
		})
		c.heal()
		l.finish()
		c.awaitEqual()
		t.Logf("%d freezes", freezes)
	})
}
