package broker_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/brokertest"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

func retained(topic, payload string, qos uint32) *shoalpb.Message {
	return &shoalpb.Message{Topic: topic, Payload: []byte(payload), Qos: qos, Retain: true, Publisher: "another"}
}

// retain publishes a retained message and waits until it is one.
func (n *node) retain(c *mqtttest.Client, topic, payload string, qos packet.QoS) {
	n.t.Helper()
	p := packet.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: qos, Retain: true}
	if qos > 0 {
		p.PacketID = c.NextID()
	}
	c.Write(&p)
	switch qos {
	case packet.QoS0:
		c.ExpectNothing()
	case packet.QoS1:
		c.ExpectAck(packet.TypePuback, p.PacketID, 0)
	case packet.QoS2:
		c.ExpectAck(packet.TypePubrec, p.PacketID, 0)
		c.Write(&packet.Ack{Type: packet.TypePubrel, PacketID: p.PacketID})
		c.ExpectAck(packet.TypePubcomp, p.PacketID, 0)
	}
}

// names returns the payloads of the PUBLISH packets among some, in order.
func payloads(packets []packet.Packet) (list []string) {
	for _, p := range packets {
		if p, ok := p.(*packet.Publish); ok {
			list = append(list, string(p.Payload))
		}
	}
	return list
}

// TestRetained: [MQTT-3.3.1-5] to [MQTT-3.3.1-9]: the last message of a topic
// follows SUBACK, with RETAIN 1 and the lower QoS.
func TestRetained(t *testing.T) {
	versions(t, func(t *testing.T, n *node, v packet.Version) {
		pub := n.connect(v, "p")
		for published := packet.QoS0; published <= packet.QoS2; published++ {
			n.retain(pub, "a/b", "replaced", 2-published)
			n.retain(pub, "a/b", "kept", published)
			pub.Publish("a/b", "live", published)
			pub.ExpectNothing() // of QoS 0 too it has been matched by now
			for granted := packet.QoS0; granted <= packet.QoS2; granted++ {
				sub := n.connect(v, "s")
				sub.Subscribe("a/+", granted)
				p := sub.ExpectPublish("a/b", "kept")
				if p.QoS != min(granted, published) || p.Dup || !p.Retain {
					t.Errorf("got %s", mqtttest.Describe(p))
				}
				n.retain(pub, "a/b", "kept", published)
				if p = sub.ExpectPublish("a/b", "kept"); p.Retain {
					t.Errorf("got %s", mqtttest.Describe(p))
				}
				sub.Disconnect()
			}
			sub := n.connect(v, "s")
			sub.Subscribe("a/+", 0)
			sub.ExpectPublish("a/b", "kept")
			n.retain(pub, "a/b", "", published)
			sub.ExpectPublish("a/b", "")
			sub.Subscribe("#", 0)
			sub.ExpectNothing()
			sub.Disconnect()
		}
	})
}

// TestRetainHandling: [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11], the
// Subscription Identifier, and No Local.
func TestRetainHandling(t *testing.T) {
	sessions(t, func(t *testing.T, n *node, sub *mqtttest.Client) {
		pub := n.connect(packet.V5, "p")
		n.retain(pub, "a", "x", 0)
		for i, want := range []struct {
			handling byte
			sent     bool
		}{{2, false}, {1, false}, {0, true}, {0, true}, {1, false}, {2, false}} {
			id := uint32(i + 1)
			sub.SubscribeWith(packet.Subscribe{SubscriptionID: id, Subscriptions: []packet.Subscription{{Filter: "a", RetainHandling: want.handling}}})
			got := sub.Ping()
			if len(got) != number(want.sent) {
				t.Fatalf("%d: retain handling %d: got %d packets", i, want.handling, len(got))
			}
			if want.sent {
				if p := got[0].(*packet.Publish); !p.Retain || !slices.Equal(p.SubscriptionIDs, []uint32{id}) {
					t.Errorf("got %+v", p)
				}
			}
		}
		sub.Unsubscribe("a")
		sub.SubscribeAll(packet.Subscription{Filter: "a", RetainHandling: 1})
		sub.ExpectPublish("a", "x")
		sub.Unsubscribe("a")

		n.retain(sub, "a", "own", 0)
		sub.SubscribeAll(packet.Subscription{Filter: "a", NoLocal: true})
		sub.ExpectNothing()
	})
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestRetainedFollowSuback: also those of a durable session, whose shard sends
// them when it will, and what is queued after them. QoS 0 has no such order.
func TestRetainedFollowSuback(t *testing.T) {
	sessions(t, func(t *testing.T, n *node, sub *mqtttest.Client) {
		pub := n.connect(packet.V5, "p")
		sub.Subscribe("live", 2)
		sub.Subscribe("r/other", 2)
		for qos := range uint32(3) {
			n.cluster.SetRetained(retained(fmt.Sprint("r/", qos), "kept", min(qos, 1)))
		}
		for _, op := range []brokertest.Op{brokertest.Subscribe, brokertest.AddRoute} {
			n.cluster.Hold(op)
		}
		p := packet.Subscribe{PacketID: sub.NextID(), Subscriptions: []packet.Subscription{{Filter: "r/+", QoS: 2}}}
		sub.Write(&p)
		pub.Publish("live", "one", 0)
		sub.ExpectPublish("live", "one")
		for i := range 5 {
			pub.Publish("r/other", fmt.Sprint(i), 1)
		}
		got := map[string]int{}
		for _, p := range sub.Ping() {
			p := p.(*packet.Publish)
			if p.Retain {
				t.Fatalf("before SUBACK: %s", mqtttest.Describe(p))
			}
			got[string(p.Payload)]++
			sub.Write(&packet.Ack{Type: packet.TypePuback, PacketID: p.PacketID})
		}
		n.cluster.Hold(brokertest.Retained)
		for _, op := range []brokertest.Op{brokertest.Subscribe, brokertest.AddRoute} {
			n.cluster.ReleaseAll(op)
		}
		if ack := mqtttest.Expect[*packet.Suback](sub); ack.PacketID != p.PacketID {
			t.Fatalf("got %+v", ack)
		}
		n.cluster.ReleaseAll(brokertest.Retained)
		sub.AutoAck = true
		for len(got) < 6 || got["kept"] < 3 {
			if p, ok := sub.Next().(*packet.Publish); ok {
				got[string(p.Payload)]++
			}
		}
		sub.ExpectNothing()
		if len(got) != 6 || got["kept"] != 3 {
			t.Errorf("got %v", got)
		}
	}, mqtttest.ReceiveMaximum(10))
}

// TestReplayLarge: a replay of 100,000 topics is complete, and within the
// window.
func TestReplayLarge(t *testing.T) {
	topics := 100_000
	if testing.Short() {
		topics = 10_000
	}
	for _, qos := range []packet.QoS{0, 1} {
		t.Run(fmt.Sprint("qos", qos), func(t *testing.T) {
			n := start(t)
			for i := range topics {
				n.cluster.SetRetained(retained(fmt.Sprintf("r/%06d", i), fmt.Sprint(i), 1))
			}
			sub := n.connect(packet.V5, "s", mqtttest.ReceiveMaximum(20))
			sub.Subscribe("r/#", qos)
			if sent := n.metric("shoal_messages_delivered_total"); qos == 1 && sent > 20 {
				t.Errorf("%v sent without an acknowledgement", sent)
			}
			sub.AutoAck = true
			seen := make([]bool, topics)
			for range topics {
				p := mqtttest.Expect[*packet.Publish](sub)
				var i int
				if _, err := fmt.Sscan(string(p.Payload), &i); err != nil || seen[i] || !p.Retain || p.QoS != qos {
					t.Fatalf("got %s", mqtttest.Describe(p))
				}
				seen[i] = true
			}
			sub.ExpectNothing()
			if dropped := n.metric("shoal_messages_dropped_total"); dropped != 0 {
				t.Errorf("%v dropped", dropped)
			}
		})
	}
}

// TestReplaySlowReader: a client that does not read costs a page and some
// output, not the replay; when it reads again neither PINGRESP nor live messages
// come behind all of it, and nothing is dropped.
func TestReplaySlowReader(t *testing.T) {
	const topics = 40_000
	n := start(t)
	payload := string(make([]byte, 1000))
	for i := range topics {
		n.cluster.SetRetained(retained(fmt.Sprintf("r/%d", i), payload, 0))
	}
	sub, pub := n.connect(packet.V5, "s"), n.connect(packet.V5, "p")
	sub.Subscribe("live", 0)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	sub.Write(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "r/#"}}})
	last := -1.0
	await(t, "the output to fill", func() bool {
		time.Sleep(20 * time.Millisecond)
		now := n.metric("shoal_messages_delivered_total")
		stands := now == last && now > 0
		last = now
		return stands
	})
	runtime.GC()
	runtime.ReadMemStats(&after)
	// What is in the sockets' buffers, some MB, counts as delivered.
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); last >= topics || grown > 4<<20 {
		t.Fatalf("%v of %d delivered, %d bytes", last, topics, grown)
	}
	sub.Write(&packet.Pingreq{})
	pub.Publish("live", "live", 1)
	got, pong, live := 0, 0, 0
	for got < topics || live == 0 || pong == 0 {
		switch p := sub.Next().(type) {
		case *packet.Pingresp:
			pong = got
		case *packet.Publish:
			if string(p.Topic) == "live" {
				live = got
			} else {
				got++
			}
		}
	}
	if pong == topics || live == topics {
		t.Errorf("PINGRESP after %d, a live message after %d of %d", pong, live, topics)
	}
	if n.metric("shoal_messages_dropped_total") != 0 {
		t.Error("dropped")
	}
}

// TestReplaySkipsLive: what was delivered live since the subscription stands is
// not followed by an older page; what another subscription got before is.
func TestReplaySkipsLive(t *testing.T) {
	for qos := packet.QoS0; qos <= packet.QoS2; qos++ {
		n := start(t)
		n.cluster.SetRetained(retained("a", "old a", 1), retained("b", "old b", 1), retained("c", "old c", 1))
		sub, pub := n.connect(packet.V5, "s"), n.connect(packet.V5, "p")
		n.cluster.Hold(brokertest.Retained)
		sub.Subscribe("+", qos)
		n.retain(pub, "b", "new b", qos)
		n.retain(pub, "c", "", qos)
		sub.ExpectPublish("b", "new b")
		sub.ExpectPublish("c", "")
		sub.Subscribe("b", qos)
		n.cluster.ReleaseAll(brokertest.Retained)
		if p := sub.ExpectPublish("a", "old a"); !p.Retain {
			t.Errorf("got %s", mqtttest.Describe(p))
		}
		if p := sub.ExpectPublish("b", "new b"); !p.Retain {
			t.Errorf("got %s", mqtttest.Describe(p))
		}
		sub.ExpectNothing()
	}
}

// TestReplayValueComesLive: what is published to a topic that a replay has not passed is
// the replay's value, with RETAIN 1, once; a topic that it has passed, and what clears
// one, comes with RETAIN 0. The page leaves the topics out.
func TestReplayValueComesLive(t *testing.T) {
	for qos := packet.QoS0; qos <= packet.QoS2; qos++ {
		n := start(t)
		for i := range 150 { // more than a page
			n.cluster.SetRetained(retained(fmt.Sprintf("t/%03d", i), "old", 1))
		}
		sub, pub := n.connect(packet.V5, "s"), n.connect(packet.V5, "p")
		n.cluster.Hold(brokertest.Retained)
		sub.Subscribe("t/+", qos)
		await(t, "a page", func() bool { return n.cluster.Held(brokertest.Retained) == 1 })
		n.cluster.ReleaseOne(brokertest.Retained, 0) // up to t/099
		got := map[string][]bool{}
		sub.AutoAck = true
		take := func() {
			for _, p := range sub.Ping() {
				if p, ok := p.(*packet.Publish); ok {
					got[string(p.Topic)+" "+string(p.Payload)] = append(got[string(p.Topic)+" "+string(p.Payload)], p.Retain)
				}
			}
		}
		for len(got) < 100 { // the window and the output bound what is sent at a time
			take()
		}
		n.retain(pub, "t/050", "passed", qos)
		n.retain(pub, "t/120", "first", qos)
		n.retain(pub, "t/120", "second", qos)
		n.retain(pub, "t/130", "", qos)
		n.retain(pub, "t/130", "after", qos)
		n.retain(pub, "u", "x", qos)
		take()
		n.cluster.ReleaseAll(brokertest.Retained)
		for got["t/149 old"] == nil {
			take()
		}
		take()
		for want, retain := range map[string]bool{
			"t/050 old": true, "t/050 passed": false, "t/120 first": true, "t/120 second": false, "t/130 ": false, "t/130 after": true,
			"t/000 old": true, "t/149 old": true,
		} {
			if flags := got[want]; len(flags) != 1 || flags[0] != retain {
				t.Errorf("QoS %d: %q came with RETAIN %v, want %v once", qos, want, flags, retain)
			}
		}
		if want := 150 - 2 + 5; len(got) != want {
			t.Errorf("QoS %d: %d messages, want %d", qos, len(got), want)
		}
	}
}

// TestReplayOfTwoWriters: what another client has written, which the subscriber did not
// get live, is brought by the replay if it is newer than what came live, and not if
// it is older.
func TestReplayOfTwoWriters(t *testing.T) {
	for _, newer := range []bool{false, true} {
		n := start(t)
		n.cluster.SetRetained(retained("a", "before", 1))
		sub, pub := n.connect(packet.V5, "s"), n.connect(packet.V5, "p")
		n.cluster.Hold(brokertest.Retained)
		sub.Subscribe("+", 1)
		n.retain(pub, "a", "live", 1)
		sub.AutoAck = true
		if p := sub.ExpectPublish("a", "live"); !p.Retain {
			t.Errorf("got %s", mqtttest.Describe(p))
		}
		if newer {
			n.cluster.SetRetained(retained("a", "newer", 1))
		}
		n.cluster.ReleaseAll(brokertest.Retained)
		if newer {
			if p := sub.ExpectPublish("a", "newer"); p.Retain {
				t.Errorf("got %s", mqtttest.Describe(p))
			}
		}
		sub.ExpectNothing()
	}
}

// TestReplayEnds: with UNSUBSCRIBE, also over a page under way; it begins anew
// when a subscription is replaced with Retain Handling 0, and goes on with 1 and
// 2 ([MQTT-3.8.4-4]). One page is under way at any time.
func TestReplayEnds(t *testing.T) {
	n := start(t)
	for i := range 150 {
		n.cluster.SetRetained(retained(fmt.Sprintf("a/%03d", i), fmt.Sprint(i), 0))
	}
	sub := n.connect(packet.V5, "s")
	n.cluster.Hold(brokertest.Retained)
	sub.Subscribe("a/#", 0)
	sub.Subscribe("a/001", 0)
	sub.Unsubscribe("a/#")
	sub.SubscribeAll(packet.Subscription{Filter: "a/#", RetainHandling: 2})
	if held := n.cluster.Held(brokertest.Retained); held != 1 {
		t.Fatalf("%d pages under way", held)
	}
	n.cluster.ReleaseAll(brokertest.Retained)
	if got := payloads(sub.Ping()); !slices.Equal(got, []string{"1"}) {
		t.Fatalf("got %q", got)
	}
	for _, handling := range []byte{0, 1, 2} {
		sub.Unsubscribe("a/#")
		n.cluster.Hold(brokertest.Retained)
		sub.Subscribe("a/#", 0)
		n.cluster.ReleaseOne(brokertest.Retained, 0)
		first := payloads(sub.Ping())
		sub.SubscribeAll(packet.Subscription{Filter: "a/#", RetainHandling: handling})
		n.cluster.ReleaseAll(brokertest.Retained)
		rest := payloads(sub.Ping())
		want := 50
		if handling == 0 {
			want = 150
		}
		if len(first) != 100 || len(rest) != want {
			t.Errorf("retain handling %d: %d and %d", handling, len(first), len(rest))
		}
	}
	n.cluster.Hold(brokertest.Retained)
	sub.Subscribe("a/#", 0)
	sub.Close()
	n.awaitConnections(0)
	n.cluster.ReleaseAll(brokertest.Retained)
}

// TestReplayRetried: a shard without a leader delays a replay, and nothing else.
func TestReplayRetried(t *testing.T) {
	n := start(t)
	n.cluster.SetRetained(retained("a", "x", 2))
	n.cluster.Fail(brokertest.Retained, session.ErrUnavailable)
	sub := n.connect(packet.V5, "s")
	sub.Subscribe("a", 2)
	sub.Publish("other", "", 1)
	sub.ExpectNothing()
	n.cluster.Fail(brokertest.Retained, nil)
	sub.ExpectPublish("a", "x")
}

// TestReplayExpiry: the interval left goes on running here.
func TestReplayExpiry(t *testing.T) {
	inFakeTime(t, func(t *testing.T, n *node) {
		for i, ms := range []uint64{100_000, 3_000, 100_000} {
			for qos := range uint32(2) {
				m := retained(fmt.Sprintf("%d/%d", qos, i), fmt.Sprint(i), qos)
				m.ExpiryMs = &ms
				n.cluster.SetRetained(m)
			}
		}
		sub := n.connect(packet.V5, "s", mqtttest.ReceiveMaximum(1))
		sub.Subscribe("1/+", 1)
		first := sub.ExpectPublish("1/0", "0")
		sub.Subscribe("0/+", 0)
		time.Sleep(10 * time.Second)
		sub.Write(&packet.Ack{Type: packet.TypePuback, PacketID: first.PacketID})
		third := sub.ExpectPublish("1/2", "2")
		if first.MessageExpiry != 100 || third.MessageExpiry != 90 {
			t.Errorf("expiry %d and %d, want 100 and 90", first.MessageExpiry, third.MessageExpiry)
		}
		// The page of 0/+ is current as of now.
		sub.Write(&packet.Ack{Type: packet.TypePuback, PacketID: third.PacketID})
		for _, i := range []string{"0", "1", "2"} {
			sub.ExpectPublish("0/"+i, i)
		}
		sub.Close()
	})
}
