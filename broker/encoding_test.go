package broker_test

import (
	"strings"
	"testing"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// connect5 is CONNECT of MQTT 5 with the client identifier "c".
var connect5 = []byte{0x10, 14, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 0, 0, 0, 1, 'c'}

func with(b []byte, at int, v byte) []byte {
	b = append([]byte(nil), b...)
	b[at] = v
	return b
}

// TestRefusedConnect: what comes in place of a good CONNECT.
func TestRefusedConnect(t *testing.T) {
	n := start(t)
	const none = packet.CodeSuccess // no CONNACK
	for _, c := range []struct {
		rule  string
		bytes []byte
		code  packet.Code
	}{
		{"[MQTT-3.1.0-1] first packet is not CONNECT", []byte{0xC0, 0}, none},
		{"[MQTT-3.1.2-1] protocol name", []byte{0x10, 14, 0, 4, 'M', 'Q', 'T', 'X', 5, 2, 0, 0, 0, 0, 1, 'c'}, none},
		{"[MQTT-3.1.2-2] protocol version", with(connect5, 8, 6), packet.CodeUnsupportedProtocolVersion},
		{"[MQTT-3.1.2-3] reserved flag", with(connect5, 9, 3), packet.CodeMalformedPacket},
		{"[MQTT-3.1.2-11] will QoS without will", with(connect5, 9, 8), packet.CodeMalformedPacket},
		{"[MQTT-3.1.2-12] will QoS 3", with(connect5, 9, 4|24), packet.CodeMalformedPacket},
		{"[MQTT-3.1.4-1] excess bytes", append(with(connect5, 1, 15), 0), packet.CodeMalformedPacket},
		{"[MQTT-2.1.3-1] fixed header flags", with(connect5, 0, 0x11), none},
		{"[MQTT-1.5.4-2] U+0000 in client identifier", with(connect5, 15, 0), packet.CodeMalformedPacket},
		{"[MQTT-1.5.4-1] ill-formed client identifier", with(connect5, 15, 0xFF), packet.CodeMalformedPacket},
		{"reserved packet type", []byte{0x00, 0}, none},
		{"[MQTT-1.5.5-1] remaining length of five bytes", []byte{0x10, 0x80, 0x80, 0x80, 0x80, 1}, none},
	} {
		t.Run(c.rule, func(t *testing.T) {
			cl := mqtttest.DialTest(t, n.addr, packet.V5)
			cl.WriteRaw(c.bytes...)
			if c.code != none {
				if ack := mqtttest.Expect[*packet.Connack](cl); ack.Code != c.code || ack.SessionPresent {
					t.Fatalf("CONNACK %+v, want %s", ack, c.code)
				}
			}
			cl.ExpectClosed()
		})
	}
}

// TestRefusedPacket: what ends a connection that has been accepted
// ([MQTT-4.13.1-1]). In MQTT 3 the connection is closed without a word.
func TestRefusedPacket(t *testing.T) {
	n := start(t)
	for _, c := range []struct {
		rule   string
		bytes  []byte
		bytes3 []byte // of MQTT 3; bytes if nil
		code   packet.Code
	}{
		{"[MQTT-3.1.0-2] second CONNECT", connect5, nil, packet.CodeProtocolError},
		{"[MQTT-3.3.1-4] QoS 3", []byte{0x36, 5, 0, 1, 'a', 0, 1}, nil, packet.CodeMalformedPacket},
		{"[MQTT-3.3.1-2] DUP with QoS 0", []byte{0x38, 4, 0, 1, 'a', 0}, nil, packet.CodeMalformedPacket},
		{"[MQTT-2.2.1-3] PUBLISH with packet id 0", []byte{0x32, 6, 0, 1, 'a', 0, 0, 0}, nil, packet.CodeProtocolError},
		{"[MQTT-2.2.1-3] SUBSCRIBE with packet id 0", []byte{0x82, 7, 0, 0, 0, 0, 1, 'a', 0}, []byte{0x82, 6, 0, 0, 0, 1, 'a', 0}, packet.CodeProtocolError},
		{"[MQTT-3.3.2-2] wildcard in topic name", []byte{0x30, 4, 0, 1, '#', 0}, nil, packet.CodeTopicNameInvalid},
		{"[MQTT-1.5.4-1] ill-formed topic name", []byte{0x30, 6, 0, 3, 0xED, 0xA0, 0x80, 0}, nil, packet.CodeMalformedPacket},
		{"[MQTT-1.5.4-2] U+0000 in topic name", []byte{0x30, 4, 0, 1, 0, 0}, nil, packet.CodeMalformedPacket},
		{"[MQTT-3.6.1-1] PUBREL flags", []byte{0x60, 2, 0, 1}, nil, packet.CodeMalformedPacket},
		{"[MQTT-3.8.1-1] SUBSCRIBE flags", []byte{0x80, 7, 0, 1, 0, 0, 1, 'a', 0}, []byte{0x80, 6, 0, 1, 0, 1, 'a', 0}, packet.CodeMalformedPacket},
		{"[MQTT-3.10.1-1] UNSUBSCRIBE flags", []byte{0xA0, 6, 0, 1, 0, 0, 1, 'a'}, []byte{0xA0, 5, 0, 1, 0, 1, 'a'}, packet.CodeMalformedPacket},
		{"[MQTT-3.8.3-2] SUBSCRIBE without filter", []byte{0x82, 3, 0, 1, 0}, []byte{0x82, 2, 0, 1}, packet.CodeProtocolError},
		{"[MQTT-3.10.3-2] UNSUBSCRIBE without filter", []byte{0xA2, 3, 0, 1, 0}, []byte{0xA2, 2, 0, 1}, packet.CodeProtocolError},
		{"[MQTT-3.8.3-1] truncated filter", []byte{0x82, 6, 0, 1, 0, 0, 9, 'a'}, []byte{0x82, 5, 0, 1, 0, 9, 'a'}, packet.CodeMalformedPacket},
		{"[MQTT-3.8.3-5] reserved subscription options", []byte{0x82, 7, 0, 1, 0, 0, 1, 'a', 0xC0}, []byte{0x82, 6, 0, 1, 0, 1, 'a', 0xC0}, packet.CodeMalformedPacket},
		{"[MQTT-3.14.1-1] DISCONNECT flags", []byte{0xE1, 0}, nil, packet.CodeMalformedPacket},
		{"PINGREQ with a body", []byte{0xC0, 1, 0}, nil, packet.CodeMalformedPacket},
		{"packet of a server", []byte{0xD0, 0}, nil, packet.CodeProtocolError},
		{"SUBACK from a client", []byte{0x90, 4, 0, 1, 0, 0}, []byte{0x90, 3, 0, 1, 0}, packet.CodeProtocolError},
	} {
		for _, v := range []packet.Version{packet.V311, packet.V5} {
			t.Run(v.String()+" "+c.rule, func(t *testing.T) {
				cl := mqtttest.DialTest(t, n.addr, v)
				cl.Connect(mqtttest.ID("c" + t.Name()))
				if v == packet.V5 || c.bytes3 == nil {
					cl.WriteRaw(c.bytes...)
				} else {
					cl.WriteRaw(c.bytes3...)
				}
				cl.ExpectDisconnect(c.code)
			})
		}
	}
}

// TestRefusedProperty: what only MQTT 5 can get wrong.
func TestRefusedProperty(t *testing.T) {
	n := start(t, func(c *broker.Config) { c.TopicAliasMaximum = 3 })
	for _, c := range []struct {
		rule  string
		bytes []byte
		code  packet.Code
	}{
		{"[MQTT-1.5.5-1] remaining length is padded", []byte{0xC0, 0x80, 0}, packet.CodeMalformedPacket},
		{"[MQTT-2.2.2-1] no property length", []byte{0x82, 6, 0, 1, 0, 1, 'a', 0}, packet.CodeMalformedPacket},
		{"[MQTT-4.13.1-1] property of another packet", []byte{0x30, 6, 0, 1, 'a', 2, 0x24, 1}, packet.CodeProtocolError},
		{"property twice", []byte{0x30, 8, 0, 1, 'a', 4, 1, 0, 1, 0}, packet.CodeProtocolError},
		{"[MQTT-3.3.2-4] payload format indicator 2", []byte{0x30, 6, 0, 1, 'a', 2, 1, 2}, packet.CodeMalformedPacket},
		{"[MQTT-3.3.2-8] topic alias 0", []byte{0x30, 7, 0, 1, 'a', 3, 0x23, 0, 0}, packet.CodeTopicAliasInvalid},
		{"[MQTT-3.3.2-9] topic alias above the maximum", []byte{0x30, 7, 0, 1, 'a', 3, 0x23, 0, 4}, packet.CodeTopicAliasInvalid},
		{"topic alias without topic name", []byte{0x30, 6, 0, 0, 3, 0x23, 0, 1}, packet.CodeProtocolError},
		{"neither topic name nor alias (3.3.2.1)", []byte{0x30, 3, 0, 0, 0}, packet.CodeProtocolError},
		{"[MQTT-3.3.4-6] subscription identifier", []byte{0x30, 6, 0, 1, 'a', 2, 0x0B, 1}, packet.CodeProtocolError},
		{"[MQTT-3.3.2-14] wildcard in response topic", []byte{0x30, 8, 0, 1, 'a', 4, 8, 0, 1, '#'}, packet.CodeProtocolError},
		{"subscription identifier 0 in SUBSCRIBE", []byte{0x82, 9, 0, 1, 2, 0x0B, 0, 0, 1, 'a', 0}, packet.CodeProtocolError},
		{"retain handling 3", []byte{0x82, 7, 0, 1, 0, 0, 1, 'a', 0x30}, packet.CodeProtocolError},
		{"[MQTT-3.8.3-4] no local on a shared subscription", append([]byte{0x82, 16, 0, 1, 0, 0, 10}, "$share/g/a\x04"...), packet.CodeProtocolError},
		{"[MQTT-3.4.2-1] reason code of PUBACK", []byte{0x40, 3, 0, 1, 0x92}, packet.CodeProtocolError},
		{"[MQTT-4.12.0-7] AUTH without authentication method", []byte{0xF0, 0}, packet.CodeProtocolError},
		{"DISCONNECT with session expiry after 0", []byte{0xE0, 7, 0, 5, 0x11, 0, 0, 0, 1}, packet.CodeProtocolError},
		{"DISCONNECT with a reason code of servers", []byte{0xE0, 1, 0x8E}, packet.CodeProtocolError},
	} {
		t.Run(c.rule, func(t *testing.T) {
			cl := mqtttest.DialTest(t, n.addr, packet.V5)
			cl.Connect(mqtttest.ID("c"))
			cl.WriteRaw(c.bytes...)
			got := mqtttest.Expect[*packet.Disconnect](cl)
			// Both words fit some of these: the codec decides which.
			if got.Code != c.code && (got.Code != packet.CodeMalformedPacket || c.code != packet.CodeProtocolError) {
				t.Fatalf("DISCONNECT %s (%s), want %s", got.Code, got.ReasonString, c.code)
			}
			cl.ExpectClosed()
		})
	}
}

// TestPacketTooLarge: a packet above the announced Maximum Packet Size is
// refused before it is there.
func TestPacketTooLarge(t *testing.T) {
	n := start(t, func(c *broker.Config) { c.MaxPacketBytes = 1000 })
	c := n.connect(packet.V5, "c")
	c.WriteRaw(0x30, 0xE8, 0x07) // 1,000 and a header
	c.ExpectDisconnect(packet.CodePacketTooLarge)
	c = n.connect(packet.V5, "c")
	c.Subscribe("a", 0)
	payload := strings.Repeat("x", 1000-7)
	c.Publish("a", payload, 0)
	c.Write(&packet.Pingreq{})
	c.ExpectPublish("a", payload)
}

// TestByteOrderMark: [MQTT-1.5.4-3].
func TestByteOrderMark(t *testing.T) {
	versions(t, func(t *testing.T, n *node, v packet.Version) {
		c := n.connect(v, "c")
		c.Subscribe("+", 0)
		c.Publish("\uFEFFa", "x", 0)
		c.ExpectPublish("\uFEFFa", "x")
	})
}

// TestSplitPackets: packets may come in any pieces.
func TestSplitPackets(t *testing.T) {
	versions(t, func(t *testing.T, n *node, v packet.Version) {
		c := n.connect(v, "c")
		c.Subscribe("a/b", 1)
		var b []byte
		for _, text := range []string{"one", strings.Repeat("two", 30000), "three"} {
			p := packet.Publish{Topic: []byte("a/b"), Payload: []byte(text), QoS: 1, PacketID: 1}
			b = p.Append(b, v)
		}
		go func() {
			for _, one := range b[:30] {
				c.SendRaw([]byte{one})
			}
			c.SendRaw(b[30:])
		}()
		got := 0
		for acks := 0; got < 3 || acks < 3; {
			switch c.Next().(type) {
			case *packet.Publish:
				got++ // not acknowledged: that would come between the pieces
			case *packet.Ack:
				acks++
			}
		}
	})
}
