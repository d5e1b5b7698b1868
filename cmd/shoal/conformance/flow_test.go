package conformance

import (
	"fmt"
	"math/rand/v2"
	"slices"
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
		{"160 SUBSCRIBE and UNSUBSCRIBE without waiting end where they end one by one (4.6.0)", every5, pipelined},
	})
}

// pipelined changes subscriptions at random without waiting for answers, and
// then looks at what is left: as if each had been answered before the next.
func pipelined(s *scene) {
	pub, c := s.pair()
	filters := []string{s.topic("a"), s.topic("b"), s.topic("+"), s.topic("#"), s.topic("a", "#")}
	model := map[string]packet.Subscribe{}
	for round := range 8 {
		var packets []packet.Packet
		want := map[uint16]packet.Code{}
		for id := uint16(1); id <= 20; id++ {
			f, qos := filters[rand.IntN(len(filters))], packet.QoS(rand.IntN(3))
			_, exists := model[f]
			if rand.IntN(3) == 0 {
				packets = append(packets, &packet.Unsubscribe{PacketID: id, Filters: []string{f}})
				if delete(model, f); !exists {
					want[id] = packet.CodeNoSubscriptionExisted
				}
				continue
			}
			p := packet.Subscribe{PacketID: id, SubscriptionID: uint32(id), Subscriptions: []packet.Subscription{{Filter: f, QoS: qos}}}
			packets, model[f], want[id] = append(packets, &p), p, packet.Code(qos)
		}
		c.Write(packets...)
		for range packets {
			id, code := uint16(0), packet.Code(0)
			switch p := c.Next().(type) {
			case *packet.Suback:
				id, code = p.PacketID, p.Codes[0]
			case *packet.Unsuback:
				id, code = p.PacketID, p.Codes[0]
			default:
				s.Fatalf("round %d: got %s", round, mqtttest.Describe(p))
			}
			if w, owed := want[id], id > 0; !owed || code != w {
				s.Fatalf("round %d: code %s for packet %d, want %s, of %v", round, code, id, w, packets)
			}
			want[id] = packet.CodeUnspecifiedError // a second answer
		}
		matches := map[string][]int{"a": {0, 2, 3, 4}, "b": {1, 2, 3}}
		for name, places := range matches {
			var ids []uint32
			most := packet.QoS0
			for _, i := range places {
				if p, ok := model[filters[i]]; ok {
					ids, most = append(ids, p.SubscriptionID), max(most, p.Subscriptions[0].QoS)
				}
			}
			pub.Publish(s.topic(name), "x", 2)
			if len(ids) == 0 {
				c.ExpectNothing()
				continue
			}
			p := c.ExpectPublish(s.topic(name), "x")
			slices.Sort(ids)
			if slices.Sort(p.SubscriptionIDs); p.QoS != most || !slices.Equal(p.SubscriptionIDs, ids) {
				s.Fatalf("round %d: got %+v, want QoS %d and identifiers %v", round, p, most, ids)
			}
			finish(c, p)
		}
	}
	c.ExpectNothing()
}
