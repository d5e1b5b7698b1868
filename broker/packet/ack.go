package packet

import "encoding/binary"

// Ack is PUBACK, PUBREC, PUBREL or PUBCOMP (MQTT 5 §3.4 to §3.7), which look
// alike.
type Ack struct {
	Type     Type
	PacketID uint16

	// What follows exists in MQTT 5 only.

	Code           Code
	ReasonString   string // empty for none
	UserProperties []UserProperty
}

// Decode fills p, Type from the header. MQTT 5 lets the properties be missing,
// and the Reason Code too if it is success.
func (p *Ack) Decode(h Header, body []byte, v Version) error {
	*p = Ack{Type: h.Type}
	r := newReader(h.Type, h, body, v)
	if h.Type < TypePuback || h.Type > TypePubcomp {
		r.protocol("packet is no acknowledgement of PUBLISH")
	}
	p.PacketID = r.packetID()
	if v == V5 && len(r.rest) > 0 {
		p.Code = r.code()
	}
	if v == V5 && len(r.rest) > 0 {
		p.ReasonString, p.UserProperties = decodeReason(&r)
	}
	return r.end()
}

// decodeReason reads the properties of a packet that has no others.
func decodeReason(r *reader) (reason string, user []UserProperty) {
	for r.properties(r.packet); r.next(); {
		switch r.ps.id {
		case propReasonString:
			reason = string(r.ps.data)
		case propUserProperty:
			user = append(user, r.ps.pair())
		}
	}
	return reason, user
}

// appendReason writes the properties that decodeReason reads.
func appendReason(dst []byte, reason string, user []UserProperty) []byte {
	dst, at := openProperties(dst)
	dst = appendTextProperty(dst, propReasonString, reason)
	dst = appendUserProperties(dst, user)
	return closeLength(dst, at)
}

// Append writes the shortest form.
func (p *Ack) Append(dst []byte, v Version) []byte {
	start := len(dst)
	var flags byte
	if p.Type == TypePubrel {
		flags = flagReserved
	}
	dst = openPacket(dst, p.Type, flags)
	dst = binary.BigEndian.AppendUint16(dst, p.PacketID)
	if v == V5 {
		properties := p.ReasonString != "" || len(p.UserProperties) > 0
		if properties || p.Code != CodeSuccess {
			dst = append(dst, byte(p.Code.fitting(p.Type)))
		}
		if properties {
			dst = appendReason(dst, p.ReasonString, p.UserProperties)
		}
	}
	return closePacket(dst, start)
}

// AppendLimit is like Connack.AppendLimit ([MQTT-3.4.2-2], [MQTT-3.4.2-3] and
// the like of the other three).
func (p *Ack) AppendLimit(dst []byte, v Version, max uint32) []byte {
	if out := p.Append(dst, v); fits(len(out)-len(dst), max) {
		return out
	}
	q := *p
	return appendFit(dst, v, max, &q, &q.ReasonString, &q.UserProperties)
}
