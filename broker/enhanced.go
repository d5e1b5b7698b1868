package broker

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

// Enhanced authentication (MQTT 5 §4.12): AUTH packets go to and fro between
// CONNECT and CONNACK, and again while the client is served, when it wants to
// prove anew who it is. Methods know what is in them (EnhancedAuthenticator);
// here is who may send what, and when.
//
// Steps may block, so each has a goroutine of its own. Before CONNACK nothing is
// read meanwhile, and between the steps nothing but AUTH and DISCONNECT is taken
// ([MQTT-3.1.2-30]). Until it has proved who it is the connection counts as half
// open: it is bounded in number (gate) and in time, like one that has sent no
// CONNECT. While the client is served everything else goes on.

// exchange is one run of a method, guarded by conn.mu. A connection has one at
// most, and a step of it one at a time.
type exchange struct {
	credentials *Credentials
	// run is nil before the first step. It belongs to the step that is under way.
	run  Exchange
	busy bool
	// request is the CONNECT that waits for the outcome, nil for
	// re-authentication.
	request *connect
	until   time.Time
}

// prove begins the exchange that CONNECT asks for.
func (c *conn) prove(q *connect) verdict {
	if c.listener.Enhanced == nil { // [MQTT-4.12.0-1]
		return c.verdict(&packet.Error{Code: packet.CodeBadAuthenticationMethod, Packet: packet.TypeConnect, Reason: ErrUnknownMethod.Error()})
	}
	q.own()
	c.method = q.AuthMethod
	x := &exchange{credentials: c.credentials(q), request: q}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase.Load() == proving {
		x.until = time.Unix(0, c.deadline)
		c.paused |= pauseOpening
		c.exchange = x
		c.step(x, q.AuthData)
	}
	return onHold
}

// handleAuth is AUTH of the client: the next step, or the first of a
// re-authentication.
func (c *conn) handleAuth(p *packet.Auth) error {
	wrong := func(reason string) error {
		return &packet.Error{Code: packet.CodeProtocolError, Packet: packet.TypeAuth, Reason: reason}
	}
	if c.method == "" { // [MQTT-4.12.0-7]
		return wrong("no authentication method was agreed")
	}
	if p.AuthMethod != c.method { // [MQTT-4.12.0-5] [MQTT-4.12.1-1]
		return wrong("authentication method is not that of CONNECT")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	x, phase := c.exchange, c.phase.Load()
	switch {
	case phase != proving && phase != serving:
		return nil
	case x != nil && x.busy:
		return wrong("AUTH before the answer to the last")
	case p.Code == packet.CodeContinueAuthentication && x == nil:
		return wrong("there is no exchange to continue")
	case p.Code == packet.CodeReauthenticate && x != nil:
		return wrong("an exchange is under way")
	case x == nil:
		x = c.reauthenticate()
	case phase == proving:
		c.paused |= pauseOpening
	}
	c.step(x, bytes.Clone(p.AuthData))
	return nil
}

// reauthenticate begins an exchange with a client that is served. mu is held.
func (c *conn) reauthenticate() *exchange {
	now := time.Now()
	c.exchange = &exchange{
		credentials: &Credentials{
			ClientID: c.client, Version: c.version, Method: c.method, Peer: c.from(),
			HasUsername: true, Username: c.who.Username,
		},
		until: now.Add(c.broker.config.ConnectTimeout),
	}
	c.broker.wheel.schedule(c, now.Add(sweepInterval))
	return c.exchange
}

// step runs a step. mu is held.
func (c *conn) step(x *exchange, data []byte) {
	ctx, cancel := context.WithDeadline(c.broker.ctx, x.until)
	x.busy, c.stopAdmission = true, cancel
	c.spawn(func() {
		defer cancel()
		reply, who, err := c.advance(ctx, x, data)
		switch {
		case err != nil:
			c.failedLogin(err)
			err = c.refusal(err)
		case who == nil:
			err = c.proceed(x, reply)
		case x.request != nil:
			err = c.proved(x, reply, who)
		default:
			err = c.renew(reply, who)
		}
		if err != nil {
			c.refuse(err)
		}
	})
}

// advance asks the method.
func (c *conn) advance(ctx context.Context, x *exchange, data []byte) (reply []byte, who *Identity, err error) {
	if x.run == nil {
		if x.run, err = c.listener.Enhanced.Begin(ctx, x.credentials); err != nil {
			return nil, nil, err
		}
	}
	reply, who, err = x.run.Step(ctx, data)
	if err == nil && ctx.Err() != nil { // too late is not in time
		err = context.Cause(ctx)
	}
	return reply, who, err
}

// proceed asks the client for the next step ([MQTT-4.12.0-2]).
func (c *conn) proceed(x *exchange, reply []byte) error {
	auth, err := c.auth(packet.CodeContinueAuthentication, reply)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.unlock()
	x.busy = false
	c.append(packet.TypeAuth, func(dst []byte) []byte { return append(dst, auth...) })
	if c.phase.Load() == proving {
		c.resume(pauseOpening)
	}
	return nil
}

// auth is an AUTH packet for the client ([MQTT-4.12.0-5]).
func (c *conn) auth(code packet.Code, data []byte) ([]byte, error) {
	p := packet.Auth{Code: code, AuthMethod: c.method, AuthData: data}
	b := p.AppendLimit(nil, c.version, c.maxPacket)
	if len(b) == 0 { // [MQTT-3.1.2-24]
		return nil, &packet.Error{Code: packet.CodePacketTooLarge, Packet: packet.TypeAuth, Reason: "AUTH is larger than the client's maximum packet size"}
	}
	return b, nil
}

// proved goes on with CONNECT; reply goes with CONNACK.
func (c *conn) proved(x *exchange, reply []byte, who *Identity) error {
	c.mu.Lock()
	if c.phase.Load() != proving {
		c.mu.Unlock()
		return nil
	}
	c.phase.Store(opening)
	c.exchange = nil
	c.mu.Unlock()
	c.broker.gate.leave()
	x.request.AuthData = reply
	return c.admitted(x.request, who)
}

// renew takes over what a client has proved anew: the same user has its session,
// so only how long it may stay and what it may do can change.
func (c *conn) renew(reply []byte, who *Identity) error {
	if who.Username != c.who.Username || who.ClientID != "" && who.ClientID != c.client {
		return c.refusal(fmt.Errorf("%w: re-authentication as somebody else", ErrNotAuthorized))
	}
	may, err := c.permissions(c.client, who)
	if err != nil {
		return c.refusal(err)
	}
	auth, err := c.auth(packet.CodeSuccess, reply)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.unlock()
	if c.phase.Load() != serving {
		return nil
	}
	c.exchange, c.who = nil, who
	c.may.Store(may)
	c.append(packet.TypeAuth, func(dst []byte) []byte { return append(dst, auth...) })
	c.broker.wheel.schedule(c, time.Now().Add(sweepInterval)) // Expires may be sooner
	return nil
}

// checkExchange ends a connection whose re-authentication takes too long
// ([MQTT-4.12.1-2]). mu is held.
func (c *conn) checkExchange(now time.Time) (again time.Time) {
	x := c.exchange
	if x == nil || now.Before(x.until) {
		if x != nil {
			again = x.until
		}
		return again
	}
	c.endLocked(ending{code: packet.CodeNotAuthorized, farewell: true, why: "re-authentication was not finished in time"})
	return time.Unix(0, c.deadline)
}
