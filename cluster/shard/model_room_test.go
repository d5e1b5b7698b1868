package shard

import (
	"slices"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// enqueue gives an entry to a session if its queue's limits and policy let it,
// and reports whether it was refused for the publisher to know.
func (m *model) enqueue(s *modelSession, e *modelEntry) (rejected bool) {
	messages, bytes := m.limitsOf(s)
	size := func(list []*modelEntry) (sum int) {
		for _, e := range list {
			sum += contentBytes(e.message)
		}
		return sum
	}
	fits := func(list []*modelEntry) bool {
		return len(list) < messages && size(list)+contentBytes(e.message) <= bytes
	}
	sent := slices.Clone(s.queue)
	sent = slices.DeleteFunc(sent, func(e *modelEntry) bool { return e.seq > s.sentHi })
	policy := s.limits.GetPolicy()
	for !fits(s.queue) {
		i := slices.IndexFunc(s.queue, func(e *modelEntry) bool { return e.seq > s.sentHi })
		alone := contentBytes(e.message) > bytes
		expired := i >= 0 && s.queue[i].until <= m.clock
		oldest := policy == shoalpb.QueuePolicy_QUEUE_POLICY_DROP_OLDEST && fits(sent)
		if alone && len(s.queue) == 0 || i < 0 || !expired && !oldest {
			s.dropped++
			return policy == shoalpb.QueuePolicy_QUEUE_POLICY_REJECT
		}
		if !expired {
			s.dropped++
		}
		s.queue = slices.Delete(s.queue, i, i+1)
		if fits(s.queue) {
			s.renumber()
		}
	}
	s.seq++
	e.seq = s.seq
	s.queue = append(s.queue, e)
	m.advance(s)
	return false
}

func (m *model) limitsOf(s *modelSession) (messages, bytes int) {
	messages, bytes = m.config.QueueEntries, m.config.QueueBytes
	if l := s.limits; l != nil {
		if l.Messages > 0 {
			messages = int(l.Messages)
		}
		if l.Bytes > 0 {
			bytes = int(l.Bytes)
		}
	}
	return messages, bytes
}

// renumber closes the gaps between unsent entries when they are many.
func (s *modelSession) renumber() {
	if len(s.queue) == 0 {
		return
	}
	next := max(s.sentHi, s.queue[0].seq-1)
	var unsent []*modelEntry
	for _, e := range s.queue {
		if e.seq > s.sentHi {
			unsent = append(unsent, e)
		}
	}
	if gaps := int(s.seq-next) - len(unsent); gaps <= max(len(unsent), 64) {
		return
	}
	for _, e := range unsent {
		next++
		e.seq = next
	}
	s.seq = next
}
