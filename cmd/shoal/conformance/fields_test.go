package conformance

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// longText is the longText string, or Binary Data, that MQTT can write.
var longText = strings.Repeat("ü", 32767) + "x"

// accepted sends a CONNECT of these flags and payload, which must be a success.
func (s *scene) accepted(flags byte, payload ...string) *mqtttest.Client {
	s.Helper()
	c := s.dial(s.here)
	c.WriteRaw([]byte(raw(0x10, append([]string{s.head(flags)}, payload...)...))...)
	p, err := c.Receive(mqtttest.Timeout)
	if err != nil {
		s.Fatalf("connect: %v", err)
	}
	if ack, is := p.(*packet.Connack); !is || ack.Code != packet.CodeSuccess {
		s.Fatalf("flags %02x, %.50q: %s", flags, payload, mqtttest.Describe(p))
	}
	return c
}

// TestFields is about the fields that packets are made of.
func TestFields(t *testing.T) {
	check(t, []rule{
		{"127 User Name and Password are there exactly if their flags say so [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.3-12]", allTransient, func(s *scene) {
			id := text(s.id("c"))
			s.refusedFirst(
				bad{raw(0x10, s.head(0x02), id, text("user")), malformed},
				bad{raw(0x10, s.head(0x82), id), malformed},
				bad{raw(0x10, s.head(0x82), id, text("user"), text("password")), malformed},
				bad{raw(0x10, s.head(0xC2), id, text("user")), malformed},
				bad{raw(0x10, s.head(0xC2), id, text("user"), "\x00\x09pass"), malformed},
				bad{raw(0x10, s.head(0x82), id, text("\xFF")), malformed},
				bad{raw(0x10, s.head(0x82), id, text("\xED\xA0\x80")), malformed})
			s.accepted(0x82, id, text("user"))
			s.accepted(0xC2, id, text("user"), text("\x00\xFF binary"))
			s.accepted(0xC2, id, text(""), text(""))
			alone := raw(0x10, s.head(0x42), id, text("password"))
			if s.v == packet.V5 {
				s.accepted(0x42, id, text("password"))
			} else { // MQTT 3.1.1 [MQTT-3.1.2-22]
				s.refusedFirst(bad{alone, malformed})
			}
		}},
		{"128 strings of properties are UTF-8 [MQTT-3.3.2-19]", transient5, func(s *scene) {
			const ill = "\xC0\x80"
			var list []bad
			for _, p := range []string{"\x03", "\x08"} { // Content Type, Response Topic
				list = append(list, bad{raw(0x30, s.target(), s.props(p+text(ill))), malformed})
				s.refusedFirst(bad{raw(0x10, s.head(6), text(s.id("c")), s.props(p+text(ill)), text(s.topic("w")), text("")), malformed})
			}
			for _, first := range []byte{0x40, 0x50, 0x62, 0x70} { // Reason String
				list = append(list, bad{raw(first, "\x00\x01\x00", s.props("\x1F"+text(ill))), malformed})
			}
			list = append(list, bad{raw(0xE0, "\x00", s.props("\x1F"+text(ill))), malformed})
			s.refused(list...)
			s.refusedFirst(bad{raw(0x10, s.head(2, "\x15"+text(ill)), text(s.id("c"))), malformed})
		}},
		{"129 packet types that are reserved (2.1.2)", allTransient, func(s *scene) {
			list := []bad{{raw(0x00), malformed}, {raw(0x0F, "x"), malformed}}
			if s.v != packet.V5 {
				list = append(list, bad{raw(0xF0), malformed}) // AUTH is MQTT 5's
			}
			s.refused(list...)
		}},
		{"130 strings of no and of 65,535 bytes [MQTT-4.7.3-3]", every, func(s *scene) {
			pub, sub := s.pair()
			name := (s.topic("") + strings.Repeat("n", 65535))[:65535]
			sub.Subscribe(name, 2)
			for qos := packet.QoS0; qos <= packet.QoS2; qos++ {
				pub.Publish(name, "x", qos)
				finish(sub, sub.ExpectPublish(name, "x"))
			}
			if codes := sub.Unsubscribe(name); len(codes) > 0 && codes[0] != 0 {
				s.Errorf("UNSUBACK %s", codes[0])
			}
			s.accepted(0xC2, text(s.id("c")), text(longText), text(longText))
			if s.v == packet.V5 {
				unaltered(s, packet.MessageProperties{
					HasContentType: true, ContentType: longText, ResponseTopic: strings.Repeat("r", 65535), CorrelationData: []byte(longText),
					UserProperties: []packet.UserProperty{{Key: longText, Value: longText}, {Key: "", Value: ""}},
				})
			}
		}},
		{"131 the payload of CONNECT: Client Identifier, Will, User Name, Password [MQTT-3.1.3-1] [MQTT-3.1.3-3]", every, func(s *scene) {
			watcher := s.watcher(1)
			c := s.accepted(0xEE&^0x20, text(s.id("c")), s.props(), text(s.topic("w")), text(longText), text("user"), text("password"))
			c.Close()
			s.expectWill(watcher, longText)
		}},
		{"132 Client Identifiers are told apart byte by byte [MQTT-3.1.3-2]", every, func(s *scene) {
			names := []string{"c", "C", "c ", "\u00e9", "e\u0301", "\uFEFFc"}
			for round := range 2 {
				clients := make([]*mqtttest.Client, len(names))
				for i, name := range names {
					c, ack := s.open(nodes[(round+i)%3], name)
					if clients[i] = c; ack.SessionPresent != (round == 1 && s.durable) {
						s.Errorf("round %d, %q: session present %t", round, name, ack.SessionPresent)
					}
				}
				for _, c := range clients {
					c.ExpectNothing()
					c.Disconnect()
				}
			}
		}},
		{"135 nothing larger than the client's Maximum Packet Size, whatever it is [MQTT-3.1.2-24] [MQTT-3.2.2-19] [MQTT-3.14.2-3]", transient5, smallPackets},
	})
}

// smallPackets connects with every small Maximum Packet Size. A client that
// cannot be told what it has to know is not served.
func smallPackets(s *scene) {
	served := false
	for limit := uint32(1); limit <= 40; limit++ {
		c := s.dial(s.here)
		check := func(p packet.Packet) {
			if size := len(p.Append(nil, packet.V5)); size > int(limit) {
				s.Errorf("%d bytes for a client that takes %d: %s", size, limit, mqtttest.Describe(p))
			}
		}
		c.Write(&packet.Connect{ClientID: s.id("c"), CleanStart: true, MaximumPacketSize: limit, RequestProblemInfo: true})
		p, err := c.Receive(mqtttest.Timeout)
		if err == nil {
			check(p)
		}
		if ack, _ := p.(*packet.Connack); ack == nil || ack.Code.Failed() {
			if ack != nil && ack.Code != packet.CodePacketTooLarge || served {
				s.Errorf("limit %d: %v, %v", limit, p, err)
			}
			c.ExpectClosed()
			continue
		}
		served = true
		c.Write(ack(packet.TypePubrel, 5), &packet.Pingreq{})
		check(c.Next())
		check(c.Next())
		var all packet.Subscribe // its SUBACK cannot be sent
		for i := range 40 {
			all.Subscriptions = append(all.Subscriptions, packet.Subscription{Filter: s.topic(fmt.Sprint(i))})
		}
		all.PacketID = 1
		c.Write(&all)
		end := mqtttest.Expect[*packet.Disconnect](c)
		if check(end); end.Code != packet.CodePacketTooLarge {
			s.Errorf("limit %d: %s", limit, mqtttest.Describe(end))
		}
		c.ExpectClosed()
	}
	if !served {
		s.Error("no client was served")
	}
	// The server's own limit is on the whole packet: Remaining Length and all.
	c, connack := s.open(s.here, "c")
	most := int(connack.MaximumPacketSize)
	head := binary.AppendUvarint([]byte{0x32}, uint64(most-4)) // whose length has three bytes
	body := text(s.topic("a")) + "\x00\x01" + "\x00"
	c.WriteRaw(append(append(head, body...), make([]byte, most-4-len(body))...)...)
	c.ExpectAck(packet.TypePuback, 1, 0)
}
