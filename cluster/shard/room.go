package shard

import shoalpb "github.com/shoalmq/shoal/proto"

// limits bound one session: the unfinished entries of its queue, and its
// subscriptions. Equal ones are
// shared.
type limits struct {
	messages int
	bytes    int
	policy   shoalpb.QueuePolicy
	// subscriptions of the session, 0 for the shard's own bound.
	subscriptions int
}

// limits returns what a session asks for; nil is the shard's own.
func (m *Machine) limits(l *shoalpb.QueueLimits) *limits {
	if l == nil {
		return nil
	}
	want := limits{int(min(l.Messages, maxLimit)), int(min(l.Bytes, maxLimit)), l.Policy, int(min(l.Subscriptions, maxLimit))}
	if want == (limits{}) {
		return nil
	}
	if known := m.known[want]; known != nil {
		return known
	}
	if len(m.known) < sharedLimits {
		m.known[want] = &want
	}
	return &want
}

func (l *limits) row() *shoalpb.QueueLimits {
	if l == nil {
		return nil
	}
	return &shoalpb.QueueLimits{Messages: uint64(l.messages), Bytes: uint64(l.bytes), Policy: l.policy, Subscriptions: uint64(l.subscriptions)}
}

// setLimits gives a session the limits of its new owner.
func (s *session) setLimits(l *limits) {
	if l != nil {
		s.more().limits = l
	} else if s.extra != nil {
		s.extra.limits = nil
	}
}

// limitsOf are the limits that hold for a session: where it has none, those of
// the shard.
func (m *Machine) limitsOf(s *session) limits {
	var l limits
	if s.extra != nil && s.extra.limits != nil {
		l = *s.extra.limits
	}
	setDefault(&l.messages, m.cfg.QueueEntries)
	setDefault(&l.bytes, m.cfg.QueueBytes)
	setDefault(&l.subscriptions, m.cfg.Subscriptions)
	l.subscriptions = min(l.subscriptions, m.cfg.Subscriptions)
	return l
}

// room makes room for a message of size bytes in the session's queue, as its
// policy says. It reports false if the new message is not to be taken.
//
// What may have been sent is never dropped: the client may still answer it, and
// its identifier is not free. Expired messages go first, as far as they are the
// oldest.
func (m *Machine) room(s *session, size int) bool {
	l := m.limitsOf(s)
	q := s.queue
	if q == nil || q.unfinished < l.messages && q.bytes+size <= l.bytes {
		return size <= l.bytes
	}
	// Dropping what is unsent must be enough, or nothing is dropped for it.
	helps := l.policy == shoalpb.QueuePolicy_QUEUE_POLICY_DROP_OLDEST &&
		q.sent < l.messages && q.sentBytes+size <= l.bytes
	for s.queue != nil && (q.unfinished >= l.messages || q.bytes+size > l.bytes) {
		seq, b := s.oldestUnsent()
		switch {
		case b != nil && b.expired(m.clock):
			m.counters.Expired++
		case b != nil && helps:
			m.counters.DroppedOldest++
			s.more().dropped++
		default:
			return false
		}
		m.finish(s, seq)
	}
	m.closeHoles(s)
	return true
}

// oldestUnsent is the oldest entry that was never sent; b is nil if there is
// none.
func (s *session) oldestUnsent() (seq uint64, b *body) {
	q := s.queue
	if q.unfinished == q.sent {
		return 0, nil
	}
	seq, r := q.next(max(q.unsent, s.sentHi+1), false)
	q.unsent = seq
	return seq, r.body
}

// closeHoles numbers the unsent entries anew when more than half of their
// numbers are those of finished ones: a client that is connected and stands
// still must not make its queue grow with every message that is dropped. Nobody
// has seen a number above sentHi.
func (m *Machine) closeHoles(s *session) {
	q := s.queue
	if q == nil {
		return
	}
	from := max(s.sentHi+1, q.base)
	unsent := q.unfinished - q.sent
	if holes := int(s.nextSeq-from) - unsent; holes <= max(unsent, minHoles) {
		return
	}
	m.touch(s)
	q.unsent = 0
	s.nextSeq = m.closeUp(s, from)
}
