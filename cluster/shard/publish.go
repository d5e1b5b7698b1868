package shard

import shoalpb "github.com/shoalmq/shoal/proto"

// appendCommand takes a message into the queues of all sessions that match. The
// answer "queue full" says that at least one of them was full and lost it,
// which is counted; all others have it.
func (m *Machine) appendCommand(c *shoalpb.Append) *shoalpb.Answer {
	var b *body
	if !m.deliver(&b, c.Message) {
		return refuse(shoalpb.Code_CODE_QUEUE_FULL)
	}
	return nil
}

// deliver gives a message to all sessions that match. *b is its body, if it is
// stored already or is now. It reports false if a queue was full.
func (m *Machine) deliver(b **body, message *shoalpb.Message) bool {
	m.counters.Appended++
	taken := true
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
		taken = m.enqueue(f.session, b, message, f.ids, flag) && taken
	}
	m.matcher.clear()
	return taken
}

// sendVolatile hands a delivery of QoS 0 to the leader, who may lose it.
func (m *Machine) sendVolatile(f *match, message *shoalpb.Message) {
	if f.session.owner != nil && m.now.eff != nil {
		m.now.eff.Volatile = append(m.now.eff.Volatile, f.volatile(message))
	}
}
