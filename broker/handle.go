package broker

import (
	"errors"

	"github.com/shoalmq/shoal/broker/packet"
)

// handle gives a Control Packet to its part, or puts it behind earlier ones. The
// body is valid until it returns.
func (c *conn) handle(r *reader, h packet.Header, body []byte) verdict {
	c.broker.metrics.packets[h.Type].Add(1)
	if c.phase.Load() == serving {
		if isOrdered(h.Type) && c.holdBack(h, body) {
			return c.verdict(nil)
		}
		return c.verdict(c.handleServing(r, h, body))
	}
	p, err := c.decode(h, body)
	if err != nil {
		return c.verdict(err)
	}
	switch p := p.(type) {
	case *packet.Connect:
		return c.handleConnect(p)
	case *packet.Disconnect:
		err = c.handleDisconnect(p)
	case *packet.Auth:
		err = c.handleAuth(p)
	}
	return c.verdict(err)
}

// handleServing gives a packet that came behind CONNACK to its part.
func (c *conn) handleServing(r *reader, h packet.Header, body []byte) error {
	switch h.Type {
	case packet.TypePublish:
		return c.handlePublish(r, h, body)
	case packet.TypePuback, packet.TypePubrec, packet.TypePubrel, packet.TypePubcomp:
		return c.handleAck(r, h, body)
	}
	p, err := c.decode(h, body)
	if err != nil {
		return err
	}
	switch p := p.(type) {
	case *packet.Subscribe:
		return c.handleSubscribe(p)
	case *packet.Unsubscribe:
		err = c.handleUnsubscribe(p)
	case *packet.Pingreq:
		if err = c.meterRequest(packet.TypePingreq); err == nil {
			c.send(packet.TypePingresp, &packet.Pingresp{})
		}
	case *packet.Disconnect:
		return c.handleDisconnect(p)
	case *packet.Auth:
		return c.handleAuth(p)
	}
	return err
}

// decode decodes a packet that is not a PUBLISH, and checks that it may come
// now, and from a client.
func (c *conn) decode(h packet.Header, body []byte) (packet.Packet, error) {
	phase := c.phase.Load()
	first := phase == awaiting
	switch {
	case first && h.Type != packet.TypeConnect: // [MQTT-3.1.0-1]
		return nil, &packet.Error{Code: packet.CodeProtocolError, Packet: h.Type, Reason: "first packet is not CONNECT"}
	case !first && h.Type == packet.TypeConnect: // [MQTT-3.1.0-2]
		return nil, &packet.Error{Code: packet.CodeProtocolError, Packet: h.Type, Reason: "second CONNECT"}
	case phase == proving && h.Type != packet.TypeAuth && h.Type != packet.TypeDisconnect: // [MQTT-3.1.2-30]
		return nil, &packet.Error{Code: packet.CodeProtocolError, Packet: h.Type, Reason: "only AUTH and DISCONNECT may come before CONNACK"}
	case first:
		p := &packet.Connect{}
		if err := p.Decode(h, body, 0); err != nil {
			c.version = p.Version
			return nil, err
		}
		return p, nil
	case !h.Type.FromClient():
		return nil, &packet.Error{Code: packet.CodeProtocolError, Packet: h.Type, Reason: "packet from a server"}
	}
	p, err := packet.Decode(h, body, c.version)
	if err != nil {
		return nil, err
	}
	if p, ok := p.(interface{ CheckClient() error }); ok {
		err = p.CheckClient()
	}
	return p, err
}

// verdict ends the connection for an error, and says how reading goes on.
func (c *conn) verdict(err error) verdict {
	if err != nil {
		c.refuse(err)
		return goOn // what follows is discarded
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paused != 0 {
		return onHold
	}
	return goOn
}

// refuse ends the connection because of what the client sent. Before CONNACK
// the answer is CONNACK if the client's version is known, never DISCONNECT
// ([MQTT-3.14.0-1]).
func (c *conn) refuse(err error) {
	code, why := packet.CodeUnspecifiedError, err.Error()
	var e *packet.Error
	if errors.As(err, &e) {
		code = e.Code
	}
	if c.phase.Load() < serving {
		c.refuseConnect(code, why)
		return
	}
	c.goodbye(code, why)
}

// send puts a packet into the output.
func (c *conn) send(t packet.Type, p packet.Packet) {
	c.mu.Lock()
	c.append(t, func(dst []byte) []byte { return p.Append(dst, c.version) })
	c.unlock()
}

// handleDisconnect is DISCONNECT from the client ([MQTT-3.14.4-3]).
func (c *conn) handleDisconnect(p *packet.Disconnect) error {
	e := ending{why: "client disconnected", code: p.Code}
	if c.phase.Load() == proving { // there is no session yet
		c.end(e)
		return nil
	}
	e.request.DiscardWill = p.Code == packet.CodeNormalDisconnection
	if p.HasSessionExpiry {
		if p.SessionExpiry != 0 && c.expiry == 0 { // MQTT 5 §3.14.2.2.2
			return &packet.Error{Code: packet.CodeProtocolError, Packet: packet.TypeDisconnect, Reason: "session expiry was 0 in CONNECT"}
		}
		expiry := c.bounds.capExpiry(p.SessionExpiry)
		e.request.ExpirySeconds = &expiry
	}
	c.leave(e)
	return nil
}
