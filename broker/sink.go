package broker

import (
	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/broker/session"
)

var _ session.Sink = (*conn)(nil)

// Deliver is part of session.Sink.
func (c *conn) Deliver(entries []session.Delivery) {
	f := newFanout(nil)
	defer f.free()
	c.mu.Lock()
	defer c.unlock()
	m := &c.broker.metrics
	if c.phase.Load() != serving {
		for i := range entries {
			if entries[i].Seq == 0 { // the others stay in their shard
				m.matched.Add(1)
				m.dropped[dropClosed].Add(1)
			}
		}
		return
	}
	out := c.outgoingState()
	for i := range entries {
		d := &entries[i]
		switch {
		case d.Seq == 0:
			m.matched.Add(1)
			f.reset(d.Message)
			c.deliverLocked(f, d.Retain, d.Identifiers)
		case d.QoS == 0: // of a replay, in the queue so that it is paced
			out.replay(*d)
		case out.session.Deliver(*d) && !d.Released:
			out.expire(d.Seq, d)
		}
	}
	c.pump()
}

// Superseded is part of session.Sink ([MQTT-3.1.4-3]).
func (c *conn) Superseded() {
	c.dismiss(packet.CodeSessionTakenOver, "another connection has the session")
}

// Lost is part of session.Sink.
func (c *conn) Lost(err error) {
	c.dismiss(packet.CodeServerUnavailable, err.Error())
}

// dismiss ends the connection with DISCONNECT, or with CONNACK if that has not
// been sent.
func (c *conn) dismiss(code packet.Code, why string) {
	if c.phase.Load() < serving {
		c.refuseConnect(packet.CodeServerUnavailable, why)
	}
	c.goodbye(code, why)
}
