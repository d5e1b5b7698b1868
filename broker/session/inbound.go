package session

// Inbound is what a client has sent with QoS 1 and 2 on one connection and has
// not been answered for.
//
// It counts the client's PUBLISH packets against the Receive Maximum we
// announced, as the client counts them ([MQTT-3.3.4-7], §4.9), and remembers
// the Packet Identifiers of QoS 2 exchanges from PUBLISH to PUBCOMP. QoS 1
// identifiers are not remembered: a repeated PUBLISH is a message of its own
// ([MQTT-4.3.2-5]), answered and counted by itself.
type Inbound struct {
	receiveMaximum int
	used           int
	// resumed is how many exchanges of former connections may still return
	// quota. A client begins each connection with its full quota, and PUBCOMP
	// raises it up to that full quota also when the PUBLISH went out before.
	resumed int
	resume  bool
	ids     map[uint16]inboundStage
	// recovered are the identifiers of exchanges of former connections that were
	// ended on this one.
	recovered map[uint16]struct{}
}

type inboundStage uint8

const (
	received  inboundStage = iota // PUBREC has not left
	recorded                      // PUBREC has left
	finishing                     // PUBREL came, PUBCOMP has not left
	asked                         // so, of an exchange begun on a former connection
)

// InboundResult says what a PUBLISH or a PUBREL asks for.
type InboundResult uint8

const (
	// InboundNew: a message to route; Answered follows.
	InboundNew InboundResult = iota
	// InboundRepeat: the message has been taken and its PUBREC has left: send
	// PUBREC again, do not route it again ([MQTT-4.3.3-10]), no Answered.
	InboundRepeat
	// InboundWait: a repeat whose first answer (PUBREC or PUBCOMP) has not left
	// and will do for both: nothing to do.
	InboundWait
	// InboundInUse: the identifier's exchange is between PUBREL and PUBCOMP:
	// answer PUBREC with 0x91, no Answered.
	InboundInUse
	// InboundExceeded: more than Receive Maximum: DISCONNECT with 0x93.
	InboundExceeded

	// InboundKnown: the exchange can end; PUBCOMP and Completed follow.
	InboundKnown
	// InboundUnknown: answer PUBCOMP with 0x92, no Completed. So it is also for an
	// exchange whose PUBREC has not left: it stays as it is, for its release must
	// not reach the shard before its message.
	InboundUnknown
	// InboundAsk: unknown here, but the session was resumed: its shard knows
	// whether the exchange exists. PUBCOMP and Completed follow, which tells the
	// code.
	InboundAsk
)

// NewInbound begins the connection of a new session. receiveMaximum is the one
// announced in CONNACK, ≥ 1; MQTT 3.1.1 clients know none: 65,535.
func NewInbound(receiveMaximum uint16) *Inbound {
	return &Inbound{receiveMaximum: int(receiveMaximum)}
}

// NewResumedInbound begins a connection to a durable session that was present:
// exchanges of former connections are known to its shard only, so Pubrel
// answers InboundAsk in place of InboundUnknown.
func NewResumedInbound(receiveMaximum uint16) *Inbound {
	in := NewInbound(receiveMaximum)
	in.resume, in.resumed = true, packetIDs
	return in
}

// Unfinished is the number of PUBLISH packets that use the Receive Maximum.
func (in *Inbound) Unfinished() int { return in.used }

// Exchanges is the number of QoS 2 exchanges from PUBLISH to PUBCOMP.
func (in *Inbound) Exchanges() int { return len(in.ids) }

// Knows reports whether a Packet Identifier belongs to one of them.
func (in *Inbound) Knows(id uint16) bool {
	_, known := in.ids[id]
	return known
}

// Publish takes note of a PUBLISH of QoS 1 or 2. DUP decides nothing: within a
// connection the identifier alone tells a repeat ([MQTT-4.3.3-10]), and a
// repeat over connections is for the shard to find.
func (in *Inbound) Publish(qos uint8, id uint16, dup bool) InboundResult {
	if qos == 2 {
		if s, known := in.ids[id]; known {
			return repeated(s)
		}
	}
	if in.used >= in.receiveMaximum {
		return InboundExceeded
	}
	in.used++
	if qos == 2 {
		in.note(id, received)
	}
	return InboundNew
}

func repeated(s inboundStage) InboundResult {
	switch s {
	case received:
		return InboundWait
	case recorded:
		return InboundRepeat
	}
	return InboundInUse
}

// Answered says that the PUBACK or PUBREC of a PUBLISH that was InboundNew
// leaves; failed means a Reason Code ≥ 0x80. PUBACK returns the quota, and so
// does a failed PUBREC, which also frees the identifier.
func (in *Inbound) Answered(qos uint8, id uint16, failed bool) {
	if qos != 2 {
		in.used = max(in.used-1, 0)
		return
	}
	s, known := in.ids[id]
	switch {
	case !known || s == asked:
	case failed:
		in.forget(id)
	case s == received:
		in.ids[id] = recorded
	}
}

// Pubrel takes note of a PUBREL ([MQTT-4.3.3-11]).
func (in *Inbound) Pubrel(id uint16) InboundResult {
	s, known := in.ids[id]
	switch {
	case known && s >= finishing:
		return InboundWait
	case known && s == received:
		return InboundUnknown
	case known:
		in.ids[id] = finishing
		return InboundKnown
	case in.resume:
		in.note(id, asked)
		return InboundAsk
	}
	return InboundUnknown
}

// Completed says that the PUBCOMP of a PUBREL that was InboundKnown or
// InboundAsk leaves: the quota returns and the identifier is free
// ([MQTT-4.3.3-12]). exists tells whether the session's shard knew the exchange.
//
// It reports whether PUBCOMP says 0x00. A client that has lost a PUBCOMP with its
// connection sends PUBREL again on the next, and has to ([MQTT-4.4.0-1]): the shard
// has ended the exchange then, and to say 0x92 would be no error (MQTT 5 §3.7.2.1),
// but clients take it for one and publish again. So on a resumed session the first
// PUBREL of an identifier is the repeat of one that was done. A second one is not:
// the client has had its PUBCOMP.
func (in *Inbound) Completed(id uint16, exists bool) (success bool) {
	switch s, known := in.ids[id]; {
	case !known || s < finishing:
	case s == finishing:
		in.forget(id)
	default:
		delete(in.ids, id)
		// Each exchange of a former connection returns quota once. There may
		// be more than one window of them, from several broken connections,
		// but not more than identifiers: invented ones must not widen the
		// window without end.
		if in.resumed > 0 {
			in.resumed--
			in.used = max(in.used-1, 0)
		}
		return in.recover(id) || exists
	}
	return exists
}

// recover notes that an exchange of a former connection has ended, and reports
// whether the client may still have waited for that. A session has no more
// exchanges open than maxRecovered, so what comes beyond is invented.
func (in *Inbound) recover(id uint16) bool {
	if _, again := in.recovered[id]; again || len(in.recovered) >= maxRecovered {
		return false
	}
	if in.recovered == nil {
		in.recovered = make(map[uint16]struct{})
	}
	in.recovered[id] = struct{}{}
	return true
}

func (in *Inbound) note(id uint16, s inboundStage) {
	if in.ids == nil {
		in.ids = make(map[uint16]inboundStage)
	}
	in.ids[id] = s
}

// forget ends an exchange of this connection and returns its quota.
func (in *Inbound) forget(id uint16) {
	delete(in.ids, id)
	in.used = max(in.used-1, 0)
}
