package shard

import (
	"slices"
	"strings"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// fence ends everything that dead processes had here: their streams, their
// connections, their places among former owners, and what was to be sent to
// them.
func (m *Machine) fence(c *shoalpb.Fence) {
	for _, f := range m.in.Fence(c.Number, c.Nodes) {
		for _, s := range m.sessionsOf(f.Node, f.Boot) {
			m.fenceSession(s, f.Node, f.Boot)
		}
		m.dropOutboxes(f.Node, f.Boot)
		for key := range m.processes {
			if key.node == f.Node && key.boot < f.Boot {
				delete(m.processes, key)
			}
		}
	}
}

func (p *process) fenced(node string, minBoot uint64) bool {
	return p != nil && p.node == node && p.boot < minBoot
}

// sessionsOf returns the sessions that have to do with fenced processes, in
// order of their names: ending them makes route changes, whose order counts.
func (m *Machine) sessionsOf(node string, minBoot uint64) (list []*session) {
	for _, s := range m.sessions {
		if s.owner.fenced(node, minBoot) || s.hasFormer() && slices.ContainsFunc(s.extra.former, func(f former) bool {
			return f.process.fenced(node, minBoot)
		}) {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, byClient)
	return list
}

func byClient(a, b *session) int { return strings.Compare(a.client, b.client) }

// fenceSession detaches the session from a fenced process. A fenced connection
// is no former owner: nothing of it is taken any more.
func (m *Machine) fenceSession(s *session, node string, minBoot uint64) {
	m.touch(s)
	if s.owner.fenced(node, minBoot) {
		m.detach(s)
		m.leaveWill(s)
	}
	m.removeFormer(s, func(f former) bool { return f.process.fenced(node, minBoot) })
	if m.sessions[s.client] == s {
		m.settle(s)
	}
}
