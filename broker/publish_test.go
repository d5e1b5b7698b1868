package broker_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// sessions runs a test with subscribers of both classes.
func sessions(t *testing.T, test func(t *testing.T, n *node, sub *mqtttest.Client), options ...mqtttest.Option) {
	for _, durable := range []bool{false, true} {
		t.Run(fmt.Sprintf("durable=%t", durable), func(t *testing.T) {
			n := start(t)
			all := append([]mqtttest.Option{mqtttest.ID("s")}, options...)
			if durable {
				all = append(all, mqtttest.Expiry(100))
			}
			c := n.dial(packet.V5)
			c.Connect(all...)
			test(t, n, c)
		})
	}
}

// TestDeliveredQoS: [MQTT-3.8.4-8]: the lower of published and granted.
func TestDeliveredQoS(t *testing.T) {
	versions(t, func(t *testing.T, n *node, v packet.Version) {
		for _, durable := range []bool{false, true} {
			sub := n.dial(v)
			sub.AutoAck = true
			options := []mqtttest.Option{mqtttest.ID("s")}
			if durable {
				options = append(options, mqtttest.Resume(), mqtttest.Expiry(100))
			}
			sub.Connect(options...)
			pub := n.connect(v, "p")
			for granted := packet.QoS0; granted <= packet.QoS2; granted++ {
				sub.Subscribe("a/+", granted)
				for published := packet.QoS0; published <= packet.QoS2; published++ {
					text := fmt.Sprintf("%d of %d", published, granted)
					pub.Publish("a/b", text, published)
					p := sub.ExpectPublish("a/b", text)
					if p.QoS != min(granted, published) || p.Dup || p.Retain {
						t.Errorf("got %s", mqtttest.Describe(p))
					}
					if p.QoS == packet.QoS2 {
						sub.ExpectAck(packet.TypePubrel, p.PacketID, 0)
					}
				}
			}
			sub.ExpectNothing()
			sub.Disconnect()
			pub.Disconnect()
		}
	})
}

// TestForwardedUnaltered: [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16]
// [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20], and to a client of MQTT 3.1.1
// the message without.
func TestForwardedUnaltered(t *testing.T) {
	sessions(t, func(t *testing.T, n *node, sub *mqtttest.Client) {
		sub.Subscribe("a", 2)
		old := n.connect(packet.V311, "old")
		old.Subscribe("a", 0)
		properties := packet.MessageProperties{
			HasPayloadFormat: true, HasContentType: true, ContentType: "", ResponseTopic: "r/1", CorrelationData: []byte{0, 1},
			UserProperties: []packet.UserProperty{{Key: "k", Value: "2"}, {Key: "k", Value: "1"}, {Key: "a", Value: ""}},
		}
		forward := properties.AppendForward(nil)
		pub := n.connect(packet.V5, "p")
		for qos := packet.QoS0; qos <= packet.QoS2; qos++ {
			p := packet.Publish{Topic: []byte("a"), Payload: []byte("x"), QoS: qos, Forward: forward, HasExpiry: true, MessageExpiry: 77}
			if qos > 0 {
				p.PacketID = pub.NextID()
			}
			pub.Write(&p)
			got := sub.ExpectPublish("a", "x")
			if string(got.Forward) != string(forward) || got.MessageExpiry != 77 || got.HasAlias || got.QoS != qos {
				t.Errorf("QoS %d: got %+v", qos, got)
			}
			old.ExpectPublish("a", "x")
		}
	})
}

// TestRetainFlag: [MQTT-3.3.1-12] [MQTT-3.3.1-13].
func TestRetainFlag(t *testing.T) {
	sessions(t, func(t *testing.T, n *node, sub *mqtttest.Client) {
		pub := n.connect(packet.V5, "p")
		for _, published := range []bool{false, true} {
			sub.SubscribeAll(packet.Subscription{Filter: "a", RetainAsPublished: published})
			for _, retain := range []bool{false, true} {
				pub.Write(&packet.Publish{Topic: []byte("a"), Retain: retain})
				if p := sub.ExpectPublish("a", ""); p.Retain != (retain && published) {
					t.Errorf("RETAIN %t, retain as published %t: got RETAIN %t", retain, published, p.Retain)
				}
			}
		}
	})
}

// TestTopicAlias: [MQTT-3.3.2-12] [MQTT-3.3.2-7].
func TestTopicAlias(t *testing.T) {
	n := start(t)
	sub := n.connect(packet.V5, "s")
	sub.Subscribe("#", 0)
	pub := n.connect(packet.V5, "p")
	publish := func(topic string, alias uint16) {
		pub.Write(&packet.Publish{Topic: []byte(topic), HasAlias: true, TopicAlias: alias})
	}
	for alias := uint16(64); alias > 0; alias-- {
		publish(fmt.Sprint("t", alias), alias)
		sub.ExpectPublish(fmt.Sprint("t", alias), "")
	}
	publish("", 7)
	sub.ExpectPublish("t7", "")
	publish("other", 7)
	publish("", 7)
	publish("", 8)
	sub.ExpectPublish("other", "")
	sub.ExpectPublish("other", "")
	sub.ExpectPublish("t8", "")
	pub = n.connect(packet.V5, "p")
	publish("", 7)
	pub.ExpectDisconnect(packet.CodeProtocolError)
}

// TestMaximumPacketSize: [MQTT-3.1.2-24] [MQTT-3.1.2-25]: dropped and counted,
// the session goes on, and the message does not come again.
func TestMaximumPacketSize(t *testing.T) {
	small := func(p *packet.Connect) { p.MaximumPacketSize = 60 }
	sessions(t, func(t *testing.T, n *node, sub *mqtttest.Client) {
		sub.AutoAck = true
		sub.Subscribe("a", 1)
		pub := n.connect(packet.V5, "p")
		for _, qos := range []packet.QoS{0, 1} {
			pub.Publish("a", strings.Repeat("x", 100), qos)
			pub.Publish("a", "y", qos)
			sub.ExpectPublish("a", "y")
		}
		sub.ExpectNothing()
		if got := n.metric("shoal_messages_dropped_total", "packet_too_large"); got != 2 {
			t.Errorf("%v dropped", got)
		}
		sub.Close()
		n.awaitConnections(1)
		again := n.dial(packet.V5)
		again.Connect(mqtttest.ID("s"), mqtttest.Resume(), mqtttest.Expiry(100))
		again.ExpectNothing()
	}, small)
}

// TestEmptyPayload: zero bytes are a payload like any other.
func TestEmptyPayload(t *testing.T) {
	versions(t, func(t *testing.T, n *node, v packet.Version) {
		c := n.connect(v, "c")
		c.Subscribe("a", 2)
		for qos := packet.QoS0; qos <= packet.QoS1; qos++ {
			c.Write(&packet.Publish{Topic: []byte("a"), QoS: qos, PacketID: uint16(qos)})
			if qos == 0 {
				c.ExpectPublish("a", "")
			}
		}
		acks, publishes := 0, 0
		for range 2 {
			switch c.Next().(type) {
			case *packet.Publish:
				publishes++
			case *packet.Ack:
				acks++
			}
		}
		if acks != 1 || publishes != 1 {
			t.Errorf("%d acknowledgements, %d messages", acks, publishes)
		}
	})
}

// TestSlowSubscriberQoS0: output is bounded; what is beyond is dropped and
// counted, and the rest arrives in order.
func TestSlowSubscriberQoS0(t *testing.T) {
	n := start(t, func(c *broker.Config) { c.MaxOutputBytes = 100 << 10 })
	n.piped = true // nothing is written that is not read
	sub := n.connect(packet.V5, "s")
	sub.Subscribe("a", 0)
	n.piped = false
	pub := n.connect(packet.V5, "p")
	const count = 1000
	for i := range count {
		pub.Publish("a", fmt.Sprintf("%08d", i)+strings.Repeat("x", 1000), 0)
	}
	pub.ExpectNothing()
	dropped := int(n.metric("shoal_messages_dropped_total", "output_full"))
	if dropped < count/2 || dropped >= count {
		t.Errorf("%d dropped", dropped)
	}
	last := ""
	for range count - dropped {
		payload := string(mqtttest.Expect[*packet.Publish](sub).Payload)
		if payload <= last {
			t.Fatalf("%.8s after %.8s", payload, last)
		}
		last = payload
	}
	sub.ExpectNothing()
}

// TestSlowSubscriberQoS1: what waits for a transient session is bounded by
// MaxQueue and MaxQueueBytes, without a word to the publisher. What was sent
// stays; of the rest the newest or the oldest do, as the policy says.
func TestSlowSubscriberQoS1(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*broker.Config)
		policy shoalpb.QueuePolicy
		reason string
		stay   [2]int // of those that were not sent
	}{
		"drop oldest": {func(c *broker.Config) { c.MaxQueue = 10 }, shoalpb.QueuePolicy_QUEUE_POLICY_DROP_OLDEST, "dropped_oldest", [2]int{20, 30}},
		"drop new":    {func(c *broker.Config) { c.MaxQueue = 10 }, shoalpb.QueuePolicy_QUEUE_POLICY_DROP_NEW, "queue_full", [2]int{5, 15}},
		"reject":      {func(c *broker.Config) { c.MaxQueue = 10 }, shoalpb.QueuePolicy_QUEUE_POLICY_REJECT, "queue_full", [2]int{5, 15}},
		// The topic and two digits are three bytes.
		"bytes": {func(c *broker.Config) { c.MaxQueueBytes = 32 }, shoalpb.QueuePolicy_QUEUE_POLICY_DROP_OLDEST, "dropped_oldest", [2]int{20, 30}},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t, func(config *broker.Config) {
				config.MaxInFlight, config.Queue = 5, &shoalpb.QueueLimits{Policy: c.policy}
				c.change(config)
			})
			sub := n.connect(packet.V5, "s")
			sub.Subscribe("a", 1)
			pub := n.connect(packet.V5, "p")
			for i := range 30 {
				pub.Publish("a", fmt.Sprint(i), 1)
			}
			if got := n.metric("shoal_messages_dropped_total", c.reason); got != 15 {
				t.Errorf("%v dropped, want 15", got)
			}
			n.checkAccounts()
			for i := range 15 {
				if i >= 5 {
					i += c.stay[0] - 5
				}
				p := sub.ExpectPublish("a", fmt.Sprint(i))
				sub.Write(&packet.Ack{Type: packet.TypePuback, PacketID: p.PacketID})
			}
			sub.ExpectNothing()
		})
	}
}

// TestTooLargeForQueue: nothing is dropped for a message that does not fit alone.
func TestTooLargeForQueue(t *testing.T) {
	n := start(t, func(c *broker.Config) { c.MaxInFlight, c.MaxQueueBytes = 1, 20 })
	sub := n.connect(packet.V5, "s")
	sub.Subscribe("a", 1)
	pub := n.connect(packet.V5, "p")
	for _, payload := range []string{"0", "1", "far too long for twenty", "2"} {
		pub.Publish("a", payload, 1)
	}
	if got := n.metric("shoal_messages_dropped_total", "queue_full"); got != 1 {
		t.Errorf("%v dropped, want 1", got)
	}
	for i := range 3 {
		p := sub.ExpectPublish("a", fmt.Sprint(i))
		sub.Write(&packet.Ack{Type: packet.TypePuback, PacketID: p.PacketID})
	}
	sub.ExpectNothing()
}

// TestBigFanOut: many subscribers of all kinds get one message, each its form.
func TestBigFanOut(t *testing.T) {
	n := start(t)
	var subs []*mqtttest.Client
	for i := range 60 {
		v := []packet.Version{packet.V31, packet.V311, packet.V5}[i%3]
		n.piped = i%4 == 0
		c := n.connect(v, fmt.Sprint("s", i))
		c.SubscribeWith(packet.Subscribe{
			SubscriptionID: uint32(i%2) * uint32(i),
			Subscriptions:  []packet.Subscription{{Filter: "a", QoS: packet.QoS(i % 2)}},
		})
		subs = append(subs, c)
	}
	pub := n.connect(packet.V5, "p")
	for _, qos := range []packet.QoS{0, 1} {
		pub.Publish("a", "x", qos)
		for i, c := range subs {
			p := c.ExpectPublish("a", "x")
			if p.QoS != min(qos, packet.QoS(i%2)) {
				t.Errorf("subscriber %d: %s", i, mqtttest.Describe(p))
			}
			if ids := p.SubscriptionIDs; c.Version == packet.V5 && i%2 == 1 && (len(ids) != 1 || ids[0] != uint32(i)) {
				t.Errorf("subscriber %d: identifiers %v", i, ids)
			}
		}
	}
}
