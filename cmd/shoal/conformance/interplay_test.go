package conformance

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// TestInterplay has what no single statement says: rules that meet.
func TestInterplay(t *testing.T) {
	check(t, []rule{
		{"401 a publisher taken over after each step of QoS 2: delivered once, the exchange ends", allDurable, func(s *scene) {
			sub := s.connect(s.there, "s")
			sub.AutoAck = true
			sub.Subscribe(s.topic("a"), 2)
			pub := s.connect(s.here, "p")
			elsewhere := func() { // without a word: the old connection stays open
				old := pub
				pub = s.connect(nodes[scenes.Add(1)%3], "p")
				s.over(old)
			}
			p := publish(s.topic("a"), "x", 2, 9)
			pub.Write(p)
			elsewhere() // PUBREC may or may not have come
			p.Dup = true
			pub.Write(p)
			pub.ExpectAck(packet.TypePubrec, 9, 0)
			elsewhere()
			pub.Write(ack(packet.TypePubrel, 9))
			elsewhere() // nor PUBCOMP
			pub.Write(ack(packet.TypePubrel, 9))
			if got := mqtttest.Expect[*packet.Ack](pub); got.Type != packet.TypePubcomp || got.PacketID != 9 {
				s.Errorf("got %s", mqtttest.Describe(got))
			}
			sub.ExpectPublish(s.topic("a"), "x")
			pub.Publish(s.topic("a"), "y", 2)
			texts := ""
			for texts != "y" {
				if p, is := sub.Next().(*packet.Publish); is {
					texts = string(p.Payload)
					if texts != "y" {
						s.Fatalf("got %s", mqtttest.Describe(p))
					}
				}
			}
		}},
		{"402 a subscriber taken over after each step of QoS 2: the same identifier, no message twice after PUBREC", allDurable, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 2)
			pub.Publish(s.topic("a"), "x", 2)
			elsewhere := func() {
				old := sub
				sub = s.connect(nodes[scenes.Add(1)%3], "s")
				old.ExpectDisconnect(packet.CodeSessionTakenOver)
			}
			first := sub.ExpectPublish(s.topic("a"), "x")
			elsewhere()
			again := sub.ExpectPublish(s.topic("a"), "x")
			if again.PacketID != first.PacketID || !again.Dup {
				s.Errorf("got %s after %s", mqtttest.Describe(again), mqtttest.Describe(first))
			}
			sub.Write(ack(packet.TypePubrec, first.PacketID))
			sub.ExpectAck(packet.TypePubrel, first.PacketID, 0)
			for range 2 {
				elsewhere()
				sub.ExpectAck(packet.TypePubrel, first.PacketID, 0)
			}
			sub.Write(ack(packet.TypePubcomp, first.PacketID))
			pub.Publish(s.topic("a"), "y", 1)
			finish(sub, sub.ExpectPublish(s.topic("a"), "y"))
			sub.ExpectNothing()
		}},
		{"403 resumed with a lower Receive Maximum: the same identifiers, in order, within the new window; PUBREL beside it", durable5, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 2)
			const count = 9
			var ids []uint16
			for i := range count {
				pub.Publish(s.topic("a"), fmt.Sprint(i), packet.QoS(1+i%2))
				ids = append(ids, sub.ExpectPublish(s.topic("a"), fmt.Sprint(i)).PacketID)
			}
			for _, i := range []int{1, 3, 5} {
				sub.Write(ack(packet.TypePubrec, ids[i]))
				sub.ExpectAck(packet.TypePubrel, ids[i], 0)
			}
			sub.Close()
			sub = s.resume(s.other, "s", mqtttest.ReceiveMaximum(2))
			for _, i := range []int{1, 3, 5} {
				sub.ExpectAck(packet.TypePubrel, ids[i], 0)
			}
			sub.ExpectNothing() // three exchanges are more than two
			sub.Write(ack(packet.TypePubcomp, ids[1]))
			sub.ExpectNothing()
			sub.Write(ack(packet.TypePubcomp, ids[3]), ack(packet.TypePubcomp, ids[5]))
			var flight []*packet.Publish
			for _, i := range []int{0, 2, 4, 6, 7, 8} {
				p := sub.ExpectPublish(s.topic("a"), fmt.Sprint(i))
				if p.PacketID != ids[i] || !p.Dup {
					s.Errorf("got %s, want identifier %d", mqtttest.Describe(p), ids[i])
				}
				if flight = append(flight, p); len(flight) == 2 {
					sub.ExpectNothing()
					finish(sub, flight[0])
					flight = flight[1:]
				}
			}
		}},
		{"404 everything at once behind CONNECT: answered in order, up to a second CONNECT", every, func(s *scene) {
			_, sub := s.pair()
			sub.Subscribe(s.topic("a"), 0)
			c := s.dial(s.here)
			connect := &packet.Connect{ClientID: s.id("c"), CleanStart: !s.durable, HasSessionExpiry: s.durable, SessionExpiry: 99, RequestProblemInfo: true}
			c.Write(connect,
				&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: s.topic("b"), QoS: 1}}},
				publish(s.topic("a"), "x", 1, 1), &packet.Unsubscribe{PacketID: 2, Filters: []string{s.topic("b")}}, &packet.Pingreq{})
			mqtttest.Expect[*packet.Connack](c)
			s.expectKinds(c, "SUBACK", "UNSUBACK", "PUBACK", "PINGRESP")
			sub.ExpectPublish(s.topic("a"), "x")
			c.Write(connect, publish(s.topic("a"), "unheard", 0, 0))
			c.ExpectDisconnect(packet.CodeProtocolError)
			sub.ExpectNothing()
		}},
		{"405 many connections with one Client Identifier at once, on all nodes: one is left, and it has the session", every, func(s *scene) {
			const count = 12
			conns := make([]*mqtttest.Conn, count)
			var all sync.WaitGroup
			for i := range conns {
				all.Go(func() {
					c, err := nodes[i%3].dial(s.via, s.v)
					if err != nil {
						return
					}
					connect := packet.Connect{ClientID: s.id("c"), CleanStart: !s.durable, HasSessionExpiry: s.durable, SessionExpiry: 99}
					if ack, err := c.Connect(connect, mqtttest.Timeout); err != nil || ack.Code != 0 {
						c.Close()
						return
					}
					conns[i] = c
				})
			}
			all.Wait()
			last := s.connect(s.here, "c")
			for _, c := range conns {
				if c != nil {
					s.over(mqtttest.New(s, c))
				}
			}
			last.Subscribe(s.topic("a"), 1)
			s.connect(s.there, "p").Publish(s.topic("a"), "x", 2)
			finish(last, last.ExpectPublish(s.topic("a"), "x"))
			last.ExpectNothing()
		}},
		{"406 one Packet Identifier for PUBLISH, SUBSCRIBE and UNSUBSCRIBE at once, and for the server's own messages", every, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 2)
			pub.Publish(s.topic("a"), "x", 2)
			first := sub.ExpectPublish(s.topic("a"), "x")
			id := first.PacketID
			sub.Write(
				&packet.Subscribe{PacketID: id, Subscriptions: []packet.Subscription{{Filter: s.topic("b")}}},
				publish(s.topic("c"), "", 2, id),
				&packet.Unsubscribe{PacketID: id, Filters: []string{s.topic("b")}})
			s.expectKinds(sub, "SUBACK", "PUBREC", "UNSUBACK")
			sub.Write(ack(packet.TypePubrel, id))
			sub.ExpectAck(packet.TypePubcomp, id, 0)
			finish(sub, first)
			pub.Publish(s.topic("b"), "nobody", 1)
			sub.ExpectNothing()
		}},
		{"407 acknowledgements of the wrong kind finish nothing", every, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 2)
			pub.Publish(s.topic("a"), "1", 1)
			pub.Publish(s.topic("a"), "2", 2)
			one, two := sub.ExpectPublish(s.topic("a"), "1"), sub.ExpectPublish(s.topic("a"), "2")
			sub.Write(ack(packet.TypePuback, two.PacketID), ack(packet.TypePubcomp, two.PacketID), ack(packet.TypePubcomp, one.PacketID))
			sub.ExpectNothing()
			if s.durable { // both are still owed
				sub.Close()
				sub = s.resume3(s.other, "s")
				sub.ExpectPublish(s.topic("a"), "1")
				sub.ExpectPublish(s.topic("a"), "2")
			}
			for range 2 { // PUBREC twice: PUBREL twice
				sub.Write(ack(packet.TypePubrec, two.PacketID))
				sub.ExpectAck(packet.TypePubrel, two.PacketID, 0)
			}
			sub.Write(ack(packet.TypePubcomp, two.PacketID), ack(packet.TypePuback, one.PacketID))
			if s.durable {
				s.leave(sub, s.other, s.topic("a"))
				sub = s.resume3(s.there, "s")
				finish(sub, sub.ExpectPublish(s.topic("a"), "marker"))
			}
			sub.ExpectNothing()
		}},
		{"408 PUBREL before PUBREC is one of nothing: answered, and the exchange goes on", every, func(s *scene) {
			sub := s.connect(s.there, "s")
			sub.Subscribe(s.topic("a"), 2)
			pub := s.connect(s.here, "p")
			pub.Write(publish(s.topic("a"), "x", 2, 9), ack(packet.TypePubrel, 9))
			s.expectKinds(pub, "PUBREC", "PUBCOMP")
			pub.Write(ack(packet.TypePubrel, 9))
			if got := mqtttest.Expect[*packet.Ack](pub); got.Type != packet.TypePubcomp || got.PacketID != 9 {
				s.Errorf("got %s", mqtttest.Describe(got)) // PUBREC may have been faster
			}
			pub.Write(ack(packet.TypePubrel, 9))
			pub.ExpectAck(packet.TypePubcomp, 9, s.code5(packet.CodePacketIdentifierNotFound))
			finish(sub, sub.ExpectPublish(s.topic("a"), "x"))
			exchange(pub, publish(s.topic("a"), "y", 2, 9)) // the identifier is free
			finish(sub, sub.ExpectPublish(s.topic("a"), "y"))
			sub.ExpectNothing()
		}},
		{"410 what a client publishes right before DISCONNECT counts, on whatever node", every, func(s *scene) {
			sub := s.connect(s.there, "s")
			sub.Subscribe(s.topic("a"), 1)
			for i, n := range nodes {
				pub := s.connect(n, "p", s.withWill("discarded", 1, 0))
				pub.Write(
					publish(s.topic("a"), fmt.Sprint(i, "-1"), 1, 1), publish(s.topic("a"), fmt.Sprint(i, "-2"), 2, 2),
					publish(s.topic("a"), fmt.Sprint(i, "-3"), 1, 3), &packet.Disconnect{})
				s.over(pub)
				for range 3 {
					p := mqtttest.Expect[*packet.Publish](sub)
					if text := string(p.Payload); text[0] != byte('0'+i) {
						s.Errorf("got %s", mqtttest.Describe(p))
					}
					finish(sub, p)
				}
			}
			sub.ExpectNothing()
		}},
		{"411 a Will without payload, with Will Retain, clears the retained message and is delivered", allTransient, func(s *scene) {
			pub := s.connect(s.here, "p")
			s.keep(pub)
			s.retain(pub, "w", "kept", 1)
			s.expectRetained(s.replay(1), map[string]string{"w": "kept"})
			watcher := s.connect(s.other, "watcher")
			watcher.Subscribe(s.topic("r", "w", "#"), 1)
			watcher.ExpectPublish(s.topic("r", "w"), "kept")
			will := packet.Will{Topic: s.topic("r", "w"), QoS: 1, Retain: true}
			s.connect(s.there, "c", func(p *packet.Connect) { p.Will = &will }).Close()
			if p := watcher.ExpectPublish(will.Topic, ""); p.Retain {
				s.Errorf("got %s", mqtttest.Describe(p))
			}
			s.eventually(func() bool { return s.replay(1)["w"] == nil })
		}},
		{"409 2,000 Topic Filters in one SUBSCRIBE, and in one UNSUBSCRIBE", every5, func(s *scene) {
			pub, sub := s.pair()
			const count = 2000
			subscribe, unsubscribe := packet.Subscribe{}, packet.Unsubscribe{PacketID: 7}
			for i := range count {
				f := s.topic(fmt.Sprint(i))
				subscribe.Subscriptions = append(subscribe.Subscriptions, packet.Subscription{Filter: f, QoS: packet.QoS(i % 3)})
				unsubscribe.Filters = append(unsubscribe.Filters, f)
			}
			codes := sub.SubscribeWith(subscribe)
			for i, code := range codes {
				if code != packet.Code(i%3) {
					s.Fatalf("filter %d: %s", i, code)
				}
			}
			for _, i := range []int{0, 1, 2, count / 2, count - 1} {
				pub.Publish(s.topic(fmt.Sprint(i)), "x", 2)
				p := sub.ExpectPublish(s.topic(fmt.Sprint(i)), "x")
				if p.QoS != packet.QoS(i%3) {
					s.Errorf("got %s", mqtttest.Describe(p))
				}
				finish(sub, p)
			}
			sub.Write(&unsubscribe)
			if ack := mqtttest.Expect[*packet.Unsuback](sub); ack.PacketID != 7 || s.v == packet.V5 && (len(ack.Codes) != count || slices.ContainsFunc(ack.Codes, packet.Code.Failed)) {
				s.Errorf("UNSUBACK with %d codes", len(ack.Codes))
			}
			pub.Publish(s.topic("1"), "x", 1)
			sub.ExpectNothing()
		}},
	})
}

// expectKinds takes packets of these types, in whatever order.
func (s *scene) expectKinds(c *mqtttest.Client, types ...string) {
	s.Helper()
	var got []string
	for range types {
		p := c.Next()
		h, _, _, err := packet.Next(p.Append(nil, s.v), 0)
		if err != nil {
			s.Fatal(err)
		}
		got = append(got, h.Type.String())
	}
	slices.Sort(got)
	slices.Sort(types)
	if !slices.Equal(got, types) {
		s.Errorf("got %v, want %v", got, types)
	}
}

// over takes what an earlier connection still gets, and its end.
func (s *scene) over(c *mqtttest.Client) {
	s.Helper()
	for {
		_, err := c.Receive(mqtttest.Timeout)
		if err == mqtttest.ErrTimeout {
			s.Fatal("an earlier connection is open")
		}
		if err != nil {
			c.Close()
			return
		}
	}
}
