package shard

import shoalpb "github.com/shoalmq/shoal/proto"

// bid is an Open that would take or change a session that somebody may want to
// keep. It changes nothing until its node confirms it, because the client may
// have given up long before the Open is committed: then the node withdraws it.
// While it stands, the session's deadlines wait, and sentHi does not move.
//
// If its process is fenced first, nobody knows whether CONNACK has left: then the
// bid is performed, and its connection ends with its process.
type bid struct {
	process *process
	conn    uint64
	place   uint32 // in process.conns
	open    *shoalpb.Open
	present bool // as it was answered
}

// standing is the bid that waits to be confirmed, nil if there is none.
func (s *session) standing() *bid {
	if s.extra == nil {
		return nil
	}
	return s.extra.bid
}

// askFirst answers an Open that asks first. It returns nil if there is nothing to
// lose: then the session may be opened at once.
//
// Which of several tries is the newest is told without clocks. A connection that
// was accepted at an index above c.Seen was accepted after c got its number, as
// its node would have heard of that index, or of a lower one at least, before.
func (m *Machine) askFirst(s *session, c *shoalpb.Open, conn uint64) *shoalpb.Answer {
	b := s.standing()
	switch {
	case !c.Force && (s.owner != nil || b != nil):
		return &shoalpb.Answer{Code: shoalpb.Code_CODE_ATTACHED, Open: &shoalpb.OpenAnswer{Former: s.others(conn)}}
	case OpenIndex(s.conn) > c.Seen || b != nil && OpenIndex(b.conn) > c.Seen:
		return refuse(shoalpb.Code_CODE_STALE)
	case s.owner == nil && b == nil && !s.durable && !s.hasWill():
		return nil
	}
	return m.bid(s, c, conn)
}

// bid keeps c until it is confirmed, withdrawn or fenced. A bid that it replaces
// may have been accepted: its connection becomes a former owner.
func (m *Machine) bid(s *session, c *shoalpb.Open, conn uint64) *shoalpb.Answer {
	m.touch(s)
	m.dropBid(s)
	b := &bid{
		process: m.process(m.now.batch.Node, m.now.batch.Boot), conn: conn, open: c,
		present: s.resumedBy(c, m.clock),
	}
	b.place = b.process.enter(s)
	s.more().bid = b
	m.schedule(s)
	a := &shoalpb.OpenAnswer{
		Bid: true, Present: b.present, Conn: conn, Former: s.others(conn), Durable: b.present || c.ExpiryS > 0,
		WillDue: s.hasWill() && !(b.present && s.willDelay() > 0),
	}
	if b.present {
		a.SentHi = s.sentHi
	}
	return &shoalpb.Answer{Open: a}
}

// dropBid makes the connection of a standing bid a former owner.
func (m *Machine) dropBid(s *session) {
	if b := s.standing(); b != nil {
		s.extra.bid = nil
		m.addFormer(s, former{process: b.process, conn: b.conn, place: b.place})
	}
}

// others names the connections that have or had the session, but for conn.
func (s *session) others(conn uint64) []*shoalpb.Owner {
	list := s.formerOwners()
	if s.owner != nil && s.conn != conn {
		list = append(list, &shoalpb.Owner{Node: s.owner.node, Boot: s.owner.boot, Conn: s.conn})
	}
	if b := s.standing(); b != nil && b.conn != conn {
		list = append(list, &shoalpb.Owner{Node: b.process.node, Boot: b.process.boot, Conn: b.conn})
	}
	return list
}

// confirm performs the bid of c's connection.
func (m *Machine) confirm(c *shoalpb.Confirm) *shoalpb.Answer {
	s := m.sessions[c.Client]
	if s == nil || s.standing() == nil || s.standing().conn != c.Conn {
		return notOwner()
	}
	m.touch(s)
	m.perform(s)
	return nil
}

// perform does what the standing bid asks for. s has been touched.
func (m *Machine) perform(s *session) {
	b := s.extra.bid
	m.occupy(s, b.open, b.process, b.conn, b.present)
}

// refuseOpen undoes an Open whose client has got no CONNACK: the session is as it
// was before, or as it would be without it.
func (m *Machine) refuseOpen(c *shoalpb.Close) *shoalpb.Answer {
	s := m.sessions[c.Client]
	if s == nil {
		return notOwner()
	}
	if b := s.standing(); b != nil && b.conn == c.Conn {
		m.touch(s)
		m.withdraw(s)
		return nil
	}
	if m.owned(c.Client, c.Conn) == nil {
		return m.drained(&shoalpb.Drained{Client: c.Client, Conn: c.Conn})
	}
	m.touch(s)
	s.setWill(nil)
	s.expiry = 0
	m.detach(s)
	m.freed(s)
	m.settle(s)
	return nil
}

// withdraw ends the standing bid as if it had never been. s has been touched.
func (m *Machine) withdraw(s *session) {
	b := s.extra.bid
	s.extra.bid = nil
	b.process.leave(b.place)
	m.freed(s)
	if s.owner != nil {
		if s.advance() {
			m.ready(s)
		}
		return
	}
	if m.settle(s); m.sessions[s.client] == s {
		m.expire(s) // time may have passed its deadlines
	}
}

func (b *bid) row() *shoalpb.BidRow {
	if b == nil {
		return nil
	}
	return &shoalpb.BidRow{Node: b.process.node, Boot: b.process.boot, Conn: b.conn, Present: b.present, Open: b.open}
}
