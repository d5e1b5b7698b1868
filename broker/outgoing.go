package broker

import (
	"time"
	"unsafe"

	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// outgoing is the state of the QoS 1 and 2 deliveries to a client, guarded by
// conn.mu.
type outgoing struct {
	session *session.Outbound
	// last is the number that session gave the last message of a transient
	// session.
	last uint64
	// deadlines has when the messages with a Message Expiry Interval expire.
	deadlines map[uint64]time.Time
	// replayed are retained messages of QoS 0 for a durable session that wait for
	// room in the output, ascending; replayedTo is the highest that came.
	replayed   []session.Delivery
	replayedTo uint64
	// held are entries that wait for SUBACK since heldSince; their Age is as of
	// then.
	held      []session.Delivery
	heldSince time.Time
}

// outgoingState makes the state when it is first needed. mu is held.
func (c *conn) outgoingState() *outgoing {
	if c.outgoing == nil {
		c.outgoing = &outgoing{session: session.NewOutbound(c.window, c.sentHi, c.bounds.MaxQueue)}
	}
	return c.outgoing
}

// finishing is a durable session's delivery that is over.
type finishing struct {
	seq     uint64
	expired bool // before it was sent
}

// enqueue takes a delivery for a transient session, or drops and counts it. mu
// is held.
func (c *conn) enqueue(d session.Delivery) bool {
	m := &c.broker.metrics
	out := c.outgoingState()
	if !c.makeRoom(&d) || !out.session.Enqueue(d) {
		m.dropped[dropQueueFull].Add(1)
		return false
	}
	out.last++
	m.queued.Add(1)
	out.expire(out.last, &d)
	c.pumpQueue()
	return true
}

// makeRoom drops the oldest messages that wait for a transient session, if that
// is the policy, as long as d does not fit. It reports whether it fits. mu is
// held.
func (c *conn) makeRoom(d *session.Delivery) bool {
	config, out := &c.bounds.Limits, c.outgoing
	size := session.ContentBytes(d)
	for out.session.Queued() >= config.MaxQueue || out.session.QueuedBytes()+size > config.MaxQueueBytes {
		if size > config.MaxQueueBytes || config.Queue.GetPolicy() != shoalpb.QueuePolicy_QUEUE_POLICY_DROP_OLDEST {
			return false
		}
		seq, ok := out.session.DropOldest()
		if !ok {
			return false
		}
		delete(out.deadlines, seq)
		c.broker.metrics.queued.Add(-1)
		c.broker.metrics.dropped[dropOldest].Add(1)
	}
	return true
}

// expire remembers when a message expires: waiting here is to be deducted from
// its interval, as waiting before was ([MQTT-3.3.2-6]).
func (out *outgoing) expire(seq uint64, d *session.Delivery) {
	if d.Message == nil || d.Message.ExpiryMs == nil {
		return
	}
	if out.deadlines == nil {
		out.deadlines = make(map[uint64]time.Time)
	}
	out.deadlines[seq] = time.Now().Add(remaining(d))
}

// remaining is what is left of the Message Expiry Interval of a delivery that
// has one.
func remaining(d *session.Delivery) time.Duration {
	return time.Duration(min(*d.Message.ExpiryMs, maxExpiryMs))*time.Millisecond - d.Age
}

// pump puts what the window allows into the output, as long as that is not
// full, and then retained messages. mu is held.
func (c *conn) pump() {
	c.pumpQueue()
	c.pumpReplayed()
	c.replayOn()
}

// replay takes a retained message of QoS 0 out of a durable session's queue.
func (out *outgoing) replay(d session.Delivery) {
	if d.Seq <= out.replayedTo {
		return
	}
	out.replayedTo = d.Seq
	out.expire(d.Seq, &d)
	out.replayed = append(out.replayed, d)
}

// pumpReplayed puts them into the output as long as that is not full. They are
// over when they are sent. mu is held.
func (c *conn) pumpReplayed() {
	if c.outgoing == nil || c.phase.Load() != serving {
		return
	}
	for out := c.outgoing; len(out.replayed) > 0 && c.pending < c.broker.config.MaxOutputBytes; {
		d := out.replayed[0]
		out.replayed[0] = session.Delivery{}
		out.replayed = out.replayed[1:]
		c.broker.metrics.matched.Add(1)
		if c.sendPublish(&session.Send{Delivery: d}) {
			c.finished(d.Seq)
		}
	}
}

func (c *conn) pumpQueue() {
	if c.outgoing == nil || c.phase.Load() != serving {
		return
	}
	for c.pending < c.broker.config.MaxOutputBytes {
		s, ok := c.outgoing.session.Next()
		if !ok {
			return
		}
		if s.Pubrel {
			c.appendAck(packet.TypePubrel, s.ID, packet.CodeSuccess)
			continue
		}
		if c.durable { // what waits is counted where it is kept, in its shard
			c.broker.metrics.matched.Add(1)
		} else {
			c.broker.metrics.queued.Add(-1)
		}
		c.sendPublish(&s)
	}
}

// sendPublish puts a queued PUBLISH into the output and reports true, unless it
// has expired, is too large for the client, or the client may not receive it any
// more, whatever it was sent before: then it is over. mu is held.
func (c *conn) sendPublish(s *session.Send) bool {
	if !c.mayReceive(s.Message) {
		c.discard(s.Seq, dropNotAuthorized)
		return false
	}
	p := packet.Publish{Dup: s.Dup, QoS: packet.QoS(s.QoS), Retain: s.Retain, PacketID: s.ID, SubscriptionIDs: s.Identifiers}
	fillPublish(&p, s.Message)
	if at, ok := c.outgoing.deadlines[s.Seq]; ok {
		if s.Share == "" { // else who gets it next has to know
			delete(c.outgoing.deadlines, s.Seq)
		}
		left := time.Until(at)
		if left <= 0 && !s.Dup { // [MQTT-3.3.2-5]; what was begun goes on, [MQTT-4.3.3-7]
			c.discard(s.Seq, dropExpired)
			return false
		}
		p.MessageExpiry = expirySeconds(left)
	}
	switch {
	case !c.appendPublish(&p):
		c.discard(s.Seq, dropTooLarge)
		return false
	case s.Dup:
		c.broker.metrics.redelivered.Add(1)
	}
	return true
}

// appendPublish puts a PUBLISH into the output and counts it, unless it is too
// large for the client ([MQTT-3.1.2-24]). mu is held.
func (c *conn) appendPublish(p *packet.Publish) bool {
	fresh := c.sentAliases != nil && c.sentAliases.apply(p)
	size := p.Size(c.version)
	if fresh && c.tooLarge(size) {
		fresh, p.HasAlias = false, false
		size = p.Size(c.version)
	}
	if c.tooLarge(size) {
		return false
	}
	if fresh {
		c.sentAliases.give(p)
	}
	out := c.output()
	out.b = p.Append(out.b, c.version)
	c.appended(packet.TypePublish, size)
	c.broker.metrics.delivered[p.QoS].Add(1)
	return true
}

// tooLarge is about a packet of this size, 0 for one that cannot be written
// ([MQTT-3.1.2-24]).
func (c *conn) tooLarge(size int) bool {
	return size == 0 || c.maxPacket > 0 && uint32(size) > c.maxPacket
}

// discard finishes a delivery without sending it. mu is held.
func (c *conn) discard(seq uint64, why drop) {
	c.outgoing.session.Discard(seq)
	delete(c.outgoing.deadlines, seq)
	c.broker.metrics.dropped[why].Add(1)
	if c.durable { // [MQTT-3.1.2-25]: as if it had been delivered
		c.acks = append(c.acks, finishing{seq, why == dropExpired})
	}
}

// finished has unlock tell the shard that a delivery is over. mu is held.
func (c *conn) finished(seq uint64) {
	if c.durable {
		c.acks = append(c.acks, finishing{seq: seq})
	} else {
		delete(c.outgoing.deadlines, seq)
	}
}

// fillPublish takes over what does not depend on the subscriber. p must not
// outlive m.
func fillPublish(p *packet.Publish, m *shoalpb.Message) {
	p.Topic = unsafe.Slice(unsafe.StringData(m.Topic), len(m.Topic)) // only read
	p.Payload, p.Forward = m.Payload, m.Properties
	if m.ExpiryMs != nil {
		p.HasExpiry = true
		p.MessageExpiry = expirySeconds(time.Duration(*m.ExpiryMs) * time.Millisecond)
	}
}

// expirySeconds rounds up: a message that has not expired must not say so.
func expirySeconds(left time.Duration) uint32 {
	return uint32(max((left+time.Second-1)/time.Second, 1))
}

// handleAck is an acknowledgement of the client.
func (c *conn) handleAck(r *reader, h packet.Header, body []byte) error {
	p := &r.ack
	if err := p.Decode(h, body, c.version); err != nil {
		return err
	}
	if p.Type == packet.TypePubrel {
		c.handlePubrel(p.PacketID)
		return nil
	}
	c.mu.Lock()
	if c.phase.Load() != serving {
		c.unlock()
		return nil
	}
	out := c.outgoingState().session
	release := uint64(0)
	switch p.Type {
	case packet.TypePuback:
		if seq, ok := out.Puback(p.PacketID); ok {
			c.finished(seq)
		}
	case packet.TypePubcomp:
		if seq, ok := out.Pubcomp(p.PacketID); ok {
			c.finished(seq)
		}
	case packet.TypePubrec:
		release = c.pubrec(p)
	}
	c.pump()
	c.unlock()
	if release != 0 {
		c.link.Release(release, func(err error) { c.released(release, err) })
	}
	return nil
}

// pubrec returns the delivery that a durable session's PUBREL may be sent for
// when its shard knows, or 0. mu is held.
func (c *conn) pubrec(p *packet.Ack) (release uint64) {
	out := c.outgoing.session
	seq, result := out.Pubrec(p.PacketID, p.Code.Failed())
	switch result {
	case session.PubrecUnknown:
		if !p.Code.Failed() {
			c.appendAck(packet.TypePubrel, p.PacketID, packet.CodePacketIdentifierNotFound)
		}
	case session.PubrecAgain:
		c.appendAck(packet.TypePubrel, p.PacketID, packet.CodeSuccess)
	case session.PubrecFinished:
		c.finished(seq)
	case session.PubrecRelease:
		if c.durable {
			return seq
		}
		out.Released(seq)
	}
	return 0
}

// released takes the Link's answer for a PUBREC.
func (c *conn) released(seq uint64, err error) {
	c.mu.Lock()
	defer c.unlock()
	switch {
	case c.phase.Load() != serving:
	case err != nil:
		c.fail(err)
	default:
		c.outgoing.session.Released(seq)
		c.pump()
	}
}

// dropQueue counts what a transient session loses with its connection, and
// returns what others of a Shared Subscription are to get; what a durable one
// has stays in its shard. mu is held.
func (c *conn) dropQueue() (left []orphan) {
	if c.outgoing != nil && !c.durable {
		n := c.outgoing.session.Queued()
		c.broker.metrics.queued.Add(-int64(n))
		var unsent int
		left, unsent = c.orphans()
		c.broker.metrics.dropped[dropClosed].Add(uint64(n - unsent))
		c.broker.metrics.dropped[dropPassedOn].Add(uint64(unsent))
	}
	c.outgoing, c.replays = nil, nil
	return left
}
