package packet

import "bytes"

// A Forward block holds the properties of an Application Message that a broker
// hands on unaltered, in MQTT 5 wire form without a length: Payload Format
// Indicator, Content Type, Response Topic, Correlation Data and User Properties,
// in the order received ([MQTT-3.3.2-4], [MQTT-3.3.2-15] to [MQTT-3.3.2-20]).
// Those of a decoded packet have been validated.

// forwarding collects a Forward block from the properties of a message. As long
// as the properties to forward follow each other the block aliases the packet;
// only then is it copied to scratch.
type forwarding struct {
	block   []byte
	scratch []byte
	end     int // where in the properties the block ends, 0 when copied
}

// add checks the current property, which is one to forward, and adds it.
func (f *forwarding) add(r *reader) {
	ps := &r.ps
	switch {
	case ps.id == propPayloadFormat && ps.num > 1:
		r.malformed("payload format indicator is neither 0 nor 1")
	case ps.id == propResponseTopic && len(ps.data) == 0:
		r.protocol("response topic is empty") // [MQTT-4.7.3-1]
	case ps.id == propResponseTopic && bytes.ContainsAny(ps.data, "+#"):
		r.protocol("response topic has wildcards") // [MQTT-3.3.2-14]
	}
	switch {
	case len(f.block) == 0:
		f.block = ps.block[ps.start:ps.stop:ps.stop]
		f.end = ps.stop
	case f.end == ps.start && f.end > 0:
		f.block = ps.block[ps.start-len(f.block) : ps.stop : ps.stop]
		f.end = ps.stop
	default:
		if f.end > 0 {
			f.scratch = append(f.scratch[:0], f.block...)
			f.end = 0
		}
		f.scratch = append(f.scratch, ps.block[ps.start:ps.stop]...)
		f.block = f.scratch
	}
}

// MessageProperties is a Forward block taken apart.
type MessageProperties struct {
	// HasPayloadFormat and HasContentType tell an absent property from one that
	// is 0 or empty.
	HasPayloadFormat bool
	PayloadFormat    byte // 1: the payload is UTF-8
	HasContentType   bool
	ContentType      string
	ResponseTopic    string // empty: none
	CorrelationData  []byte // nil: none
	UserProperties   []UserProperty
}

// ParseForward takes a Forward block apart. The error is an *Error, for a block
// that did not come from a decoded packet. CorrelationData aliases the block.
func ParseForward(block []byte) (MessageProperties, error) {
	var m MessageProperties
	var f forwarding
	r := reader{rest: block, packet: TypePublish, ps: properties{in: TypePublish, block: block}}
	for r.next() {
		switch r.ps.id {
		case propPayloadFormat:
			m.HasPayloadFormat, m.PayloadFormat = true, byte(r.ps.num)
		case propContentType:
			m.HasContentType, m.ContentType = true, string(r.ps.data)
		case propResponseTopic:
			m.ResponseTopic = string(r.ps.data)
		case propCorrelationData:
			m.CorrelationData = r.ps.data
		case propUserProperty:
			m.UserProperties = append(m.UserProperties, r.ps.pair())
		default:
			r.protocol(propertyTable[r.ps.id].name + " is not forwarded")
		}
		f.add(&r)
	}
	return m, r.failed()
}

// AppendForward writes the Forward block that ParseForward takes apart.
func (m *MessageProperties) AppendForward(dst []byte) []byte {
	if m.HasPayloadFormat {
		dst = appendByteProperty(dst, propPayloadFormat, m.PayloadFormat)
	}
	if m.HasContentType {
		dst = appendText(append(dst, byte(propContentType)), m.ContentType)
	}
	dst = appendTextProperty(dst, propResponseTopic, m.ResponseTopic)
	dst = appendBinaryProperty(dst, propCorrelationData, m.CorrelationData)
	return appendUserProperties(dst, m.UserProperties)
}
