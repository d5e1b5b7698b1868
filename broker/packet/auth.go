package packet

// Auth is AUTH (MQTT 5 §3.15), which MQTT 3 does not have.
type Auth struct {
	Code           Code
	AuthMethod     string
	AuthData       []byte // nil for none
	ReasonString   string // empty for none
	UserProperties []UserProperty
}

// Decode fills p. Without a body the packet means success, otherwise it has to
// name its Authentication Method (MQTT 5 §3.15.2.1, §3.15.2.2.2).
func (p *Auth) Decode(h Header, body []byte, v Version) error {
	*p = Auth{}
	r := newReader(TypeAuth, h, body, v)
	if len(r.rest) == 0 {
		return r.failed()
	}
	p.Code = r.code()
	method := false
	for r.properties(TypeAuth); r.next(); {
		switch r.ps.id {
		case propAuthMethod:
			method, p.AuthMethod = true, string(r.ps.data)
		case propAuthData:
			p.AuthData = r.ps.data
		case propReasonString:
			p.ReasonString = string(r.ps.data)
		case propUserProperty:
			p.UserProperties = append(p.UserProperties, r.ps.pair())
		}
	}
	if !method {
		r.protocol("no authentication method")
	}
	return r.end()
}

// CheckClient refuses what only a server may send (MQTT 5 table 3-11).
func (p *Auth) CheckClient() error {
	if p.Code == CodeSuccess {
		return protocolError(TypeAuth, "success from a client")
	}
	return nil
}

// Append writes nothing in MQTT 3.
func (p *Auth) Append(dst []byte, v Version) []byte {
	if v != V5 {
		return dst
	}
	start := len(dst)
	dst = openPacket(dst, TypeAuth, 0)
	if p.Code == CodeSuccess && p.AuthMethod == "" && p.AuthData == nil && p.ReasonString == "" && len(p.UserProperties) == 0 {
		return dst
	}
	dst = append(dst, byte(p.Code))
	dst, at := openProperties(dst)
	dst = appendText(append(dst, byte(propAuthMethod)), p.AuthMethod)
	dst = appendBinaryProperty(dst, propAuthData, p.AuthData)
	dst = appendTextProperty(dst, propReasonString, p.ReasonString)
	dst = appendUserProperties(dst, p.UserProperties)
	return closePacket(closeLength(dst, at), start)
}

// AppendLimit is like Connack.AppendLimit ([MQTT-3.15.2-2], [MQTT-3.15.2-3]).
func (p *Auth) AppendLimit(dst []byte, v Version, max uint32) []byte {
	if out := p.Append(dst, v); fits(len(out)-len(dst), max) {
		return out
	}
	q := *p
	return appendFit(dst, v, max, &q, &q.ReasonString, &q.UserProperties)
}
