package broker_test

import (
	"fmt"
	"testing"

	"github.com/shoalmq/shoal/broker/brokertest"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// TestUnknownAcks: acknowledgements of nothing do no harm.
func TestUnknownAcks(t *testing.T) {
	versions(t, func(t *testing.T, n *node, v packet.Version) {
		c := n.connect(v, "c")
		c.Write(ack(packet.TypePuback, 3), ack(packet.TypePubcomp, 4))
		c.ExpectNothing()
		c.Write(ack(packet.TypePubrec, 5))
		code := packet.CodePacketIdentifierNotFound
		if v != packet.V5 {
			code = 0
		}
		c.ExpectAck(packet.TypePubrel, 5, code)
	})
}

// TestResend: [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.1-1] [MQTT-3.3.1-3]
// [MQTT-4.3.3-6]: on resume what is unacknowledged comes again, in order, with
// its identifier and DUP; PUBREL in place of what was released; what was queued
// offline for the first time.
func TestResend(t *testing.T) {
	versions(t, func(t *testing.T, n *node, v packet.Version) {
		sub, _ := n.durable(v, "s")
		sub.Subscribe("a", 2)
		pub := n.connect(v, "p")
		ids := make([]uint16, 4)
		for i, qos := range []packet.QoS{1, 2, 2, 1} {
			pub.Publish("a", fmt.Sprint(i), qos)
			ids[i] = sub.ExpectPublish("a", fmt.Sprint(i)).PacketID
		}
		sub.Write(ack(packet.TypePubrec, ids[1]), ack(packet.TypePuback, ids[3]))
		sub.ExpectAck(packet.TypePubrel, ids[1], 0)
		sub.ExpectNothing()
		sub.Close()
		n.awaitConnections(1)
		pub.Publish("a", "offline", 1)

		sub, ack1 := n.durable(v, "s")
		if !ack1.SessionPresent && v != packet.V31 {
			t.Error("session lost")
		}
		sub.ExpectAck(packet.TypePubrel, ids[1], 0)
		for _, i := range []int{0, 2} {
			if p := sub.ExpectPublish("a", fmt.Sprint(i)); !p.Dup || p.PacketID != ids[i] {
				t.Errorf("got %s", mqtttest.Describe(p))
			}
		}
		if p := sub.ExpectPublish("a", "offline"); p.Dup {
			t.Errorf("got %s", mqtttest.Describe(p))
		}
		sub.ExpectNothing()
		sub.Write(ack(packet.TypePubcomp, ids[1]))
		sub.Write(ack(packet.TypePubrec, ids[2]))
		sub.ExpectAck(packet.TypePubrel, ids[2], 0)
		sub.ExpectNothing()
	})
}

// TestPubrelAfterCommit: PUBREL of a durable subscriber waits for its shard.
func TestPubrelAfterCommit(t *testing.T) {
	n := start(t)
	sub, _ := n.durable(packet.V5, "s")
	sub.Subscribe("a", 2)
	n.connect(packet.V5, "p").Publish("a", "x", 2)
	id := sub.ExpectPublish("a", "x").PacketID
	n.cluster.Hold(brokertest.Release)
	sub.Write(ack(packet.TypePubrec, id))
	sub.ExpectNothing()
	n.cluster.ReleaseAll(brokertest.Release)
	sub.ExpectAck(packet.TypePubrel, id, 0)
}

// TestOrder: [MQTT-4.6.0-6]: per topic and QoS, through window, queue and
// output bounds.
func TestOrder(t *testing.T) {
	sessions(t, func(t *testing.T, n *node, sub *mqtttest.Client) {
		sub.AutoAck = true
		sub.Subscribe("a", 2)
		pub := n.connect(packet.V5, "p")
		const count = 900
		go func() {
			id := uint16(0)
			for i := range count {
				id++
				pub.Send(publish("a", fmt.Sprintf("%05d", i), packet.QoS(i%3), id))
			}
		}()
		go func() {
			for {
				if _, err := pub.Receive(mqtttest.Timeout); err != nil {
					return
				}
			}
		}()
		var last [3]string
		for got := 0; got < count; {
			p, ok := sub.Next().(*packet.Publish)
			if !ok {
				continue
			}
			if payload := string(p.Payload); payload <= last[p.QoS] {
				t.Fatalf("QoS %d: %s after %s", p.QoS, payload, last[p.QoS])
			} else {
				last[p.QoS] = payload
			}
			got++
		}
	}, mqtttest.ReceiveMaximum(7))
}
