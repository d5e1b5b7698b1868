package cluster

import (
	"errors"
	"testing"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// TestFirstRunOfAPipeGoesAlone: a recovered target adopts the first number that
// it takes, so the second run must not be under way before the first is taken.
func TestFirstRunOfAPipeGoesAlone(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 1, 2)
	sub, pub := newDevice(c, c.clientIn(2, "sub")), newDevice(c, c.clientIn(1, "pub"))
	sub.subscribes("a", 1, "n1")
	var l *shardLead
	eventually(t, "shard 1 is led", func() error {
		if l = c.node("n1").leadOf(1); l == nil {
			return errors.New("not yet")
		}
		return nil
	})
	target := &shoalpb.Target{Group: 2}
	held := newOutboxSender(l, target) // in place of the lead's own
	l.mu.Lock()
	l.senders[keyOf(target)] = held
	l.mu.Unlock()
	c.must(pub.stay("n1"))
	held.Begin()
	sent := func() int {
		for {
			if _, some := held.Next(); !some {
				return len(held.sent)
			}
		}
	}
	for _, payload := range []string{"one", "two"} { // acknowledged only once the target has them
		pub.publish("a", 2, payload)
		eventually(t, payload+" is in the outbox", func() error {
			if _, more, _ := held.read(held.after, 1); len(more) == 0 {
				return errors.New("not yet")
			}
			return nil
		})
		if n := sent(); n != 1 {
			t.Errorf("%d runs under way, none taken", n)
		}
	}
	held.taken = true
	if n := sent(); n != 2 {
		t.Errorf("%d runs sent after one was taken", n)
	}
	l.tasks.run(held.run) // for what the end of the test waits for
}
