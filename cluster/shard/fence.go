package shard

import (
	"maps"
	"slices"
	"strings"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// fence ends everything that dead processes had here: their streams, their
// connections, their places among former owners, and what was to be sent to
// them. The streams end at once, the rest is swept page by page, by this entry
// and those that follow. Until then the owner of a session that is a dead
// process counts as none.
func (m *Machine) fence(c *shoalpb.Fence) {
	fenced := m.in.Fence(c.Number, c.Nodes)
	if m.format < stream.FormatOrder {
		for _, f := range fenced {
			m.fenceAtOnce(f)
		}
		return
	}
	for _, f := range fenced {
		for _, p := range m.processesBelow(f) {
			m.markFenced(p)
			m.unswept = append(m.unswept, p)
		}
	}
	slices.SortFunc(m.unswept, compareProcesses)
	m.sweep()
	if len(m.unswept) > 0 && m.now.eff != nil {
		m.now.eff.DeadlineMoved = true
	}
}

// fenceAtOnce is how nodes of before FormatOrder apply a fence.
func (m *Machine) fenceAtOnce(f *shoalpb.NodeBoot) {
	dead := m.processesBelow(f)
	var list []*session
	for _, p := range dead {
		m.markFenced(p)
		list = append(list, p.conns...)
	}
	list = slices.DeleteFunc(list, func(s *session) bool { return s == nil })
	// Ending sessions makes route changes, whose order counts.
	slices.SortFunc(list, byClient)
	for _, s := range slices.Compact(list) {
		m.fenceSession(s)
	}
	for _, p := range dead {
		for m.dropOutboxEntry(p) {
		}
		m.forgetProcess(p)
	}
}

func byClient(a, b *session) int { return strings.Compare(a.client, b.client) }

// processesBelow returns the processes of a node with lower boots that have
// anything here, by boot.
func (m *Machine) processesBelow(f *shoalpb.NodeBoot) []*process {
	for _, o := range m.outboxes {
		if o.target.Node == f.Node && o.target.Boot < f.Boot {
			m.process(o.target.Node, o.target.Boot)
		}
	}
	return slices.SortedFunc(func(yield func(*process) bool) {
		for p := range maps.Values(m.processes) {
			if p.node == f.Node && p.boot < f.Boot && !slices.Contains(m.unswept, p) && !yield(p) {
				return
			}
		}
	}, compareProcesses)
}

func (m *Machine) markFenced(p *process) {
	if !p.fenced {
		p.fenced = true
		m.gauges.attached -= p.owned
	}
}

// isDead tells whether a target is a process that is fenced.
func (m *Machine) isDead(t *shoalpb.Target) bool {
	return t.Node != "" && t.Boot < m.in.MinBoot(t.Node)
}

// sweep does a page of what fences have left to do, in an order that depends on
// nothing but the state: processes by name and boot, sessions by connection,
// then what was to be sent to the process.
func (m *Machine) sweep() {
	ended := m.counters.SessionEnded
	m.now.sweeps = true
	for m.now.page > 0 && m.counters.SessionEnded-ended < deadlineRefs && len(m.unswept) > 0 {
		switch p := m.unswept[0]; {
		case p.swept < len(p.conns):
			if s := p.conns[p.swept]; s != nil {
				m.now.page--
				m.fenceSession(s)
			}
			p.swept++
		case m.dropOutboxEntry(p):
			m.now.page--
		default:
			m.forgetProcess(p)
			m.unswept = m.unswept[1:]
		}
	}
	m.now.sweeps = false
	for _, sh := range m.movedShares {
		sh.clear()
	}
}

// forgetProcess removes the record of a dead process that nothing refers to any
// more.
func (m *Machine) forgetProcess(p *process) { delete(m.processes, processKey{p.node, p.boot}) }

// isFenced tells whether the sweep of a fence has yet to come to the session.
func (s *session) isFenced() bool {
	b := s.standing()
	return s.owner != nil && s.owner.fenced || b != nil && b.process.fenced ||
		s.hasFormer() && slices.ContainsFunc(s.extra.former, former.isFenced)
}

func (f former) isFenced() bool { return f.process != nil && f.process.fenced }

// fenceSession detaches the session from dead processes. A fenced connection is
// no former owner but for its Will: nothing else of it is taken any more. A bid is
// performed first, as its CONNACK may have left.
func (m *Machine) fenceSession(s *session) {
	m.touch(s)
	if b := s.standing(); b != nil && b.process.fenced {
		m.perform(s)
	}
	if s.owner != nil && s.owner.fenced {
		m.detach(s)
		m.leaveWill(s)
		m.freed(s)
	}
	m.endFormer(s, former.isFenced)
	if m.sessions[s.client] == s {
		m.settle(s)
	}
}
