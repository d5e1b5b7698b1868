package shard

import (
	shoalpb "github.com/shoalmq/shoal/proto"
)

// queue holds the unfinished entries of one session. Entries have consecutive
// seqs; one that is finished while a lower one is not leaves an empty ref.
type queue struct {
	segments []*segment // ascending; there may be gaps of finished entries between
	base     uint64     // the lowest seq that is unfinished
	// unfinished counts the entries, sent those up to the session's sentHi.
	unfinished int
	sent       int
	// volatile counts those of QoS 0: of replays, and what came live among them.
	volatile int
	// bytes and sentBytes are the contents of the same entries.
	bytes, sentBytes int
	// unsent: no unfinished entry above sentHi is below. It saves a search and
	// is no part of the state.
	unsent uint64
	// unrowed counts the refs that the session's row has, rows the segments with
	// rows of their own.
	unrowed, rows int
}

// ref is one entry of a queue: 24 bytes.
type ref struct {
	body *body   // nil if finished
	from *origin // nil: no identifiers, not shared
	flag refFlag
}

// origin is what entries came through; it is shared and never changed.
type origin struct {
	ids   []uint32 // Subscription Identifiers
	share string   // the Shared Subscription, if it was one
}

func (o *origin) isShared() bool { return o != nil && o.share != "" }

// refFlag holds the QoS of delivery and two flags.
type refFlag uint8

const (
	refQoS      refFlag = 3
	refReleased refFlag = 1 << 2 // PUBREC came
	refRetain   refFlag = 1 << 3 // RETAIN flag to send
	refHasIDs   refFlag = 1 << 4 // in rows alone: identifiers follow
	refIsShared refFlag = 1 << 5 // in rows alone: the Shared Subscription follows
)

func (f refFlag) qos() uint8 { return uint8(f & refQoS) }

// enqueue adds a reference to the body in *b, made of message if missing. If the
// session's queue is full its policy decides what is lost, and counted; rejected
// says that it was the new message, and that the publisher is to be told.
func (m *Machine) enqueue(s *session, b **body, message *shoalpb.Message, from *origin, flag refFlag) (rejected bool) {
	m.touch(s)
	_, _, size := m.published(*b, message)
	if !m.room(s, size) {
		s.more().dropped++
		if rejected = m.limitsOf(s).policy == shoalpb.QueuePolicy_QUEUE_POLICY_REJECT; rejected {
			m.counters.Rejected++
		} else {
			m.counters.QueueFull++
		}
		return rejected
	}
	q := s.queue
	if q == nil {
		q = m.newQueue(s)
		s.queue = q
	}
	m.push(s, s.nextSeq, ref{m.use(b, message), from, flag})
	s.nextSeq++
	m.gauges.queued++
	m.counters.Enqueued++
	if s.advance() {
		m.ready(s)
	}
	if from.isShared() {
		m.strand(s)
	}
	m.weighReplay(s)
	return false
}

// newQueue returns an empty queue for s.
func (m *Machine) newQueue(s *session) *queue {
	n := len(m.spare)
	if n == 0 {
		return &queue{base: s.nextSeq}
	}
	q := m.spare[n-1]
	m.spare = m.spare[:n-1]
	g := q.segments[0]
	*g = segment{session: s, first: s.nextSeq, refs: g.refs[:0]}
	*q = queue{segments: q.segments[:1], base: s.nextSeq}
	return q
}

// advance moves sentHi over what may be sent now. It reports whether entries
// became deliverable.
func (s *session) advance() bool {
	q := s.queue
	if !s.attached() || q == nil || s.standing() != nil { // the bidder was told sentHi
		return false
	}
	before := q.sent
	s.sentHi = max(s.sentHi, q.base-1)
	top := min(s.nextSeq-1, q.base+identifierSpan)
	for limit := max(2*int(s.window), minSendable); q.sent < limit && s.sentHi < top; {
		seq, r := q.next(s.sentHi+1, false)
		if r == nil || seq > top {
			s.sentHi = top
			break
		}
		s.sentHi = seq
		q.sent++
		q.sentBytes += int(r.body.size)
	}
	return q.sent > before
}

// finish ends the entry seq. The caller advances afterwards.
func (m *Machine) finish(s *session, seq uint64) {
	m.touch(s)
	q := s.queue
	if q.unrowed > 2*m.cfg.unrowed { // a row of before FormatOrder
		m.rowFrom(s, 0)
	}
	g := q.at(seq)
	size := int(g.refs[seq-g.first].body.size)
	q.volatile -= isSet(g.refs[seq-g.first].flag.qos() == 0)
	q.unfinished--
	q.bytes -= size
	if seq <= s.sentHi {
		q.sent--
		q.sentBytes -= size
	}
	m.gauges.queued--
	m.take(g, seq)
	switch {
	case q.unfinished == 0:
		m.recycle(s)
	case seq == q.base:
		m.trim(q)
	}
	m.weighReplay(s)
}

// recycle takes the emptied queue off a session.
func (m *Machine) recycle(s *session) {
	q := s.queue
	s.queue = nil
	for _, g := range q.segments {
		m.forgetSegment(q, g)
	}
	if g := q.segments[0]; len(q.segments) == 1 && g.number == 0 && len(m.spare) < spareQueues && cap(g.refs) <= spareQueueEntries {
		m.spare = append(m.spare, q)
	}
}

// discardQueue ends all entries together with their session. Those of a Shared
// Subscription may go to another member.
func (m *Machine) discardQueue(s *session) {
	q := s.queue
	if q == nil {
		return
	}
	ended := uint64(q.unfinished)
	for _, g := range q.segments {
		m.forgetSegment(q, g)
		for i := range g.refs {
			r := &g.refs[i]
			if r.body == nil {
				continue
			}
			if m.passOn(s, g.first+uint64(i), r) {
				ended--
			}
			m.drop(r.body)
		}
	}
	m.gauges.queued -= q.unfinished
	m.counters.SessionEnded += ended
	s.queue = nil
}

// ack finishes entries: those that the client acknowledged, which it can only
// have done for what may have been sent, and those that expired unsent. An
// entry that a former connection may have sent never expires: the client may
// still answer it, and its identifier is not free.
func (m *Machine) ack(c *shoalpb.Ack) *shoalpb.Answer {
	s := m.ownedDurable(c.Client, c.Conn)
	if s == nil {
		return notOwner()
	}
	finished := false
	for _, seq := range c.Seqs {
		if seq <= s.sentHi && s.queue.find(seq) != nil {
			m.finish(s, seq)
			m.counters.Acked++
			finished = true
		}
	}
	for _, seq := range c.Expired {
		if r := s.queue.find(seq); seq > s.openSentHi && r != nil && r.flag&refReleased == 0 {
			m.finish(s, seq)
			m.counters.Expired++
			finished = true
		}
	}
	if finished && s.advance() {
		m.ready(s)
	}
	return nil
}

// release records that PUBREC came for a QoS 2 entry. One that is finished, or
// released already, stays as it is.
func (m *Machine) release(c *shoalpb.Release) *shoalpb.Answer {
	s := m.ownedDurable(c.Client, c.Conn)
	if s == nil {
		return notOwner()
	}
	if r := s.queue.find(c.Seq); r != nil && c.Seq <= s.sentHi && r.flag.qos() == 2 && r.flag&refReleased == 0 {
		m.touchEntry(s.queue.at(c.Seq), c.Seq)
		r.flag |= refReleased
	}
	return nil
}
