package conformance

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// TestMQTT3 has what MQTT 3.1.1 says and the tables for all versions do not
// show; [MQTT-…] are its statements, which are others than those of MQTT 5.
func TestMQTT3(t *testing.T) {
	check(t, []rule{
		{"301 a protocol level that is not spoken: 0x01, and the end [MQTT-3.1.2-2]", transient3, func(s *scene) {
			rest := "\x02\x00\x00" + text(s.id("c"))
			for _, head := range []string{text("MQTT") + "\x03", text("MQTT") + "\x00", text("MQIsdp") + "\x04", text("MQIsdp") + "\x02"} {
				c := s.dial(s.here)
				c.WriteRaw([]byte(raw(0x10, head, rest))...)
				if ack := mqtttest.Expect[*packet.Connack](c); ack.Code != packet.CodeUnsupportedProtocolVersion {
					s.Errorf("%q: CONNACK %s", head, ack.Code)
				}
				c.ExpectClosed()
			}
		}},
		{"302 retained messages are no state of sessions, and outlive them [MQTT-3.1.2-7]", both3, func(s *scene) {
			pub := s.connect(s.here, "p")
			s.keep(pub)
			s.retain(pub, "a", "kept", 1)
			pub.Disconnect()
			s.as(packet.V311).connect(s.there, "p", clean).Disconnect() // a durable session ends too
			s.expectRetained(s.replay(1), map[string]string{"a": "kept"})
		}},
		{"303 no Will of a connection that has none, not even its predecessor's [MQTT-3.1.2-12] [MQTT-3.1.2-10]", both3, func(s *scene) {
			watcher := s.watcher(1)
			for range 2 {
				s.connect(s.here, "c", s.withWill("once", 1, 0)).Close()
				s.expectWill(watcher, "once")
				s.connect(s.there, "c").Close()
			}
			s.connect(s.here, "c", s.withWill("last", 1, 0)).Close()
			s.expectWill(watcher, "last")
			watcher.ExpectNothing()
		}},
		{"304 user name and password are there exactly if their flags say so [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.2-20] [MQTT-3.1.2-21] [MQTT-3.1.2-22] [MQTT-3.1.3-11]", v311 | transient, func(s *scene) {
			id, user, password := text("c"), text("u"), text("p")
			s.refusedFirst(
				bad{raw(0x10, s.head(0x02), id, user), malformed},
				bad{raw(0x10, s.head(0x82), id), malformed},
				bad{raw(0x10, s.head(0x82), id, user, password), malformed},
				bad{raw(0x10, s.head(0xC2), id, user), malformed},
				bad{raw(0x10, s.head(0xC2), id), malformed},
				bad{raw(0x10, s.head(0x42), id, password), malformed},
				bad{raw(0x10, s.head(0x82), id, text("\xED\xA0\x80")), malformed},
				bad{raw(0x10, s.head(0x82), id, text("\x00")), malformed})
			c := s.dial(s.here)
			c.WriteRaw([]byte(raw(0x10, s.head(0xC2), text(s.id("c")), text(""), text("\x00\xFF")))...)
			if ack := mqtttest.Expect[*packet.Connack](c); ack.Code != 0 { // a password is any bytes
				s.Errorf("CONNACK %s", ack.Code)
			}
		}},
		{"305 an empty Client Identifier with Clean Session: a session of its own [MQTT-3.1.3-6]", v311 | transient, func(s *scene) {
			var all []*mqtttest.Client
			for _, n := range append(nodes, nodes...) {
				c := s.dial(n)
				if ack := c.Connect(); ack.SessionPresent {
					s.Error("session present")
				}
				c.Subscribe(s.topic("a"), 1)
				all = append(all, c)
			}
			s.connect(s.here, "p").Publish(s.topic("a"), "x", 1)
			for _, c := range all { // none has taken over another
				finish(c, c.ExpectPublish(s.topic("a"), "x"))
				c.ExpectNothing()
			}
		}},
		{"306 a retained message of QoS 0 discards the one before [MQTT-3.3.1-7]", both3, func(s *scene) {
			pub := s.connect(s.here, "p")
			s.keep(pub)
			for before := packet.QoS1; before <= packet.QoS2; before++ {
				s.retain(pub, "a", "before", before)
				s.retain(pub, "a", "now", 0)
				s.eventually(func() bool { // QoS 0 is not acknowledged
					got := s.replay(1)["a"]
					return got == nil || string(got.Payload) == "now"
				})
			}
		}},
		{"307 subscribing again does not interrupt the flow, whatever the QoS becomes [MQTT-3.8.4-3]", everyVersion | both3, flow},
		{"308 UNSUBSCRIBE compares byte for byte; several filters have one UNSUBACK [MQTT-3.10.4-1] [MQTT-3.10.4-6]", both3, func(s *scene) {
			pub, sub := s.pair()
			filters := []string{s.topic("a"), s.topic("+", "x"), s.topic("A"), s.topic("a", ""), s.topic("ü")}
			for _, f := range filters {
				sub.Subscribe(f, 0)
			}
			sub.Unsubscribe(s.topic("#"), s.topic("b"), s.topic("A", ""), s.topic("u\u0308"), s.topic("", "a"), s.topic("a", "+"))
			for _, name := range []string{s.topic("a"), s.topic("A"), s.topic("a", ""), s.topic("ü"), s.topic("b", "x")} {
				pub.Publish(name, "before", 0)
				sub.ExpectPublish(name, "before")
			}
			sub.Unsubscribe(s.topic("+", "x"), s.topic("none"), s.topic("A"), s.topic("+", "x"))
			for _, name := range []string{s.topic("A"), s.topic("b", "x"), s.topic("a"), s.topic("a", ""), s.topic("ü")} {
				pub.Publish(name, "after", 1)
			}
			for _, name := range []string{s.topic("a"), s.topic("a", ""), s.topic("ü")} {
				sub.ExpectPublish(name, "after")
			}
			sub.ExpectNothing()
		}},
		{"309 a PINGRESP for each PINGREQ, in turn with the rest [MQTT-3.12.4-1]", everyVersion | transient3, func(s *scene) {
			c := s.connect(s.here, "c")
			const pings = 2000
			c.WriteRaw([]byte(strings.Repeat("\xC0\x00", pings))...)
			c.Write(publish(s.topic("a"), "", 1, 7))
			for range pings {
				mqtttest.Expect[*packet.Pingresp](c)
			}
			c.ExpectAck(packet.TypePuback, 7, 0)
			c.ExpectNothing()
		}},
		{"310 what a client sends behind DISCONNECT is not heard [MQTT-3.14.4-2]", every, func(s *scene) {
			_, sub := s.pair()
			sub.Subscribe(s.topic("#"), 1)
			c := s.connect(s.here, "c", s.withWill("discarded", 1, 0))
			c.Write(&packet.Disconnect{}, publish(s.topic("a"), "x", 1, 1), publish(s.topic("a"), "x", 0, 0), &packet.Pingreq{})
			c.ExpectClosed()
			s.connect(s.here, "c").Publish(s.topic("a"), "good", 1)
			finish(sub, sub.ExpectPublish(s.topic("a"), "good"))
			sub.ExpectNothing()
		}},
		{"311 PUBREL in the order of PUBREC, over QoS 1 and reconnects [MQTT-4.6.0-4] [MQTT-4.6.0-6]", every, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 2)
			const count = 12
			var ids []uint16
			for i := range count {
				pub.Publish(s.topic("a"), fmt.Sprint(i), packet.QoS(2-i%2))
				if p := sub.ExpectPublish(s.topic("a"), fmt.Sprint(i)); p.QoS == 2 {
					ids = append(ids, p.PacketID)
				} else {
					finish(sub, p)
				}
			}
			var all []packet.Packet
			for _, id := range ids {
				all = append(all, ack(packet.TypePubrec, id))
			}
			sub.Write(all...)
			for _, id := range ids {
				sub.ExpectAck(packet.TypePubrel, id, 0)
			}
			if s.durable {
				sub.Close()
				sub = s.resume3(s.other, "s")
				for _, id := range ids {
					sub.ExpectAck(packet.TypePubrel, id, 0)
				}
			}
			sub.ExpectNothing()
		}},
		{"312 Topic Names and Filters of 65,535 bytes [MQTT-4.7.3-3], Client Identifier, Will and credentials as long as they may be", v311 | transient | durable, longest},
	})
}

// TestMQTT31 has what is different in MQTT 3.1, which has no numbered
// statements: § are its sections.
func TestMQTT31(t *testing.T) {
	check(t, []rule{
		{"351 an empty Client Identifier is refused, 0x02; more than 23 characters are not (§3.1)", v31 | transient, func(s *scene) {
			for _, options := range [][]mqtttest.Option{nil, {mqtttest.Resume()}} {
				c := s.dial(s.here)
				if ack := c.TryConnect(options...); ack.Code != packet.CodeClientIdentifierNotValid {
					s.Errorf("CONNACK %s", ack.Code)
				}
				c.ExpectClosed()
			}
			for _, length := range []int{23, 24, 1024} {
				s.dial(s.here).Connect(mqtttest.ID(s.long("", length)))
			}
		}},
		{"352 user name and password may be missing in spite of their flags (§3.1)", v31 | transient, func(s *scene) {
			head := func(flags byte) string { return text("MQIsdp") + string([]byte{3, flags, 0, 0}) + text(s.id("c")) }
			for _, body := range []string{head(0xC2), head(0x82), head(0xC2) + text("user"), head(0xC2) + text("user") + text("password")} {
				c := s.dial(s.here)
				c.WriteRaw([]byte(raw(0x10, body))...)
				if ack := mqtttest.Expect[*packet.Connack](c); ack.Code != 0 {
					s.Errorf("CONNACK %s", ack.Code)
				}
				c.Close()
			}
		}},
		{"353 the reserved byte of CONNACK stays 0, although there is a session (§3.2)", v31 | durable, func(s *scene) {
			s.connect(s.here, "c").Disconnect()
			c := s.dial(s.there)
			c.Version = packet.V311 // to see it
			connect := packet.Connect{ClientID: s.id("c")}
			c.WriteRaw(connect.Append(nil, packet.V31)...)
			if ack := mqtttest.Expect[*packet.Connack](c); ack.SessionPresent {
				s.Error("session present")
			}
		}},
		{"354 DUP in PUBREL, SUBSCRIBE and UNSUBSCRIBE: a repeat within the connection is answered again (§2.1, §4.1)", v31 | transient | durable, func(s *scene) {
			pub, sub := s.pair()
			for _, first := range []byte{0x82, 0x8A} {
				sub.WriteRaw([]byte(raw(first, "\x00\x09", text(s.topic("a")), "\x02"))...)
				if ack := mqtttest.Expect[*packet.Suback](sub); ack.PacketID != 9 || !slices.Equal(ack.Codes, []packet.Code{2}) {
					s.Errorf("SUBACK %+v", ack)
				}
			}
			again := publish(s.topic("a"), "x", 2, 7)
			for range 2 {
				pub.Write(again)
				pub.ExpectAck(packet.TypePubrec, 7, 0)
				again.Dup = true
			}
			for _, first := range []byte{0x62, 0x6A, 0x6A} {
				pub.WriteRaw([]byte(raw(first, "\x00\x07"))...)
				pub.ExpectAck(packet.TypePubcomp, 7, 0)
			}
			finish(sub, sub.ExpectPublish(s.topic("a"), "x"))
			for _, first := range []byte{0xA2, 0xAA} {
				sub.WriteRaw([]byte(raw(first, "\x00\x0A", text(s.topic("a"))))...)
				if ack := mqtttest.Expect[*packet.Unsuback](sub); ack.PacketID != 10 {
					s.Errorf("UNSUBACK %+v", ack)
				}
			}
			sub.ExpectNothing()
		}},
		{"355 the rest is as in 3.1.1: each QoS, retained, a Will, takeover, resumption with DUP", v31 | transient | durable, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("+"), 2)
			for qos := packet.QoS0; qos <= packet.QoS2; qos++ {
				pub.Publish(s.topic("a"), "x", qos)
				p := sub.ExpectPublish(s.topic("a"), "x")
				if p.QoS != qos || p.Dup || p.Retain {
					s.Errorf("got %s", mqtttest.Describe(p))
				}
				finish(sub, p)
			}
			s.keep(pub)
			s.retain(pub, "a", "kept", 1)
			s.expectRetained(s.replay(1), map[string]string{"a": "kept"})
			s.connect(s.other, "c", s.withWill("gone", 1, 0)).Close()
			first := sub.ExpectPublish(s.topic("w"), "gone")
			again := s.connect(s.other, "s")
			sub.ExpectClosed()
			if s.durable {
				if p := again.ExpectPublish(s.topic("w"), "gone"); !p.Dup || p.PacketID != first.PacketID {
					s.Errorf("got %s after %s", mqtttest.Describe(p), mqtttest.Describe(first))
				}
			}
			again.ExpectNothing()
		}},
	})
}

// eventually tries until something holds.
func (s *scene) eventually(holds func() bool) {
	s.Helper()
	for range 1000 {
		if holds() {
			return
		}
	}
	s.Fatal("not in time")
}

// resume3 is resume for MQTT 3.1 too, which is not told that the session is there.
func (s *scene) resume3(n *node, name string) *mqtttest.Client {
	s.Helper()
	if s.v == packet.V31 {
		return s.connect(n, name)
	}
	return s.resume(n, name)
}

// flow subscribes again and again while messages come: each comes once.
func flow(s *scene) {
	pub, sub := s.pair()
	sub.AutoAck = true
	sub.Subscribe(s.topic("a"), 1)
	const count, step = 120, 10
	seen := 0
	take := func(p packet.Packet) {
		if p, is := p.(*packet.Publish); is {
			if string(p.Payload) != fmt.Sprint(seen) || p.Dup {
				s.Fatalf("got %s, want %d", mqtttest.Describe(p), seen)
			}
			seen++
		}
	}
	for i := range count {
		pub.Write(publish(s.topic("a"), fmt.Sprint(i), 1, uint16(i+1)))
		if i%step == 0 {
			sub.Write(&packet.Subscribe{PacketID: uint16(i + 1), Subscriptions: []packet.Subscription{{Filter: s.topic("a"), QoS: packet.QoS(1 + i/step%2)}}})
		}
	}
	for i := range count {
		pub.ExpectAck(packet.TypePuback, uint16(i+1), 0)
	}
	for seen < count {
		take(sub.Next())
	}
	for _, p := range sub.Ping() {
		take(p)
	}
	if seen != count {
		s.Errorf("%d of %d messages", seen, count)
	}
}

func longest(s *scene) {
	const most = 65535
	pub := s.connect(s.here, "p")
	sub := s.dial(s.there)
	will := packet.Will{Topic: s.long("w", most), Payload: []byte(strings.Repeat("\xFF", most)), QoS: 1}
	options := append(s.class(), mqtttest.ID(s.long("id", 1024)), func(p *packet.Connect) {
		p.HasUsername, p.Username, p.HasPassword, p.Password = true, strings.Repeat("ü", most/2), true, will.Payload
		p.Will = &will
	})
	sub.Connect(options...)
	names := []string{s.long("a", most), s.long("ü/"+strings.Repeat("x/", 100), most)}
	for i, name := range names {
		sub.Subscribe(name, 2)
		pub.Publish(name, fmt.Sprint(i), packet.QoS(i))
		finish(sub, sub.ExpectPublish(name, fmt.Sprint(i)))
	}
	watcher := s.connect(s.other, "watcher")
	watcher.Subscribe(will.Topic, 1)
	sub.Unsubscribe(names...)
	pub.Publish(names[0], "unheard", 1)
	sub.ExpectNothing()
	sub.Close()
	finish(watcher, watcher.ExpectPublish(will.Topic, string(will.Payload)))
}

// long is a text of this scene alone, of so many bytes.
func (s *scene) long(begin string, bytes int) string {
	begin = s.topic(begin)
	return begin + strings.Repeat("x", bytes-len(begin))
}
