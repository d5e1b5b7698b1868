package shard

import (
	"cmp"
	"slices"
	"strings"
)

// process is a node's process that has or had connections here.
type process struct {
	node string
	boot uint64
	// fenced: the process is dead. Its connections own nothing any more, also
	// where the sweep has not come yet.
	fenced bool
	// conns are the sessions that its connections own, owned or bid for, in order of the
	// connections; nil where one has gone. A session that two of them owned is
	// there twice.
	conns []*session
	gone  int // nils among conns
	swept int // conns below are nil, once the process is fenced
	owned int // sessions that have it for their owner
}

type processKey struct {
	node string
	boot uint64
}

func compareProcesses(a, b *process) int {
	return cmp.Or(strings.Compare(a.node, b.node), cmp.Compare(a.boot, b.boot))
}

// process returns the one record of (node, boot).
func (m *Machine) process(node string, boot uint64) *process {
	if p := m.processes[processKey{node, boot}]; p != nil {
		return p
	}
	p := &process{node: strings.Clone(node), boot: boot, fenced: boot < m.in.MinBoot(node)}
	m.processes[processKey{p.node, boot}] = p
	return p
}

// enter adds the youngest connection and returns its place, which leave takes.
func (p *process) enter(s *session) uint32 {
	p.conns = append(p.conns, s)
	return uint32(len(p.conns) - 1)
}

func (p *process) leave(place uint32) {
	p.conns[place] = nil
	if p.gone++; p.gone > minGone && p.gone > len(p.conns)/2 && !p.fenced {
		p.closeUp()
	}
}

// closeUp takes out the places of connections that have gone.
func (p *process) closeUp() {
	kept := p.conns[:0]
	for was, s := range p.conns {
		if s != nil {
			s.moved(p, uint32(was), uint32(len(kept)))
			kept = append(kept, s)
		}
	}
	clear(p.conns[len(kept):])
	p.conns, p.gone = kept, 0
	if cap(kept) > 4*len(kept) {
		p.conns = slices.Clip(slices.Clone(kept))
	}
}

// moved notes the new place of one of the session's connections in p.conns.
func (s *session) moved(p *process, was, is uint32) {
	if s.owner == p && s.place == was {
		s.place = is
		return
	}
	if b := s.standing(); b != nil && b.process == p && b.place == was {
		b.place = is
		return
	}
	for i := range s.extra.former {
		if f := &s.extra.former[i]; f.process == p && f.place == was {
			f.place = is
			return
		}
	}
}
