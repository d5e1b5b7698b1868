package broker_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/shoalmq/shoal/broker/brokertest"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/broker/topic"
)

// subscribers runs a test with subscribers of both classes in each version.
func subscribers(t *testing.T, test func(t *testing.T, n *node, c *mqtttest.Client, durable bool)) {
	versions(t, func(t *testing.T, n *node, v packet.Version) {
		test(t, n, n.connect(v, "transient"), false)
		c, _ := n.durable(v, "durable")
		test(t, n, c, true)
	})
}

// TestSubackCodes: [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-4.7.1-1]
// [MQTT-4.7.1-2] [MQTT-4.8.2-1] [MQTT-4.8.2-2]: a code for each filter, in
// order, whatever becomes of the others.
func TestSubackCodes(t *testing.T) {
	subscribers(t, func(t *testing.T, n *node, c *mqtttest.Client, _ bool) {
		filters := map[string]packet.Code{
			"a/b": 2, "a/#/b": packet.CodeTopicFilterInvalid, "a#": packet.CodeTopicFilterInvalid,
			"+a": packet.CodeTopicFilterInvalid, "#": 2, "+/+": 2, "/": 2, "a//b": 2,
			"$share/g/a": 2, "$share/": packet.CodeTopicFilterInvalid,
			"$share//a": packet.CodeTopicFilterInvalid, "$share/g": packet.CodeTopicFilterInvalid,
			"$share/g+/a": packet.CodeTopicFilterInvalid, "$share/g/": packet.CodeTopicFilterInvalid,
		}
		var subs []packet.Subscription
		var want []packet.Code
		for f, code := range filters {
			if c.Version != packet.V5 && topic.ValidateFilter(f) != nil {
				continue // TestNoFilter
			}
			if code.Failed() && c.Version != packet.V5 {
				code = packet.CodeUnspecifiedError
			}
			subs = append(subs, packet.Subscription{Filter: f, QoS: 2})
			want = append(want, code)
		}
		if got := c.SubscribeAll(subs...); !slices.Equal(got, want) {
			t.Errorf("%v: codes %v, want %v", subs, got, want)
		}
		if got := c.SubscribeAll(packet.Subscription{Filter: "$share/g/a"}); got[0] != 0 {
			t.Errorf("code %s", got)
		}
		got := c.SubscribeAll(packet.Subscription{Filter: "x", QoS: 0}, packet.Subscription{Filter: "y", QoS: 1}, packet.Subscription{Filter: "x", QoS: 2})
		if !slices.Equal(got, []packet.Code{0, 1, 2}) {
			t.Errorf("codes %v", got)
		}
	})
}

// TestNoFilter: what is no Topic Filter ends the connection of an MQTT 3 client, in
// SUBSCRIBE and UNSUBSCRIBE, and nothing else in the packet happens
// ([MQTT-4.8.0-1], [MQTT-4.7.1-2], [MQTT-4.7.1-3]). MQTT 5 clients are told (0x8F).
func TestNoFilter(t *testing.T) {
	for _, filter := range []string{"ab/+e", "+a", "a+", "a/b+/c", "a#", "a/#/b", "#/", "##", "++", "$share/g/a#", "$share/g+/a", "$share/g/b+/#"} {
		subscribers(t, func(t *testing.T, n *node, c *mqtttest.Client, durable bool) {
			closed := n.connect(c.Version, "unsubscribes")
			c.Subscribe("good", 1)
			c.Write(&packet.Subscribe{PacketID: 9, Subscriptions: []packet.Subscription{{Filter: "also"}, {Filter: filter}}})
			closed.Write(&packet.Unsubscribe{PacketID: 9, Filters: []string{"also", filter}})
			if c.Version == packet.V5 {
				if got := mqtttest.Expect[*packet.Suback](c); !slices.Equal(got.Codes, []packet.Code{0, packet.CodeTopicFilterInvalid}) {
					t.Errorf("%s: SUBACK %v", filter, got.Codes)
				}
				if got := mqtttest.Expect[*packet.Unsuback](closed); got.Codes[1] != packet.CodeTopicFilterInvalid {
					t.Errorf("%s: UNSUBACK %v", filter, got.Codes)
				}
				c.Ping()
				closed.Ping()
				return
			}
			c.ExpectClosed()
			closed.ExpectClosed()
			if !durable {
				return
			}
			again, _ := n.durable(c.Version, "durable")
			pub := n.connect(packet.V5, "p")
			pub.Publish("also", "x", 1)
			pub.Publish("good", "y", 1)
			again.ExpectPublish("good", "y")
			again.ExpectNothing()
		})
	}
}

// TestSubackAfterRoute: SUBACK means visible everywhere.
func TestSubackAfterRoute(t *testing.T) {
	subscribers(t, func(t *testing.T, n *node, c *mqtttest.Client, durable bool) {
		op := brokertest.AddRoute
		if durable {
			op = brokertest.Subscribe
		}
		n.cluster.Hold(op)
		c.Write(&packet.Subscribe{PacketID: 9, Subscriptions: []packet.Subscription{{Filter: "a"}, {Filter: "b"}}})
		c.ExpectNothing()
		if !durable {
			n.cluster.ReleaseOne(op, 1)
			c.ExpectNothing()
		}
		n.cluster.ReleaseAll(op)
		if got := mqtttest.Expect[*packet.Suback](c); got.PacketID != 9 || len(got.Codes) != 2 {
			t.Errorf("SUBACK %+v", got)
		}
	})
}

// TestSubscribeFails: no SUBACK for what is not committed, but 0x97 for a limit.
func TestSubscribeFails(t *testing.T) {
	subscribers(t, func(t *testing.T, n *node, c *mqtttest.Client, durable bool) {
		op := brokertest.AddRoute
		if durable {
			op = brokertest.Subscribe
		}
		want := packet.CodeQuotaExceeded
		if c.Version != packet.V5 {
			want = packet.CodeUnspecifiedError
		}
		n.cluster.Fail(op, session.ErrQuota)
		if got := c.SubscribeAll(packet.Subscription{Filter: "a"}); got[0] != want {
			t.Errorf("code %s", got[0])
		}
		n.cluster.Fail(op, session.ErrUnavailable)
		c.Write(&packet.Subscribe{PacketID: 9, Subscriptions: []packet.Subscription{{Filter: "b"}}})
		c.ExpectDisconnect(packet.CodeServerBusy)
	})
}

// TestGoneWhileSubscribing: routes are taken back also when the connection ends
// before they stand.
func TestGoneWhileSubscribing(t *testing.T) {
	n := start(t)
	n.cluster.Hold(brokertest.AddRoute)
	c := n.connect(packet.V5, "c")
	c.Write(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "a"}, {Filter: "a", QoS: 1}, {Filter: "b"}}})
	await(t, "routes", func() bool { return n.cluster.Held(brokertest.AddRoute) == 3 })
	c.Close()
	n.awaitConnections(0)
	n.cluster.ReleaseAll(brokertest.AddRoute)
	if n.cluster.Routes() != 0 {
		t.Errorf("%d routes left", n.cluster.Routes())
	}
}

// TestResubscribe: [MQTT-3.8.4-3] [MQTT-3.8.4-4]: an identical filter replaces
// options and identifier.
func TestResubscribe(t *testing.T) {
	sessions(t, func(t *testing.T, n *node, sub *mqtttest.Client) {
		pub := n.connect(packet.V5, "p")
		for id := uint32(1); id <= 3; id++ {
			sub.SubscribeWith(packet.Subscribe{SubscriptionID: id, Subscriptions: []packet.Subscription{{Filter: "a", QoS: packet.QoS(id % 2)}}})
			pub.Publish("a", "x", 1)
			p := sub.ExpectPublish("a", "x")
			if !slices.Equal(p.SubscriptionIDs, []uint32{id}) || p.QoS != packet.QoS(id%2) {
				t.Errorf("got %+v", p)
			}
			if p.QoS == 1 {
				sub.Write(ack(packet.TypePuback, p.PacketID))
			}
		}
		sub.ExpectNothing()
		if routes := n.cluster.Routes(); routes > 1 {
			t.Errorf("%d routes for one subscription", routes)
		}
	})
}

// TestOverlapping: [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4]: one copy with
// the highest QoS and all identifiers.
func TestOverlapping(t *testing.T) {
	sessions(t, func(t *testing.T, n *node, sub *mqtttest.Client) {
		sub.AutoAck = true
		for i, f := range []string{"a/b", "a/+", "a/#", "#", "other"} {
			sub.SubscribeWith(packet.Subscribe{SubscriptionID: uint32(i + 1), Subscriptions: []packet.Subscription{{Filter: f, QoS: packet.QoS(i % 3)}}})
		}
		pub := n.connect(packet.V5, "p")
		for qos := packet.QoS0; qos <= packet.QoS1; qos++ {
			pub.Publish("a/b", "x", qos)
			p := sub.ExpectPublish("a/b", "x")
			slices.Sort(p.SubscriptionIDs)
			if !slices.Equal(p.SubscriptionIDs, []uint32{1, 2, 3, 4}) || p.QoS != qos {
				t.Errorf("got %+v", p)
			}
		}
		sub.ExpectNothing()
	})
}

// TestNoLocal: [MQTT-3.8.3-3]: by subscription, so that an overlapping one
// without it still brings the message.
func TestNoLocal(t *testing.T) {
	sessions(t, func(t *testing.T, n *node, c *mqtttest.Client) {
		c.AutoAck = true
		subscribe := func(id uint32, filter string, qos packet.QoS, noLocal bool) {
			c.SubscribeWith(packet.Subscribe{SubscriptionID: id, Subscriptions: []packet.Subscription{{Filter: filter, QoS: qos, NoLocal: noLocal}}})
		}
		other := n.connect(packet.V5, "other")
		subscribe(1, "a", 1, true)
		c.Publish("a", "mine", 0)
		c.ExpectNothing()
		other.Publish("a", "theirs", 0)
		c.ExpectPublish("a", "theirs")
		subscribe(2, "+", 0, false)
		subscribe(3, "#", 2, true)
		c.Publish("a", "mine", 0)
		if p := c.ExpectPublish("a", "mine"); !slices.Equal(p.SubscriptionIDs, []uint32{2}) {
			t.Errorf("got %+v", p)
		}
		other.Publish("a", "theirs", 1)
		if p := c.ExpectPublish("a", "theirs"); len(p.SubscriptionIDs) != 3 || p.QoS != 1 {
			t.Errorf("got %+v", p)
		}
		c.ExpectNothing()
	})
}

// TestUnsubscribe: [MQTT-3.10.4-1] to [MQTT-3.10.4-5] [MQTT-3.11.3-2].
func TestUnsubscribe(t *testing.T) {
	subscribers(t, func(t *testing.T, n *node, c *mqtttest.Client, _ bool) {
		c.Subscribe("a/+", 1)
		c.Subscribe("b", 1)
		pub := n.connect(c.Version, "p")
		pub.Publish("a/1", "x", 1)
		started := c.ExpectPublish("a/1", "x")
		codes := c.Unsubscribe("a/+", "a/1", "$share//a", "$share/g/a")
		want := []packet.Code{0, packet.CodeNoSubscriptionExisted, packet.CodeTopicFilterInvalid, packet.CodeNoSubscriptionExisted}
		if c.Version == packet.V5 && !slices.Equal(codes, want) {
			t.Errorf("codes %v, want %v", codes, want)
		}
		c.Write(ack(packet.TypePuback, started.PacketID))
		pub.Publish("a/1", "y", 1)
		pub.Publish("b", "z", 0)
		c.ExpectPublish("b", "z")
		c.ExpectNothing()
		c.Unsubscribe("b")
	})
}

// TestMatching: [MQTT-4.7.2-1] [MQTT-4.7.3-4], over the wire and through the
// cache of matches.
func TestMatching(t *testing.T) {
	sessions(t, func(t *testing.T, n *node, sub *mqtttest.Client) {
		pub := n.connect(packet.V5, "p")
		for _, c := range []struct {
			filter string
			yes    []string
			no     []string
		}{
			{"#", []string{"a", "/", "a//b"}, []string{"$SYS", "$a/b"}},
			{"+/b", []string{"a/b", "/b"}, []string{"$a/b", "a/B", "a/b/"}},
			{"a/#", []string{"a", "a/", "a/b/c"}, []string{"ab", "/a"}},
			{"$a/+", []string{"$a/b"}, []string{"a/b"}},
			{"a//b", []string{"a//b"}, []string{"a/b", "a///b"}},
			{"A b", []string{"A b"}, []string{"a b", "A  b"}},
		} {
			for round := range 2 {
				sub.Subscribe(c.filter, 0)
				for _, name := range append(c.no, c.yes...) {
					pub.Publish(name, fmt.Sprint(name, round), 0)
				}
				for _, name := range c.yes {
					sub.ExpectPublish(name, fmt.Sprint(name, round))
				}
				sub.ExpectNothing()
				sub.Unsubscribe(c.filter)
				for _, name := range c.yes {
					pub.Publish(name, "", 0)
				}
				pub.ExpectNothing()
				sub.ExpectNothing()
			}
		}
	})
}

// TestSubscriptionsSurvive: those of a durable session are part of its state
// (rule 52), those of a transient one are not.
func TestSubscriptionsSurvive(t *testing.T) {
	sessions(t, func(t *testing.T, n *node, c *mqtttest.Client) {
		c.SubscribeWith(packet.Subscribe{SubscriptionID: 9, Subscriptions: []packet.Subscription{{Filter: "a", QoS: 1, NoLocal: true}}})
		c.Close()
		n.awaitConnections(0)
		c = n.dial(packet.V5)
		present := c.Connect(mqtttest.ID("s"), mqtttest.Resume(), mqtttest.Expiry(100)).SessionPresent
		c.Publish("a", "mine", 1)
		n.connect(packet.V5, "p").Publish("a", "x", 1)
		if present {
			if p := c.ExpectPublish("a", "x"); !slices.Equal(p.SubscriptionIDs, []uint32{9}) {
				t.Errorf("got %+v", p)
			}
		}
		c.ExpectNothing()
	})
}
