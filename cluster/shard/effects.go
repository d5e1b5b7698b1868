package shard

import shoalpb "github.com/shoalmq/shoal/proto"

// Effects is what applied entries make a leader tell nodes. All of it may be
// lost: a node that did not hear asks. The messages and targets are shared and
// read only. Apply adds to it; the owner resets it.
type Effects struct {
	// Ready names attached sessions with new deliverable entries, each once.
	Ready []ReadyRef
	// Volatile are deliveries of QoS 0 out of messages of a higher one.
	Volatile []Volatile
	// VolatileLost counts those that were lost because the message had left
	// memory: of a Shared Subscription, passed on to a member with QoS 0.
	VolatileLost int
	// Detached counts those to connections that have gone meanwhile.
	Detached int
	// Completed are QoS 2 exchanges that may get their PUBCOMP.
	Completed []Completed
	// Recorded are QoS 2 exchanges that may get their PUBREC: the retained copy
	// of the message is in its register.
	Recorded []Completed
	// Replayed are connections whose sessions' last replay has ended.
	Replayed []Superseded
	// Superseded are connections that lost their session to another one.
	Superseded []Superseded
	// OwnersChanged are clients whose last former owner is gone.
	OwnersChanged []string
	// OutboxGrew are targets with new outbox entries, each once.
	OutboxGrew []*shoalpb.Target
	// DueGrew: there may be more to dispatch than before, see Machine.Due.
	DueGrew bool
	// ReplayMoved: there may be more to replay, see Machine.Replays.
	ReplayMoved bool
	// DeadlineMoved: NextDeadline may be earlier than before.
	DeadlineMoved bool
	// Stranded: Machine.Stranded may have more to visit.
	Stranded bool
}

// ReadyRef is a session with new deliverable entries: see Machine.Entries.
type ReadyRef struct {
	Client  string
	Conn    uint64
	Node    string
	Boot    uint64
	session *session
}

// Volatile is one delivery of QoS 0 to an attached durable session.
type Volatile struct {
	Client string
	Conn   uint64
	Node   string
	Boot   uint64
	// Identifiers are the Subscription Identifiers; shared, read only.
	Identifiers []uint32
	// Retain is the RETAIN flag to send.
	Retain bool
	// Joins: it belongs among retained messages that wait in the session's queue, and
	// is to be proposed as a Live (MatchVolatile alone).
	Joins bool
	// Shared: it came through a Shared Subscription.
	Shared  bool
	Message *shoalpb.Message
}

// Completed is a released QoS 2 exchange whose targets have all answered.
type Completed struct {
	Node   string
	Boot   uint64
	Client string
	Conn   uint64
	// ID is the Packet Identifier.
	ID uint32
}

// Superseded is a connection that lost its session.
type Superseded struct {
	Node   string
	Boot   uint64
	Client string
	Conn   uint64
}

// Reset empties e for reuse.
func (e *Effects) Reset() {
	e.Ready = empty(e.Ready)
	e.Volatile = empty(e.Volatile)
	e.VolatileLost, e.Detached = 0, 0
	e.Completed = empty(e.Completed)
	e.Recorded = empty(e.Recorded)
	e.Superseded = empty(e.Superseded)
	e.Replayed = empty(e.Replayed)
	e.OwnersChanged = empty(e.OwnersChanged)
	e.OutboxGrew = empty(e.OutboxGrew)
	e.DueGrew, e.DeadlineMoved, e.ReplayMoved, e.Stranded = false, false, false, false
}

// empty keeps the array but nothing that it refers to.
func empty[T any](s []T) []T {
	clear(s)
	return s[:0]
}

// ready notes that s has new deliverable entries. A session remembers its place
// in the list, which is right if that place names it: so each comes once.
func (m *Machine) ready(s *session) {
	eff := m.now.eff
	if eff == nil {
		return
	}
	r := ReadyRef{Client: s.client, Conn: s.conn, Node: s.owner.node, Boot: s.owner.boot, session: s}
	if int(s.readyAt) < len(eff.Ready) && eff.Ready[s.readyAt].session == s {
		eff.Ready[s.readyAt] = r
		return
	}
	s.readyAt = uint32(len(eff.Ready))
	eff.Ready = append(eff.Ready, r)
}

// grew notes that o has a new entry.
func (m *Machine) grew(o *outbox) {
	eff := m.now.eff
	if eff == nil || o.grewAt < len(eff.OutboxGrew) && eff.OutboxGrew[o.grewAt] == o.target {
		return
	}
	o.grewAt = len(eff.OutboxGrew)
	eff.OutboxGrew = append(eff.OutboxGrew, o.target)
}
