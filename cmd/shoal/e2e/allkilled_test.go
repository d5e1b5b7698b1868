package e2e

import (
	"errors"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// unavailable skips a test whose tool is missing, or fails it where nothing
// may be.
func unavailable(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" || os.Getenv("SHOAL_E2E") == "all" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// TestAllKilledAtOnce: all three nodes die at once under load, and come back
// with everything acknowledged, with sessions, subscriptions and QoS 2 state.
func TestAllKilledAtOnce(t *testing.T) {
	eachShardCount(t, func(t *testing.T, shards int) {
		nothing := func() {}
		allEndAtOnce(t, newCluster(t, shards, t.TempDir()), nothing, nothing)
	})
}

// allEndAtOnce kills all nodes again and again under load. cut follows at
// once; before they start again comes back.
func allEndAtOnce(t *testing.T, c *cluster, cut, back func()) {
	r := chaosConfig(t, 3, 1_000)
	c.start()
	c.awaitReady()
	l := startLoad(t, c, loadConfig{seed: r.seed, window: 30})
	r.again(l, func(*rand.Rand) {
		want := l.ackedNow() + 1_000
		eventually(t, "load", func() error {
			if l.ackedNow() < want {
				return errors.New("too few messages are acknowledged")
			}
			return nil
		})
		c.killAll()
		cut()
		back()
		c.start()
		begin := time.Now()
		c.awaitReady()
		t.Logf("all ready %v after they were started", time.Since(begin).Round(time.Millisecond))
	})
	l.finish()
	c.awaitEqual()
}
