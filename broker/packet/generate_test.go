package packet

import "pgregory.net/rapid"

// Generators of packets that version v can carry.

// typesOf are the Control Packet types of version v.
func typesOf(v Version) []Type {
	var types []Type
	for t := TypeConnect; t < TypeAuth; t++ {
		types = append(types, t)
	}
	if v == V5 {
		types = append(types, TypeAuth)
	}
	return types
}

func packetOf(t *rapid.T, typ Type, v Version) Packet {
	switch typ {
	case TypeConnect:
		return anyConnect(t, v)
	case TypeConnack:
		return anyConnack(t, v)
	case TypePublish:
		return anyPublish(t, v)
	case TypeSubscribe:
		return anySubscribe(t, v)
	case TypeSuback:
		p := &Suback{PacketID: anyID(t), Codes: rapid.SliceOfN(codeOf(TypeSuback, v), 1, 5).Draw(t, "codes")}
		if v == V5 {
			p.ReasonString, p.UserProperties = anyText(t), anyUser(t)
		}
		return p
	case TypeUnsubscribe:
		p := &Unsubscribe{PacketID: anyID(t), Filters: rapid.SliceOfN(textOf(1), 1, 5).Draw(t, "filters")}
		if v == V5 {
			p.UserProperties = anyUser(t)
		}
		return p
	case TypeUnsuback:
		p := &Unsuback{PacketID: anyID(t)}
		if v == V5 {
			p.Codes = rapid.SliceOfN(codeOf(TypeUnsuback, v), 1, 5).Draw(t, "codes")
			p.ReasonString, p.UserProperties = anyText(t), anyUser(t)
		}
		return p
	case TypePingreq:
		return &Pingreq{}
	case TypePingresp:
		return &Pingresp{}
	case TypeDisconnect:
		return anyDisconnect(t, v)
	case TypeAuth:
		return &Auth{
			Code: codeOf(TypeAuth, v).Draw(t, "code"), AuthMethod: anyText(t), AuthData: anyData(t),
			ReasonString: anyText(t), UserProperties: anyUser(t),
		}
	}
	p := &Ack{Type: typ, PacketID: anyID(t)}
	if v == V5 {
		p.Code, p.ReasonString, p.UserProperties = codeOf(typ, v).Draw(t, "code"), anyText(t), anyUser(t)
	}
	return p
}

func anyConnect(t *rapid.T, v Version) *Connect {
	p := &Connect{
		Version: v, CleanStart: rapid.Bool().Draw(t, "clean"), KeepAlive: rapid.Uint16().Draw(t, "keep alive"),
		ClientID: anyText(t), RequestProblemInfo: true,
	}
	if p.HasUsername = rapid.Bool().Draw(t, "has user name"); p.HasUsername {
		p.Username = anyText(t)
	}
	if p.HasPassword = (v == V5 || p.HasUsername) && rapid.Bool().Draw(t, "has password"); p.HasPassword {
		p.Password = rapid.SliceOf(rapid.Byte()).Draw(t, "password")
	}
	if rapid.Bool().Draw(t, "has will") {
		p.Will = anyWill(t, v)
	}
	if v != V5 {
		p.Bridge = rapid.Bool().Draw(t, "bridge")
		return p
	}
	if p.HasSessionExpiry = rapid.Bool().Draw(t, "has expiry"); p.HasSessionExpiry {
		p.SessionExpiry = rapid.Uint32().Draw(t, "expiry")
	}
	p.ReceiveMaximum = rapid.Uint16().Draw(t, "receive maximum")
	p.MaximumPacketSize = rapid.Uint32().Draw(t, "packet size")
	p.TopicAliasMaximum = rapid.Uint16().Draw(t, "alias maximum")
	p.RequestProblemInfo = rapid.Bool().Draw(t, "problem")
	p.RequestResponseInfo = rapid.Bool().Draw(t, "response")
	if p.HasAuthMethod = rapid.Bool().Draw(t, "has method"); p.HasAuthMethod {
		p.AuthMethod, p.AuthData = anyText(t), anyData(t)
	}
	p.UserProperties = anyUser(t)
	return p
}

func anyWill(t *rapid.T, v Version) *Will {
	w := &Will{
		Topic: textOf(1).Draw(t, "will topic"), Payload: rapid.SliceOf(rapid.Byte()).Draw(t, "will payload"),
		QoS: QoS(rapid.IntRange(0, 2).Draw(t, "will QoS")), Retain: rapid.Bool().Draw(t, "will retain"),
	}
	if v == V5 {
		w.DelaySeconds = rapid.Uint32().Draw(t, "delay")
		if w.HasExpiry = rapid.Bool().Draw(t, "has will expiry"); w.HasExpiry {
			w.MessageExpiry = rapid.Uint32().Draw(t, "will expiry")
		}
		w.Forward = anyForward(t)
	}
	return w
}

func anyConnack(t *rapid.T, v Version) *Connack {
	p := &Connack{Code: codeOf(TypeConnack, v).Draw(t, "code")}
	p.SessionPresent = v != V31 && p.Code == CodeSuccess && rapid.Bool().Draw(t, "present")
	if v != V5 {
		return p
	}
	flag := func() bool { return rapid.Bool().Draw(t, "flag") }
	if p.HasSessionExpiry = flag(); p.HasSessionExpiry {
		p.SessionExpiry = rapid.Uint32().Draw(t, "expiry")
	}
	if p.HasMaximumQoS = flag(); p.HasMaximumQoS {
		p.MaximumQoS = QoS(rapid.IntRange(0, 1).Draw(t, "maximum QoS"))
	}
	if p.HasServerKeepAlive = flag(); p.HasServerKeepAlive {
		p.ServerKeepAlive = rapid.Uint16().Draw(t, "keep alive")
	}
	p.ReceiveMaximum = rapid.Uint16().Draw(t, "receive maximum")
	p.MaximumPacketSize = rapid.Uint32().Draw(t, "packet size")
	p.TopicAliasMaximum = rapid.Uint16().Draw(t, "alias maximum")
	p.RetainUnavailable, p.WildcardUnavailable = flag(), flag()
	p.SubscriptionIDsUnavailable, p.SharedUnavailable = flag(), flag()
	p.AssignedClientID, p.ReasonString, p.ResponseInfo = anyText(t), anyText(t), anyText(t)
	p.ServerReference, p.AuthMethod, p.AuthData = anyText(t), anyText(t), anyData(t)
	p.UserProperties = anyUser(t)
	return p
}

func anyPublish(t *rapid.T, v Version) *Publish {
	p := &Publish{
		QoS: QoS(rapid.IntRange(0, 2).Draw(t, "QoS")), Retain: rapid.Bool().Draw(t, "retain"),
		Topic: []byte(textOf(1).Draw(t, "topic")), Payload: rapid.SliceOf(rapid.Byte()).Draw(t, "payload"),
	}
	if p.QoS > QoS0 {
		p.PacketID, p.Dup = anyID(t), rapid.Bool().Draw(t, "dup")
	}
	if v != V5 {
		return p
	}
	if p.HasExpiry = rapid.Bool().Draw(t, "has expiry"); p.HasExpiry {
		p.MessageExpiry = rapid.Uint32().Draw(t, "expiry")
	}
	if p.HasAlias = rapid.Bool().Draw(t, "has alias"); p.HasAlias {
		p.TopicAlias = rapid.Uint16Min(1).Draw(t, "alias")
		p.Topic = p.Topic[:rapid.SampledFrom([]int{0, len(p.Topic)}).Draw(t, "topic length")]
	}
	p.SubscriptionIDs = rapid.SliceOfN(rapid.Uint32Range(1, MaxVarint), 0, 3).Draw(t, "subscription ids")
	p.Forward = anyForward(t)
	return p
}

func anySubscribe(t *rapid.T, v Version) *Subscribe {
	p := &Subscribe{PacketID: anyID(t)}
	for range rapid.IntRange(1, 4).Draw(t, "count") {
		s := Subscription{Filter: textOf(1).Draw(t, "filter"), QoS: QoS(rapid.IntRange(0, 2).Draw(t, "QoS"))}
		if v == V5 {
			s.NoLocal, s.RetainAsPublished = rapid.Bool().Draw(t, "no local"), rapid.Bool().Draw(t, "as published")
			s.RetainHandling = rapid.ByteRange(0, 2).Draw(t, "retain handling")
		}
		p.Subscriptions = append(p.Subscriptions, s)
	}
	if v == V5 {
		p.SubscriptionID = rapid.Uint32Range(0, MaxVarint).Draw(t, "subscription id")
		p.UserProperties = anyUser(t)
	}
	return p
}

func anyDisconnect(t *rapid.T, v Version) *Disconnect {
	p := &Disconnect{}
	if v != V5 {
		return p
	}
	p.Code = codeOf(TypeDisconnect, v).Draw(t, "code")
	if p.HasSessionExpiry = rapid.Bool().Draw(t, "has expiry"); p.HasSessionExpiry {
		p.SessionExpiry = rapid.Uint32().Draw(t, "expiry")
	}
	p.ReasonString, p.UserProperties, p.ServerReference = anyText(t), anyUser(t), anyText(t)
	return p
}

func anyForward(t *rapid.T) []byte {
	m := MessageProperties{ResponseTopic: rapid.StringMatching(`[a-z/ü]{0,9}`).Draw(t, "response topic")}
	if m.HasPayloadFormat = rapid.Bool().Draw(t, "has format"); m.HasPayloadFormat {
		m.PayloadFormat = rapid.ByteRange(0, 1).Draw(t, "format")
	}
	if m.HasContentType = rapid.Bool().Draw(t, "has content type"); m.HasContentType {
		m.ContentType = anyText(t)
	}
	m.CorrelationData, m.UserProperties = anyData(t), anyUser(t)
	return m.AppendForward(nil)
}

func anyID(t *rapid.T) uint16   { return rapid.Uint16Min(1).Draw(t, "packet id") }
func anyText(t *rapid.T) string { return textOf(0).Draw(t, "text") }

// textOf generates UTF-8 of at least min bytes, now and then a long one.
func textOf(min int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		if rapid.IntRange(0, 50).Draw(t, "long") == 50 {
			return rapid.StringOfN(rapid.RuneFrom([]rune("aü€😀")), 100, 20000, MaxStringBytes).Draw(t, "long text")
		}
		return rapid.StringOfN(rapid.Rune().Filter(func(r rune) bool { return r != 0 }), min, 20, -1).Draw(t, "text")
	})
}

// anyData generates Binary Data, nil for none.
func anyData(t *rapid.T) []byte {
	if rapid.Bool().Draw(t, "no data") {
		return nil
	}
	return rapid.SliceOf(rapid.Byte()).Draw(t, "data")
}

func anyUser(t *rapid.T) []UserProperty {
	var user []UserProperty
	for range rapid.IntRange(0, 3).Draw(t, "user properties") {
		user = append(user, UserProperty{anyText(t), anyText(t)})
	}
	return user
}

// codeOf generates the Reason Codes of a packet type that version v can say.
func codeOf(typ Type, v Version) *rapid.Generator[Code] {
	var list []Code
	for c := range codes {
		code := Code(c)
		switch {
		case !code.In(typ):
		case v == V5:
			list = append(list, code)
		case typ == TypeConnack:
			if rc, ok := code.ReturnCode(); ok && returnCodes[rc] == code {
				list = append(list, code)
			}
		case typ == TypeSuback && code <= CodeUnspecifiedError:
			list = append(list, code)
		}
	}
	return rapid.SampledFrom(list)
}
