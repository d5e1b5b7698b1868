package broker_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/brokertest"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// Connections without CONNECT are bounded: the oldest makes room, and who sends
// CONNECT is served.
func TestHalfOpenConnectionsAreBounded(t *testing.T) {
	n := start(t, func(c *broker.Config) { c.MaxHalfOpen = 3 })
	var idle []*mqtttest.Client
	for i := range 5 {
		idle = append(idle, n.dial(packet.V5))
		await(t, "it is there", func() bool {
			return n.metric("shoal_connections_half_open")+n.metric("shoal_half_open_closed_total") == float64(i+1)
		})
	}
	idle[0].ExpectClosed()
	idle[1].ExpectClosed()
	for i, c := range idle[2:] {
		c.Connect(mqtttest.ID(string(rune('a' + i))))
	}
	await(t, "none is waited for", func() bool { return n.metric("shoal_connections_half_open") == 0 })
	if closed := n.metric("shoal_half_open_closed_total"); closed != 2 {
		t.Errorf("%v closed", closed)
	}
}

// shortOfMemory is a node whose memory in use is what the test says, of 1,000.
func shortOfMemory(t *testing.T) (n *node, use func(uint64)) {
	var used, cycles atomic.Uint64
	n = startNarrow(t, func(c *broker.Config) {
		c.MemoryLimit = 1000
		c.MemoryUsed = func() (uint64, uint64) { return used.Load(), cycles.Add(1) }
	})
	return n, func(bytes uint64) {
		t.Helper()
		used.Store(bytes)
		await(t, "the node notices", func() bool { return n.metric("shoal_memory_used_bytes") == float64(bytes) })
	}
}

func TestShortOfMemoryRefusesConnects(t *testing.T) {
	n, use := shortOfMemory(t)
	n.connect(packet.V5, "there")
	use(720)
	for v, want := range map[packet.Version]packet.Code{packet.V5: packet.CodeServerBusy, packet.V311: packet.CodeServerUnavailable} {
		if ack := n.dial(v).TryConnect(mqtttest.ID("new")); ack.Code != want {
			t.Errorf("%s: CONNACK %s", v, ack.Code)
		}
	}
	use(100)
	n.connect(packet.V5, "new")
}

// Publishers are read in portions while memory is short, and never for good
// left unread: their acknowledgements free memory.
func TestShortOfMemoryPausesPublishers(t *testing.T) {
	n, use := shortOfMemory(t)
	sub := n.connect(packet.V5, "sub")
	sub.Subscribe("a", packet.QoS1)
	pub := n.connect(packet.V5, "pub")
	use(800)
	for range 3 {
		pub.Publish("a", "x", packet.QoS1)
		sub.ExpectPublish("a", "x")
	}
	if n.metric("shoal_memory_publishers_paused_total") < 3 {
		t.Error("the publisher was not paused")
	}
	use(100)
	pub.Publish("a", "y", packet.QoS1)
	sub.ExpectPublish("a", "y")
}

// QoS 0 goes to who is up to date; the slowest go when nothing else helps.
func TestShortOfMemoryDropsQoS0AndClosesTheSlowest(t *testing.T) {
	n, use := shortOfMemory(t)
	slow := n.connectNarrow(packet.V5, "slow")
	slow.Subscribe("a", packet.QoS0)
	quick := n.connect(packet.V5, "quick")
	quick.Subscribe("b", packet.QoS0)
	pub := n.connect(packet.V5, "pub")
	for range 9 { // the node holds most of it, and may hold a MiB
		pub.Publish("a", strings.Repeat("x", 100<<10), packet.QoS0)
	}
	pub.Ping()
	use(850)
	pub.Publish("a", "dropped", packet.QoS0)
	pub.Ping()
	if dropped := n.metric("shoal_messages_dropped_total", "memory"); dropped != 1 {
		t.Errorf("%v of 1 copies were dropped", dropped)
	}
	pub.Publish("b", "still", packet.QoS0)
	quick.ExpectPublish("b", "still")
	use(950)
	await(t, "the slow one is closed", func() bool { return n.metric("shoal_memory_clients_closed_total") == 1 })
	use(100)
	n.awaitConnections(2)
	quick.Ping()
}

// A client that asks without end while nothing is answered is not read any
// more; when it is answered all goes on, and nothing is lost.
func TestRequestsAreBounded(t *testing.T) {
	versions(t, func(t *testing.T, n *node, v packet.Version) {
		for _, op := range []brokertest.Op{brokertest.Subscribe, brokertest.AddRoute} {
			c := n.dial(v)
			if op == brokertest.Subscribe {
				c = mustDurable(n, v)
			} else {
				c.Connect(mqtttest.ID("transient"))
			}
			n.cluster.Hold(op)
			other := n.connect(v, "other")
			const all = 60
			filter := strings.Repeat("f", 50<<10)
			sent := make(chan error, 1)
			go func() {
				for i := range all {
					p := &packet.Subscribe{PacketID: uint16(i + 1), Subscriptions: []packet.Subscription{{Filter: fmt.Sprint(filter, i), QoS: packet.QoS1}}}
					if err := c.Send(p); err != nil {
						sent <- err
						return
					}
				}
				sent <- nil
			}()
			await(t, "the bound is reached", func() bool { return n.cluster.Held(op) >= 20 })
			for range 50 { // what should not come has the time to
				other.Ping()
			}
			if held := n.cluster.Held(op); held > 22 {
				t.Errorf("%s: %d of %d requests of 50 KiB are waiting", op, held, all)
			}
			n.cluster.ReleaseAll(op)
			answered := make(map[uint16]bool)
			for range all {
				p := mqtttest.Expect[*packet.Suback](c)
				if answered[p.PacketID] || p.Codes[0] != packet.CodeGrantedQoS1 {
					t.Fatalf("%s: %s", op, mqtttest.Describe(p))
				}
				answered[p.PacketID] = true
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
		}
	})
}

func mustDurable(n *node, v packet.Version) *mqtttest.Client {
	c, _ := n.durable(v, "durable")
	return c
}
