package packet

import "fmt"

// Type is a Control Packet type (MQTT 5 §2.1.2).
type Type byte

// The Control Packet types. TypeAuth exists in MQTT 5 only.
const (
	TypeConnect Type = iota + 1
	TypeConnack
	TypePublish
	TypePuback
	TypePubrec
	TypePubrel
	TypePubcomp
	TypeSubscribe
	TypeSuback
	TypeUnsubscribe
	TypeUnsuback
	TypePingreq
	TypePingresp
	TypeDisconnect
	TypeAuth
)

var typeNames = [16]string{
	"RESERVED", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
	"SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
}

// String returns the type as the specification writes it, like "PUBLISH".
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("Type(%d)", byte(t))
}

// FromClient reports whether a client may send packets of this type.
func (t Type) FromClient() bool {
	switch t {
	case TypeConnect, TypePublish, TypePuback, TypePubrec, TypePubrel, TypePubcomp,
		TypeSubscribe, TypeUnsubscribe, TypePingreq, TypeDisconnect, TypeAuth:
		return true
	}
	return false
}

// Version is a protocol level as CONNECT carries it.
type Version byte

// The versions spoken here.
const (
	V31  Version = 3 // MQTT 3.1, protocol name MQIsdp
	V311 Version = 4 // MQTT 3.1.1
	V5   Version = 5 // MQTT 5.0
)

// String returns the version's customary name, like "3.1.1".
func (v Version) String() string {
	switch v {
	case V31:
		return "3.1"
	case V311:
		return "3.1.1"
	case V5:
		return "5"
	}
	return fmt.Sprintf("Version(%d)", byte(v))
}

// QoS is a Quality of Service level.
type QoS byte

// The levels (MQTT 5 §4.3).
const (
	QoS0 QoS = iota // at most once
	QoS1            // at least once
	QoS2            // exactly once
)

// Header is what the first byte of a Control Packet says.
type Header struct {
	Type  Type
	Flags byte // the lower four bits

	// padded: the Remaining Length took more bytes than it needs, which MQTT 5
	// forbids [MQTT-1.5.5-1] and MQTT 3 does not.
	padded bool
}

// Flags of the fixed header. Those of PUBLISH, and the only other ones ever set:
// PUBREL, SUBSCRIBE and UNSUBSCRIBE carry what was QoS 1 in MQTT 3.1.
const (
	flagRetain   = 0x01
	flagReserved = 0x02
	flagDup      = 0x08
)

// check compares the flags with those that version v allows [MQTT-2.1.3-1].
// Version 0 stands for one not known yet: what no version allows is refused.
func (h Header) check(v Version) *Error {
	want := byte(0)
	switch h.Type {
	case TypePublish:
		if e := checkPublishFlags(h.Flags); e != nil {
			return e
		}
		want = h.Flags
	case TypePubrel, TypeSubscribe, TypeUnsubscribe:
		want = flagReserved
		if v == V31 || v == 0 {
			want |= h.Flags & flagDup // MQTT 3.1 marks their repetitions (3.1 §2.1)
		}
	case 0:
		return malformed(h.Type, "packet type 0 is reserved")
	case TypeAuth:
		if v == V31 || v == V311 {
			return malformed(h.Type, "packet type 15 is reserved before MQTT 5")
		}
	}
	if h.Flags != want {
		return malformed(h.Type, "reserved flags in the fixed header")
	}
	if h.padded && v == V5 {
		return malformed(h.Type, "remaining length is longer than needed")
	}
	return nil
}

func checkPublishFlags(flags byte) *Error {
	switch qos := QoS(flags >> 1 & 3); {
	case qos > QoS2: // [MQTT-3.3.1-4]
		return malformed(TypePublish, "QoS 3")
	case qos == QoS0 && flags&flagDup != 0: // [MQTT-3.3.1-2]
		return malformed(TypePublish, "DUP with QoS 0")
	}
	return nil
}

// Next takes the first Control Packet from buf: its header, its body, which
// aliases buf, and the n bytes it takes in all. n is 0 without an error if buf
// does not hold the whole packet yet; Needed tells how much is missing.
//
// A first byte that starts no Control Packet and a malformed Remaining Length
// are refused as soon as they can be seen, and so is a packet of more than max
// bytes, with CodePacketTooLarge. max ≤ 0 means MaxPacketBytes.
func Next(buf []byte, max int) (h Header, body []byte, n int, err error) {
	if len(buf) == 0 {
		return h, nil, 0, nil
	}
	h.Type, h.Flags = Type(buf[0]>>4), buf[0]&0x0f
	if e := h.check(0); e != nil {
		return h, nil, 0, e
	}
	length, size := varint(buf[1:])
	switch {
	case size < 0:
		return h, nil, 0, malformed(h.Type, "remaining length has more than four bytes")
	case size == 0:
		return h, nil, 0, nil
	}
	n = 1 + size + int(length)
	if max > 0 && n > max {
		return h, nil, 0, &Error{Code: CodePacketTooLarge, Packet: h.Type, Reason: "larger than the maximum packet size"}
	}
	if n > len(buf) {
		return h, nil, 0, nil
	}
	h.padded = size != varintSize(length)
	return h, buf[1+size : n : n], n, nil
}

// Needed returns how many bytes buf has to hold for Next to get on: the size of
// the packet once its Remaining Length is there, else one byte more.
func Needed(buf []byte) int {
	if len(buf) > 1 {
		if length, size := varint(buf[1:]); size > 0 {
			return 1 + size + int(length)
		}
	}
	return len(buf) + 1
}
