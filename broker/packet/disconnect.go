package packet

// Disconnect is DISCONNECT (MQTT 5 §3.14). In MQTT 3 only clients send it, and
// it says nothing.
type Disconnect struct {
	// What follows exists in MQTT 5 only.

	Code             Code
	HasSessionExpiry bool
	SessionExpiry    uint32 // seconds
	ReasonString     string // empty for none
	UserProperties   []UserProperty
	ServerReference  string // empty for none
}

// Decode fills p. MQTT 5 lets the properties be missing, and the Reason Code too
// if it is 0x00.
func (p *Disconnect) Decode(h Header, body []byte, v Version) error {
	*p = Disconnect{}
	r := newReader(TypeDisconnect, h, body, v)
	if v == V5 && len(r.rest) > 0 {
		p.Code = r.code()
	}
	if v == V5 && len(r.rest) > 0 {
		p.decodeProperties(&r)
	}
	return r.end()
}

func (p *Disconnect) decodeProperties(r *reader) {
	for r.properties(TypeDisconnect); r.next(); {
		switch r.ps.id {
		case propSessionExpiry:
			p.HasSessionExpiry, p.SessionExpiry = true, r.ps.num
		case propReasonString:
			p.ReasonString = string(r.ps.data)
		case propUserProperty:
			p.UserProperties = append(p.UserProperties, r.ps.pair())
		case propServerReference:
			p.ServerReference = string(r.ps.data)
		}
	}
}

// CheckClient refuses what only a server may send (MQTT 5 table 3-10,
// §3.14.2.2.5).
func (p *Disconnect) CheckClient() error {
	switch p.Code {
	case CodeNormalDisconnection, CodeDisconnectWithWill, CodeUnspecifiedError, CodeMalformedPacket,
		CodeProtocolError, CodeImplementationSpecificError, CodeTopicNameInvalid,
		CodeReceiveMaximumExceeded, CodeTopicAliasInvalid, CodePacketTooLarge, CodeMessageRateTooHigh,
		CodeQuotaExceeded, CodeAdministrativeAction, CodePayloadFormatInvalid, CodeBadAuthenticationMethod:
	default:
		return protocolError(TypeDisconnect, "reason code from a client")
	}
	if p.ServerReference != "" {
		return protocolError(TypeDisconnect, "server reference from a client")
	}
	return nil
}

// Append writes the shortest form.
func (p *Disconnect) Append(dst []byte, v Version) []byte {
	start := len(dst)
	dst = openPacket(dst, TypeDisconnect, 0)
	if v == V5 {
		properties := p.HasSessionExpiry || p.ReasonString != "" || len(p.UserProperties) > 0 || p.ServerReference != ""
		if code := p.Code.fitting(TypeDisconnect); properties || code != CodeNormalDisconnection {
			dst = append(dst, byte(code))
		}
		if properties {
			dst = p.appendProperties(dst)
		}
	}
	return closePacket(dst, start)
}

func (p *Disconnect) appendProperties(dst []byte) []byte {
	dst, at := openProperties(dst)
	if p.HasSessionExpiry {
		dst = appendUint32Property(dst, propSessionExpiry, p.SessionExpiry)
	}
	dst = appendTextProperty(dst, propServerReference, p.ServerReference)
	dst = appendTextProperty(dst, propReasonString, p.ReasonString)
	dst = appendUserProperties(dst, p.UserProperties)
	return closeLength(dst, at)
}

// AppendLimit is like Connack.AppendLimit ([MQTT-3.14.2-3], [MQTT-3.14.2-4]).
func (p *Disconnect) AppendLimit(dst []byte, v Version, max uint32) []byte {
	if out := p.Append(dst, v); fits(len(out)-len(dst), max) {
		return out
	}
	q := *p
	return appendFit(dst, v, max, &q, &q.ReasonString, &q.UserProperties)
}
