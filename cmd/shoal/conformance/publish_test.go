package conformance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

func TestPublish(t *testing.T) {
	check(t, []rule{
		{"067 DUP 1 on redelivery, from another node too [MQTT-3.3.1-1]", allDurable, func(s *scene) {
			pub := s.connect(s.here, "p")
			for _, qos := range []packet.QoS{1, 2} {
				name := fmt.Sprint("s", qos)
				sub := s.connect(s.there, name)
				sub.Subscribe(s.topic("a"), 2)
				pub.Publish(s.topic("a"), "x", qos)
				first := sub.ExpectPublish(s.topic("a"), "x")
				for _, n := range []*node{s.other, s.here, s.there} {
					sub.Close()
					sub = s.resume(n, name)
					if p := sub.ExpectPublish(s.topic("a"), "x"); !p.Dup || p.PacketID != first.PacketID || p.QoS != qos {
						s.Errorf("got %s after %s", mqtttest.Describe(p), mqtttest.Describe(first))
					}
				}
			}
		}},
		{"069 DUP 0 on the first delivery, whatever came in [MQTT-3.3.1-3]", every, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 2)
			for _, qos := range []packet.QoS{1, 2} {
				p := publish(s.topic("a"), "x", qos, uint16(qos))
				p.Dup = true
				pub.Write(p)
				got := sub.ExpectPublish(s.topic("a"), "x")
				if got.Dup {
					s.Errorf("got %s", mqtttest.Describe(got))
				}
				finish(sub, got)
			}
		}},
		{"069 DUP 0 on the first delivery of what was queued offline [MQTT-3.3.1-3]", allDurable, func(s *scene) {
			sub := s.connect(s.there, "s")
			sub.Subscribe(s.topic("a"), 2)
			pub := s.connect(s.here, "p")
			pub.Publish(s.topic("a"), "sent before", 1)
			sub.ExpectPublish(s.topic("a"), "sent before")
			s.leave(sub, s.there, s.topic("a"))
			pub.Publish(s.topic("a"), "x", 1)
			pub.Publish(s.topic("a"), "y", 2)
			sub = s.resume(s.other, "s")
			if p := sub.ExpectPublish(s.topic("a"), "sent before"); !p.Dup {
				s.Errorf("got %s", mqtttest.Describe(p))
			}
			sub.ExpectPublish(s.topic("a"), "marker")
			for _, text := range []string{"x", "y"} {
				if p := sub.ExpectPublish(s.topic("a"), text); p.Dup {
					s.Errorf("got %s", mqtttest.Describe(p))
				}
			}
		}},
		{"074 Retain As Published 0: RETAIN 0 on forwarding [MQTT-3.3.1-12]", every5, func(s *scene) { retainFlag(s, false) }},
		{"075 Retain As Published 1: RETAIN as received [MQTT-3.3.1-13]", every5, func(s *scene) { retainFlag(s, true) }},
		{"077 Payload Format Indicator unaltered, 0 too [MQTT-3.3.2-4]", every5, func(s *scene) {
			unaltered(s, packet.MessageProperties{HasPayloadFormat: true})
			unaltered(s, packet.MessageProperties{HasPayloadFormat: true, PayloadFormat: 1})
			unaltered(s, packet.MessageProperties{})
		}},
		{"079 Message Expiry is not invented, and not more than it was [MQTT-3.3.2-6]", every5, func(s *scene) {
			pub, sub := s.pair()
			sub.AutoAck = true
			sub.Subscribe(s.topic("a"), 1)
			for _, seconds := range []uint32{0, 100, 0xFFFFFFFF} {
				for qos := packet.QoS0; qos <= packet.QoS1; qos++ {
					p := publish(s.topic("a"), "x", qos, 1)
					p.HasExpiry, p.MessageExpiry = seconds > 0, seconds
					pub.Write(p)
					got := sub.ExpectPublish(s.topic("a"), "x")
					if got.HasExpiry != p.HasExpiry || got.MessageExpiry > seconds || got.MessageExpiry < seconds-seconds/2 {
						s.Errorf("QoS %d: %d, %t became %d, %t", qos, seconds, p.HasExpiry, got.MessageExpiry, got.HasExpiry)
					}
				}
				pub.ExpectAck(packet.TypePuback, 1, 0)
			}
		}},
		{"143 a message that expires at once reaches nobody, and no register keeps it [MQTT-3.3.2-5] [MQTT-3.3.2-6]", every5, func(s *scene) {
			pub, sub := s.pair()
			sub.AutoAck = true
			topic := s.topic("r", "a")
			sub.Subscribe(topic, 1)
			s.keep(pub)
			for qos := packet.QoS0; qos <= packet.QoS2; qos++ {
				p := publish(topic, "too late", qos, uint16(qos))
				p.HasExpiry, p.Retain = true, true
				exchange(pub, p)
				pub.Publish(topic, "next", qos)
				sub.ExpectPublish(topic, "next")
				s.expectRetained(s.replay(1), nil)
			}
		}},
		{"080 Topic Aliases end with their connection [MQTT-3.3.2-7]", every5, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 0)
			alias := &packet.Publish{Topic: []byte(s.topic("a")), HasAlias: true, TopicAlias: 1}
			pub.Write(alias)
			sub.ExpectPublish(s.topic("a"), "")
			alias.Topic = nil
			for _, n := range []*node{s.here, s.other} {
				pub.Close()
				pub = s.connect(n, "p")
				pub.Write(alias)
				pub.ExpectDisconnect(packet.CodeProtocolError)
			}
			sub.ExpectNothing()
		}},
		{"082 a Topic Alias above what was announced: 0x94 [MQTT-3.3.2-9] [MQTT-3.2.2-17]", transient5, func(s *scene) {
			pub, ack := s.open(s.here, "p")
			if ack.TopicAliasMaximum < 65535 {
				pub.Write(&packet.Publish{Topic: []byte("a"), HasAlias: true, TopicAlias: ack.TopicAliasMaximum + 1})
				pub.ExpectDisconnect(packet.CodeTopicAliasInvalid)
			}
		}},
		{"083 the server stays within the client's Topic Alias Maximum [MQTT-3.3.2-11] [MQTT-3.1.2-26] [MQTT-3.1.2-27]", every5, func(s *scene) {
			for _, most := range []uint16{0, 1, 10} {
				pub, sub := s.pair(func(p *packet.Connect) { p.TopicAliasMaximum = most })
				sub.AutoAck = true
				sub.Subscribe(s.topic("#"), 1)
				known := map[uint16]string{} // of this connection
				for i := range 3 * 5 {
					topic := s.topic(fmt.Sprint("topic", i%5))
					pub.Publish(topic, "x", packet.QoS(i%2))
					p := mqtttest.Expect[*packet.Publish](sub)
					if p.HasAlias && (p.TopicAlias > most || p.TopicAlias == 0) {
						s.Errorf("alias %d of %d", p.TopicAlias, most)
					}
					got := string(p.Topic)
					if got == "" {
						got = known[p.TopicAlias]
					} else if p.HasAlias {
						known[p.TopicAlias] = got
					}
					if got != topic {
						s.Fatalf("got %q, want %q: %+v", got, topic, p)
					}
				}
				pub.Close()
				sub.Close()
			}
		}},
		{"084 every Topic Alias up to the maximum, and given anew [MQTT-3.3.2-12]", every5, func(s *scene) {
			sub := s.connect(s.there, "s")
			sub.AutoAck = true
			sub.Subscribe(s.topic("#"), 1)
			pub, ack := s.open(s.here, "p")
			send := func(topic, want string, alias uint16, qos packet.QoS) {
				pub.Write(&packet.Publish{Topic: []byte(topic), QoS: qos, PacketID: uint16(qos), HasAlias: true, TopicAlias: alias})
				sub.ExpectPublish(want, "")
			}
			topic := func(i uint16) string { return s.topic(fmt.Sprint(i)) }
			for _, round := range []uint16{0, 1000} {
				for i := range ack.TopicAliasMaximum {
					send(topic(round+i), topic(round+i), i+1, 0)
				}
				for i := range ack.TopicAliasMaximum {
					send("", topic(round+i), i+1, packet.QoS(i%2))
				}
			}
		}},
		{"086 Response Topic, Correlation Data, Content Type unaltered [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-20]", every5, func(s *scene) {
			unaltered(s, packet.MessageProperties{ResponseTopic: "r/ü", CorrelationData: []byte{0, 255, 10}, HasContentType: true, ContentType: "text/plain"})
			unaltered(s, packet.MessageProperties{CorrelationData: []byte{}, HasContentType: true})
		}},
		{"087 User Properties unaltered, repeated keys, in order [MQTT-3.3.2-17] [MQTT-3.3.2-18]", every5, func(s *scene) {
			unaltered(s, packet.MessageProperties{UserProperties: []packet.UserProperty{
				{Key: "k", Value: "2"}, {Key: "k", Value: "1"}, {Key: "", Value: ""}, {Key: "k", Value: "2"}, {Key: "a", Value: strings.Repeat("ü", 1000)},
			}})
		}},
		{"090 Maximum Packet Size: dropped as if delivered, the session goes on [MQTT-3.1.2-24] [MQTT-3.1.2-25]", every5, func(s *scene) {
			limit := func(p *packet.Connect) { p.MaximumPacketSize = 100 }
			pub, sub := s.pair(limit, mqtttest.ReceiveMaximum(1))
			sub.Subscribe(s.topic("a"), 2)
			for qos := packet.QoS0; qos <= packet.QoS2; qos++ {
				pub.Publish(s.topic("a"), strings.Repeat("x", 100), qos)
				pub.Publish(s.topic("a"), "y", qos)
				finish(sub, sub.ExpectPublish(s.topic("a"), "y"))
			}
			sub.ExpectNothing()
			if s.durable {
				s.leave(sub, s.there, s.topic("a"))
				sub = s.resume(s.other, "s", limit)
				sub.ExpectPublish(s.topic("a"), "marker")
				sub.ExpectNothing()
			}
		}},
		{"090 to MQTT 3.1.1 a message goes without its properties", every, func(s *scene) {
			pub := s.as(packet.V5).connect(s.here, "p")
			sub := s.as(packet.V311).connect(s.there, "s")
			sub.AutoAck = true
			sub.Subscribe(s.topic("a"), 1)
			properties := packet.MessageProperties{HasContentType: true, ContentType: "t", UserProperties: []packet.UserProperty{{Key: "k", Value: "v"}}}
			for qos := packet.QoS0; qos <= packet.QoS1; qos++ {
				pub.Write(&packet.Publish{Topic: []byte(s.topic("a")), Payload: []byte("x"), QoS: qos, PacketID: 1, Forward: properties.AppendForward(nil), HasExpiry: true, MessageExpiry: 9})
				sub.ExpectPublish(s.topic("a"), "x")
			}
		}},
	})
}

// retainFlag publishes live messages with RETAIN 0 and 1.
func retainFlag(s *scene, asPublished bool) {
	pub, sub := s.pair()
	sub.SubscribeAll(packet.Subscription{Filter: s.topic("a"), QoS: 2, RetainAsPublished: asPublished})
	for qos := packet.QoS0; qos <= packet.QoS2; qos++ {
		for _, retain := range []bool{true, false} {
			p := publish(s.topic("a"), "x", qos, uint16(qos))
			p.Retain = retain
			exchange(pub, p)
			got := sub.ExpectPublish(s.topic("a"), "x")
			if got.Retain != (retain && asPublished) {
				s.Errorf("RETAIN %t: got %s", retain, mqtttest.Describe(got))
			}
			finish(sub, got)
		}
	}
}

// unaltered publishes with properties in every QoS and finds the same bytes, on
// live connections and, for durable sessions, later.
func unaltered(s *scene, properties packet.MessageProperties) {
	s.Helper()
	forward := string(properties.AppendForward(nil))
	name := fmt.Sprint("s", scenes.Add(1)) // a session of its own
	pub, sub := s.connect(s.here, "p"), s.connect(s.there, name)
	sub.Subscribe(s.topic("a"), 2)
	send := func(qos packet.QoS) {
		exchange(pub, &packet.Publish{Topic: []byte(s.topic("a")), Payload: []byte("x"), QoS: qos, PacketID: uint16(qos) + 10, Forward: []byte(forward)})
	}
	expect := func(qos packet.QoS) {
		got := sub.ExpectPublish(s.topic("a"), "x")
		if string(got.Forward) != forward || got.HasExpiry || len(got.SubscriptionIDs) > 0 || got.QoS != qos {
			s.Errorf("QoS %d: got %+v, want properties %q", qos, got, forward)
		}
		finish(sub, got)
	}
	for qos := packet.QoS0; qos <= packet.QoS2; qos++ {
		send(qos)
		expect(qos)
	}
	if s.durable {
		s.leave(sub, s.there, s.topic("a"))
		send(1)
		send(2)
		sub = s.resume(s.other, name)
		finish(sub, sub.ExpectPublish(s.topic("a"), "marker"))
		expect(1)
		expect(2)
	}
}
