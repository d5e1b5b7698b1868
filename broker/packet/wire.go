package packet

import (
	"encoding/binary"
	"unicode/utf8"
)

// reader takes a body apart. The first failure stays; after it every read
// returns zero, so that a Decode checks once, at its end.
type reader struct {
	rest   []byte
	packet Type
	err    *Error
	ps     properties // see there
}

// newReader returns a reader of a body after checking that its header is one of
// a packet of type t.
func newReader(t Type, h Header, body []byte, v Version) reader {
	r := reader{rest: body, packet: t}
	if h.Type != t {
		r.protocol("packet is a " + h.Type.String())
	} else if e := h.check(v); e != nil {
		r.fail(e)
	}
	return r
}

func (r *reader) fail(e *Error) {
	if r.err == nil {
		r.err = e
	}
	r.rest = nil
}

func (r *reader) malformed(reason string) { r.fail(malformed(r.packet, reason)) }
func (r *reader) protocol(reason string)  { r.fail(protocolError(r.packet, reason)) }

// end returns the failure, one of them being bytes left over.
func (r *reader) end() error {
	if len(r.rest) > 0 {
		r.malformed("bytes after the end of the packet")
	}
	return r.failed()
}

func (r *reader) failed() error {
	if r.err != nil {
		return r.err
	}
	return nil
}

// take returns the next n bytes.
func (r *reader) take(n int, what string) []byte {
	if n > len(r.rest) {
		r.malformed(what + " is cut short")
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte(what string) byte {
	if b := r.take(1, what); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16(what string) uint16 {
	if b := r.take(2, what); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32(what string) uint32 {
	if b := r.take(4, what); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// varint reads a Variable Byte Integer, which must be minimal [MQTT-1.5.5-1].
func (r *reader) varint(what string) uint32 {
	value, size := varint(r.rest)
	switch {
	case size == 0:
		r.malformed(what + " is cut short")
	case size < 0:
		r.malformed(what + " has more than four bytes")
	case size != varintSize(value):
		r.malformed(what + " is longer than needed")
	default:
		r.rest = r.rest[size:]
		return value
	}
	return 0
}

// binary reads Binary Data (MQTT 5 §1.5.6).
func (r *reader) binary(what string) []byte {
	return r.take(int(r.uint16(what)), what)
}

// text reads a UTF-8 Encoded String and checks it (MQTT 5 §1.5.4).
func (r *reader) text(what string) []byte {
	b := r.binary(what)
	if !ValidUTF8(b) {
		r.malformed(what + " is not valid UTF-8")
		return nil
	}
	return b
}

// packetID reads a Packet Identifier, which is never 0 [MQTT-2.2.1-3].
func (r *reader) packetID() uint16 {
	id := r.uint16("packet identifier")
	if id == 0 {
		r.protocol("packet identifier is 0")
	}
	return id
}

// code reads a Reason Code that packets of this type can carry.
func (r *reader) code() Code {
	c := Code(r.byte("reason code"))
	if r.err == nil && !c.In(r.packet) {
		r.protocol("reason code is not one of this packet")
	}
	return c
}

// openPacket starts a packet behind dst with one byte for its length, which
// closeLength puts there.
func openPacket(dst []byte, t Type, flags byte) []byte {
	return append(dst, byte(t)<<4|flags, 0)
}

// closePacket ends the packet that openPacket started at dst[start:]. A packet
// beyond what its length can count is taken back.
func closePacket(dst []byte, start int) []byte {
	if len(dst)-start-2 > MaxVarint {
		return dst[:start]
	}
	return closeLength(dst, start+1)
}

// closeLength counts what follows dst[at] and writes the length there, moving
// what follows if the length takes more than the one byte kept for it.
func closeLength(dst []byte, at int) []byte {
	length := len(dst) - at - 1
	if more := varintSize(uint32(length)) - 1; more > 0 {
		dst = append(dst, make([]byte, more)...)
		copy(dst[at+1+more:], dst[at+1:at+1+length])
	}
	appendVarint(dst[:at], uint32(length))
	return dst
}

// appendText writes a UTF-8 Encoded String. What does not fit is cut off, so
// that no fault of a caller can put the peer out of step; what came from the
// wire always fits.
func appendText(dst []byte, s string) []byte {
	if len(s) > MaxStringBytes {
		end := MaxStringBytes
		for end > 0 && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end]
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
	return append(dst, s...)
}

// appendBinary writes Binary Data, cut like a text.
func appendBinary(dst, b []byte) []byte {
	b = b[:min(len(b), MaxStringBytes)]
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(b)))
	return append(dst, b...)
}

// fits reports whether n bytes are within a Maximum Packet Size, 0 meaning none.
func fits(n int, max uint32) bool {
	return max == 0 || uint64(n) <= uint64(max)
}

// appendFit appends a packet so that it takes no more than max bytes: without
// its User Properties if it is larger with them, then without its Reason String
// too. If even that is too large it appends nothing. reason and user are fields
// of p.
func appendFit(dst []byte, v Version, max uint32, p Packet, reason *string, user *[]UserProperty) []byte {
	start := len(dst)
	for {
		dst = p.Append(dst[:start], v)
		switch {
		case fits(len(dst)-start, max):
			return dst
		case len(*user) > 0:
			*user = nil
		case *reason != "":
			*reason = ""
		default:
			return dst[:start]
		}
	}
}
