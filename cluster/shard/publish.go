package shard

import shoalpb "github.com/shoalmq/shoal/proto"

// appendCommand takes a message into the queues of all sessions that match. A
// full queue is no exception: it is the limit of one subscriber, counted there,
// and the publisher's message was accepted.
func (m *Machine) appendCommand(c *shoalpb.Append) *shoalpb.Answer {
	var b *body
	m.deliver(&b, c.Message)
	return nil
}

// deliver gives a message to all sessions that match. *b is its body, if it is
// stored already or is now.
func (m *Machine) deliver(b **body, message *shoalpb.Message) {
	m.counters.Appended++
	found := m.matcher.match(m, message)
	for i := range found {
		f := &found[i]
		if f.qos == 0 {
			m.sendVolatile(f, message)
			continue
		}
		flag := refFlag(f.qos)
		if f.retain {
			flag |= refRetain
		}
		m.enqueue(f.session, b, message, f.ids, flag)
	}
	m.matcher.clear()
}

// sendVolatile hands a delivery of QoS 0 to the leader, who may lose it.
func (m *Machine) sendVolatile(f *match, message *shoalpb.Message) {
	if f.session.owner != nil && m.now.eff != nil {
		m.now.eff.Volatile = append(m.now.eff.Volatile, f.volatile(message))
	}
}
