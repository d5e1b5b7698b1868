package shard

import (
	"time"

	mqtt "github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// Entries visits the entries of a session's queue that may be sent by conn,
// after the seq given and ascending, at most limit of them. It reports false if
// conn does not own the session. Ages are by now, the shard's clock as its
// leader knows it. What a Delivery refers to is shared: read only. Its Message is
// nil if it has left memory.
func (m *Machine) Entries(client string, conn, after uint64, limit int, now uint64, yield func(mqtt.Delivery, Stored) bool) (owner bool) {
	s := m.owned(client, conn)
	if s == nil {
		return false
	}
	q := s.queue
	if q == nil {
		return true
	}
	for seq := after; limit > 0; limit-- {
		var r *ref
		if seq, r = q.next(seq+1, false); r == nil || seq > s.sentHi {
			break
		}
		if !yield(mqtt.Delivery{
			Seq:         seq,
			QoS:         r.flag.qos(),
			Released:    r.flag&refReleased != 0,
			Retain:      r.flag&refRetain != 0,
			Identifiers: r.from.list(),
			Age:         time.Duration(r.body.age(now)) * time.Millisecond,
			Message:     r.body.message,
		}, r.body.stored()) {
			break
		}
	}
	return true
}

// Attached visits the owner of each session that has one, in no order.
func (m *Machine) Attached(yield func(client, node string, boot, conn uint64) bool) {
	for _, s := range m.sessions {
		if s.attached() && !yield(s.client, s.owner.node, s.owner.boot, s.conn) {
			return
		}
	}
}

// Others returns the connections that have the session of client, bid for it, or
// had it and are not settled: those before conn, or all if conn is 0. owner tells
// whether conn has it or bids for it, known whether it is one of those at all.
func (m *Machine) Others(client string, conn uint64) (others []*shoalpb.Owner, owner, known bool) {
	s := m.sessions[client]
	if s == nil {
		return nil, conn == 0, conn == 0
	}
	b := s.standing()
	owner = conn == 0 || s.owner != nil && s.conn == conn || b != nil && b.conn == conn
	known = owner
	for _, o := range s.others(conn) {
		known = known || o.Conn == conn
		if o.Conn < conn || conn == 0 {
			others = append(others, o)
		}
	}
	return others, owner, known
}

// OpenIndex is the index of the entry that opened a connection.
func OpenIndex(conn uint64) uint64 { return conn >> positionBits }

// Conn returns the number of the connection that owns the session, 0 if none
// does.
func (m *Machine) Conn(client string) uint64 {
	if s := m.sessions[client]; s != nil && s.attached() {
		return s.conn
	}
	return 0
}

// ReceivedPending tells whether the QoS 2 exchange of a Packet Identifier is
// released and still waits for targets, and whether conn owns the session.
func (m *Machine) ReceivedPending(client string, conn uint64, id uint32) (pending, owner bool) {
	s := m.owned(client, conn)
	if s == nil {
		return false, false
	}
	return s.exchange(id, true) != nil, true
}

// MatchVolatile visits the deliveries of a message published with QoS 0 to
// attached durable sessions: one for each that matches, and one to a member of
// each Shared Subscription picked. It returns the number of picks that met none.
func (m *Machine) MatchVolatile(message *shoalpb.Message, picks []*shoalpb.Pick, yield func(Volatile) bool) (missed int) {
	mt := matchers.Get().(*matcher)
	defer matchers.Put(mt)
	defer mt.clear()
	found := mt.match(m, message)
	for i := range found {
		if !found[i].session.attached() {
			continue
		}
		v := found[i].volatile(message)
		v.Joins = m.joinsReplay(found[i].session, message.Topic)
		if !yield(v) {
			return missed
		}
	}
	for _, p := range picks {
		list, place := m.choose(m.shares[p.Share], p.Hint, 0, 0)
		if list == nil {
			missed++
			continue
		}
		sub := list[place]
		f := match{session: sub.session, from: sub.from, retain: message.Retain && sub.options&optRetainAsPublished != 0}
		if !yield(f.volatile(message)) {
			break
		}
	}
	return missed
}

// OutboxTargets visits the targets that have unanswered entries and live, in
// order of (group, node, boot). A target is shared: read only.
func (m *Machine) OutboxTargets(yield func(*shoalpb.Target) bool) {
	for _, o := range m.outboxes {
		if len(o.entries) > 0 && !m.isDead(o.target) && !yield(o.target) {
			return
		}
	}
}

// Outbox returns a dense run of unanswered entries of a target, from the oldest
// above after, as commands: at least one if there is any, then as many as fit
// into maxBytes. first is the number of the first. Messages tell what is left
// of their Message Expiry Interval at now, the shard's clock as its leader knows
// it; they are shared: read only. missing lists the commands without their message,
// which has left memory.
func (m *Machine) Outbox(t *shoalpb.Target, after uint64, maxBytes int, now uint64) (first uint64, commands []*shoalpb.Command, missing []Missing) {
	i, ok := m.findOutbox(t)
	if !ok {
		return 0, nil, nil
	}
	o := m.outboxes[i]
	first = max(after+1, o.base)
	for n := first; n < o.next(); n++ {
		e := o.entries[n-o.base]
		if maxBytes -= e.bytes(); maxBytes < 0 && n > first {
			break
		}
		if e.body != nil && e.body.message == nil {
			missing = append(missing, Missing{len(commands), e.body.seq})
		}
		commands = append(commands, e.command(now))
	}
	return first, commands, missing
}

// Retaining is how far the retained messages that a shard makes others keep and
// deliver had got at some time.
type Retaining struct {
	due      uint64             // number of the next due message
	outboxes map[*outbox]uint64 // number of the last entry with one
}

// RetainedDue returns the mark of what is due now.
func (m *Machine) RetainedDue() Retaining { return Retaining{due: m.due.next} }

// RetainedSent returns the mark of what is in the outboxes now, and reports whether
// all that was due at an earlier mark is there. A Will that waits for its connection
// is not: nobody has matched it.
func (m *Machine) RetainedSent(at Retaining) (sent Retaining, ok bool) {
	for _, d := range m.due.list {
		if d != nil && d.id < at.due && d.body.retain && d.pick == nil && !m.waits(d) {
			return at, false
		}
	}
	sent = Retaining{outboxes: map[*outbox]uint64{}}
	for _, o := range m.outboxes {
		if len(o.entries) > 0 && o.retained >= o.base {
			sent.outboxes[o] = o.retained
		}
	}
	return sent, true
}

// RetainedAnswered tells whether the targets have answered all that was in the
// outboxes at a mark.
func (m *Machine) RetainedAnswered(at Retaining) bool {
	for _, o := range m.outboxes {
		if last, marked := at.outboxes[o]; marked && o.base <= last {
			return false
		}
	}
	return true
}

// Missing is a command whose message is not in memory.
type Missing struct {
	// Index of the command; Body is the number of its message.
	Index int
	Body  uint64
}

// RouteFilters visits the Topic Filters with durable subscribers and their
// highest QoS: what the directory knows, or will when the outbox is empty.
func (m *Machine) RouteFilters(yield func(filter string, qos uint8) bool) {
	m.eachFilter(func(f *filter) bool { return yield(f.name, f.qos()) })
}
