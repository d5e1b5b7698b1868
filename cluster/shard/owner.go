package shard

import (
	"slices"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// former is a connection that owned a session and whose publishes may still be
// on their way.
type former struct {
	process *process
	conn    uint64
	place   uint32 // in process.conns
}

func (s *session) hasFormer() bool { return s.extra != nil && len(s.extra.former) > 0 }

// isFormer tells whether conn is among the former owners.
func (s *session) isFormer(conn uint64) bool {
	return s.hasFormer() && slices.ContainsFunc(s.extra.former, func(f former) bool { return f.conn == conn })
}

// addFormer puts the owner on the list of former owners.
func (m *Machine) addFormer(s *session) {
	x := s.more()
	x.former = append(x.former, former{s.owner, s.conn, s.place})
	m.held[s] = struct{}{}
}

// FormerOwners visits the former owners of all sessions that have some, in no
// order. Those of dead processes count as none.
func (m *Machine) FormerOwners(yield func(client string, former *shoalpb.Owner) bool) {
	for s := range m.held {
		for _, o := range s.livingFormer() {
			if !yield(s.client, o) {
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
		owners[i] = &shoalpb.Owner{Node: f.process.node, Boot: f.process.boot, Conn: f.conn}
	}
	return owners
}

// livingFormer is formerOwners without those of dead processes, which the sweep
// of a fence has not come to yet.
func (s *session) livingFormer() (owners []*shoalpb.Owner) {
	for i, o := range s.formerOwners() {
		if !s.extra.former[i].process.fenced {
			owners = append(owners, o)
		}
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
	m.addFormer(s)
	m.detach(s)
}

// drained removes a connection of which nothing is on the way any more. An
// unknown one is no error: a fence may have come first.
func (m *Machine) drained(c *shoalpb.Drained) *shoalpb.Answer {
	if s := m.sessions[c.Client]; s != nil {
		m.removeFormer(s, func(f former) bool { return f.conn == c.Conn })
	}
	return nil
}

// removeFormer removes the former owners that gone names, and the row if that
// leaves nothing in it.
func (m *Machine) removeFormer(s *session, gone func(former) bool) {
	if !s.hasFormer() || !slices.ContainsFunc(s.extra.former, gone) {
		return
	}
	m.touch(s)
	s.extra.former = slices.DeleteFunc(s.extra.former, func(f former) bool {
		if !gone(f) {
			return false
		}
		f.process.leave(f.place)
		if m.due.wills[f.conn] != nil { // nothing holds it any more
			m.dueGrew()
		}
		return true
	})
	if s.hasFormer() {
		return
	}
	s.extra.former = nil
	delete(m.held, s)
	if m.now.eff != nil {
		m.now.eff.OwnersChanged = append(m.now.eff.OwnersChanged, s.client)
	}
	m.settle(s)
}
