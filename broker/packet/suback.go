package packet

import "encoding/binary"

// Suback is SUBACK (MQTT 5 §3.9).
type Suback struct {
	PacketID uint16
	// Codes has one for each Topic Filter, in order [MQTT-3.8.4-6]. MQTT 3.1.1
	// knows one failure, 0x80: every failure is written as that. MQTT 3.1 knows
	// none; what is not authorized it wants acknowledged (3.1 §3.8), which is done
	// with the lowest QoS, and its clients know 0x80 from 3.1.1.
	Codes []Code

	// What follows exists in MQTT 5 only.

	ReasonString   string // empty for none
	UserProperties []UserProperty
}

// Decode fills p.
func (p *Suback) Decode(h Header, body []byte, v Version) error {
	*p = Suback{}
	r := newReader(TypeSuback, h, body, v)
	p.PacketID = r.packetID()
	if v == V5 {
		p.ReasonString, p.UserProperties = decodeReason(&r)
	}
	p.Codes = decodeCodes(&r)
	for _, c := range p.Codes {
		if v != V5 && c > CodeGrantedQoS2 && c != CodeUnspecifiedError { // MQTT 3.1.1 [MQTT-3.9.3-2]
			r.malformed("return code is reserved")
		}
	}
	return r.end()
}

// decodeCodes reads the Reason Codes at the end of SUBACK and UNSUBACK.
func decodeCodes(r *reader) []Code {
	if len(r.rest) == 0 {
		r.protocol("no reason code")
		return nil
	}
	codes := make([]Code, 0, len(r.rest))
	for len(r.rest) > 0 {
		codes = append(codes, r.code())
	}
	return codes
}

// Append writes the packet.
func (p *Suback) Append(dst []byte, v Version) []byte {
	start := len(dst)
	dst = openPacket(dst, TypeSuback, 0)
	dst = binary.BigEndian.AppendUint16(dst, p.PacketID)
	if v == V5 {
		dst = appendReason(dst, p.ReasonString, p.UserProperties)
	}
	for _, c := range p.Codes {
		switch {
		case v == V31 && c == CodeNotAuthorized:
			c = CodeGrantedQoS0
		case v != V5 && c.Failed():
			c = CodeUnspecifiedError
		}
		dst = append(dst, byte(c.fitting(TypeSuback)))
	}
	return closePacket(dst, start)
}

// AppendLimit is like Connack.AppendLimit ([MQTT-3.9.2-1], [MQTT-3.9.2-2]).
func (p *Suback) AppendLimit(dst []byte, v Version, max uint32) []byte {
	if out := p.Append(dst, v); fits(len(out)-len(dst), max) {
		return out
	}
	q := *p
	return appendFit(dst, v, max, &q, &q.ReasonString, &q.UserProperties)
}
