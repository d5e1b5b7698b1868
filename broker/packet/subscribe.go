package packet

import "encoding/binary"

// Subscribe is SUBSCRIBE (MQTT 5 §3.8).
type Subscribe struct {
	PacketID      uint16
	Subscriptions []Subscription // at least one

	// What follows exists in MQTT 5 only.

	SubscriptionID uint32 // 0 for none
	UserProperties []UserProperty
}

// Subscription is a Topic Filter with its Subscription Options.
type Subscription struct {
	// Filter is valid UTF-8 and not empty; its syntax is not checked.
	Filter string
	QoS    QoS // the maximum wanted

	// What follows exists in MQTT 5 only.

	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte // 0 to 2
}

// Subscription Options (MQTT 5 §3.8.3.1).
const (
	optionQoS               = 0x03
	optionNoLocal           = 0x04
	optionRetainAsPublished = 0x08
	optionRetainHandling    = 0x30
	optionReserved          = 0xC0
)

// Decode fills p.
func (p *Subscribe) Decode(h Header, body []byte, v Version) error {
	*p = Subscribe{}
	r := newReader(TypeSubscribe, h, body, v)
	p.PacketID = r.packetID()
	if v == V5 {
		for r.properties(TypeSubscribe); r.next(); {
			switch r.ps.id {
			case propSubscriptionID:
				p.SubscriptionID = r.ps.num
			case propUserProperty:
				p.UserProperties = append(p.UserProperties, r.ps.pair())
			}
		}
	}
	if len(r.rest) == 0 { // [MQTT-3.8.3-2]
		r.protocol("no topic filter")
	}
	for len(r.rest) > 0 {
		p.Subscriptions = append(p.Subscriptions, decodeSubscription(&r, v))
	}
	return r.end()
}

func decodeSubscription(r *reader, v Version) Subscription {
	s := Subscription{Filter: decodeFilter(r)}
	options := r.byte("subscription options")
	s.QoS = QoS(options & optionQoS)
	if v != V5 {
		if options > byte(QoS2) { // MQTT 3.1.1 [MQTT-3-8.3-4]
			r.malformed("requested QoS is none, or has reserved bits")
		}
		return s
	}
	s.NoLocal = options&optionNoLocal != 0
	s.RetainAsPublished = options&optionRetainAsPublished != 0
	s.RetainHandling = options & optionRetainHandling >> 4
	switch {
	case options&optionReserved != 0: // [MQTT-3.8.3-5]
		r.malformed("reserved subscription options")
	case s.QoS > QoS2:
		r.protocol("maximum QoS 3")
	case s.RetainHandling > 2:
		r.protocol("retain handling 3")
	}
	return s
}

// decodeFilter reads a Topic Filter [MQTT-3.8.3-1]. An empty one is none
// [MQTT-4.7.3-1].
func decodeFilter(r *reader) string {
	filter := r.text("topic filter")
	if r.err == nil && len(filter) == 0 {
		r.malformed("topic filter is empty")
	}
	return string(filter)
}

// Append writes the packet.
func (p *Subscribe) Append(dst []byte, v Version) []byte {
	start := len(dst)
	dst = openPacket(dst, TypeSubscribe, flagReserved)
	dst = binary.BigEndian.AppendUint16(dst, p.PacketID)
	if v == V5 {
		var at int
		dst, at = openProperties(dst)
		if p.SubscriptionID != 0 {
			dst = appendVarint(append(dst, byte(propSubscriptionID)), p.SubscriptionID)
		}
		dst = appendUserProperties(dst, p.UserProperties)
		dst = closeLength(dst, at)
	}
	for _, s := range p.Subscriptions {
		dst = append(appendText(dst, s.Filter), s.options(v))
	}
	return closePacket(dst, start)
}

func (s Subscription) options(v Version) byte {
	options := byte(s.QoS) & optionQoS
	if v != V5 {
		return options
	}
	if s.NoLocal {
		options |= optionNoLocal
	}
	if s.RetainAsPublished {
		options |= optionRetainAsPublished
	}
	return options | s.RetainHandling<<4&optionRetainHandling
}
