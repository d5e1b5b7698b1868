package shard

import (
	"cmp"
	"maps"
	"slices"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// modelShare is what a Shared Subscription has besides its members.
type modelShare struct{ turn uint64 }

// members of a Shared Subscription in order of their names.
func (m *model) members(share string, attached bool) (list []*modelSession) {
	for _, client := range slices.Sorted(maps.Keys(m.sessions)) {
		if s := m.sessions[client]; s.subs[share] != nil && (s.owner != nil || !attached) {
			list = append(list, s)
		}
	}
	return list
}

// attend notes that the directory may have to be told at the end of the entry.
func (m *model) attend(s *modelSession) {
	for _, f := range slices.Sorted(maps.Keys(s.subs)) {
		if isShared(f) && !slices.Contains(m.moved, f) {
			m.moved = append(m.moved, f)
		}
	}
}

// seatsOf is what the directory has to know of a Shared Subscription.
func (m *model) seatsOf(share string) (w seats) {
	for _, s := range m.members(share, false) {
		w.qos = max(w.qos, uint8(s.subs[share].Qos))
		w.members++
		w.attached += isSet(s.owner != nil)
	}
	return w
}

func (m *model) routeShare(share string) {
	told, now := m.routes[share], m.seatsOf(share)
	if told == nil && now.members == 0 || told != nil && told.seats == now {
		return
	}
	n := m.push(&shoalpb.Target{}, &shoalpb.Command{Route: &shoalpb.RouteChange{
		Filter: share, Present: now.members > 0, Qos: uint32(now.qos), Members: uint32(now.members), Attached: uint32(now.attached),
	}})
	if now.members == 0 {
		delete(m.routes, share)
		delete(m.shares, share)
		m.moved = slices.DeleteFunc(m.moved, func(f string) bool { return f == share })
		return
	}
	m.routes[share] = &modelRoute{qos: uint32(now.qos), n: n, seats: now}
}

// pick gives a message to a member.
func (m *model) pick(p *shoalpb.Pick, msg *shoalpb.Message, until uint64) (rejected bool) {
	able := m.attached
	list := m.members(p.Share, true)
	if !slices.ContainsFunc(list, able) && msg.Qos > 0 {
		list = m.members(p.Share, false)
		able = func(s *modelSession) bool { return min(s.subs[p.Share].Qos, msg.Qos) > 0 }
	}
	var chosen *modelSession
	if p.Hint != 0 && len(list) > 0 {
		if s := list[p.Hint%uint64(len(list))]; able(s) {
			chosen = s
		}
	}
	if chosen == nil {
		sh := m.shares[p.Share]
		if sh == nil {
			sh = &modelShare{}
		}
		turns := slices.Clone(list)
		if n := uint64(len(list)); n > 0 {
			turns = slices.Concat(list[sh.turn%n:], list[:sh.turn%n])
		}
		turns = slices.DeleteFunc(turns, func(s *modelSession) bool { return !able(s) })
		if len(turns) == 0 {
			if msg.Qos > 0 {
				m.nextDue++
				m.due[m.nextDue] = &modelDue{message: msg, until: until, share: p.Share}
			}
			return false
		}
		chosen = slices.MinFunc(turns, func(a, b *modelSession) int {
			return cmp.Or(cmp.Compare(isSet(m.crowded(a, msg)), isSet(m.crowded(b, msg))), cmp.Compare(m.behind(a), m.behind(b)))
		})
	}
	if p.Hint == 0 {
		m.shares[p.Share] = &modelShare{uint64(slices.Index(list, chosen)) + 1}
	}
	sub := chosen.subs[p.Share]
	e := &modelEntry{message: msg, until: until, qos: min(sub.Qos, msg.Qos), retain: msg.Retain && sub.RetainAsPublished, share: p.Share}
	if sub.Identifier != 0 {
		e.ids = []uint32{sub.Identifier}
	}
	return e.qos > 0 && until > m.clock && m.enqueue(chosen, e)
}

// behind is how many messages would wait if one more came.
func (m *model) behind(s *modelSession) int {
	if m.format >= stream.FormatOrder && m.attached(s) {
		return max(0, len(s.queue)+1-int(s.window))
	}
	return len(s.queue)
}

// crowded tells that a queue that is not empty has no room for a message.
func (m *model) crowded(s *modelSession, msg *shoalpb.Message) bool {
	messages, bytes := m.limitsOf(s)
	size := contentBytes(msg)
	for _, e := range s.queue {
		size += contentBytes(e.message)
	}
	return len(s.queue) > 0 && (len(s.queue) >= messages || size > bytes)
}

// passes tells that an entry goes to another member.
func (m *model) passes(s *modelSession, e *modelEntry) bool {
	return e.share != "" && (e.seq > s.sentHi || e.qos == 1) && e.until > m.clock
}

// passOn makes entries due for other members.
func (m *model) passOn(list []*modelEntry) {
	for _, e := range list {
		m.nextDue++
		m.due[m.nextDue] = &modelDue{message: e.message, until: e.until, share: e.share}
	}
}

// missProcess makes the picks of a message to a dead process due.
func (m *model) missProcess(msg *shoalpb.Message, until uint64, picks []*shoalpb.Pick) {
	for _, p := range picks {
		if msg.Qos > 0 {
			m.nextDue++
			m.due[m.nextDue] = &modelDue{message: msg, until: until, share: p.Share}
		}
	}
}

// passUnsent takes unsent entries out of a queue.
func (m *model) passUnsent(s *modelSession, share string, limit int) {
	var passed []*modelEntry
	s.queue = slices.DeleteFunc(s.queue, func(e *modelEntry) bool {
		if e.seq <= s.sentHi || e.share != share || len(passed) == limit || !m.passes(s, e) {
			return false
		}
		passed = append(passed, e)
		return true
	})
	m.passOn(passed)
	s.renumber()
}

// relieve passes unsent messages of a detached session on.
func (m *model) relieve(c *shoalpb.Relieve) {
	if s := m.sessions[c.Client]; s != nil && !m.attached(s) {
		m.passUnsent(s, c.Share, int(c.Limit))
	}
}
