package conformance

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

const (
	malformed = packet.CodeMalformedPacket
	protocol  = packet.CodeProtocolError
	// silence: the connection is closed without a word.
	silence = packet.CodeSuccess
)

// bad is a packet that ends its connection.
type bad struct {
	packet string
	code   packet.Code
}

// raw is a packet of a first byte and a body; text and props are parts of one.
func raw(first byte, body ...string) string {
	all := strings.Join(body, "")
	return string(binary.AppendUvarint([]byte{first}, uint64(len(all)))) + all
}

func text(s string) string { return string(binary.BigEndian.AppendUint16(nil, uint16(len(s)))) + s }

// target is the topic of the packets that must not get through.
func (s *scene) target() string { return text(s.topic("a")) }

// props are properties, which MQTT 3.1.1 does not have.
func (s *scene) props(list ...string) string {
	if s.v != packet.V5 {
		return ""
	}
	all := strings.Join(list, "")
	return string(binary.AppendUvarint(nil, uint64(len(all)))) + all
}

// head is CONNECT from the protocol's name to the properties.
func (s *scene) head(flags byte, properties ...string) string {
	return text("MQTT") + string([]byte{byte(s.v), flags, 0, 0}) + s.props(properties...)
}

// refused sends each packet to a connection that has been accepted. It ends with
// the code, on whatever the packet is about nothing happens, and the client can
// come back.
func (s *scene) refused(list ...bad) {
	s.Helper()
	pub, sub := s.pair()
	sub.Subscribe(s.topic("a"), 1)
	for i, b := range list {
		c := s.connect(s.here, "c")
		c.WriteRaw([]byte(b.packet)...)
		if s.v == packet.V5 {
			// Both words fit some packets: the codec decides which.
			p := mqtttest.Expect[*packet.Disconnect](c)
			if p.Code != b.code && (b.code != protocol || p.Code != malformed) {
				s.Fatalf("packet %d, %q: %s, want %s", i, b.packet, mqtttest.Describe(p), b.code)
			}
		}
		c.ExpectClosed()
	}
	pub.Publish(s.topic("a"), "good", 1)
	finish(sub, sub.ExpectPublish(s.topic("a"), "good"))
	sub.ExpectNothing()
	s.connect(s.other, "c").ExpectNothing()
}

// refusedFirst sends each packet as the first one of a connection.
func (s *scene) refusedFirst(list ...bad) {
	s.Helper()
	for i, b := range list {
		c := s.dial(s.here)
		c.WriteRaw([]byte(b.packet)...)
		if p, err := c.Receive(mqtttest.Timeout); err == nil {
			ack, ok := p.(*packet.Connack)
			if !ok || ack.SessionPresent || ack.Code != b.code && (b.code != protocol || ack.Code != malformed) {
				s.Fatalf("packet %d, %q: %s, want %s", i, b.packet, mqtttest.Describe(p), b.code)
			}
		} else if s.v == packet.V5 && b.code != silence {
			s.Fatalf("packet %d, %q: %v, want %s", i, b.packet, err, b.code)
		} else {
			continue
		}
		c.ExpectClosed()
	}
}

func TestEncoding(t *testing.T) {
	const id = "\x00\x01"
	check(t, []rule{
		{"001 ill-formed UTF-8 [MQTT-1.5.4-1]", allTransient, func(s *scene) {
			for _, bytes := range []string{"\xED\xA0\x80", "\xED\xBF\xBF", "\xC0\x80", "\xE2\x82", "\xF4\x90\x80\x80", "\xFF"} {
				s.refused(
					bad{raw(0x30, text("a"+bytes), s.props()), malformed},
					bad{raw(0x82, id, s.props(), text("a"+bytes), "\x00"), malformed},
					bad{raw(0xA2, id, s.props(), text("a"+bytes)), malformed})
				s.refusedFirst(bad{raw(0x10, s.head(2), text(bytes)), malformed})
			}
		}},
		{"002 U+0000 in any string [MQTT-1.5.4-2]", allTransient, func(s *scene) {
			s.refused(
				bad{raw(0x30, text("a\x00"), s.props()), malformed},
				bad{raw(0x82, id, s.props(), text("\x00"), "\x00"), malformed},
				bad{raw(0xA2, id, s.props(), text("a\x00b")), malformed})
			s.refusedFirst(
				bad{raw(0x10, s.head(2), text("a\x00")), malformed},
				bad{raw(0x10, s.head(0x82), text("c"), text("\x00")), malformed})
			if s.v == packet.V5 {
				s.refused(bad{raw(0x30, s.target(), s.props("\x26"+text("\x00")+text("v"))), malformed})
			}
		}},
		{"003 EF BB BF is kept, in topics too [MQTT-1.5.4-3]", every, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("+"), 1)
			pub.Publish(s.topic("\uFEFFa"), "x", 1)
			sub.ExpectPublish(s.topic("\uFEFFa"), "x")
		}},
		{"004 a variable byte integer is minimal and has four bytes at most [MQTT-1.5.5-1]", transient5, func(s *scene) {
			s.refused(
				bad{"\xC0\x80\x00", malformed},
				bad{"\x30\x80\x80\x80\x80\x01", malformed},
				bad{raw(0x30, s.target(), "\x80\x00"), malformed},
				bad{raw(0x82, id, s.props("\x0B\x81\x00"), text("a"), "\x00"), malformed})
		}},
		{"005 both strings of a User Property are valid [MQTT-1.5.7-1]", transient5, func(s *scene) {
			s.refused(
				bad{raw(0x30, s.target(), s.props("\x26"+text("\xFF")+text("v"))), malformed},
				bad{raw(0x30, s.target(), s.props("\x26"+text("k")+text("\xC0\x80"))), malformed},
				bad{raw(0x82, id, s.props("\x26"+text("k")+text("\x00")), text("a"), "\x00"), malformed})
		}},
		{"006 reserved flags of every packet type [MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1]", allTransient, func(s *scene) {
			var list []bad
			for _, first := range []byte{0x41, 0x48, 0x52, 0x60, 0x63, 0x74} {
				list = append(list, bad{raw(first, id), malformed})
			}
			for _, first := range []byte{0x80, 0x83, 0x8A} {
				list = append(list, bad{raw(first, id, s.props(), text("a"), "\x00"), malformed})
			}
			list = append(list, bad{raw(0xA0, id, s.props(), text("a")), malformed})
			for _, first := range []byte{0xC1, 0xE2, 0x01} {
				list = append(list, bad{raw(first), malformed})
			}
			s.refused(list...)
		}},
		{"007 no Packet Identifier at QoS 0 [MQTT-2.2.1-2]", every, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 2)
			pub.WriteRaw([]byte(raw(0x30, text(s.topic("a")), s.props(), "\x00\x07x"))...)
			sub.ExpectPublish(s.topic("a"), "\x00\x07x")
		}},
		{"008 Packet Identifier 0 [MQTT-2.2.1-3]", allTransient, func(s *scene) {
			s.refused(
				bad{raw(0x32, s.target(), "\x00\x00", s.props()), protocol},
				bad{raw(0x34, s.target(), "\x00\x00", s.props()), protocol},
				bad{raw(0x82, "\x00\x00", s.props(), text("a"), "\x00"), protocol},
				bad{raw(0xA2, "\x00\x00", s.props(), text("a")), protocol})
		}},
		{"009 the property length is there, zero if none [MQTT-2.2.2-1]", transient5, func(s *scene) {
			s.refused(
				bad{raw(0x30, s.target()), malformed},
				bad{raw(0x30, s.target(), "\x02\x01"), malformed},
				bad{raw(0x82, id, text("a"), "\x00"), malformed})
		}},
		{"010 the first packet is CONNECT [MQTT-3.1.0-1]", allTransient, func(s *scene) {
			_, sub := s.pair()
			sub.Subscribe(s.topic("a"), 0)
			s.refusedFirst(
				bad{raw(0xC0), silence},
				bad{raw(0x30, text(s.topic("a")), s.props()), silence},
				bad{raw(0x82, id, s.props(), text("a"), "\x00"), silence},
				bad{raw(0xE0), silence},
				bad{"GET / HTTP/1.1\r\n\r\n", silence})
			sub.ExpectNothing()
		}},
		{"011 a second CONNECT [MQTT-3.1.0-2]", allTransient, func(s *scene) {
			s.refused(bad{raw(0x10, s.head(2), text(s.id("c"))), protocol})
		}},
		{"012 wrong protocol name or version [MQTT-3.1.2-1] [MQTT-3.1.2-2]", allTransient, func(s *scene) {
			rest := "\x02\x00\x00" + s.props() + text("c")
			unsupported := packet.CodeUnsupportedProtocolVersion
			for _, head := range []string{text("MQTX") + "\x05", text("mqtt") + "\x04", text("MQTT") + "\x06", text("MQTT") + "\x03", text("MQTT") + "\x00", text("MQIsdp") + "\x04"} {
				c := s.dial(s.here)
				c.WriteRaw([]byte(raw(0x10, head, rest))...)
				// In which version it is answered, if at all, is the server's choice.
				if p, err := c.Receive(mqtttest.Timeout); err == nil {
					if ack, ok := p.(*packet.Connack); !ok || ack.Code != unsupported {
						s.Errorf("%q: %s", head, mqtttest.Describe(p))
					}
				}
				c.Close()
			}
		}},
		{"013 the reserved flag of CONNECT [MQTT-3.1.2-3]", allTransient, func(s *scene) {
			s.refusedFirst(bad{raw(0x10, s.head(3), text("c")), malformed})
		}},
		{"014 CONNECT matches its format [MQTT-3.1.4-1]", allTransient, func(s *scene) {
			s.refusedFirst(
				bad{raw(0x10, s.head(2), text("c"), "x"), malformed},
				bad{raw(0x10, s.head(2), text("c"), text("user")), malformed},
				bad{raw(0x10, s.head(0x82), text("c")), malformed},
				bad{raw(0x10, s.head(2)), malformed},
				bad{raw(0x10, s.head(6), text("c"), s.props(), text("w")), malformed},
				// will flag 0, yet QoS or retain; QoS 3 (rules 56 and 57)
				bad{raw(0x10, s.head(0x0A), text("c")), malformed},
				bad{raw(0x10, s.head(0x22), text("c")), malformed},
				bad{raw(0x10, s.head(0x1E), text("c"), s.props(), text("w"), text("")), malformed})
		}},
		{"015 QoS 3 [MQTT-3.3.1-4]; DUP with QoS 0 (068) [MQTT-3.3.1-2]", allTransient, func(s *scene) {
			s.refused(
				bad{raw(0x36, s.target(), id, s.props()), malformed},
				bad{raw(0x38, s.target(), s.props()), malformed})
		}},
		{"017 reserved bits of the subscription options, retain handling 3, QoS 3 [MQTT-3.8.3-5]", allTransient, func(s *scene) {
			list := []bad{
				{raw(0x82, id, s.props(), text("a"), "\x40"), malformed},
				{raw(0x82, id, s.props(), text("a"), "\x80"), malformed},
				{raw(0x82, id, s.props(), text("a"), "\x03"), protocol},
				{raw(0x82, id, s.props(), text("a"), "\x30"), protocol},
			}
			if s.v == packet.V311 {
				list = append(list, bad{raw(0x82, id, text("a"), "\x04"), malformed})
			}
			s.refused(list...)
		}},
		{"018 reserved bits of DISCONNECT and AUTH [MQTT-3.14.1-1] [MQTT-3.15.1-1]", transient5, func(s *scene) {
			s.refused(bad{raw(0xE1), malformed}, bad{raw(0xF1), malformed}, bad{raw(0xE8, "\x00"), malformed})
		}},
		{"019 a property not allowed for the packet, unknown, or twice [MQTT-4.13.1-1]", transient5, func(s *scene) {
			s.refused(
				bad{raw(0x30, s.target(), s.props("\x24\x01")), protocol},
				bad{raw(0x30, s.target(), s.props("\x04\x00")), malformed},
				bad{raw(0x30, s.target(), s.props("\x01\x00\x01\x00")), protocol},
				bad{raw(0x82, id, s.props("\x1F"+text("r")), text("a"), "\x00"), protocol},
				bad{raw(0xE0, "\x00", s.props("\x11\x00\x00\x00\x00\x11\x00\x00\x00\x00")), protocol},
				bad{raw(0xE0, "\x8E"), protocol})
			s.refusedFirst(
				bad{raw(0x10, s.head(2, "\x21\x00\x01\x21\x00\x01"), text("c")), protocol},
				bad{raw(0x10, s.head(2, "\x21\x00\x00"), text("c")), protocol},
				bad{raw(0x10, s.head(2, "\x27\x00\x00\x00\x00"), text("c")), protocol},
				bad{raw(0x10, s.head(2, "\x17\x02"), text("c")), protocol},
				bad{raw(0x10, s.head(2, "\x18\x00\x00\x00\x01"), text("c")), protocol})
		}},
		{"020 what only servers send [MQTT-4.13.2-1]", allTransient, func(s *scene) {
			s.refused(
				bad{raw(0x20, "\x00\x00", s.props()), protocol},
				bad{raw(0x90, id, s.props(), "\x00"), protocol},
				bad{raw(0xB0, id, s.props(), "\x00"[:number(s.v == packet.V5)]), protocol},
				bad{raw(0xD0), protocol})
		}},
		{"064 a Will Topic is valid UTF-8 [MQTT-3.1.3-11]", allTransient, func(s *scene) {
			s.refusedFirst(bad{raw(0x10, s.head(6), text("c"), s.props(), text("\xFF"), text("")), malformed})
		}},
		{"076 no wildcards in a Topic Name [MQTT-3.3.2-2]; 124: not empty [MQTT-4.7.3-1]", allTransient, func(s *scene) {
			invalid := packet.CodeTopicNameInvalid
			s.refused(
				bad{raw(0x30, text("a/#"), s.props()), invalid},
				bad{raw(0x32, text("+/x"), id, s.props()), invalid},
				bad{raw(0x34, text("a/+/x"), id, s.props()), invalid},
				bad{raw(0x30, text(""), s.props()), protocol})
		}},
		{"081 Topic Alias 0 [MQTT-3.3.2-8]; 089: an empty Topic Name without alias", transient5, func(s *scene) {
			s.refused(
				bad{raw(0x30, s.target(), s.props("\x23\x00\x00")), packet.CodeTopicAliasInvalid},
				bad{raw(0x30, text(""), s.props()), protocol},
				bad{raw(0x30, text(""), s.props("\x23\x00\x01")), protocol})
		}},
		{"085 Response Topic: UTF-8, no wildcards, not empty [MQTT-3.3.2-13] [MQTT-3.3.2-14]; 077: Payload Format Indicator 2", transient5, func(s *scene) {
			s.refused(
				bad{raw(0x30, s.target(), s.props("\x08"+text("r/#"))), protocol},
				bad{raw(0x30, s.target(), s.props("\x08"+text("+"))), protocol},
				bad{raw(0x30, s.target(), s.props("\x08"+text(""))), protocol},
				bad{raw(0x30, s.target(), s.props("\x08"+text("\xFF"))), malformed},
				bad{raw(0x30, s.target(), s.props("\x01\x02")), protocol})
		}},
		{"088 a Subscription Identifier from a client [MQTT-3.3.4-6]", transient5, func(s *scene) {
			s.refused(
				bad{raw(0x30, s.target(), s.props("\x0B\x01")), protocol},
				bad{raw(0x32, s.target(), id, s.props("\x0B\x01")), protocol})
		}},
		{"110 unknown Reason Codes in acknowledgements [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]", transient5, func(s *scene) {
			s.refused(
				bad{raw(0x40, id, "\x92"), protocol}, bad{raw(0x50, id, "\x01"), protocol},
				bad{raw(0x62, id, "\x80"), protocol}, bad{raw(0x70, id, "\x10"), protocol})
		}},
		{"113 at least one filter, valid and whole [MQTT-3.8.3-1] [MQTT-3.8.3-2] [MQTT-3.10.3-1] [MQTT-3.10.3-2]", allTransient, func(s *scene) {
			s.refused(
				bad{raw(0x82, id, s.props()), protocol},
				bad{raw(0xA2, id, s.props()), protocol},
				bad{raw(0x82, id, s.props(), "\x00\x09a"), malformed},
				bad{raw(0x82, id, s.props(), text("a")), malformed},
				bad{raw(0xA2, id, s.props(), "\x00\x02a"), malformed},
				bad{raw(0x82, id, s.props(), text(""), "\x00"), malformed},
				bad{raw(0x82, "\x00"), malformed})
		}},
		{"118 No Local on a shared subscription [MQTT-3.8.3-4]", transient5, func(s *scene) {
			s.refused(bad{raw(0x82, id, s.props(), text("$share/g/a"), "\x04"), protocol})
		}},
		{"120 Subscription Identifier 0, or twice", transient5, func(s *scene) {
			s.refused(
				bad{raw(0x82, id, s.props("\x0B\x00"), s.target(), "\x00"), protocol},
				bad{raw(0x82, id, s.props("\x0B\x01\x0B\x02"), s.target(), "\x00"), protocol})
		}},
		{"090 the other way: a packet above the Maximum Packet Size of the server: 0x95, before it is there", transient5, func(s *scene) {
			c, connack := s.open(s.here, "c")
			if connack.MaximumPacketSize == 0 {
				s.Skip("none")
			}
			c.WriteRaw(binary.AppendUvarint([]byte{0x30}, uint64(connack.MaximumPacketSize))...)
			c.ExpectDisconnect(packet.CodePacketTooLarge)
		}},
	})
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}
