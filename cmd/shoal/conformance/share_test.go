package conformance

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// shared is the filter of the scene's group.
func (s *scene) shared(topic string) string { return "$share/" + s.name + "/" + s.topic(topic) }

// member connects a client and makes it a member of the group for a topic.
func (s *scene) member(n *node, name, topic string, qos packet.QoS, options ...mqtttest.Option) *mqtttest.Client {
	s.Helper()
	c := s.connect(n, name, options...)
	c.Subscribe(s.shared(topic), qos)
	return c
}

// expectTurns publishes 80 messages about 80 topics to members on these nodes, and
// expects that they get as many as each other.
func (s *scene) expectTurns(on ...*node) {
	s.Helper()
	pub := s.connect(s.here, "p")
	for qos := range packet.QoS(2) {
		group := fmt.Sprint("q", qos)
		members := make([]*mqtttest.Client, len(on))
		for i, n := range on {
			members[i] = s.member(n, fmt.Sprint(group, "m", i), group+"/+", qos)
			members[i].AutoAck = true
		}
		const messages = 80
		for i := range messages {
			pub.Publish(s.topic(group, fmt.Sprint(i)), fmt.Sprint(i), qos)
		}
		got, all := make([]int, len(members)), 0
		for end := time.Now().Add(patience); all < messages && time.Now().Before(end); {
			for i, m := range members {
				for _, p := range m.Ping() {
					if _, ok := p.(*packet.Publish); ok {
						got[i]++
						all++
					}
				}
			}
		}
		if all != messages || slices.Max(got)-slices.Min(got) > 1 {
			s.Errorf("QoS %d: members got %v of %d", qos, got, messages)
		}
		for _, m := range members {
			m.Unsubscribe(s.shared(group + "/+"))
		}
	}
}

func TestShared(t *testing.T) {
	check(t, []rule{
		{"125 each message goes to one member, at the QoS of its subscription [MQTT-4.8.2-3]", every, func(s *scene) {
			pub := s.connect(s.here, "p")
			members := make([]*mqtttest.Client, 3)
			for i := range members {
				members[i] = s.member(nodes[i], fmt.Sprint("m", i), "a", packet.QoS(i))
				members[i].AutoAck = true
			}
			const messages = 30
			for i := range messages {
				pub.Publish(s.topic("a"), fmt.Sprint(i), 2)
			}
			seen := map[string]int{}
			for len(seen) < messages {
				for i, m := range members {
					for _, p := range m.Ping() {
						p, ok := p.(*packet.Publish)
						if !ok {
							continue
						}
						if p.QoS != packet.QoS(i) || p.Retain {
							s.Errorf("member %d got %s", i, mqtttest.Describe(p))
						}
						if seen[string(p.Payload)]++; seen[string(p.Payload)] > 1 {
							s.Fatalf("%s came twice", p.Payload)
						}
					}
				}
			}
		}},
		{"125 two members on one node take turns (4.8.2)", every, func(s *scene) {
			s.expectTurns(s.there, s.there)
		}},
		{"125 four members on one node take turns (4.8.2)", every, func(s *scene) {
			s.expectTurns(s.here, s.here, s.here, s.here)
		}},
		{"125 members on several nodes take turns (4.8.2)", every, func(s *scene) {
			s.expectTurns(s.here, s.there, s.other, s.there)
		}},
		{"154 identifiers and Retain As Published of a shared subscription are the member's [MQTT-3.3.4-3] [MQTT-3.3.1-13] (4.8.2)", every5, func(s *scene) {
			pub, m := s.pair()
			for i, f := range []string{s.shared("r/+"), "$share/second-" + s.name + "/" + s.topic("r", "#")} {
				m.SubscribeWith(packet.Subscribe{SubscriptionID: uint32(7 + i), Subscriptions: []packet.Subscription{{Filter: f, QoS: 1, RetainAsPublished: i == 0}}})
			}
			s.retain(pub, "a", "x", 1)
			var ids []uint32
			for range 2 { // a copy for each group
				p := m.ExpectPublish(s.topic("r", "a"), "x")
				if len(p.SubscriptionIDs) != 1 || p.Retain != (p.SubscriptionIDs[0] == 7) {
					s.Errorf("got %+v", p)
				}
				ids = append(ids, p.SubscriptionIDs...)
				finish(m, p)
			}
			if slices.Sort(ids); !slices.Equal(ids, []uint32{7, 8}) {
				s.Errorf("identifiers %v", ids)
			}
			m.ExpectNothing()
		}},
		{"126 QoS 2 that was sent stays with its member; QoS 1 may go to another when the member is gone [MQTT-4.8.2-4] [MQTT-4.8.2-5]", every, func(s *scene) {
			pub := s.connect(s.here, "p")
			first := s.member(s.there, "first", "a", 2)
			pub.Publish(s.topic("a"), "once", 2)
			pub.Publish(s.topic("a"), "again", 1)
			once := first.ExpectPublish(s.topic("a"), "once")
			again := first.ExpectPublish(s.topic("a"), "again")
			second := s.member(s.other, "second", "a", 2)
			first.Close()
			if s.durable { // both are state of its session
				first = s.resume(s.here, "first")
				for _, p := range []*packet.Publish{once, again} {
					if got := first.ExpectPublish(s.topic("a"), string(p.Payload)); !got.Dup || got.PacketID != p.PacketID {
						s.Errorf("got %s", mqtttest.Describe(got))
					}
				}
				finish(first, once)
				finish(first, again)
				first.ExpectNothing()
				second.ExpectNothing()
				return
			}
			finish(second, second.ExpectPublish(s.topic("a"), "again"))
			pub.Publish(s.topic("a"), "next", 2)
			finish(second, second.ExpectPublish(s.topic("a"), "next"))
			second.ExpectNothing()
		}},
		{"126 what a member refuses goes to no other [MQTT-4.8.2-6]", every5, func(s *scene) {
			pub := s.connect(s.here, "p")
			first := s.member(s.there, "first", "a", 2)
			for i, qos := range []packet.QoS{1, 2} {
				pub.Publish(s.topic("a"), "refused", qos)
				p := first.ExpectPublish(s.topic("a"), "refused")
				first.Write(&packet.Ack{Type: [2]packet.Type{packet.TypePuback, packet.TypePubrec}[i], PacketID: p.PacketID, Code: packet.CodeImplementationSpecificError})
			}
			first.ExpectNothing()
			second := s.member(s.other, "second", "a", 2)
			if codes := first.Unsubscribe(s.shared("a")); codes[0].Failed() {
				s.Errorf("UNSUBACK %s", codes[0])
			}
			pub.Publish(s.topic("a"), "next", 1)
			finish(second, second.ExpectPublish(s.topic("a"), "next"))
			second.ExpectNothing()
			first.ExpectNothing()
		}},
		{"073 a shared subscription gets no retained messages (4.8.2)", every, func(s *scene) {
			pub := s.connect(s.here, "p")
			s.retain(pub, "a", "kept", 1)
			m := s.connect(s.there, "m")
			m.Subscribe("$share/"+s.name+"/"+s.topic("r", "a"), 1)
			pub.Publish(s.topic("r", "a"), "live", 1)
			finish(m, m.ExpectPublish(s.topic("r", "a"), "live"))
			m.ExpectNothing()
		}},
		{"119 a shared subscription and one of the client's own bring a copy each (4.8.2)", every, func(s *scene) {
			pub := s.connect(s.here, "p")
			m := s.member(s.there, "m", "a", 1)
			m.Subscribe(s.topic("a"), 1)
			pub.Publish(s.topic("a"), "x", 1)
			finish(m, m.ExpectPublish(s.topic("a"), "x"))
			finish(m, m.ExpectPublish(s.topic("a"), "x"))
			m.Unsubscribe(s.shared("a"))
			pub.Publish(s.topic("a"), "y", 1)
			finish(m, m.ExpectPublish(s.topic("a"), "y"))
			m.ExpectNothing()
		}},
	})
}
