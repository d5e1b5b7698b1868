package conformance

import (
	"fmt"
	"slices"
	"testing"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

func TestSession(t *testing.T) {
	check(t, []rule{
		{"043 a session with an expiry is kept [MQTT-3.1.2-23]", durable5, func(s *scene) {
			for _, seconds := range []uint32{60, 3600, 0xFFFFFFFF} {
				s.connect(s.here, fmt.Sprint(seconds), mqtttest.Expiry(seconds)).Close()
				s.resume(s.there, fmt.Sprint(seconds))
			}
		}},
		{"046 Session Expiry in DISCONNECT overrides; after 0 it is a Protocol Error (3.14.2.2.2)", every5, func(s *scene) {
			c := s.connect(s.here, "c")
			expiry := packet.Disconnect{HasSessionExpiry: true, SessionExpiry: 60}
			if !s.durable {
				c.Write(&expiry)
				c.ExpectDisconnect(packet.CodeProtocolError)
				return
			}
			c.Write(&expiry)
			c.ExpectClosed()
			c = s.resume(s.there, "c")
			expiry.SessionExpiry = 0
			c.Write(&expiry)
			c.ExpectClosed()
			if _, ack := s.open(s.there, "c"); ack.SessionPresent {
				s.Error("the session is still there")
			}
		}},
		{"144 a DISCONNECT whose Session Expiry is wrong is none: the Will is published (3.14.2.2.2)", transient5, func(s *scene) {
			watcher := s.watcher(1)
			c := s.connect(s.here, "c", s.withWill("gone", 1, 0))
			c.Write(&packet.Disconnect{HasSessionExpiry: true, SessionExpiry: 60})
			c.ExpectDisconnect(packet.CodeProtocolError)
			s.expectWill(watcher, "gone")
			watcher.ExpectNothing()
		}},
		{"047 no Session Expiry in the server's DISCONNECT [MQTT-3.14.2-2]", durable5, func(s *scene) {
			old := s.connect(s.here, "c")
			s.connect(s.there, "c")
			if p := mqtttest.Expect[*packet.Disconnect](old); p.HasSessionExpiry {
				s.Errorf("DISCONNECT %+v", p)
			}
		}},
		{"048 no Session Expiry: 0 in CONNECT, unchanged in DISCONNECT (3.1.2.11.2)", durable5, func(s *scene) {
			s.connect(s.here, "c").Disconnect()
			s.resume(s.there, "c")
			withNone := func(p *packet.Connect) { p.HasSessionExpiry = false }
			s.resume(s.here, "c", withNone).Disconnect()
			if _, ack := s.open(s.here, "c"); ack.SessionPresent {
				s.Error("the session is still there")
			}
		}},
		{"050 a message accepted is in the state of every matching session, online or not [MQTT-4.5.0-1]", allDurable, func(s *scene) {
			var names []string
			for i := range 9 {
				name := fmt.Sprint("s", i)
				names = append(names, name)
				c := s.connect(nodes[i%3], name)
				c.Subscribe(s.topic("+"), packet.QoS(1+i%2))
				if i%2 == 0 {
					c.Close()
				}
			}
			pub := s.connect(s.here, "p")
			pub.Publish(s.topic("a"), "one", 1)
			pub.Publish(s.topic("a"), "two", 2)
			for i, name := range names {
				c := s.resume(nodes[(i+1)%3], name)
				c.ExpectPublish(s.topic("a"), "one")
				c.ExpectPublish(s.topic("a"), "two")
			}
		}},
		{"051 sessions go from MQTT 5 to 3.1.1 and back", allDurable, func(s *scene) {
			versions := []packet.Version{packet.V5, packet.V311, packet.V31, packet.V5}
			if s.v == packet.V311 {
				versions = []packet.Version{packet.V311, packet.V5, packet.V311, packet.V31}
			}
			pub := s.connect(s.here, "p")
			for i, v := range versions {
				sub, ack := s.as(v).open(nodes[i%3], "s")
				if ack.SessionPresent != (i > 0 && v != packet.V31) { // 3.1 has no such flag
					s.Fatalf("%d: session present %t", i, ack.SessionPresent)
				}
				if i == 0 {
					sub.SubscribeWith(packet.Subscribe{SubscriptionID: 7, Subscriptions: []packet.Subscription{{Filter: s.topic("a"), QoS: 2}}})
				} else {
					finish(sub, sub.ExpectPublish(s.topic("a"), "marker"))
					p := sub.ExpectPublish(s.topic("a"), fmt.Sprint(i-1))
					if v == packet.V5 && s.v == packet.V5 && !slices.Equal(p.SubscriptionIDs, []uint32{7}) {
						s.Errorf("%+v", p)
					}
					finish(sub, p)
				}
				sub.ExpectNothing()
				s.leave(sub, nodes[i%3], s.topic("a"))
				pub.Publish(s.topic("a"), fmt.Sprint(i), 2)
			}
		}},
		{"052 subscriptions, unacknowledged, queued and received are all state, on every node (4.1)", allDurable, wholeState},
		{"059 a Will of zero bytes is legal, one without topic is not [MQTT-3.1.2-9] [MQTT-3.1.3-11]", allTransient, func(s *scene) {
			for topic, legal := range map[string]bool{"w": true, "": false, "a/#": false, "+": false} {
				c := s.dial(s.here)
				c.Write(&packet.Connect{ClientID: s.id("w"), CleanStart: true, Will: &packet.Will{Topic: topic}})
				p, err := c.Receive(mqtttest.Timeout)
				ack, _ := p.(*packet.Connack)
				if accepted := err == nil && ack != nil && ack.Code == 0; accepted != legal {
					s.Errorf("will topic %q: %v, %v", topic, p, err)
				}
				c.Close()
			}
		}},
	})
}

// wholeState leaves a session with some of everything and finds it elsewhere.
func wholeState(s *scene) {
	topic := s.topic("a")
	sub := s.connect(s.here, "s", mqtttest.ReceiveMaximum(3))
	sub.SubscribeWith(packet.Subscribe{SubscriptionID: 9, Subscriptions: []packet.Subscription{{Filter: topic, QoS: 2}}})
	sub.Write(publish(s.topic("x"), "once", 2, 77))
	sub.ExpectAck(packet.TypePubrec, 77, 0)
	witness := s.connect(s.other, "w")
	witness.AutoAck = true
	witness.Subscribe(s.topic("x"), 2)
	pub := s.connect(s.there, "p")
	ids := make([]uint16, 3)
	for i, qos := range []packet.QoS{1, 2, 2} {
		pub.Publish(topic, fmt.Sprint(i), qos)
		ids[i] = sub.ExpectPublish(topic, fmt.Sprint(i)).PacketID
	}
	sub.Write(ack(packet.TypePubrec, ids[1]))
	sub.ExpectAck(packet.TypePubrel, ids[1], 0)
	sub.Close()
	pub.Publish(topic, "queued", 1)

	sub = s.resume(s.there, "s")
	sub.ExpectAck(packet.TypePubrel, ids[1], 0)
	for i, text := range []string{"0", "", "2"} {
		if i == 1 {
			continue
		}
		if p := sub.ExpectPublish(topic, text); p.PacketID != ids[i] || !p.Dup || s.v == packet.V5 && !slices.Equal(p.SubscriptionIDs, []uint32{9}) {
			s.Errorf("got %s", mqtttest.Describe(p))
		}
	}
	sub.ExpectPublish(topic, "queued")
	again := publish(s.topic("x"), "once", 2, 77)
	again.Dup = true
	sub.Write(again)
	sub.ExpectAck(packet.TypePubrec, 77, 0)
	sub.Write(ack(packet.TypePubrel, 77))
	sub.ExpectAck(packet.TypePubcomp, 77, 0)
	witness.ExpectNothing()
}
