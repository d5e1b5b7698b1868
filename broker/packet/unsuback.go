package packet

import "encoding/binary"

// Unsuback is UNSUBACK (MQTT 5 §3.11).
type Unsuback struct {
	PacketID uint16

	// What follows exists in MQTT 5 only.

	// Codes has one for each Topic Filter, in order [MQTT-3.11.3-1].
	Codes          []Code
	ReasonString   string // empty for none
	UserProperties []UserProperty
}

// Decode fills p.
func (p *Unsuback) Decode(h Header, body []byte, v Version) error {
	*p = Unsuback{}
	r := newReader(TypeUnsuback, h, body, v)
	p.PacketID = r.packetID()
	if v == V5 {
		p.ReasonString, p.UserProperties = decodeReason(&r)
		p.Codes = decodeCodes(&r)
	}
	return r.end()
}

// Append writes the packet.
func (p *Unsuback) Append(dst []byte, v Version) []byte {
	start := len(dst)
	dst = openPacket(dst, TypeUnsuback, 0)
	dst = binary.BigEndian.AppendUint16(dst, p.PacketID)
	if v == V5 {
		dst = appendReason(dst, p.ReasonString, p.UserProperties)
		for _, c := range p.Codes {
			dst = append(dst, byte(c.fitting(TypeUnsuback)))
		}
	}
	return closePacket(dst, start)
}

// AppendLimit is like Connack.AppendLimit ([MQTT-3.11.2-1], [MQTT-3.11.2-2]).
func (p *Unsuback) AppendLimit(dst []byte, v Version, max uint32) []byte {
	if out := p.Append(dst, v); fits(len(out)-len(dst), max) {
		return out
	}
	q := *p
	return appendFit(dst, v, max, &q, &q.ReasonString, &q.UserProperties)
}
