package packet

import "encoding/binary"

// Publish is PUBLISH (MQTT 5 §3.3).
type Publish struct {
	Dup    bool
	QoS    QoS
	Retain bool
	// Topic is the Topic Name: valid UTF-8, in MQTT 5 empty if a Topic Alias
	// stands for it. Wildcards are not looked for.
	Topic []byte
	// PacketID is 0 exactly for QoS 0.
	PacketID uint16
	Payload  []byte

	// What follows exists in MQTT 5 only.

	HasExpiry     bool
	MessageExpiry uint32 // seconds
	HasAlias      bool
	TopicAlias    uint16
	// SubscriptionIDs: only a server sends them, see CheckClient. Valid until
	// the next Decode.
	SubscriptionIDs []uint32
	// Forward holds the properties that are handed on unaltered, as ParseForward
	// takes them apart. Valid as long as the body and until the next Decode.
	Forward []byte

	ids     []uint32
	scratch []byte
}

// Decode fills p without allocating once it has met a packet as large: its
// slices alias body, or buffers of p.
func (p *Publish) Decode(h Header, body []byte, v Version) error {
	*p = Publish{ids: p.ids, scratch: p.scratch}
	r := newReader(TypePublish, h, body, v)
	p.Dup = h.Flags&flagDup != 0
	p.QoS = QoS(h.Flags >> 1 & 3)
	p.Retain = h.Flags&flagRetain != 0
	p.Topic = r.text("topic name")
	if p.QoS > QoS0 {
		p.PacketID = r.packetID()
	}
	if v == V5 {
		p.decodeProperties(&r)
	}
	if len(p.Topic) == 0 && !p.HasAlias {
		p.refuseNoTopic(&r, v)
	}
	p.Payload = r.rest
	return r.failed()
}

// refuseNoTopic: MQTT 5 §3.3.2.1 says Protocol Error, MQTT 3.1.1 [MQTT-4.7.3-1]
// leaves the packet malformed.
func (p *Publish) refuseNoTopic(r *reader, v Version) {
	if v == V5 {
		r.protocol("no topic name and no topic alias")
	} else {
		r.malformed("topic name is empty")
	}
}

func (p *Publish) decodeProperties(r *reader) {
	f := forwarding{scratch: p.scratch}
	p.SubscriptionIDs = p.ids[:0]
	for r.properties(TypePublish); r.next(); {
		switch r.ps.id {
		case propMessageExpiry:
			p.HasExpiry, p.MessageExpiry = true, r.ps.num
		case propTopicAlias:
			p.HasAlias, p.TopicAlias = true, uint16(r.ps.num)
			if r.ps.num == 0 { // [MQTT-3.3.2-8]
				r.fail(&Error{Code: CodeTopicAliasInvalid, Packet: TypePublish, Reason: "topic alias is 0"})
			}
		case propSubscriptionID:
			p.SubscriptionIDs = append(p.SubscriptionIDs, r.ps.num)
		default:
			f.add(r)
		}
	}
	p.Forward, p.scratch, p.ids = f.block, f.scratch, p.SubscriptionIDs
}

// CheckClient refuses what only a server may send: Subscription Identifiers
// [MQTT-3.3.4-6].
func (p *Publish) CheckClient() error {
	if len(p.SubscriptionIDs) > 0 {
		return protocolError(TypePublish, "subscription identifier from a client")
	}
	return nil
}

// Size returns how many bytes Append writes: 0 if the packet cannot be written,
// because the topic or the whole is larger than their lengths can say.
func (p *Publish) Size(v Version) int {
	remaining := p.remaining(v)
	if len(p.Topic) > MaxStringBytes || remaining > MaxVarint {
		return 0
	}
	return 1 + varintSize(uint32(remaining)) + remaining
}

func (p *Publish) remaining(v Version) int {
	n := 2 + len(p.Topic) + len(p.Payload)
	if p.QoS > QoS0 {
		n += 2
	}
	if v == V5 {
		block := p.propertyBytes()
		n += varintSize(uint32(block)) + block
	}
	return n
}

func (p *Publish) propertyBytes() int {
	n := len(p.Forward)
	if p.HasExpiry {
		n += 5
	}
	if p.HasAlias {
		n += 3
	}
	for _, id := range p.SubscriptionIDs {
		n += 1 + varintSize(id)
	}
	return n
}

// Append writes Message Expiry, Topic Alias and Subscription Identifiers, then
// Forward as it is. It writes nothing if Size is 0.
func (p *Publish) Append(dst []byte, v Version) []byte {
	if p.Size(v) == 0 {
		return dst
	}
	dst = append(dst, byte(TypePublish)<<4|p.flags())
	dst = appendVarint(dst, uint32(p.remaining(v)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(p.Topic)))
	dst = append(dst, p.Topic...)
	if p.QoS > QoS0 {
		dst = binary.BigEndian.AppendUint16(dst, p.PacketID)
	}
	if v == V5 {
		dst = p.appendProperties(dst)
	}
	return append(dst, p.Payload...)
}

func (p *Publish) flags() byte {
	flags := byte(p.QoS&3) << 1
	if p.Dup && p.QoS > QoS0 { // [MQTT-3.3.1-2]
		flags |= flagDup
	}
	if p.Retain {
		flags |= flagRetain
	}
	return flags
}

func (p *Publish) appendProperties(dst []byte) []byte {
	dst = appendVarint(dst, uint32(p.propertyBytes()))
	if p.HasExpiry {
		dst = appendUint32Property(dst, propMessageExpiry, p.MessageExpiry)
	}
	if p.HasAlias {
		dst = appendUint16Property(dst, propTopicAlias, p.TopicAlias)
	}
	for _, id := range p.SubscriptionIDs {
		dst = appendVarint(append(dst, byte(propSubscriptionID)), id)
	}
	return append(dst, p.Forward...)
}

// SetPacketID writes another Packet Identifier into a PUBLISH of QoS 1 or 2 that
// Append has written: one encoding can serve many subscribers.
func SetPacketID(wire []byte, id uint16) {
	_, size := varint(wire[1:])
	topic := wire[1+size:]
	at := 2 + int(binary.BigEndian.Uint16(topic))
	binary.BigEndian.PutUint16(topic[at:], id)
}
