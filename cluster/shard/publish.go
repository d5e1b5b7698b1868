package shard

import shoalpb "github.com/shoalmq/shoal/proto"

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
func (m *Machine) deliver(b **body, message *shoalpb.Message, _ []*shoalpb.Pick) (rejected bool) {
	m.counters.Appended++
	if *b != nil { // it has waited
		message = (*b).remaining(m.clock)
	}
	expired := message.ExpiryMs != nil && *message.ExpiryMs == 0
	found := m.matcher.match(m, message)
	for i := range found {
		f := &found[i]
		switch {
		case f.qos == 0 && !expired:
			m.sendVolatile(f, message)
			continue
		case expired:
			m.counters.Enqueued += uint64(min(f.qos, 1))
			m.counters.Expired += uint64(min(f.qos, 1))
			continue
		}
		flag := refFlag(f.qos)
		if f.retain {
			flag |= refRetain
		}
		before := f.session.nextSeq
		if m.enqueue(f.session, b, message, f.ids, flag) {
			rejected = true
		}
		if message.Retain && f.session.nextSeq > before {
			f.session.seenLive(message)
		}
	}
	m.matcher.clear()
	return rejected
}

// sendVolatile hands a delivery of QoS 0 to the leader, who may lose it.
func (m *Machine) sendVolatile(f *match, message *shoalpb.Message) {
	if f.session.owner == nil {
		return
	}
	if s := f.session; message.Retain && s.extra != nil && len(s.extra.replays) > 0 {
		m.touch(s)
		s.seenLive(message)
	}
	if m.now.eff != nil {
		m.now.eff.Volatile = append(m.now.eff.Volatile, f.volatile(message))
	}
}
