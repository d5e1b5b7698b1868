package shard

import (
	"slices"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// former is a connection that owned a session and of which something may still
// be on its way: what it published, and then the Will that it left.
type former struct {
	// process is nil when the connection has drained or its process is fenced.
	// Then its Will is due, or has been dispatched and will is not nil.
	process *process
	conn    uint64
	place   uint32    // in process.conns
	will    *lastWill // nil until its Will is dispatched
}

// owner names the connection. Without a process only its Will is on the way.
func (f former) owner() *shoalpb.Owner {
	o := &shoalpb.Owner{Conn: f.conn}
	if f.process != nil {
		o.Node, o.Boot = f.process.node, f.process.boot
	}
	return o
}

func (s *session) hasFormer() bool { return s.extra != nil && len(s.extra.former) > 0 }

// isFormer tells whether conn is among the former owners.
func (s *session) isFormer(conn uint64) bool { return s.formerOf(conn) != nil }

// addFormer puts a connection on the list of former owners.
func (m *Machine) addFormer(s *session, f former) {
	x := s.more()
	x.former = append(x.former, f)
	m.held[s] = struct{}{}
}

// formerOf returns the former owner of a number, or nil. It is valid until the
// list changes.
func (s *session) formerOf(conn uint64) *former {
	if s == nil || s.extra == nil {
		return nil
	}
	for i := range s.extra.former {
		if f := &s.extra.former[i]; f.conn == conn {
			return f
		}
	}
	return nil
}

// FormerOwners visits the former owners of all sessions that have not drained, in
// no order. Those of dead processes count as none.
func (m *Machine) FormerOwners(yield func(client string, former *shoalpb.Owner) bool) {
	for s := range m.held {
		for _, f := range s.extra.former {
			if f.process != nil && !f.process.fenced && !yield(s.client, f.owner()) {
				return
			}
		}
	}
}

// formerOwners returns a copy of the list of former owners.
func (s *session) formerOwners() []*shoalpb.Owner {
	if !s.hasFormer() {
		return nil
	}
	owners := make([]*shoalpb.Owner, len(s.extra.former))
	for i, f := range s.extra.former {
		owners[i] = f.owner()
	}
	return owners
}

// supersede makes the owner, if any, a former owner.
func (m *Machine) supersede(s *session) {
	if s.owner == nil {
		return
	}
	if eff := m.now.eff; eff != nil {
		eff.Superseded = append(eff.Superseded, Superseded{
			Node: s.owner.node, Boot: s.owner.boot, Client: s.client, Conn: s.conn,
		})
	}
	m.addFormer(s, former{process: s.owner, conn: s.conn, place: s.place})
	m.detach(s)
}

// drained removes a connection of which nothing is on the way any more. An
// unknown one is no error: a fence may have come first.
func (m *Machine) drained(c *shoalpb.Drained) *shoalpb.Answer {
	if s := m.sessions[c.Client]; s != nil {
		m.endFormer(s, func(f former) bool { return f.conn == c.Conn })
	}
	return nil
}

// endFormer takes the former owners that gone names off the list: nothing that
// they sent is on the way any more. One that has left a Will stays until that is
// settled.
func (m *Machine) endFormer(s *session, gone func(former) bool) {
	if !s.hasFormer() || !slices.ContainsFunc(s.extra.former, gone) {
		return
	}
	m.touch(s)
	for i := range s.extra.former {
		f := &s.extra.former[i]
		if f.process == nil || !gone(*f) {
			continue
		}
		p, place := f.process, f.place
		f.process, f.place = nil, 0
		p.leave(place)
		if m.due.wills[f.conn] != nil { // nothing holds it any more
			m.dueGrew()
		}
	}
	s.extra.former = slices.DeleteFunc(s.extra.former, func(f former) bool { return f.process == nil && !m.hasWillOf(f) })
	m.formerLeft(s)
}

// hasWillOf tells whether the list keeps f for its Will. Before
// stream.FormatOrder it does not.
func (m *Machine) hasWillOf(f former) bool {
	return f.will != nil || m.format >= stream.FormatOrder && m.due.wills[f.conn] != nil
}

// formerLeft follows a removal from the list of former owners: it removes the row
// if nothing is left in it. s has been touched.
func (m *Machine) formerLeft(s *session) {
	if s.hasFormer() {
		return
	}
	s.extra.former = nil
	delete(m.held, s)
	m.freed(s)
	m.settle(s)
}

// freed tells those who wait for the session if no former owner is left.
func (m *Machine) freed(s *session) {
	if m.now.eff != nil && !s.hasFormer() {
		m.now.eff.OwnersChanged = append(m.now.eff.OwnersChanged, s.client)
	}
}
