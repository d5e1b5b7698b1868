package conformance

import (
	"fmt"
	"testing"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// TestFlow is about packets that follow, or must not follow, others.
func TestFlow(t *testing.T) {
	check(t, []rule{
		{"133 nothing counts that follows DISCONNECT, and the server closes [MQTT-3.14.4-1] [MQTT-3.14.4-2]", every5, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 1)
			c := s.connect(s.here, "c")
			c.Write(&packet.Disconnect{}, publish(s.topic("a"), "late", 0, 0), publish(s.topic("a"), "late", 1, 1), &packet.Pingreq{})
			c.ExpectClosed()
			pub.Publish(s.topic("a"), "x", 1)
			finish(sub, sub.ExpectPublish(s.topic("a"), "x"))
			sub.ExpectNothing()
		}},
		{"134 each PINGREQ gets a PINGRESP, in turn with other answers [MQTT-3.12.4-1]", every5, func(s *scene) {
			c := s.connect(s.here, "c")
			for range 3 {
				c.Write(&packet.Pingreq{}, ack(packet.TypePubrel, 9), &packet.Pingreq{})
				pings, comps := 0, 0
				for range 3 { // PUBREL of a durable session asks its shard
					switch p := c.Next().(type) {
					case *packet.Pingresp:
						pings++
					case *packet.Ack:
						comps++
					default:
						s.Errorf("got %s", mqtttest.Describe(p))
					}
				}
				if pings != 2 || comps != 1 {
					s.Errorf("%d PINGRESP, %d PUBCOMP", pings, comps)
				}
			}
		}},
		{"139 an acknowledgement of the other QoS finishes nothing [MQTT-4.3.2-3] [MQTT-4.3.3-3] [MQTT-4.3.3-5]", every, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 2)
			pub.Publish(s.topic("a"), "1", 1)
			pub.Publish(s.topic("a"), "2", 2)
			one, two := sub.ExpectPublish(s.topic("a"), "1"), sub.ExpectPublish(s.topic("a"), "2")
			unknown := s.code5(packet.CodePacketIdentifierNotFound)
			sub.Write(ack(packet.TypePuback, two.PacketID), ack(packet.TypePubcomp, two.PacketID), ack(packet.TypePubcomp, one.PacketID))
			sub.Write(ack(packet.TypePubrec, one.PacketID))
			sub.ExpectAck(packet.TypePubrel, one.PacketID, unknown)
			sub.ExpectNothing()
			if s.durable { // both are still owed
				s.leave(sub, s.there, s.topic("a"))
				sub = s.resume(s.other, "s")
				one, two = sub.ExpectPublish(s.topic("a"), "1"), sub.ExpectPublish(s.topic("a"), "2")
				if !one.Dup || !two.Dup {
					s.Errorf("got %s and %s", mqtttest.Describe(one), mqtttest.Describe(two))
				}
				finish(sub, sub.ExpectPublish(s.topic("a"), "marker"))
			}
			finish(sub, one)
			finish(sub, two)
			sub.ExpectNothing()
		}},
		{"140 the send quota is new with each connection [MQTT-4.9.0-1]", durable5, func(s *scene) {
			pub, sub := s.pair(mqtttest.ReceiveMaximum(2))
			sub.Subscribe(s.topic("a"), 2)
			for i := range 6 {
				pub.Publish(s.topic("a"), fmt.Sprint(i), packet.QoS(1+i%2))
			}
			for turn, quota := range []uint16{2, 1, 4, 6} {
				if turn > 0 {
					sub.Close()
					sub = s.resume(nodes[turn%3], "s", mqtttest.ReceiveMaximum(quota))
				}
				for i := range int(quota) {
					sub.ExpectPublish(s.topic("a"), fmt.Sprint(i))
				}
				sub.ExpectNothing()
			}
		}},
	})
}
