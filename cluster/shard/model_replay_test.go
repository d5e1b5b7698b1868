package shard

import (
	"fmt"
	"maps"
	"slices"

	"github.com/shoalmq/shoal/broker/topic"
	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// modelReplay is a replay under way. It forgets no topic: random runs are short.
type modelReplay struct {
	id     uint64
	filter string
	group  uint32
	after  string
	live   map[string]*modelLive
}

// modelLive is what came live of a topic: who published it, nil for anybody.
type modelLive struct {
	publishers map[string]bool
	last       uint64
	given      bool
}

func (l *modelLive) String() string {
	return fmt.Sprint(l.publishers != nil, slices.Sorted(maps.Keys(l.publishers)), l.last, l.given)
}

// replay begins the replay that a subscription asks for.
func (m *model) replay(s *modelSession, sub *shoalpb.Subscription, existed bool, group uint32) {
	if group == 0 || sub.RetainHandling == 2 || existed && sub.RetainHandling == 1 {
		return
	}
	s.endReplay(sub.Filter)
	m.replays++
	s.replays = append(s.replays, &modelReplay{m.replays, sub.Filter, group, "", map[string]*modelLive{}})
}

func (s *modelSession) endReplay(filter string) {
	s.replays = slices.DeleteFunc(s.replays, func(r *modelReplay) bool { return r.filter == filter })
}

// waitsFor tells whether r has not passed a topic. All registers are in shard 1.
func (r *modelReplay) waitsFor(name string) bool {
	return topic.MatchOne(r.filter, name) && (r.group < 1 || r.group == 1 && name > r.after)
}

// live notes a message that the session got, as a replay's value or not.
func (m *model) live(s *modelSession, msg *shoalpb.Message, value bool) {
	for _, r := range s.replays {
		if !msg.Retain || !topic.MatchOne(r.filter, msg.Topic) {
			continue
		}
		l := r.live[msg.Topic]
		if m.format < stream.FormatOrder {
			if l == nil {
				r.live[msg.Topic] = &modelLive{}
			}
			continue
		}
		if !r.waitsFor(msg.Topic) {
			continue
		}
		if l == nil {
			l = &modelLive{publishers: map[string]bool{}}
			r.live[msg.Topic] = l
		}
		if l.last, l.given = m.index, l.given || value; l.publishers != nil {
			l.publishers[msg.Publisher] = true
		}
	}
}

// isValue tells whether a message is the value of a replay.
func (m *model) isValue(s *modelSession, msg *shoalpb.Message) bool {
	for _, r := range s.replays {
		l := r.live[msg.Topic]
		if m.format >= stream.FormatOrder && msg.Retain && len(msg.Payload) > 0 && r.waitsFor(msg.Topic) &&
			(l == nil || l.publishers != nil && !l.given) {
			return true
		}
	}
	return false
}

// joins tells whether a message of QoS 0 in effect goes into the queue.
func (m *model) joins(s *modelSession, name string) bool {
	if !m.attached(s) || m.format < stream.FormatOrder {
		return false
	}
	return slices.ContainsFunc(s.queue, func(e *modelEntry) bool { return e.qos == 0 }) ||
		slices.ContainsFunc(s.replays, func(r *modelReplay) bool { return r.waitsFor(name) })
}

// isRoomy tells whether a message goes into the queue and pushes nothing out.
func (m *model) isRoomy(s *modelSession, e *modelEntry) bool {
	messages, bytes := m.limitsOf(s)
	for _, e := range append(slices.Clone(s.queue), e) {
		messages--
		bytes -= contentBytes(e.message)
	}
	return messages >= 0 && bytes >= 0
}

func (m *model) page(p *shoalpb.Page) {
	s := m.sessions[p.Client]
	if s == nil {
		return
	}
	i := slices.IndexFunc(s.replays, func(r *modelReplay) bool {
		return r.id == p.Replay && r.group == p.Group && r.after == p.After
	})
	if i < 0 {
		return
	}
	r := s.replays[i]
	sub := s.subs[r.filter]
	var list []*modelEntry
	passed := len(p.Messages)
	for i, msg := range p.Messages {
		l := r.live[msg.Topic]
		if m.until(msg) <= m.clock || sub.NoLocal && msg.Publisher == s.client || l != nil && (l.publishers == nil || l.publishers[msg.Publisher]) {
			continue
		}
		if l != nil && (p.ReadIndex == 0 || l.last > p.ReadIndex) {
			passed = i
			break
		}
		e := &modelEntry{message: msg, until: m.until(msg), qos: min(sub.Qos, msg.Qos), retain: l == nil || !l.given || sub.RetainAsPublished}
		if sub.Identifier != 0 {
			e.ids = []uint32{sub.Identifier}
		}
		list = append(list, e)
	}
	if !m.hasRoom(s, list) {
		return
	}
	for _, e := range list {
		m.enqueue(s, e)
	}
	for _, msg := range p.Messages[:passed] {
		delete(r.live, msg.Topic)
	}
	switch {
	case passed == len(p.Messages):
		r.group, r.after = p.NextGroup, p.NextAfter
	case passed > 0:
		r.group, r.after = 1, p.Messages[passed-1].Topic
	}
	if r.group == 0 {
		s.endReplay(r.filter)
	}
}

// hasRoom tells whether list goes into the queue as it is.
func (m *model) hasRoom(s *modelSession, list []*modelEntry) bool {
	if len(s.queue) == 0 && len(list) == 1 {
		return true
	}
	messages, bytes := m.limitsOf(s)
	for _, e := range slices.Concat(s.queue, list) {
		messages--
		bytes -= contentBytes(e.message)
	}
	return messages >= 0 && bytes >= 0
}

func (s *modelSession) replayLines() (lines []string) {
	for i, r := range s.replays {
		lines = append(lines, fmt.Sprintf("session %s replay %d: %d %s at %d/%s live %v",
			s.client, i, r.id, r.filter, r.group, r.after, r.live))
	}
	return lines
}

// replayLines is the same of a Machine.
func replayLines(s *session) (lines []string) {
	if s.extra == nil {
		return nil
	}
	for i, r := range s.extra.replays {
		live := map[string]*modelLive{}
		for name, l := range r.live.young {
			live[name] = &modelLive{last: l.last, given: l.given}
			if l.publishers != nil {
				live[name].publishers = map[string]bool{}
				for _, p := range l.publishers {
					live[name].publishers[p] = true
				}
			}
		}
		lines = append(lines, fmt.Sprintf("session %s replay %d: %d %s at %d/%s live %v",
			s.client, i, r.id, r.sub.filter.name, r.group, r.after, live))
	}
	return lines
}

// pages are where the next page of each replay begins.
func (m *model) pages() (list []*shoalpb.Page) {
	for _, client := range slices.Sorted(maps.Keys(m.sessions)) {
		for _, r := range m.sessions[client].replays {
			list = append(list, &shoalpb.Page{Client: client, Replay: r.id, Group: r.group, After: r.after})
		}
	}
	return list
}
