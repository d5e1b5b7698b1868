package shard

import (
	"cmp"
	"maps"
	"slices"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// dead tells that an owner's process is fenced.
func (m *model) dead(o *shoalpb.Owner) bool { return o != nil && o.Boot < m.minBoot[o.Node] }

// attached tells that a session has an owner that is not fenced.
func (m *model) attached(s *modelSession) bool { return s.owner != nil && !m.dead(s.owner) }

func (m *model) fence(f *shoalpb.Fence) {
	m.fenceNo = max(m.fenceNo, f.Number)
	for _, n := range f.Nodes {
		if n.Boot <= m.minBoot[n.Node] {
			continue
		}
		m.minBoot[n.Node] = n.Boot
		if m.format >= stream.FormatOrder {
			continue
		}
		for _, client := range slices.Sorted(maps.Keys(m.sessions)) {
			m.fenceSession(m.sessions[client])
		}
		for _, b := range m.deadBoxes() {
			for len(b.list) > 0 {
				m.dropFirst(b)
			}
			delete(m.boxes, targetText(b.target))
		}
	}
	m.sweep()
}

// fenceSession takes dead processes off a session.
func (m *model) fenceSession(s *modelSession) {
	if s.bid != nil && m.dead(s.bid.owner) {
		m.perform(s)
	}
	if m.dead(s.owner) {
		m.detach(s, false)
	}
	m.endFormer(s, m.dead)
	m.settle(s)
}

// owners are all connections that have to do with a session.
func (s *modelSession) owners() []*shoalpb.Owner {
	list := append([]*shoalpb.Owner{s.owner}, s.former...)
	if s.bid != nil {
		list = append(list, s.bid.owner)
	}
	return list
}

func (m *model) anyDead(s *modelSession) bool { return slices.ContainsFunc(s.owners(), m.dead) }

func (m *model) deadBoxes() (list []*modelBox) {
	for _, b := range m.boxes {
		if b.target.Node != "" && b.target.Boot < m.minBoot[b.target.Node] {
			list = append(list, b)
		}
	}
	slices.SortFunc(list, func(a, b *modelBox) int { return compareTargets(a.target, b.target) })
	return list
}

func (m *model) dropFirst(b *modelBox) {
	k := slices.Min(slices.Collect(maps.Keys(b.list)))
	if a := b.list[k].Append; a.Message.Qos == 1 {
		m.missProcess(a.Message, b.until[k], a.Picks)
	}
	m.pop(b, k)
}

// sweep does, as far as the entry may, what fences have left: by process,
// sessions in order of their connections, then outbox entries.
func (m *model) sweep() {
	for ; m.format >= stream.FormatOrder && m.left > 0; m.left-- {
		var of *shoalpb.Owner // the least of what is left
		var next *modelSession
		for _, s := range m.sessions {
			for _, o := range s.owners() {
				if m.dead(o) && (of == nil || cmp.Or(cmp.Compare(o.Node, of.Node), cmp.Compare(o.Boot, of.Boot), cmp.Compare(o.Conn, of.Conn)) < 0) {
					of, next = o, s
				}
			}
		}
		boxes := m.deadBoxes()
		switch {
		case of == nil && len(boxes) == 0:
			return
		case of == nil || len(boxes) > 0 && compareTargets(boxes[0].target, &shoalpb.Target{Node: of.Node, Boot: of.Boot}) < 0:
			if b := boxes[0]; len(b.list) > 0 {
				m.dropFirst(b)
			} else {
				delete(m.boxes, targetText(b.target))
			}
		default:
			m.fenceSession(next)
		}
	}
}

// unswept tells that a page is left.
func (m *model) unswept() bool {
	for _, s := range m.sessions {
		if m.anyDead(s) {
			return true
		}
	}
	return len(m.deadBoxes()) > 0
}
