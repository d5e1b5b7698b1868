package shard

import (
	"cmp"
	"container/heap"
	"strings"
)

// neverExpires is the Session Expiry Interval of a session that is kept for
// ever (MQTT 5 §3.1.2.11.2).
const neverExpires = 1<<32 - 1

// deadline is when something happens to a detached session: its Will becomes
// due, or it ends.
type deadline struct {
	at      uint64 // by the shard's clock
	session *session
}

// deadlines is a heap. Its order is total, so that replicas whose heaps were
// built differently take sessions in the same order; a session knows its place.
type deadlines []deadline

func (d deadlines) Len() int { return len(d) }

func (d deadlines) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(d[i].at, d[j].at), strings.Compare(d[i].session.client, d[j].session.client)) < 0
}

func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].session.place, d[j].session.place = uint32(i+1), uint32(j+1)
}

func (d *deadlines) Push(x any) {
	*d = append(*d, x.(deadline))
	(*d)[len(*d)-1].session.place = uint32(len(*d))
}

func (d *deadlines) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	x.session.place = 0
	(*d)[last] = deadline{}
	*d = (*d)[:last]
	return x
}

// endsAt is when a detached session ends, if it does.
func (s *session) endsAt() (uint64, bool) {
	return s.detachedAt + uint64(s.expiry)*1000, s.expiry != neverExpires
}

// willAt is when the Will of a detached session is due, if it has one.
func (s *session) willAt() (uint64, bool) {
	if !s.hasWill() {
		return 0, false
	}
	return s.detachedAt + uint64(s.willDelay())*1000, true
}

// nextDeadline is the earlier of the two. Others than detached durable sessions
// have none; those of one that somebody bids for wait for the outcome.
func (s *session) nextDeadline() (uint64, bool) {
	if s.owner != nil || !s.durable || s.standing() != nil {
		return 0, false
	}
	if at, ok := s.willAt(); ok { // never later than the end
		return at, true
	}
	return s.endsAt()
}

// schedule puts s where it belongs among the deadlines, after any change that
// may move its own.
func (m *Machine) schedule(s *session) {
	if s.owner != nil {
		return // see unschedule
	}
	at, ok := s.nextDeadline()
	i := int(s.place) - 1
	switch {
	case ok && i < 0:
		heap.Push(&m.deadlines, deadline{at, s})
	case ok && m.deadlines[i].at != at:
		m.deadlines[i].at = at
		heap.Fix(&m.deadlines, i)
	case !ok && i >= 0:
		heap.Remove(&m.deadlines, i)
	}
	if ok && s.place == 1 && m.now.eff != nil {
		m.now.eff.DeadlineMoved = true
	}
}

// unschedule takes a session that is about to get an owner off the deadlines.
func (m *Machine) unschedule(s *session) {
	if s.place > 0 {
		heap.Remove(&m.deadlines, int(s.place)-1)
	}
}

// NextDeadline is when, by the shard's clock, time alone changes something; ok
// is false if it never does. It may be in the past: an entry does a bounded
// part of what is due, and of what a fence has left to do.
func (m *Machine) NextDeadline() (clockMs uint64, ok bool) {
	if len(m.unswept) > 0 {
		return 0, true
	}
	clockMs = never
	if len(m.deadlines) > 0 {
		clockMs = m.deadlines[0].at
	}
	if len(m.fading) > 0 {
		clockMs = min(clockMs, m.fading[0].body.until)
	}
	return clockMs, clockMs != never
}

// passTime does what is due by the clock: a page of it.
func (m *Machine) passTime() {
	before := m.counters.SessionEnded
	for n := 0; n < deadlinePage && m.counters.SessionEnded-before < deadlineRefs; n++ {
		if len(m.deadlines) == 0 || m.deadlines[0].at > m.clock {
			break
		}
		m.expire(m.deadlines[0].session)
	}
	m.fadeOut()
}

// expire does what is due for one session, if anything is.
func (m *Machine) expire(s *session) {
	if at, ok := s.nextDeadline(); !ok || at > m.clock {
		return
	}
	m.touch(s)
	if at, ok := s.willAt(); ok && at <= m.clock {
		m.publishWill(s)
	}
	if at, ok := s.endsAt(); ok && at <= m.clock {
		m.reset(s)
	}
	m.settle(s)
}
