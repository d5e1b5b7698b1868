package packet

import "encoding/binary"

// Unsubscribe is UNSUBSCRIBE (MQTT 5 §3.10).
type Unsubscribe struct {
	PacketID uint16
	// Filters has at least one; they are valid UTF-8 and not empty, their syntax
	// is not checked.
	Filters []string

	UserProperties []UserProperty // MQTT 5 only
}

// Decode fills p.
func (p *Unsubscribe) Decode(h Header, body []byte, v Version) error {
	*p = Unsubscribe{}
	r := newReader(TypeUnsubscribe, h, body, v)
	p.PacketID = r.packetID()
	if v == V5 {
		for r.properties(TypeUnsubscribe); r.next(); {
			p.UserProperties = append(p.UserProperties, r.ps.pair()) // it has no others
		}
	}
	if len(r.rest) == 0 { // [MQTT-3.10.3-2]
		r.protocol("no topic filter")
	}
	for len(r.rest) > 0 {
		p.Filters = append(p.Filters, decodeFilter(&r))
	}
	return r.end()
}

// Append writes the packet.
func (p *Unsubscribe) Append(dst []byte, v Version) []byte {
	start := len(dst)
	dst = openPacket(dst, TypeUnsubscribe, flagReserved)
	dst = binary.BigEndian.AppendUint16(dst, p.PacketID)
	if v == V5 {
		var at int
		dst, at = openProperties(dst)
		dst = appendUserProperties(dst, p.UserProperties)
		dst = closeLength(dst, at)
	}
	for _, filter := range p.Filters {
		dst = appendText(dst, filter)
	}
	return closePacket(dst, start)
}
