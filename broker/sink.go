package broker

import (
	"time"

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
			c.broker.metrics.matched.Add(1)
			f.reset(d.Message)
			c.deliverLocked(f, d.Retain, d.Identifiers)
		case len(out.held) > 0 || d.Retain && c.subscribing > 0:
			out.hold(d)
		default:
			out.take(d)
		}
	}
	c.pump()
}

// take takes an entry of a durable session's queue.
func (out *outgoing) take(d *session.Delivery) {
	switch {
	case d.QoS == 0: // of a replay, in the queue so that it is paced
		out.replay(*d)
	case out.session.Deliver(*d) && !d.Released:
		out.expire(d.Seq, d)
	}
}

// hold keeps an entry, and so those after it, until SUBACK is in the output:
// retained messages follow it, as most clients know it. What is held is bounded
// like everything that a shard sends unfinished.
func (out *outgoing) hold(d *session.Delivery) {
	if n := len(out.held); n == 0 {
		out.heldSince = time.Now()
	} else if d.Seq <= out.held[n-1].Seq { // again, from another leader
		return
	}
	held := *d
	held.Age -= time.Since(out.heldSince)
	out.held = append(out.held, held)
}

// subscribeAnswered follows SUBACK of a durable session. mu is held.
func (c *conn) subscribeAnswered() {
	c.subscriptionsChanged(&c.subscribing)
	if out := c.outgoing; out != nil && c.subscribing == 0 {
		for i := range out.held {
			d := &out.held[i]
			d.Age += time.Since(out.heldSince)
			out.take(d)
		}
		out.held = nil
		c.pump()
	}
}

// Superseded is part of session.Sink ([MQTT-3.1.4-3]). What the client sent
// before it connected anew counts, DISCONNECT above all.
func (c *conn) Superseded() {
	const why = "another connection has the session"
	if c.phase.Load() < serving {
		c.undecided(why)
	}
	c.mu.Lock()
	defer c.unlock()
	c.finishLocked(ending{code: packet.CodeSessionTakenOver, farewell: true, why: why})
}

// Lost is part of session.Sink. Nothing more can take effect.
func (c *conn) Lost(err error) {
	if c.phase.Load() < serving {
		c.undecided(err.Error())
	}
	c.goodbye(packet.CodeServerUnavailable, err.Error())
	c.dropLine()
}
