package conformance

import (
	"slices"
	"testing"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// TestKept is about what a session keeps for its next connection, and what not.
func TestKept(t *testing.T) {
	check(t, []rule{
		{"147 a subscription that is resumed exists: Retain Handling 1 brings nothing, 0 all [MQTT-3.3.1-10]", durable5, func(s *scene) {
			pub := s.connect(s.here, "p")
			s.retain(pub, "a", "x", 1)
			s.keep(pub)
			sub := s.connect(s.there, "s")
			sub.AutoAck = true
			subscribe := func(handling byte) {
				sub.SubscribeAll(packet.Subscription{Filter: s.topic("r", "#"), QoS: 1, RetainHandling: handling})
			}
			subscribe(1)
			s.expectRetained(s.replayed(sub), map[string]string{"a": "x"})
			from := s.there
			for _, n := range []*node{s.other, s.here} {
				s.leave(sub, from, s.topic("r", "marker"))
				sub, from = s.resume(n, "s"), n
				sub.AutoAck = true
				sub.ExpectPublish(s.topic("r", "marker"), "marker")
				subscribe(1)
				pub.Publish(s.topic("r", "live"), "only this", 1)
				if p := sub.ExpectPublish(s.topic("r", "live"), "only this"); p.Retain {
					s.Errorf("got %s", mqtttest.Describe(p))
				}
				subscribe(0)
				s.expectRetained(s.replayed(sub), map[string]string{"a": "x"})
			}
		}},
		{"148 Retain As Published, No Local and identifiers hold for what is queued [MQTT-3.3.1-12] [MQTT-3.3.1-13] [MQTT-3.8.3-3]", durable5, func(s *scene) {
			sub := s.connect(s.there, "s")
			for i, name := range []string{"r/plain", "r/published", "r/mine"} {
				sub.SubscribeWith(packet.Subscribe{SubscriptionID: uint32(i + 1), Subscriptions: []packet.Subscription{
					{Filter: s.topic(name), QoS: 2, RetainAsPublished: i == 1, NoLocal: i == 2, RetainHandling: 2}}})
			}
			sub.Disconnect()
			pub := s.connect(s.here, "p")
			for _, name := range []string{"plain", "published", "mine"} {
				s.retain(pub, name, name, 1)
				pub.Publish(s.topic("r", name), "live", 1)
			}
			sub = s.resume(s.other, "s")
			for i, name := range []string{"plain", "published", "mine"} {
				kept := sub.ExpectPublish(s.topic("r", name), name)
				live := sub.ExpectPublish(s.topic("r", name), "live")
				if kept.Retain != (i == 1) || live.Retain || !slices.Equal(kept.SubscriptionIDs, []uint32{uint32(i + 1)}) {
					s.Errorf("got %+v and %+v", kept, live)
				}
				finish(sub, kept)
				finish(sub, live)
			}
			sub.ExpectNothing()
		}},
		{"149 the client's own Will is its own message: No Local keeps it away [MQTT-3.8.3-3]", durable5, func(s *scene) {
			watcher := s.watcher(1)
			c := s.connect(s.here, "c", s.withWill("mine", 1, 0))
			c.SubscribeAll(packet.Subscription{Filter: s.topic("w"), QoS: 1, NoLocal: true})
			c.Close()
			s.expectWill(watcher, "mine")
			c = s.resume(s.there, "c")
			s.connect(s.here, "other", s.withWill("theirs", 1, 0)).Close()
			s.expectWill(watcher, "theirs")
			finish(c, c.ExpectPublish(s.topic("w"), "theirs"))
			c.ExpectNothing()
		}},
		{"150 a new session knows no identifiers of the one before [MQTT-3.1.2-4] [MQTT-4.3.3-12]", durable5, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 2)
			for _, text := range []string{"one", "two"} {
				p := publish(s.topic("a"), text, 2, 9)
				pub.Write(p)
				pub.ExpectAck(packet.TypePubrec, 9, 0)
				finish(sub, sub.ExpectPublish(s.topic("a"), text))
				pub.Close()
				pub = s.connect(s.other, "p", clean)
			}
			pub.Write(ack(packet.TypePubrel, 9))
			pub.ExpectAck(packet.TypePubcomp, 9, packet.CodePacketIdentifierNotFound)
			sub.ExpectNothing()
		}},
		{"151 a Client Identifier that was assigned is the client's: it resumes with it [MQTT-3.1.3-7]", transient5, func(s *scene) {
			c := s.dial(s.here)
			ack := c.Connect(mqtttest.Resume(), mqtttest.Expiry(60))
			if ack.SessionPresent {
				s.Error("session present")
			}
			c.Subscribe(s.topic("a"), 1)
			c.Disconnect()
			s.connect(s.other, "p").Publish(s.topic("a"), "x", 1)
			c = s.dial(s.there)
			if again := c.Connect(mqtttest.ID(ack.AssignedClientID), mqtttest.Resume()); !again.SessionPresent || again.AssignedClientID != "" {
				s.Errorf("CONNACK %+v", again)
			}
			finish(c, c.ExpectPublish(s.topic("a"), "x"))
		}},
	})
}
