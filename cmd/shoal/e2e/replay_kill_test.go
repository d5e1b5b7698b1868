package e2e

import (
	"testing"

	"github.com/shoalmq/shoal/broker/packet"
)

// TestReplayWhileLeadersDie: a replay of retained messages goes on, on the same
// connection, when the other nodes die one after the other, which lead shards and
// perhaps the directory: each topic comes, once, a durable session's also.
func TestReplayWhileLeadersDie(t *testing.T) {
	const topics = 5_000
	c := startCluster(t, 6)
	retainMany(t, c, topics)
	for kind, expiry := range map[string]uint32{"transient": 0, "durable": 600} {
		t.Run(kind, func(t *testing.T) {
			p := newPerson([]string{c.nodes[0].mqtt}, 0, packet.Connect{
				ClientID: "replay-" + kind, CleanStart: true, HasSessionExpiry: true, SessionExpiry: expiry})
			must(t, p.online())
			defer p.leave()
			seen := map[string]bool{}
			take := func(m *packet.Publish) {
				if seen[string(m.Topic)] || !m.Retain {
					t.Fatalf("%s: after %d topics, seen %t, RETAIN %t", m.Topic, len(seen), seen[string(m.Topic)], m.Retain)
				}
				seen[string(m.Topic)] = true
			}
			must(t, p.subscribe(take, packet.Subscription{Filter: "replay/#", QoS: packet.QoS1}))
			steps := []func(){c.nodes[1].kill, func() { c.nodes[1].start(); c.awaitReady() }, c.nodes[2].kill, func() { c.nodes[2].start(); c.awaitReady() }}
			for len(seen) < topics {
				if n := len(steps); n > 0 && len(seen) > topics*(5-n)/5 {
					steps[0]()
					steps = steps[1:]
				}
				x, err := p.conn.Receive(patience)
				if err != nil {
					t.Fatalf("after %d topics: %v", len(seen), err)
				}
				if m, ok := x.(*packet.Publish); ok {
					take(m)
				}
			}
			if len(steps) > 0 {
				t.Errorf("%d steps were not taken", len(steps))
			}
		})
	}
}
