package packet

// Connack is CONNACK (MQTT 5 §3.2).
type Connack struct {
	SessionPresent bool
	// Code: in MQTT 3 a return code is written, see Code.ReturnCode.
	Code Code

	// What follows exists in MQTT 5 only.

	HasSessionExpiry  bool
	SessionExpiry     uint32 // seconds
	ReceiveMaximum    uint16 // 0: not given, 65,535
	HasMaximumQoS     bool
	MaximumQoS        QoS    // 0 or 1; not given: 2
	MaximumPacketSize uint32 // bytes; 0: not given, no limit
	AssignedClientID  string // empty for none
	TopicAliasMaximum uint16
	ReasonString      string // empty for none
	UserProperties    []UserProperty

	// The opposite of Retain Available and its like, which are 1 when not given.
	RetainUnavailable          bool
	WildcardUnavailable        bool
	SubscriptionIDsUnavailable bool
	SharedUnavailable          bool

	HasServerKeepAlive bool
	ServerKeepAlive    uint16 // seconds
	ResponseInfo       string // empty for none
	ServerReference    string // empty for none
	AuthMethod         string // empty for none
	AuthData           []byte // nil for none
}

// Decode fills p. A return code of MQTT 3 becomes the Reason Code that says the
// same.
func (p *Connack) Decode(h Header, body []byte, v Version) error {
	*p = Connack{}
	r := newReader(TypeConnack, h, body, v)
	flags := r.byte("connect acknowledge flags")
	if v == V31 {
		flags = 0 // MQTT 3.1 §3.2: reserved, not used
	}
	if flags > 1 { // [MQTT-3.2.2-1]
		r.malformed("reserved connect acknowledge flags")
	}
	p.SessionPresent = flags == 1
	if v == V5 {
		p.Code = r.code()
		p.decodeProperties(&r)
	} else {
		p.decodeReturnCode(&r)
	}
	if p.SessionPresent && p.Code != CodeSuccess { // [MQTT-3.2.2-6]
		r.protocol("session present in a refusal")
	}
	return r.end()
}

func (p *Connack) decodeReturnCode(r *reader) {
	code := int(r.byte("return code"))
	if code >= len(returnCodes) {
		r.malformed("return code is reserved")
		return
	}
	p.Code = returnCodes[code]
}

func (p *Connack) decodeProperties(r *reader) {
	for r.properties(TypeConnack); r.next(); {
		switch r.ps.id {
		case propSessionExpiry:
			p.HasSessionExpiry, p.SessionExpiry = true, r.ps.num
		case propReceiveMaximum:
			p.ReceiveMaximum = uint16(r.ps.num)
		case propMaximumQoS:
			p.HasMaximumQoS, p.MaximumQoS = true, QoS(r.ps.num)
		case propMaximumPacketSize:
			p.MaximumPacketSize = r.ps.num
		case propAssignedClientID:
			p.AssignedClientID = string(r.ps.data)
		case propTopicAliasMaximum:
			p.TopicAliasMaximum = uint16(r.ps.num)
		case propReasonString:
			p.ReasonString = string(r.ps.data)
		case propUserProperty:
			p.UserProperties = append(p.UserProperties, r.ps.pair())
		case propServerKeepAlive:
			p.HasServerKeepAlive, p.ServerKeepAlive = true, uint16(r.ps.num)
		case propResponseInfo:
			p.ResponseInfo = string(r.ps.data)
		case propServerReference:
			p.ServerReference = string(r.ps.data)
		case propAuthMethod:
			p.AuthMethod = string(r.ps.data)
		case propAuthData:
			p.AuthData = r.ps.data
		default:
			p.setUnavailable(r.ps.id, r.ps.num == 0)
		}
	}
}

func (p *Connack) setUnavailable(id property, unavailable bool) {
	switch id {
	case propRetainAvailable:
		p.RetainUnavailable = unavailable
	case propWildcardAvailable:
		p.WildcardUnavailable = unavailable
	case propSubscriptionIDAvailable:
		p.SubscriptionIDsUnavailable = unavailable
	case propSharedAvailable:
		p.SharedUnavailable = unavailable
	}
}

// Append writes nothing in MQTT 3 if no return code says what Code says: the
// connection is to be closed without CONNACK.
func (p *Connack) Append(dst []byte, v Version) []byte {
	start := len(dst)
	code := byte(p.Code.fitting(TypeConnack))
	if v != V5 {
		var ok bool
		if code, ok = p.Code.ReturnCode(); !ok {
			return dst
		}
	}
	flags := byte(0)
	if p.SessionPresent && p.Code == CodeSuccess && v != V31 {
		flags = 1
	}
	dst = openPacket(dst, TypeConnack, 0)
	dst = append(dst, flags, code)
	if v == V5 {
		var at int
		dst, at = openProperties(dst)
		dst = p.appendLimits(dst)
		dst = p.appendTexts(dst)
		dst = closeLength(dst, at)
	}
	return closePacket(dst, start)
}

// appendLimits writes the properties that say what the client may do.
func (p *Connack) appendLimits(dst []byte) []byte {
	if p.HasSessionExpiry {
		dst = appendUint32Property(dst, propSessionExpiry, p.SessionExpiry)
	}
	if p.ReceiveMaximum != 0 {
		dst = appendUint16Property(dst, propReceiveMaximum, p.ReceiveMaximum)
	}
	if p.HasMaximumQoS {
		dst = appendByteProperty(dst, propMaximumQoS, byte(p.MaximumQoS))
	}
	if p.MaximumPacketSize != 0 {
		dst = appendUint32Property(dst, propMaximumPacketSize, p.MaximumPacketSize)
	}
	if p.TopicAliasMaximum != 0 {
		dst = appendUint16Property(dst, propTopicAliasMaximum, p.TopicAliasMaximum)
	}
	if p.HasServerKeepAlive {
		dst = appendUint16Property(dst, propServerKeepAlive, p.ServerKeepAlive)
	}
	dst = appendUnavailable(dst, propRetainAvailable, p.RetainUnavailable)
	dst = appendUnavailable(dst, propWildcardAvailable, p.WildcardUnavailable)
	dst = appendUnavailable(dst, propSubscriptionIDAvailable, p.SubscriptionIDsUnavailable)
	return appendUnavailable(dst, propSharedAvailable, p.SharedUnavailable)
}

func appendUnavailable(dst []byte, id property, unavailable bool) []byte {
	if !unavailable {
		return dst
	}
	return appendFlagProperty(dst, id, false)
}

func (p *Connack) appendTexts(dst []byte) []byte {
	dst = appendTextProperty(dst, propAssignedClientID, p.AssignedClientID)
	dst = appendTextProperty(dst, propResponseInfo, p.ResponseInfo)
	dst = appendTextProperty(dst, propServerReference, p.ServerReference)
	dst = appendTextProperty(dst, propAuthMethod, p.AuthMethod)
	dst = appendBinaryProperty(dst, propAuthData, p.AuthData)
	dst = appendTextProperty(dst, propReasonString, p.ReasonString)
	return appendUserProperties(dst, p.UserProperties)
}

// AppendLimit appends the packet within max bytes, dropping first the User
// Properties and then the Reason String ([MQTT-3.2.2-19], [MQTT-3.2.2-20]); it
// appends nothing if the rest is still larger. max 0 means no limit.
func (p *Connack) AppendLimit(dst []byte, v Version, max uint32) []byte {
	if out := p.Append(dst, v); fits(len(out)-len(dst), max) {
		return out
	}
	q := *p
	return appendFit(dst, v, max, &q, &q.ReasonString, &q.UserProperties)
}
