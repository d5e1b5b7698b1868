package conformance

import (
	"fmt"
	"slices"
	"testing"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

func TestSubscribe(t *testing.T) {
	check(t, []rule{
		{"114 SUBACK and UNSUBACK carry the identifier, also when nothing was deleted (0x11) [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.11.3-2]", every, func(s *scene) {
			c := s.connect(s.there, "c")
			c.Subscribe(s.topic("a"), 1) // compares the identifiers
			codes := c.Unsubscribe(s.topic("a"), s.topic("b"))
			if s.v == packet.V5 && !slices.Equal(codes, []packet.Code{0, packet.CodeNoSubscriptionExisted}) {
				s.Errorf("codes %v", codes)
			}
			codes = c.Unsubscribe(s.topic("a"))
			if s.v == packet.V5 && !slices.Equal(codes, []packet.Code{packet.CodeNoSubscriptionExisted}) {
				s.Errorf("codes %v", codes)
			}
		}},
		{"115 an identical filter replaces the subscription, options and identifier, without loss [MQTT-3.8.4-3] [MQTT-3.8.4-4]", every5, func(s *scene) {
			pub, sub := s.pair()
			for id := uint32(1); id <= 4; id++ {
				sub.SubscribeWith(packet.Subscribe{SubscriptionID: id % 4, Subscriptions: []packet.Subscription{{Filter: s.topic("a"), QoS: packet.QoS(id % 3)}}})
				pub.Publish(s.topic("a"), "x", 2)
				p := sub.ExpectPublish(s.topic("a"), "x")
				want := []uint32{id}
				if id == 4 {
					want = nil
				}
				if !slices.Equal(p.SubscriptionIDs, want) || p.QoS != packet.QoS(id%3) {
					s.Errorf("%d: got %+v", id, p)
				}
				finish(sub, p)
			}
			sub.ExpectNothing()
		}},
		{"116 one code for each filter, in order [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1]", every, func(s *scene) {
			pub, sub := s.pair()
			bad, one, two := packet.CodeTopicFilterInvalid, s.topic("#", "b"), s.topic("c+")
			if s.v != packet.V5 { // those would end the connection; we share, and these name no group
				bad, one, two = packet.CodeUnspecifiedError, "$share//b", "$share/c"
			}
			codes := sub.SubscribeAll(
				packet.Subscription{Filter: s.topic("a"), QoS: 2}, packet.Subscription{Filter: one, QoS: 1},
				packet.Subscription{Filter: s.topic("b"), QoS: 0}, packet.Subscription{Filter: two}, packet.Subscription{Filter: s.topic("d"), QoS: 1})
			if want := []packet.Code{2, bad, 0, bad, 1}; !slices.Equal(codes, want) {
				s.Errorf("codes %v, want %v", codes, want)
			}
			for _, name := range []string{"a", "b", "d"} {
				pub.Publish(s.topic(name), name, 0)
				sub.ExpectPublish(s.topic(name), name)
			}
		}},
		{"153 the same filter twice in a packet: as if one came after the other [MQTT-3.8.4-5] [MQTT-3.10.4-6]", every5, func(s *scene) {
			pub, sub := s.pair()
			f := s.topic("a")
			codes := sub.SubscribeAll(packet.Subscription{Filter: f, QoS: 2}, packet.Subscription{Filter: s.topic("b"), QoS: 1}, packet.Subscription{Filter: f, QoS: 1})
			if want := []packet.Code{2, 1, 1}; !slices.Equal(codes, want) {
				s.Errorf("codes %v, want %v", codes, want)
			}
			pub.Publish(f, "x", 2)
			p := sub.ExpectPublish(f, "x")
			if p.QoS != 1 {
				s.Errorf("got %s", mqtttest.Describe(p))
			}
			finish(sub, p)
			sub.ExpectNothing()
			codes = sub.Unsubscribe(f, s.topic("b"), f)
			if want := []packet.Code{0, 0, packet.CodeNoSubscriptionExisted}; !slices.Equal(codes, want) {
				s.Errorf("codes %v, want %v", codes, want)
			}
			pub.Publish(f, "y", 1)
			sub.ExpectNothing()
		}},
		{"117 No Local by Client Identifier, over nodes and resumed sessions [MQTT-3.8.3-3]", every5, noLocal},
		{"119 overlapping subscriptions: one copy, the highest QoS, all identifiers [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4]", every5, func(s *scene) {
			pub, sub := s.pair()
			filters := []string{s.topic("a", "b"), s.topic("+", "b"), s.topic("#"), s.topic("a", "#"), s.topic("other")}
			for highest := range filters {
				for i, f := range filters {
					qos := packet.QoS(i % 2)
					if i == highest {
						qos = 2
					}
					sub.SubscribeWith(packet.Subscribe{SubscriptionID: uint32(i + 1), Subscriptions: []packet.Subscription{{Filter: f, QoS: qos}}})
				}
				for qos := packet.QoS0; qos <= packet.QoS2; qos++ {
					pub.Publish(s.topic("a", "b"), "x", qos)
					p := sub.ExpectPublish(s.topic("a", "b"), "x")
					slices.Sort(p.SubscriptionIDs)
					want := qos
					if highest == len(filters)-1 { // which does not match
						want = min(qos, 1)
					}
					if !slices.Equal(p.SubscriptionIDs, []uint32{1, 2, 3, 4}) || p.QoS != want {
						s.Errorf("got %+v, want QoS %d", p, want)
					}
					finish(sub, p)
				}
			}
			sub.ExpectNothing()
		}},
		{"119 overlapping subscriptions of MQTT 3.1.1: one copy at the highest QoS [MQTT-3.3.5-1]", v311 | transient | durable, func(s *scene) {
			pub, sub := s.pair()
			for i, f := range []string{s.topic("a"), s.topic("+"), s.topic("#")} {
				sub.Subscribe(f, packet.QoS(i))
			}
			pub.Publish(s.topic("a"), "x", 2)
			p := sub.ExpectPublish(s.topic("a"), "x")
			if p.QoS != 2 {
				s.Errorf("got %s", mqtttest.Describe(p))
			}
			finish(sub, p)
			sub.ExpectNothing()
		}},
		{"121 UNSUBSCRIBE stops new messages and completes what was started [MQTT-3.10.4-2] [MQTT-3.10.4-3]", every, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("+"), 2)
			sub.Subscribe(s.topic("b"), 1)
			pub.Publish(s.topic("a"), "1", 1)
			pub.Publish(s.topic("a"), "2", 2)
			one, two := sub.ExpectPublish(s.topic("a"), "1"), sub.ExpectPublish(s.topic("a"), "2")
			sub.Unsubscribe(s.topic("+"))
			pub.Publish(s.topic("a"), "3", 1)
			pub.Publish(s.topic("b"), "4", 0)
			sub.ExpectPublish(s.topic("b"), "4")
			finish(sub, one)
			finish(sub, two)
			sub.ExpectNothing()
		}},
		{"137 UNSUBSCRIBE takes the filter of the same bytes and no other [MQTT-3.10.4-1]", every5, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a", "+"), 1)
			for _, f := range []string{s.topic("a", "b"), s.topic("a", "#"), s.topic("#"), s.topic("A", "+"), s.topic("a", "+", ""), s.topic("a", "", "+"), s.shared("a/+")} {
				if codes := sub.Unsubscribe(f); codes[0] != packet.CodeNoSubscriptionExisted {
					s.Errorf("%q: %s", f, codes[0])
				}
			}
			pub.Publish(s.topic("a", "b"), "x", 1)
			finish(sub, sub.ExpectPublish(s.topic("a", "b"), "x"))
			sub.Unsubscribe(s.topic("a", "+"))
			pub.Publish(s.topic("a", "b"), "y", 1)
			sub.ExpectNothing()
		}},
		{"122 placement of # and + [MQTT-4.7.1-1] [MQTT-4.7.1-2]", every | v31, func(s *scene) {
			for i, filter := range []string{"a#", "#/a", "a/#/b", "+a", "a+", "a/+b/c", "##", "++", "ab/+e"} {
				s.expectNoFilter(fmt.Sprint("c", i), filter)
			}
			c := s.connect(s.there, "c")
			for _, filter := range []string{s.topic("+", "+"), s.topic("#"), s.topic("+", "a", "#")} {
				if codes := c.SubscribeAll(packet.Subscription{Filter: filter}); codes[0].Failed() {
					s.Errorf("%q: code %s", filter, codes[0])
				}
			}
		}},
		{"123 wildcards at the start do not match $ [MQTT-4.7.2-1]", every, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe("+/"+s.name, 0) // of all the cluster's topics ours alone
			sub.Subscribe("+/"+s.name+"/#", 0)
			for _, name := range []string{"$SYS/", "$x/", "$/"} {
				for qos := packet.QoS0; qos <= packet.QoS2; qos++ {
					pub.Publish(name+s.name, "no", qos)
				}
			}
			pub.Publish("x/"+s.name, "yes", 0)
			sub.ExpectPublish("x/"+s.name, "yes")
			sub.Subscribe("$x/"+s.name+"/#", 1)
			pub.Publish("$x/"+s.name, "asked for", 1)
			finish(sub, sub.ExpectPublish("$x/"+s.name, "asked for"))
			sub.ExpectNothing()
		}},
		{"124 topics are taken as they are: //, case, spaces, at least one character [MQTT-4.7.3-1] [MQTT-4.7.3-4]", every, func(s *scene) {
			pub, sub := s.pair()
			for _, c := range []struct {
				filter  string
				yes, no []string
			}{
				{s.topic("", "b"), []string{s.topic("", "b")}, []string{s.topic("b"), s.topic("", "", "b")}},
				{s.topic("+", "b"), []string{s.topic("", "b"), s.topic(" ", "b")}, []string{s.topic("b"), s.topic("a", "B")}},
				{"/" + s.name, []string{"/" + s.name}, []string{s.name, "//" + s.name}},
				{s.topic("A b"), []string{s.topic("A b")}, []string{s.topic("a b"), s.topic("A  b"), s.topic("A b ")}},
				{s.topic("x", "#"), []string{s.topic("x"), s.topic("x", ""), s.topic("x", "y", "z")}, []string{s.topic("xy"), s.topic("X")}},
				{s.topic("x", ""), []string{s.topic("x", "")}, []string{s.topic("x")}},
			} {
				sub.Subscribe(c.filter, 1)
				for _, name := range append(c.no, c.yes...) {
					pub.Publish(name, name, 1)
				}
				for _, name := range c.yes {
					finish(sub, sub.ExpectPublish(name, name))
				}
				sub.ExpectNothing()
				sub.Unsubscribe(c.filter)
			}
		}},
		{"125 the form of a share name [MQTT-4.8.2-1] [MQTT-4.8.2-2]", every, func(s *scene) {
			c, connack := s.open(s.there, "c")
			for _, filter := range []string{"$share/", "$share//a", "$share/g", "$share/g/"} {
				if codes := c.SubscribeAll(packet.Subscription{Filter: filter}); !codes[0].Failed() {
					s.Errorf("%q: code %s", filter, codes[0])
				}
			}
			s.expectNoFilter("plus", "$share/g+/a")
			s.expectNoFilter("hash", "$share/#/a")
			if codes := c.SubscribeAll(packet.Subscription{Filter: "$share/g/" + s.topic("a")}); codes[0].Failed() != connack.SharedUnavailable && s.v == packet.V5 {
				s.Errorf("code %s, shared subscriptions unavailable: %t", codes[0], connack.SharedUnavailable)
			}
		}},
	})
}

// expectNoFilter expects that SUBSCRIBE and UNSUBSCRIBE with what is no Topic Filter
// end the connection, or, in MQTT 5, are answered with 0x8F.
func (s *scene) expectNoFilter(client, filter string) {
	s.Helper()
	for _, p := range []packet.Packet{
		&packet.Subscribe{PacketID: 9, Subscriptions: []packet.Subscription{{Filter: filter}}},
		&packet.Unsubscribe{PacketID: 9, Filters: []string{filter}},
	} {
		c := s.connect(s.there, client)
		c.Write(p)
		if s.v != packet.V5 {
			c.ExpectClosed()
			continue
		}
		var codes []packet.Code
		if _, ok := p.(*packet.Subscribe); ok {
			codes = mqtttest.Expect[*packet.Suback](c).Codes
		} else {
			codes = mqtttest.Expect[*packet.Unsuback](c).Codes
		}
		if !slices.Equal(codes, []packet.Code{packet.CodeTopicFilterInvalid}) {
			s.Errorf("%q: codes %v", filter, codes)
		}
		c.Close()
	}
}

func noLocal(s *scene) {
	c, other := s.connect(s.there, "c"), s.connect(s.here, "other")
	subscribe := func(id uint32, filter string, qos packet.QoS, noLocal bool) {
		c.SubscribeWith(packet.Subscribe{SubscriptionID: id, Subscriptions: []packet.Subscription{{Filter: filter, QoS: qos, NoLocal: noLocal}}})
	}
	heard := func(text string, qos packet.QoS, ids ...uint32) {
		s.Helper()
		p := c.ExpectPublish(s.topic("a"), text)
		slices.Sort(p.SubscriptionIDs)
		if p.QoS != qos || !slices.Equal(p.SubscriptionIDs, ids) {
			s.Errorf("got %+v, want QoS %d and identifiers %v", p, qos, ids)
		}
		finish(c, p)
	}
	subscribe(1, s.topic("a"), 2, true)
	for qos := packet.QoS0; qos <= packet.QoS2; qos++ {
		c.Publish(s.topic("a"), "mine", qos)
		c.ExpectNothing()
		other.Publish(s.topic("a"), "theirs", qos)
		heard("theirs", qos, 1)
	}
	if s.durable { // the same client elsewhere
		s.leave(c, s.there, s.topic("a"))
		c = s.resume(s.other, "c")
		heard("marker", 1, 1)
		c.Publish(s.topic("a"), "mine", 1)
		c.Publish(s.topic("a"), "mine", 2)
		c.ExpectNothing()
	}
	// An overlapping subscription without No Local still brings it.
	subscribe(2, s.topic("+"), 0, false)
	c.Publish(s.topic("a"), "mine", 0)
	heard("mine", 0, 2)
	other.Publish(s.topic("a"), "theirs", 2)
	heard("theirs", 2, 1, 2)
	c.ExpectNothing()
}
