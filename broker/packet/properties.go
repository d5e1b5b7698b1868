package packet

import "encoding/binary"

// property is a Property Identifier (MQTT 5 §2.2.2.2).
type property byte

const (
	propPayloadFormat           property = 0x01
	propMessageExpiry           property = 0x02
	propContentType             property = 0x03
	propResponseTopic           property = 0x08
	propCorrelationData         property = 0x09
	propSubscriptionID          property = 0x0B
	propSessionExpiry           property = 0x11
	propAssignedClientID        property = 0x12
	propServerKeepAlive         property = 0x13
	propAuthMethod              property = 0x15
	propAuthData                property = 0x16
	propRequestProblemInfo      property = 0x17
	propWillDelay               property = 0x18
	propRequestResponseInfo     property = 0x19
	propResponseInfo            property = 0x1A
	propServerReference         property = 0x1C
	propReasonString            property = 0x1F
	propReceiveMaximum          property = 0x21
	propTopicAliasMaximum       property = 0x22
	propTopicAlias              property = 0x23
	propMaximumQoS              property = 0x24
	propRetainAvailable         property = 0x25
	propUserProperty            property = 0x26
	propMaximumPacketSize       property = 0x27
	propWildcardAvailable       property = 0x28
	propSubscriptionIDAvailable property = 0x29
	propSharedAvailable         property = 0x2A
)

// kind is the data type of a property's value, with the bounds that hold in
// every packet.
type kind byte

const (
	kindNone    kind = iota // no such property
	kindByte                // any value
	kindFlag                // a byte, 0 or 1
	kindUint16              // Two Byte Integer
	kindCount16             // Two Byte Integer, not 0
	kindUint32              // Four Byte Integer
	kindCount32             // Four Byte Integer, not 0
	kindCount               // Variable Byte Integer, not 0
	kindText                // UTF-8 Encoded String
	kindBinary              // Binary Data
	kindPair                // UTF-8 String Pair
)

// inWill stands beside the packet types for the Will Properties of CONNECT; no
// packet has type 0.
const inWill Type = 0

// Sets of packets, as in code.go.
const (
	inConnect      = 1 << TypeConnect
	inPublish      = 1 << TypePublish
	inMessage      = inPublish | 1<<inWill
	inSubscribe    = 1 << TypeSubscribe
	inUnsubscribe  = 1 << TypeUnsubscribe
	inReasonString = inConnack | inPublished | inReleased | inSuback | inUnsuback | inDisconnect | inAuth
	inAll          = inMessage | inConnect | inSubscribe | inUnsubscribe | inReasonString
)

// propertyTable is table 2-4 of MQTT 5.
var propertyTable = [...]struct {
	name string
	kind kind
	in   uint16
}{
	propPayloadFormat:           {"payload format indicator", kindByte, inMessage},
	propMessageExpiry:           {"message expiry interval", kindUint32, inMessage},
	propContentType:             {"content type", kindText, inMessage},
	propResponseTopic:           {"response topic", kindText, inMessage},
	propCorrelationData:         {"correlation data", kindBinary, inMessage},
	propSubscriptionID:          {"subscription identifier", kindCount, inPublish | inSubscribe},
	propSessionExpiry:           {"session expiry interval", kindUint32, inConnect | inConnack | inDisconnect},
	propAssignedClientID:        {"assigned client identifier", kindText, inConnack},
	propServerKeepAlive:         {"server keep alive", kindUint16, inConnack},
	propAuthMethod:              {"authentication method", kindText, inConnect | inConnack | inAuth},
	propAuthData:                {"authentication data", kindBinary, inConnect | inConnack | inAuth},
	propRequestProblemInfo:      {"request problem information", kindFlag, inConnect},
	propWillDelay:               {"will delay interval", kindUint32, 1 << inWill},
	propRequestResponseInfo:     {"request response information", kindFlag, inConnect},
	propResponseInfo:            {"response information", kindText, inConnack},
	propServerReference:         {"server reference", kindText, inConnack | inDisconnect},
	propReasonString:            {"reason string", kindText, inReasonString},
	propReceiveMaximum:          {"receive maximum", kindCount16, inConnect | inConnack},
	propTopicAliasMaximum:       {"topic alias maximum", kindUint16, inConnect | inConnack},
	propTopicAlias:              {"topic alias", kindUint16, inPublish},
	propMaximumQoS:              {"maximum QoS", kindFlag, inConnack},
	propRetainAvailable:         {"retain available", kindFlag, inConnack},
	propUserProperty:            {"user property", kindPair, inAll},
	propMaximumPacketSize:       {"maximum packet size", kindCount32, inConnect | inConnack},
	propWildcardAvailable:       {"wildcard subscription available", kindFlag, inConnack},
	propSubscriptionIDAvailable: {"subscription identifier available", kindFlag, inConnack},
	propSharedAvailable:         {"shared subscription available", kindFlag, inConnack},
}

// UserProperty is a name with a value; a packet has them in order, and names may
// repeat.
type UserProperty struct {
	Key, Value string
}

// properties is a reader's place in the Properties of a packet:
//
//	for r.properties(TypePuback); r.next(); {
//
// next leaves the current property's identifier and value in the fields. It is
// a part of the reader, not one with a pointer to it, because then the compiler
// could not keep the reader on the stack.
type properties struct {
	in    Type   // the packet, or inWill
	block []byte // all of them
	after []byte // what follows them
	seen  uint64 // a bit for each identifier met

	id          property
	start, stop int    // where in block the current one is
	num         uint32 // value of all numbers
	data        []byte // value of text and binary; value of a pair
	key         []byte // name of a pair
}

// properties reads the Property Length and goes on in the block it counts
// [MQTT-2.2.2-1].
func (r *reader) properties(in Type) {
	block := r.take(int(r.varint("property length")), "properties")
	r.ps = properties{in: in, block: block, after: r.rest}
	r.rest = block
}

// next reads the next property. At the end of the block the reader goes on
// behind it.
func (r *reader) next() bool {
	ps := &r.ps
	if r.err != nil {
		return false
	}
	if len(r.rest) == 0 {
		r.rest = ps.after
		return false
	}
	ps.start = ps.stop
	id := r.varint("property identifier")
	if r.err != nil {
		return false
	}
	if int(id) >= len(propertyTable) || propertyTable[id].in&(1<<ps.in) == 0 {
		r.malformed("property is not one of this packet")
		return false
	}
	ps.id = property(id)
	if ps.seen&(1<<id) != 0 && !ps.repeats() {
		r.protocol(propertyTable[id].name + " twice")
		return false
	}
	ps.seen |= 1 << id
	r.value(propertyTable[id].kind, propertyTable[id].name)
	ps.stop = len(ps.block) - len(r.rest)
	return r.err == nil
}

// repeats: User Properties, and the Subscription Identifiers of a PUBLISH.
func (ps *properties) repeats() bool {
	return ps.id == propUserProperty || ps.id == propSubscriptionID && ps.in == TypePublish
}

// value reads the value of the current property.
func (r *reader) value(k kind, name string) {
	ps := &r.ps
	switch k {
	case kindByte, kindFlag:
		ps.num = uint32(r.byte(name))
	case kindUint16, kindCount16:
		ps.num = uint32(r.uint16(name))
	case kindUint32, kindCount32:
		ps.num = r.uint32(name)
	case kindCount:
		ps.num = r.varint(name)
	case kindText:
		ps.data = r.text(name)
	case kindBinary:
		ps.data = r.binary(name)
	case kindPair: // [MQTT-1.5.7-1]
		ps.key = r.text(name)
		ps.data = r.text(name)
	}
	if r.err != nil {
		return
	}
	switch {
	case k == kindFlag && ps.num > 1:
		r.protocol(name + " is neither 0 nor 1")
	case (k == kindCount || k == kindCount16 || k == kindCount32) && ps.num == 0:
		r.protocol(name + " is 0")
	}
}

func (ps *properties) pair() UserProperty {
	return UserProperty{Key: string(ps.key), Value: string(ps.data)}
}

// openProperties keeps a byte for the Property Length, which closeLength fills.
func openProperties(dst []byte) (out []byte, at int) {
	return append(dst, 0), len(dst)
}

func appendByteProperty(dst []byte, id property, value byte) []byte {
	return append(dst, byte(id), value)
}

// appendFlagProperty writes 0 or 1.
func appendFlagProperty(dst []byte, id property, on bool) []byte {
	if on {
		return append(dst, byte(id), 1)
	}
	return append(dst, byte(id), 0)
}

func appendUint16Property(dst []byte, id property, value uint16) []byte {
	return binary.BigEndian.AppendUint16(append(dst, byte(id)), value)
}

func appendUint32Property(dst []byte, id property, value uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, byte(id)), value)
}

// appendTextProperty leaves the property out if s is empty.
func appendTextProperty(dst []byte, id property, s string) []byte {
	if s == "" {
		return dst
	}
	return appendText(append(dst, byte(id)), s)
}

// appendBinaryProperty leaves the property out if b is nil.
func appendBinaryProperty(dst []byte, id property, b []byte) []byte {
	if b == nil {
		return dst
	}
	return appendBinary(append(dst, byte(id)), b)
}

func appendUserProperties(dst []byte, user []UserProperty) []byte {
	for _, u := range user {
		dst = appendText(append(dst, byte(propUserProperty)), u.Key)
		dst = appendText(dst, u.Value)
	}
	return dst
}
