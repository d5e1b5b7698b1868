package shard

import (
	"strings"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// session is the row of one Client Identifier. An idle durable one must stay
// below 600 bytes with all that belongs to it, so what few sessions have is in
// extra.
type session struct {
	client string
	// owner is the process of the connection conn. It is nil when detached: then
	// conn is the last owner's, if entries of stream.FormatOrder detached it.
	owner *process
	conn  uint64

	// nextSeq numbers the next queue entry; sentHi is the highest seq that may
	// have been sent, openSentHi its value before the owner's Open.
	nextSeq    uint64
	sentHi     uint64
	openSentHi uint64
	queue      *queue // nil if there are no unfinished entries

	subs  []*subscription // ascending by filter
	extra *extra          // nil if there is nothing in it

	detachedAt uint64 // by the shard's clock
	expiry     uint32 // Session Expiry Interval in seconds
	window     uint16
	// durable is the class of the session. A transient one that is detached
	// has no state: the row is there for its former owners.
	durable bool

	readyAt uint32 // place in Effects.Ready, if that place names this session
	// place of a session with an owner is that of its connection in owner.conns;
	// of one without, that in Machine.deadlines, from 1, or 0 if it is not there.
	place uint32
	tracked
}

// extra is what few sessions have.
type extra struct {
	former   []former
	will     *shoalpb.Will
	willConn uint64      // connection that left the Will of a detached session
	bid      *bid        // an Open that waits to be confirmed; nil for none
	received []*received // in order of arrival
	replays  []*replay
	dropped  uint64  // at the queue's limits, in this incarnation
	limits   *limits // of the queue; nil for the shard's own
}

// more returns the session's extra, made if missing.
func (s *session) more() *extra {
	if s.extra == nil {
		s.extra = &extra{}
	}
	return s.extra
}

// owned returns the session if conn owns it, else nil.
func (m *Machine) owned(client string, conn uint64) *session {
	if s := m.sessions[client]; s != nil && s.attached() && s.conn == conn {
		return s
	}
	return nil
}

// attached tells whether the session has an owner that lives. The sweep of a
// fence may not have come yet to a session whose owner is dead.
func (s *session) attached() bool { return s.owner != nil && !s.owner.fenced }

// ownedDurable is owned for commands that only durable sessions have; what a
// node sends for its transient ones never comes here.
func (m *Machine) ownedDurable(client string, conn uint64) *session {
	if s := m.owned(client, conn); s != nil && s.durable {
		return s
	}
	return nil
}

// open makes conn the owner of the session, or, if it asks first and there is
// something to lose, bids for it: see bid.go.
func (m *Machine) open(c *shoalpb.Open, conn uint64) *shoalpb.Answer {
	if s := m.sessions[c.Client]; s != nil {
		m.catchUp(s)
	}
	s := m.sessions[c.Client]
	if c.Ask && s != nil {
		if a := m.askFirst(s, c, conn); a != nil {
			return a
		}
	}
	if s == nil {
		s = &session{client: strings.Clone(c.Client), nextSeq: 1}
		m.sessions[s.client] = s
	}
	m.touch(s)
	m.dropBid(s)
	present := s.resumedBy(c, m.clock)
	m.occupy(s, c, m.process(m.now.batch.Node, m.now.batch.Boot), conn, present)
	return &shoalpb.Answer{Open: &shoalpb.OpenAnswer{
		Present: present,
		Conn:    conn,
		SentHi:  s.openSentHi,
		Former:  s.formerOwners(),
		Durable: s.durable,
	}}
}

// resumedBy tells whether c finds the session present, at a time of the shard's
// clock. One whose Session Expiry Interval became 0 after it was created ends
// with its connection; one that a bid kept from ending has ended all the same.
func (s *session) resumedBy(c *shoalpb.Open, clock uint64) bool {
	if !s.durable || c.CleanStart {
		return false
	}
	if s.owner != nil {
		return s.expiry > 0
	}
	at, ends := s.endsAt()
	return !ends || at > clock
}

// occupy gives the session, whose state is kept if it is present, to the
// connection conn. s has been touched.
func (m *Machine) occupy(s *session, c *shoalpb.Open, owner *process, conn uint64, present bool) {
	m.supersede(s)
	m.overtakeWill(s, present)
	if !present {
		m.reset(s)
		s.durable = c.ExpiryS > 0
		m.gauges.durable += isSet(s.durable)
	}
	m.attach(s, owner, conn)
	delete(m.stranded, s)
	m.attendShares(s)
	s.expiry = c.ExpiryS
	s.window = uint16(max(c.Window, 1))
	s.setLimits(m.limits(c.Limits))
	s.setWill(c.Will)
	m.forgetVolatile(s)
	m.weighReplay(s) // the limits may be others
	s.openSentHi = s.sentHi
	s.advance()
	m.schedule(s)
}

// catchUp does for one session what a fence, or time, has not come to yet. The
// session may be gone then.
func (m *Machine) catchUp(s *session) {
	if s.isFenced() {
		m.fenceSession(s)
	}
	if m.sessions[s.client] == s {
		m.expire(s)
	}
}

// close ends the owner's connection. One that was taken over before is only
// drained by it.
func (m *Machine) close(c *shoalpb.Close) *shoalpb.Answer {
	if c.Refused {
		return m.refuseOpen(c)
	}
	s := m.owned(c.Client, c.Conn)
	if s == nil {
		if c.DiscardWill {
			m.discardWill(c)
		}
		if c.Drained {
			m.drained(&shoalpb.Drained{Client: c.Client, Conn: c.Conn})
		}
		return notOwner()
	}
	m.touch(s)
	if c.ExpiryS != nil && s.durable {
		s.expiry = *c.ExpiryS
	}
	if c.DiscardWill {
		s.setWill(nil)
	}
	if !c.Drained {
		m.addFormer(s, former{process: s.owner, conn: s.conn, place: s.place})
	}
	m.detach(s)
	m.leaveWill(s)
	m.freed(s)
	m.settle(s)
	return nil
}

// attach makes conn of p the owner of a session without one.
func (m *Machine) attach(s *session, p *process, conn uint64) {
	m.unschedule(s)
	s.owner, s.conn = p, conn
	if b := s.standing(); b != nil { // it is this connection's
		s.place, s.extra.bid = b.place, nil
	} else {
		s.place = p.enter(s)
	}
	p.owned++
	m.gauges.attached += isSet(!p.fenced)
}

// detach leaves the session without an owner, whose connection is among the
// former owners if it is to stay one.
func (m *Machine) detach(s *session) {
	if s.hasWill() {
		s.extra.willConn = s.conn
	}
	p := s.owner
	if !s.isFormer(s.conn) {
		p.leave(s.place)
	}
	p.owned--
	m.gauges.attached -= isSet(!p.fenced)
	s.owner, s.place = nil, 0
	if m.format < stream.FormatOrder {
		s.conn = 0
	}
	s.openSentHi = 0
	s.window = 0
	s.detachedAt = m.clock
	m.attendShares(s)
	m.strand(s)
}

// settle ends what a detached session may not keep, and removes the row when
// nobody needs it. While somebody bids for the session it is kept as it is.
func (m *Machine) settle(s *session) {
	if s.owner != nil || s.durable && s.expiry > 0 || s.standing() != nil {
		m.schedule(s)
		return
	}
	m.touch(s)
	m.reset(s)
	m.schedule(s)
	if !s.hasFormer() {
		m.forget(s)
		delete(m.sessions, s.client)
	}
}

// reset ends the incarnation of a session: all its state goes, only the former
// owners stay. Numbering begins anew; what is on the way for the old
// incarnation names a connection that owns nothing any more.
func (m *Machine) reset(s *session) {
	m.gauges.durable -= isSet(s.durable)
	m.unsubscribeAll(s)
	m.discardQueue(s)
	delete(m.stranded, s)
	s.nextSeq, s.sentHi, s.openSentHi = 1, 0, 0
	s.durable = false
	s.expiry = 0
	s.detachedAt = 0
	if x := s.extra; x != nil {
		for _, r := range x.received {
			r.session = nil
		}
		s.extra = nil
		if len(x.former) > 0 || x.bid != nil {
			s.extra = &extra{former: x.former, bid: x.bid}
		}
	}
}
