package broker_test

import (
	"fmt"
	"testing"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/brokertest"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/broker/session"
)

func publish(topic, payload string, qos packet.QoS, id uint16) *packet.Publish {
	return &packet.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: qos, PacketID: id}
}

func ack(t packet.Type, id uint16) *packet.Ack { return &packet.Ack{Type: t, PacketID: id} }

// publishers runs a test with publishers of both classes in each version.
func publishers(t *testing.T, test func(t *testing.T, n *node, pub *mqtttest.Client, durable bool)) {
	versions(t, func(t *testing.T, n *node, v packet.Version) {
		for _, durable := range []bool{false, true} {
			var pub *mqtttest.Client
			if durable {
				pub, _ = n.durable(v, "p")
			} else {
				pub = n.connect(v, "p")
			}
			test(t, n, pub, durable)
		}
	})
}

// TestAckAfterCommit: [MQTT-4.3.2-4] [MQTT-4.3.3-8]: PUBACK and PUBREC leave
// after the commit, in the order of arrival ([MQTT-4.6.0-2], [MQTT-4.6.0-3]),
// and PINGRESP does not wait for them.
func TestAckAfterCommit(t *testing.T) {
	publishers(t, func(t *testing.T, n *node, pub *mqtttest.Client, durable bool) {
		for qos, answer := range map[packet.QoS]packet.Type{1: packet.TypePuback, 2: packet.TypePubrec} {
			op := brokertest.Publish
			if durable && qos == 2 {
				op = brokertest.Received
			}
			n.cluster.Hold(op)
			for id := uint16(1); id <= 3; id++ {
				pub.Write(publish("a", "x", qos, id))
			}
			pub.ExpectNothing()
			n.cluster.ReleaseOne(op, 2)
			n.cluster.ReleaseOne(op, 1)
			pub.ExpectNothing()
			n.cluster.ReleaseAll(op)
			for id := uint16(1); id <= 3; id++ {
				pub.ExpectAck(answer, id, 0)
			}
		}
	})
}

// TestNoAckWithoutCommit: an unknown outcome is never acknowledged.
func TestNoAckWithoutCommit(t *testing.T) {
	for err, code := range map[error]packet.Code{
		session.ErrUnavailable: packet.CodeServerBusy, // DISCONNECT cannot carry 0x88
		session.ErrClosed:      packet.CodeServerBusy,
		session.ErrNotOwner:    packet.CodeSessionTakenOver,
	} {
		publishers(t, func(t *testing.T, n *node, pub *mqtttest.Client, durable bool) {
			n.cluster.Fail(brokertest.Publish, err)
			n.cluster.Fail(brokertest.Received, err)
			qos := packet.QoS1
			if durable {
				qos = packet.QoS2
			}
			pub.Write(publish("a", "x", qos, 1))
			pub.ExpectDisconnect(code)
			n.cluster.Fail(brokertest.Publish, nil)
			n.cluster.Fail(brokertest.Received, nil)
		})
	}
}

// TestQueueFull: a subscriber whose full queue rejects is told to publishers that
// have a word for it; to the others it is none of their business.
func TestQueueFull(t *testing.T) {
	n := start(t)
	n.cluster.Fail(brokertest.Publish, session.ErrQueueFull)
	newer, older := n.connect(packet.V5, "new"), n.connect(packet.V311, "old")
	for _, qos := range []packet.QoS{1, 2} {
		newer.Write(publish("a", "x", qos, 7))
		older.Write(publish("a", "x", qos, 7))
	}
	newer.ExpectAck(packet.TypePuback, 7, packet.CodeQuotaExceeded)
	newer.ExpectAck(packet.TypePubrec, 7, packet.CodeQuotaExceeded)
	older.ExpectAck(packet.TypePuback, 7, packet.CodeSuccess)
	older.ExpectAck(packet.TypePubrec, 7, packet.CodeSuccess)
}

// TestRefusedPublish: what PUBACK and PUBREC can say; MQTT 3 cannot.
func TestRefusedPublish(t *testing.T) {
	for err, code := range map[error]packet.Code{
		session.ErrQuota:   packet.CodeQuotaExceeded,
		session.ErrIDInUse: packet.CodePacketIdentifierInUse,
	} {
		n := start(t)
		n.cluster.Fail(brokertest.Publish, err)
		n.cluster.Fail(brokertest.Received, err)
		transient := n.connect(packet.V5, "t")
		durable, _ := n.durable(packet.V5, "d")
		for _, c := range []*mqtttest.Client{transient, durable} {
			c.Write(publish("a", "x", 1, 1), publish("a", "x", 2, 1))
			c.ExpectAck(packet.TypePuback, 1, code)
			c.ExpectAck(packet.TypePubrec, 1, code)
		}
		old := n.connect(packet.V311, "o")
		old.Write(publish("a", "x", 1, 1))
		old.ExpectClosed()
		// A failed PUBREC ends the exchange: the identifier is free.
		n.cluster.Fail(brokertest.Publish, nil)
		n.cluster.Fail(brokertest.Received, nil)
		for _, c := range []*mqtttest.Client{transient, durable} {
			c.Publish("a", "x", 2)
		}
	}
}

// TestReceiveMaximumExceeded: [MQTT-3.3.4-7].
func TestReceiveMaximumExceeded(t *testing.T) {
	n := start(t, func(c *broker.Config) { c.ReceiveMaximum = 3 })
	n.cluster.Hold(brokertest.Publish)
	pub := n.connect(packet.V5, "p")
	for id := uint16(1); id <= 4; id++ {
		pub.Write(publish("a", "x", packet.QoS(1+id%2), id))
	}
	pub.ExpectDisconnect(packet.CodeReceiveMaximumExceeded)
	if len(n.cluster.Messages()) != 3 {
		t.Error("the message beyond was routed")
	}
}

// TestReceiveMaximumReturns: PUBACK and PUBCOMP return the quota, PUBREC does
// not ([MQTT-4.9.0-1], from the other side).
func TestReceiveMaximumReturns(t *testing.T) {
	n := start(t, func(c *broker.Config) { c.ReceiveMaximum = 2 })
	pub := n.connect(packet.V5, "p")
	for range 10 {
		pub.Publish("a", "x", 1)
		pub.Publish("a", "x", 2)
	}
	pub.Write(publish("a", "x", 2, 100), publish("a", "x", 2, 101))
	pub.ExpectAck(packet.TypePubrec, 100, 0)
	pub.ExpectAck(packet.TypePubrec, 101, 0)
	pub.Write(publish("a", "x", 1, 102))
	pub.ExpectDisconnect(packet.CodeReceiveMaximumExceeded)
}

// TestBackpressure: MQTT 3 clients are not told a Receive Maximum; beyond it
// they are not read, and nothing is lost. The same holds for bytes.
func TestBackpressure(t *testing.T) {
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		n := start(t, func(c *broker.Config) {
			if v == packet.V5 {
				c.MaxUnfinishedBytes = 40
			} else {
				c.ReceiveMaximum = 5
			}
		})
		n.cluster.Hold(brokertest.Publish)
		pub := n.connect(v, "p")
		const count = 200
		for id := uint16(1); id <= count; id++ {
			pub.Write(publish("a", "12345678", 1, id))
		}
		limit := 5
		if v == packet.V5 {
			limit = 6 // the one that goes beyond the bytes
		}
		await(t, "publishes", func() bool { return n.cluster.Held(brokertest.Publish) == limit })
		n.cluster.ReleaseAll(brokertest.Publish)
		for id := uint16(1); id <= count; id++ {
			pub.ExpectAck(packet.TypePuback, id, 0)
		}
		pub.ExpectNothing()
	}
}

// TestClientThatDoesNotRead: its answers do not become memory here.
func TestClientThatDoesNotRead(t *testing.T) {
	n := start(t, func(c *broker.Config) { c.MaxOutputBytes = 1000 })
	n.piped = true
	c := n.connect(packet.V311, "c")
	const pings = 10000
	sent := make(chan error)
	go func() {
		for range pings / 100 {
			var b []byte
			for range 100 {
				b = append(b, 0xC0, 0)
			}
			if err := c.SendRaw(b); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	// One chunk of answers may be beyond the bound, and one being written.
	await(t, "pings", func() bool { return n.metric("shoal_packets_received_total", "pingreq") >= 500 })
	if got := n.metric("shoal_packets_received_total", "pingreq"); got == pings {
		t.Error("everything was read")
	}
	for range pings {
		mqtttest.Expect[*packet.Pingresp](c)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// TestQoS1IsNotRemembered: [MQTT-4.3.2-5].
func TestQoS1IsNotRemembered(t *testing.T) {
	publishers(t, func(t *testing.T, n *node, pub *mqtttest.Client, _ bool) {
		before := len(n.cluster.Messages())
		p := publish("a", "x", 1, 1)
		pub.Write(p)
		p.Dup = true
		pub.Write(p)
		pub.ExpectAck(packet.TypePuback, 1, 0)
		pub.ExpectAck(packet.TypePuback, 1, 0)
		if got := len(n.cluster.Messages()) - before; got != 2 {
			t.Errorf("%d messages", got)
		}
	})
}

// TestQoS2Repeat: [MQTT-4.3.3-10] [MQTT-4.3.3-12]: before PUBREL a repeat is
// answered and not routed, after PUBCOMP the identifier is new.
func TestQoS2Repeat(t *testing.T) {
	publishers(t, func(t *testing.T, n *node, pub *mqtttest.Client, _ bool) {
		before := len(n.cluster.Messages())
		p := publish("a", "x", 2, 9)
		for range 3 {
			pub.Write(p)
			pub.ExpectAck(packet.TypePubrec, 9, 0)
			p.Dup = true
		}
		pub.Write(ack(packet.TypePubrel, 9))
		pub.ExpectAck(packet.TypePubcomp, 9, 0)
		if got := len(n.cluster.Messages()) - before; got != 1 {
			t.Errorf("%d messages", got)
		}
		pub.Write(publish("a", "y", 2, 9))
		pub.ExpectAck(packet.TypePubrec, 9, 0)
		if got := len(n.cluster.Messages()) - before; got != 2 {
			t.Errorf("%d messages", got)
		}
	})
}

// TestQoS2OverReconnect: [MQTT-4.3.3-10] for a durable publisher: its session
// knows the exchange, whichever connection began it.
func TestQoS2OverReconnect(t *testing.T) {
	versions(t, func(t *testing.T, n *node, v packet.Version) {
		pub, _ := n.durable(v, "p")
		pub.Write(publish("a", "x", 2, 9))
		pub.ExpectAck(packet.TypePubrec, 9, 0)
		pub.Close()
		pub, _ = n.durable(v, "p")
		p := publish("a", "x", 2, 9)
		p.Dup = true
		pub.Write(p)
		pub.ExpectAck(packet.TypePubrec, 9, 0)
		pub.Close()
		pub, _ = n.durable(v, "p")
		pub.Write(ack(packet.TypePubrel, 9))
		pub.ExpectAck(packet.TypePubcomp, 9, 0)
		if got := len(n.cluster.Messages()); got != 1 {
			t.Errorf("%d messages", got)
		}
		unknown := packet.CodePacketIdentifierNotFound
		if v != packet.V5 {
			unknown = 0
		}
		pub.Write(ack(packet.TypePubrel, 9))
		pub.ExpectAck(packet.TypePubcomp, 9, unknown)
	})
}

// TestPubrelRepeatedOnResume: PUBCOMP was lost with the connection. PUBREL comes
// again on the next, and is answered as before, not with 0x92, which clients take
// for a failure; of an identifier that has been ended on this connection, or on one
// that resumed nothing, it is one of nothing.
func TestPubrelRepeatedOnResume(t *testing.T) {
	versions(t, func(t *testing.T, n *node, v packet.Version) {
		unknown := packet.CodePacketIdentifierNotFound
		if v != packet.V5 {
			unknown = 0
		}
		pub, _ := n.durable(v, "p")
		pub.Write(publish("a", "x", 2, 9))
		pub.ExpectAck(packet.TypePubrec, 9, 0)
		for range 3 {
			pub.Write(ack(packet.TypePubrel, 9))
			pub.ExpectAck(packet.TypePubcomp, 9, 0)
			pub.Write(ack(packet.TypePubrel, 9))
			pub.ExpectAck(packet.TypePubcomp, 9, unknown)
			pub.Close()
			pub, _ = n.durable(v, "p")
		}
		pub.Publish("a", "y", 2)
		if got := len(n.cluster.Messages()); got != 2 {
			t.Errorf("%d messages", got)
		}
		fresh := n.connect(v, "fresh")
		fresh.Write(ack(packet.TypePubrel, 9))
		fresh.ExpectAck(packet.TypePubcomp, 9, unknown)
	})
}

// TestPubrelAlwaysAnswered: [MQTT-4.3.3-11].
func TestPubrelAlwaysAnswered(t *testing.T) {
	publishers(t, func(t *testing.T, n *node, pub *mqtttest.Client, _ bool) {
		unknown := packet.CodePacketIdentifierNotFound
		if pub.Version != packet.V5 {
			unknown = 0
		}
		pub.Write(ack(packet.TypePubrel, 5))
		pub.ExpectAck(packet.TypePubcomp, 5, unknown)
	})
}

// TestPubcompAfterCommit: PUBCOMP of a durable publisher waits for its shard.
func TestPubcompAfterCommit(t *testing.T) {
	n := start(t)
	pub, _ := n.durable(packet.V5, "p")
	n.cluster.Hold(brokertest.Released)
	pub.Write(publish("a", "x", 2, 1))
	pub.ExpectAck(packet.TypePubrec, 1, 0)
	pub.Write(ack(packet.TypePubrel, 1))
	pub.ExpectNothing()
	pub.Write(publish("a", "x", 2, 1)) // between PUBREL and PUBCOMP
	pub.ExpectAck(packet.TypePubrec, 1, packet.CodePacketIdentifierInUse)
	n.cluster.ReleaseAll(brokertest.Released)
	pub.ExpectAck(packet.TypePubcomp, 1, 0)
	n.cluster.Fail(brokertest.Released, session.ErrUnavailable)
	pub.Write(publish("a", "x", 2, 2))
	pub.ExpectAck(packet.TypePubrec, 2, 0)
	pub.Write(ack(packet.TypePubrel, 2))
	pub.ExpectDisconnect(packet.CodeServerBusy)
}

// TestWindow: [MQTT-3.3.4-9] [MQTT-4.9.0-1] [MQTT-4.9.0-2]: the client's Receive
// Maximum holds, over PUBREC too, the rest waits in order; other packets go on
// ([MQTT-3.3.4-10], [MQTT-4.9.0-3]).
func TestWindow(t *testing.T) {
	sessions(t, func(t *testing.T, n *node, sub *mqtttest.Client) {
		sub.Subscribe("a", 2)
		pub := n.connect(packet.V5, "p")
		for i := range 20 {
			pub.Publish("a", fmt.Sprint(i), packet.QoS(1+i%2))
		}
		flight := make(map[int]*packet.Publish)
		receive := func(i int) { flight[i] = sub.ExpectPublish("a", fmt.Sprint(i)) }
		receive(0)
		receive(1)
		sub.ExpectNothing()
		sub.Subscribe("other", 0)
		for i := range 20 {
			id := flight[i].PacketID
			if i%2 == 0 {
				sub.Write(ack(packet.TypePuback, id))
			} else {
				sub.Write(ack(packet.TypePubrec, id))
				sub.ExpectAck(packet.TypePubrel, id, 0)
				sub.ExpectNothing()
				sub.Write(ack(packet.TypePubcomp, id))
			}
			if i+2 < 20 {
				receive(i + 2)
			}
			sub.ExpectNothing()
		}
	}, mqtttest.ReceiveMaximum(2))
}

// TestPubrecRefused: [MQTT-4.3.3-9] [MQTT-4.4.0-2]: PUBACK or PUBREC with a
// failure ends the exchange.
func TestPubrecRefused(t *testing.T) {
	sessions(t, func(t *testing.T, n *node, sub *mqtttest.Client) {
		sub.Subscribe("a", 2)
		pub := n.connect(packet.V5, "p")
		for _, qos := range []packet.QoS{1, 2} {
			pub.Publish("a", "x", qos)
			p := sub.ExpectPublish("a", "x")
			answer := packet.Ack{Type: packet.TypePuback, PacketID: p.PacketID, Code: packet.CodeUnspecifiedError}
			if qos == 2 {
				answer.Type = packet.TypePubrec
			}
			sub.Write(&answer)
			sub.ExpectNothing()
		}
		pub.Publish("a", "y", 1) // the window of one is free
		sub.ExpectPublish("a", "y")
	}, mqtttest.ReceiveMaximum(1))
}
