package broker

import (
	"errors"
	"math"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/broker/topic"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// neverExpires is the Session Expiry Interval of a session that does not
// expire, and of an MQTT 3 one with Clean Session 0.
const neverExpires = math.MaxUint32

// connect is a CONNECT that is being decided.
type connect struct {
	*packet.Connect
	assigned bool
}

// handleConnect checks CONNECT and asks the Cluster for the session. Nothing
// else is read before the answer ([MQTT-3.1.4-6]).
func (c *conn) handleConnect(p *packet.Connect) verdict {
	c.mu.Lock()
	if c.phase.Load() != awaiting { // its time was up
		c.mu.Unlock()
		return goOn
	}
	if p.HasAuthMethod {
		c.phase.Store(proving)
	} else {
		c.phase.Store(opening)
	}
	c.mu.Unlock()
	if !p.HasAuthMethod {
		c.broker.gate.leave()
	}
	c.listener.serving.Add(1)
	c.arrived = true
	c.version = p.Version
	c.maxPacket = p.MaximumPacketSize
	c.sentAliases = newSentAliases(p.TopicAliasMaximum)
	c.problems = p.RequestProblemInfo && p.Version == packet.V5
	c.bridge = p.Bridge
	q := connect{Connect: p}
	if err := c.checkConnect(&q); err != nil {
		return c.verdict(err)
	}
	if c.broker.memory.short(memoryRefuse) {
		return c.verdict(&packet.Error{Code: packet.CodeServerBusy, Packet: packet.TypeConnect, Reason: "the server is short of memory"})
	}
	if err := c.checkCrowd(); err != nil {
		return c.verdict(err)
	}
	if q.HasAuthMethod {
		return c.prove(&q)
	}
	if c.listener.Authenticator == nil && c.listener.Authorizer == nil {
		if !*c.listener.AllowAnonymous {
			return c.verdict(&packet.Error{Code: packet.CodeNotAuthorized, Packet: packet.TypeConnect, Reason: ErrNotAuthorized.Error()})
		}
		err := c.checkClient(&q)
		if err == nil {
			err = c.open(&q)
		}
		if err != nil {
			return c.verdict(err)
		}
		return onHold
	}
	c.admit(&q)
	return onHold
}

// open asks the Cluster for the session. Reading is held until it has answered.
func (c *conn) open(q *connect) error {
	if err := c.broker.cluster.Ready(); err != nil {
		return &packet.Error{Code: packet.CodeServerUnavailable, Packet: packet.TypeConnect, Reason: err.Error()}
	}
	request := c.accept(q)
	if ack := c.connack(q, session.Opened{}); c.tooLarge(len(ack.Append(nil, c.version))) {
		// It must not be sent [MQTT-3.1.2-24], and nothing else before it
		// [MQTT-3.2.0-1].
		return &packet.Error{Code: packet.CodePacketTooLarge, Packet: packet.TypeConnect, Reason: "CONNACK is above the client's maximum packet size"}
	}
	c.mu.Lock()
	if c.phase.Load() != opening {
		c.mu.Unlock()
		return nil
	}
	c.paused |= pauseOpening
	c.holds++
	c.mu.Unlock()
	c.broker.cluster.Open(request, c, func(l session.Link, o session.Opened, err error) {
		// Fetch below calls the Link, which this function may not.
		go func() {
			c.opened(q, l, o, err)
			c.drop()
		}()
	})
	return nil
}

// checkConnect refuses what is well-formed and cannot be served, and assigns a
// Client Identifier if there is none.
func (c *conn) checkConnect(q *connect) error {
	refuse := func(code packet.Code, reason string) error {
		return &packet.Error{Code: code, Packet: packet.TypeConnect, Reason: reason}
	}
	switch {
	case len(q.ClientID) > maxClientIDBytes: // [MQTT-3.1.3-8]
		return refuse(packet.CodeClientIdentifierNotValid, "client identifier is too long")
	case q.ClientID == "" && (q.Version == packet.V31 || q.Version == packet.V311 && !q.CleanStart):
		return refuse(packet.CodeClientIdentifierNotValid, "client identifier is empty")
	case q.Will == nil:
	default:
		if err := topic.ValidateName(q.Will.Topic); err != nil {
			return refuse(packet.CodeTopicNameInvalid, "will "+err.Error())
		}
	}
	if q.ClientID == "" {
		q.ClientID, q.assigned = c.broker.config.NewClientID(), true
	}
	return nil
}

// accept takes over what CONNECT says. The request points to nothing of the
// packet's body.
func (c *conn) accept(q *connect) session.OpenRequest {
	config := &c.bounds.Limits
	c.client = q.ClientID
	c.keepAlive = time.Duration(keepAliveFactor * float64(config.keepAlive(q)))
	c.expiry = config.capExpiry(q.expiry())
	c.window = max(config.MaxInFlight, minWindow)
	if q.ReceiveMaximum != 0 {
		c.window = min(c.window, q.ReceiveMaximum)
	}
	r := session.OpenRequest{
		Client:        c.client,
		CleanStart:    q.CleanStart,
		ExpirySeconds: c.expiry,
		Window:        c.window,
		Queue:         config.Queue,
		Waits:         c.stillWaits,
	}
	if q.Will != nil {
		r.Will = willMessage(q.Will, c.client)
	}
	return r
}

// expiry is the Session Expiry Interval asked for.
func (q *connect) expiry() uint32 {
	switch {
	case q.Version == packet.V5:
		return q.SessionExpiry
	case q.CleanStart:
		return 0
	}
	return neverExpires
}

func (c *Limits) capExpiry(seconds uint32) uint32 {
	if limit := c.MaxSessionExpiry / time.Second; limit > 0 && time.Duration(seconds) > limit {
		return uint32(limit)
	}
	return seconds
}

// keepAlive is the Keep Alive to enforce. Only MQTT 5 clients can be told
// another one than they asked for ([MQTT-3.2.2-21]).
func (c *Limits) keepAlive(q *connect) time.Duration {
	asked := time.Duration(q.KeepAlive) * time.Second
	if q.Version != packet.V5 || c.MaxKeepAlive >= defaultMaxKeepAlive {
		return asked
	}
	if asked == 0 {
		return c.MaxKeepAlive
	}
	return min(asked, c.MaxKeepAlive)
}

func willMessage(w *packet.Will, publisher string) *shoalpb.Will {
	m := &shoalpb.Message{
		Topic:      w.Topic,
		Payload:    append([]byte(nil), w.Payload...),
		Properties: append([]byte(nil), w.Forward...),
		Qos:        uint32(w.QoS),
		Retain:     w.Retain,
		Publisher:  publisher,
	}
	if w.HasExpiry {
		m.ExpiryMs = expiryMillis(w.MessageExpiry)
	}
	return &shoalpb.Will{Message: m, DelayS: w.DelaySeconds}
}

// opened takes the Cluster's answer.
func (c *conn) opened(q *connect, l session.Link, o session.Opened, err error) {
	if errors.Is(err, session.ErrUndecided) {
		c.undecided(err.Error())
		return
	}
	if err != nil {
		c.refuseConnect(openCode(err), err.Error())
		return
	}
	c.mu.Lock()
	c.link = l
	if c.phase.Load() != opening { // its cleanup has run, or will not see the Link
		c.unlock()
		l.Close(session.CloseRequest{DiscardWill: true}) // there was no CONNACK
		return
	}
	c.durable, c.resumed, c.sentHi = o.Durable, o.Present && o.Durable, o.SentHi
	ack := c.connack(q, o)
	c.append(packet.TypeConnack, func(dst []byte) []byte { return ack.AppendLimit(dst, c.version, c.maxPacket) })
	c.phase.Store(serving)
	c.seen.Store(time.Now().UnixNano())
	c.broker.wheel.schedule(c, c.checkServing(time.Now()))
	c.unlock()
	c.broker.metrics.connects.Add(1)
	c.listener.counts.connects.Add(1)
	c.broker.log.Debug("client connected", "client", c.client, "version", c.version, "durable", o.Durable, "present", o.Present)
	if o.Durable {
		l.Fetch()
	}
	c.mu.Lock()
	c.resume(pauseOpening)
	c.unlock()
}

// stillWaits tells whether the client waits for its CONNACK: not if it has gone
// and left nothing that is unread.
func (c *conn) stillWaits() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase.Load() != opening {
		return false
	}
	return c.reading || len(c.rest) > 0 || !c.wire.hungUp()
}

// undecided ends a connection without CONNACK: its session may be opened still,
// or was.
func (c *conn) undecided(why string) {
	c.mu.Lock()
	defer c.unlock()
	if c.phase.Load() >= serving {
		return
	}
	c.broker.metrics.refused.Add(1)
	c.listener.counts.refused.Add(1)
	c.endLocked(ending{why: why})
}

func openCode(err error) packet.Code {
	if code, ok := errorCode(err); ok {
		return code
	}
	return packet.CodeServerUnavailable
}

// connack says what was decided, and what this broker does not have.
func (c *conn) connack(q *connect, o session.Opened) *packet.Connack {
	config := &c.bounds.Limits
	p := &packet.Connack{
		SessionPresent:    o.Present,
		ReceiveMaximum:    config.ReceiveMaximum,
		MaximumPacketSize: uint32(config.MaxPacketBytes),
		TopicAliasMaximum: uint16(c.broker.config.TopicAliasMaximum),
	}
	if q.assigned { // [MQTT-3.2.2-16]
		p.AssignedClientID = c.client
	}
	if q.HasAuthMethod { // [MQTT-4.12.0-5]
		p.AuthMethod, p.AuthData = q.AuthMethod, q.AuthData
	}
	if c.expiry != q.expiry() {
		p.HasSessionExpiry, p.SessionExpiry = true, c.expiry
	}
	if keepAlive := config.keepAlive(q); keepAlive != time.Duration(q.KeepAlive)*time.Second {
		p.HasServerKeepAlive, p.ServerKeepAlive = true, uint16(keepAlive/time.Second)
	}
	return p
}

// refuseConnect answers CONNECT with a failure, if the client can understand
// one, and ends the connection ([MQTT-3.2.2-7]).
func (c *conn) refuseConnect(code packet.Code, why string) {
	c.mu.Lock()
	defer c.unlock()
	if c.phase.Load() >= serving {
		return
	}
	c.broker.metrics.refused.Add(1)
	c.listener.counts.refused.Add(1)
	if c.version != 0 {
		if !code.In(packet.TypeConnack) {
			code = packet.CodeUnspecifiedError
		}
		p := packet.Connack{Code: code}
		if c.problems {
			p.ReasonString = why
		}
		c.append(packet.TypeConnack, func(dst []byte) []byte { return p.AppendLimit(dst, c.version, c.maxPacket) })
	}
	c.endLocked(ending{code: code, farewell: true, why: why})
}
