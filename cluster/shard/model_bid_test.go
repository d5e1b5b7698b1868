package shard

import (
	"maps"
	"slices"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// modelBid is an Open that waits to be confirmed.
type modelBid struct {
	owner   *shoalpb.Owner
	open    *shoalpb.Open
	present bool
}

// askFirst answers an Open that asks first, nil if it may go on.
func (m *model) askFirst(s *modelSession, o *shoalpb.Open, owner *shoalpb.Owner) *shoalpb.Answer {
	others := slices.Clone(s.former)
	last := s.lastConn
	if s.owner != nil {
		others = append(others, s.owner)
		last = s.owner.Conn
	}
	if s.bid != nil {
		others = append(others, s.bid.owner)
		last = max(last, s.bid.owner.Conn)
	}
	taken := s.owner != nil || s.bid != nil
	switch {
	case taken && !o.Force:
		return &shoalpb.Answer{Code: shoalpb.Code_CODE_ATTACHED, Open: &shoalpb.OpenAnswer{Former: others}}
	case last>>20 > o.Seen:
		return refuse(shoalpb.Code_CODE_STALE)
	case !taken && !s.durable && s.will == nil:
		return nil
	}
	m.dropBid(s)
	s.bid = &modelBid{owner: owner, open: o, present: m.present(s, o)}
	a := &shoalpb.OpenAnswer{Bid: true, Present: s.bid.present, Conn: owner.Conn, Durable: s.bid.present || o.ExpiryS > 0}
	a.Former = slices.Clone(s.former)
	if s.owner != nil {
		a.Former = append(a.Former, s.owner)
	}
	if a.Present {
		a.SentHi = s.sentHi
	}
	a.WillDue = s.will != nil && (!a.Present || min(s.will.DelayS, s.expiry) == 0)
	return &shoalpb.Answer{Open: a}
}

// present tells whether o finds the session.
func (m *model) present(s *modelSession, o *shoalpb.Open) bool {
	ended := s.expiry == 0 || s.owner == nil && s.expiry != neverExpires && s.detached+1000*uint64(s.expiry) <= m.clock
	return s.durable && !o.CleanStart && !ended
}

func (m *model) dropBid(s *modelSession) {
	if s.bid != nil {
		s.former = append(s.former, s.bid.owner)
		s.bid = nil
	}
}

func (m *model) confirm(c *shoalpb.Confirm) *shoalpb.Answer {
	s := m.sessions[c.Client]
	if s == nil || s.bid == nil || s.bid.owner.Conn != c.Conn {
		return notOwner()
	}
	m.perform(s)
	return nil
}

func (m *model) perform(s *modelSession) {
	b := s.bid
	s.bid = nil
	m.attach(s, b.open, b.owner, b.present)
}

// refuse takes an Open back.
func (m *model) refuse(c *shoalpb.Close) *shoalpb.Answer {
	s := m.sessions[c.Client]
	switch {
	case s == nil:
		return notOwner()
	case s.bid != nil && s.bid.owner.Conn == c.Conn:
		s.bid = nil
		m.advance(s)
		m.settle(s)
		m.pass()
	case m.attached(s) && s.owner.Conn == c.Conn:
		s.will, s.expiry = nil, 0
		m.detach(s, true)
		m.settle(s)
	default:
		m.drained(c.Client, c.Conn)
	}
	return nil
}

func (s *modelSession) formerOf(conn uint64) *shoalpb.Owner {
	if s == nil {
		return nil
	}
	for _, o := range s.former {
		if o.Conn == conn {
			return o
		}
	}
	return nil
}

// endFormer takes former owners off the list, or leaves their Wills there.
func (m *model) endFormer(s *modelSession, gone func(*shoalpb.Owner) bool) {
	old := s.former
	s.former = nil
	for _, o := range old {
		due := false
		for _, d := range m.due {
			due = due || d.client == s.client && d.conn == o.Conn
		}
		switch {
		case !gone(o):
			s.former = append(s.former, o)
		case due && m.format >= stream.FormatOrder || !due && s.wills[o.Conn] != nil:
			s.former = append(s.former, &shoalpb.Owner{Conn: o.Conn})
		}
	}
}

// dispatched notes what a Will waits for.
func (m *model) dispatched(d *modelDue, waits map[string]bool) {
	s := m.sessions[d.client]
	switch {
	case d.conn == 0 || s.formerOf(d.conn) == nil:
	case len(waits) == 0:
		m.settleWill(s, d.conn)
	default:
		if s.wills == nil {
			s.wills = map[uint64]map[string]bool{}
		}
		s.wills[d.conn] = waits
	}
}

func (m *model) willAnswered(s *modelSession, what string) {
	for conn, waits := range maps.Clone(s.wills) {
		if waits[what] {
			if delete(waits, what); len(waits) == 0 {
				m.settleWill(s, conn)
			}
		}
	}
}

// settleWill ends the wait for a Will.
func (m *model) settleWill(s *modelSession, conn uint64) {
	if s == nil {
		return
	}
	delete(s.wills, conn)
	s.former = slices.DeleteFunc(s.former, func(o *shoalpb.Owner) bool { return o.Conn == conn && o.Node == "" })
	m.settle(s)
}
