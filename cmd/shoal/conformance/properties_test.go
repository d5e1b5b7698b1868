package conformance

import (
	"slices"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// everyProperty is what a publisher may say of a message.
var everyProperty = packet.MessageProperties{
	HasPayloadFormat: true, PayloadFormat: 1, HasContentType: true, ContentType: "text/plain; charset=utf-8",
	ResponseTopic: "answers/ü", CorrelationData: []byte{0, 1, 255},
	UserProperties: []packet.UserProperty{{Key: "b", Value: "2"}, {Key: "a", Value: "1"}, {Key: "b", Value: ""}, {Key: "b", Value: "2"}},
}

// TestProperties is about the properties of MQTT 5 beyond single packets.
func TestProperties(t *testing.T) {
	check(t, []rule{
		{"155 properties of retained messages, and of retained Wills, are unaltered [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-18] [MQTT-3.3.2-20] [MQTT-3.1.3-10]", every5, func(s *scene) {
			forward := everyProperty.AppendForward(nil)
			pub := s.connect(s.here, "p")
			for qos, name := range []string{"q0", "q1", "q2"} {
				p := publish(s.topic("r", name), name, packet.QoS(qos), uint16(qos))
				p.Retain, p.Forward = true, forward
				exchange(pub, p)
				if qos == 0 { // sure to be there when the next one of its topic is
					p.QoS, p.PacketID = 1, 9
					exchange(pub, p)
				}
			}
			watcher := s.connect(s.other, "watcher")
			watcher.Subscribe(s.topic("r", "will"), 0)
			will := packet.Will{Topic: s.topic("r", "will"), Payload: []byte("will"), QoS: 1, Retain: true, Forward: forward}
			s.connect(s.there, "c", func(p *packet.Connect) { p.Will = &will }).Close()
			watcher.ExpectPublish(s.topic("r", "will"), "will")
			s.keep(pub)
			for qos := packet.QoS0; qos <= packet.QoS1; qos++ {
				got := s.replay(qos)
				s.expectRetained(got, map[string]string{"q0": "q0", "q1": "q1", "q2": "q2", "will": "will"})
				for name, p := range got {
					if string(p.Forward) != string(forward) {
						s.Errorf("%s: properties %q, want %q", name, p.Forward, forward)
					}
				}
			}
		}},
		{"156 Subscription Identifiers up to 268,435,455 (3.8.2.1.2)", every5, func(s *scene) {
			pub, sub := s.pair()
			ids := []uint32{1, 127, 128, 16383, 16384, 2097151, 2097152, 268435455}
			for i, id := range ids {
				sub.SubscribeWith(packet.Subscribe{SubscriptionID: id, Subscriptions: []packet.Subscription{{Filter: s.topic(strings.Repeat("+/", i) + "#"), QoS: 2}}})
			}
			topic := s.topic("1", "2", "3", "4", "5", "6", "7")
			for qos := packet.QoS0; qos <= packet.QoS2; qos++ {
				pub.Publish(topic, "x", qos)
				p := sub.ExpectPublish(topic, "x")
				if slices.Sort(p.SubscriptionIDs); !slices.Equal(p.SubscriptionIDs, ids) {
					s.Errorf("identifiers %v", p.SubscriptionIDs)
				}
				finish(sub, p)
			}
		}},
		{"157 User Properties and Reason Strings of a client are accepted wherever they may be (2.2.2.2)", every5, func(s *scene) {
			user := []packet.UserProperty{{Key: "k", Value: "v"}, {Key: "k", Value: "v"}}
			pub := s.connect(s.other, "p")
			c := s.connect(s.here, "c", func(p *packet.Connect) { p.UserProperties = user })
			c.SubscribeWith(packet.Subscribe{Subscriptions: []packet.Subscription{{Filter: s.topic("a"), QoS: 2}}, UserProperties: user})
			talk := func(t packet.Type, id uint16) {
				c.Write(&packet.Ack{Type: t, PacketID: id, ReasonString: "because", UserProperties: user})
			}
			silent := func(t packet.Type) {
				if p := mqtttest.Expect[*packet.Ack](c); p.Type != t || p.ReasonString != "" || len(p.UserProperties) > 0 || p.Code != 0 {
					s.Errorf("got %+v", p)
				}
			}
			pub.Publish(s.topic("a"), "x", 1)
			talk(packet.TypePuback, c.ExpectPublish(s.topic("a"), "x").PacketID)
			pub.Publish(s.topic("a"), "y", 2)
			id := c.ExpectPublish(s.topic("a"), "y").PacketID
			talk(packet.TypePubrec, id)
			silent(packet.TypePubrel)
			talk(packet.TypePubcomp, id)
			c.Write(publish(s.topic("b"), "z", 2, 5))
			silent(packet.TypePubrec)
			talk(packet.TypePubrel, 5)
			silent(packet.TypePubcomp)
			c.Write(&packet.Unsubscribe{PacketID: 6, Filters: []string{s.topic("a")}, UserProperties: user})
			if p := mqtttest.Expect[*packet.Unsuback](c); p.Codes[0] != 0 || p.ReasonString != "" || len(p.UserProperties) > 0 {
				s.Errorf("got %+v", p)
			}
			c.ExpectNothing()
			c.Write(&packet.Disconnect{ReasonString: "because", UserProperties: user})
			c.ExpectClosed()
		}},
		{"158 DUP of what a client sends is not passed on [MQTT-3.3.1-3]", every, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 2)
			for qos := packet.QoS1; qos <= packet.QoS2; qos++ {
				p := publish(s.topic("a"), "x", qos, uint16(qos))
				p.Dup = true
				exchange(pub, p)
				got := sub.ExpectPublish(s.topic("a"), "x")
				if got.Dup {
					s.Errorf("got %s", mqtttest.Describe(got))
				}
				finish(sub, got)
			}
		}},
		{"159 a client need not wait for CONNACK, nor for other answers (3.1.4)", every, func(s *scene) {
			sub := s.connect(s.there, "s")
			sub.Subscribe(s.topic("+"), 0)
			connect := &packet.Connect{ClientID: s.id("c"), CleanStart: !s.durable, HasSessionExpiry: s.durable, SessionExpiry: 3600,
				Will: &packet.Will{Topic: s.topic("w"), Payload: []byte("never")}}
			c := s.dial(s.here)
			c.Write(connect, &packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: s.topic("own", "x"), QoS: 1}}},
				publish(s.topic("a"), "1", 1, 2), &packet.Pingreq{}, &packet.Unsubscribe{PacketID: 3, Filters: []string{s.topic("own", "x")}})
			mqtttest.Expect[*packet.Connack](c)
			want := []packet.Type{packet.TypePuback, packet.TypeSuback, packet.TypeUnsuback, packet.TypePingresp}
			var got []packet.Type
			for range want {
				got = append(got, packet.Type(c.Next().Append(nil, s.v)[0]>>4))
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				s.Errorf("got %v, want %v", got, want)
			}
			sub.ExpectPublish(s.topic("a"), "1")
			c.Disconnect()
			c = s.dial(s.other)
			c.Write(connect, publish(s.topic("a"), "2", 0, 0), &packet.Disconnect{})
			mqtttest.Expect[*packet.Connack](c)
			c.ExpectClosed()
			sub.ExpectPublish(s.topic("a"), "2")
			sub.ExpectNothing()
		}},
	})
}
