package shard

import (
	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// appendCommand takes a message into the queues of all sessions that match. A
// full queue is no exception: it is the limit of one subscriber, counted there,
// and the publisher's message was accepted. Unless the subscriber's policy is to
// reject: then the publisher is told, although the others got the message. An
// outbox is not: its message was acknowledged to the publisher long ago.
func (m *Machine) appendCommand(c *shoalpb.Append) *shoalpb.Answer {
	var b *body
	if rejected := m.deliver(&b, c.Message, c.Picks); rejected && m.now.batch.Node != "" {
		return refuse(shoalpb.Code_CODE_QUEUE_FULL)
	}
	return nil
}

// deliver gives a message to all sessions that match. *b is its body, if it is
// stored already or is now. One that has expired counts as queued and expired
// ([MQTT-3.3.2-5]). It reports whether a session rejected it.
func (m *Machine) deliver(b **body, message *shoalpb.Message, picks []*shoalpb.Pick) (rejected bool) {
	m.counters.Appended++
	if *b != nil { // it has waited
		message = (*b).remaining(m.clock)
	}
	if len(picks) == 0 || !picks[0].Only {
		found := m.matcher.match(m, message)
		for i := range found {
			rejected = m.give(b, message, &found[i]) || rejected
		}
		m.matcher.clear()
	}
	for _, p := range picks {
		rejected = m.deliverPick(b, message, p) || rejected
	}
	return rejected
}

// give gives a message to one session. message is nil if it has left memory;
// then *b is its body.
func (m *Machine) give(b **body, message *shoalpb.Message, f *match) (rejected bool) {
	expired := *b != nil && (*b).expired(m.clock) || *b == nil && message.ExpiryMs != nil && *message.ExpiryMs == 0
	switch {
	case expired:
		m.counters.Enqueued += uint64(min(f.qos, 1))
		m.counters.Expired += uint64(min(f.qos, 1))
		return false
	case f.qos == 0:
		m.giveVolatile(f, b, message)
		return false
	}
	live := !f.from.isShared() && message.Retain
	value := live && m.isReplayValue(f.session, message)
	flag := refFlag(f.qos)
	if f.retain || value {
		flag |= refRetain
	}
	before := m.counters.Enqueued // nextSeq may fall, see closeHoles
	rejected = m.enqueue(f.session, b, message, f.from, flag)
	if live && m.counters.Enqueued > before {
		m.seenLive(f.session, message, value)
	}
	return rejected
}

// giveVolatile gives a message that is QoS 0 in effect to one session. One that
// belongs among retained messages which wait in the session's queue goes there; it
// pushes nothing out of it.
func (m *Machine) giveVolatile(f *match, b **body, message *shoalpb.Message) {
	s := f.session
	if m.format < stream.FormatOrder || message == nil || f.from.isShared() || !m.joinsReplay(s, message.Topic) {
		m.sendVolatile(f, message)
		return
	}
	m.touch(s)
	if !m.hasRoom(s, 1, contentBytes(message)) {
		m.counters.QueueFull++
		s.more().dropped++
		return
	}
	value := m.isReplayValue(s, message)
	flag := refFlag(0)
	if f.retain || value {
		flag |= refRetain
	}
	m.enqueue(s, b, message, f.from, flag)
	if message.Retain {
		m.seenLive(s, message, value)
	}
}

// sendVolatile hands a delivery of QoS 0 to the leader, who may lose it.
func (m *Machine) sendVolatile(f *match, message *shoalpb.Message) {
	s := f.session
	if !s.attached() {
		return
	}
	if message == nil { // of a Shared Subscription: see give
		if m.now.eff != nil {
			m.now.eff.VolatileLost++
		}
		return
	}
	if m.format < stream.FormatOrder && !f.from.isShared() && message.Retain && s.replays() {
		m.touch(s)
		m.seenLive(s, message, false)
	}
	if m.now.eff != nil {
		m.now.eff.Volatile = append(m.now.eff.Volatile, f.volatile(message))
	}
}
