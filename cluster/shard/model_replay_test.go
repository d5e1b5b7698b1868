package shard

import (
	"fmt"
	"maps"
	"slices"

	"github.com/shoalmq/shoal/broker/topic"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// modelReplay is a replay under way. It forgets no topic: random runs are short.
type modelReplay struct {
	id     uint64
	filter string
	group  uint32
	after  string
	live   map[string]bool
}

// replay begins the replay that a subscription asks for.
func (m *model) replay(s *modelSession, sub *shoalpb.Subscription, existed bool, group uint32) {
	if group == 0 || sub.RetainHandling == 2 || existed && sub.RetainHandling == 1 {
		return
	}
	s.endReplay(sub.Filter)
	m.replays++
	s.replays = append(s.replays, &modelReplay{m.replays, sub.Filter, group, "", map[string]bool{}})
}

func (s *modelSession) endReplay(filter string) {
	s.replays = slices.DeleteFunc(s.replays, func(r *modelReplay) bool { return r.filter == filter })
}

// live notes a message that the session got.
func (s *modelSession) live(msg *shoalpb.Message) {
	for _, r := range s.replays {
		if msg.Retain && topic.MatchOne(r.filter, msg.Topic) {
			r.live[msg.Topic] = true
		}
	}
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
	for _, msg := range p.Messages {
		if r.live[msg.Topic] || m.until(msg) <= m.clock || sub.NoLocal && msg.Publisher == s.client {
			continue
		}
		e := &modelEntry{message: msg, until: m.until(msg), qos: min(sub.Qos, msg.Qos), retain: true}
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
	for _, msg := range p.Messages {
		delete(r.live, msg.Topic)
	}
	if r.group, r.after = p.NextGroup, p.NextAfter; r.group == 0 {
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
			s.client, i, r.id, r.filter, r.group, r.after, slices.Sorted(maps.Keys(r.live))))
	}
	return lines
}

// replayLines is the same of a Machine.
func replayLines(s *session) (lines []string) {
	if s.extra == nil {
		return nil
	}
	for i, r := range s.extra.replays {
		lines = append(lines, fmt.Sprintf("session %s replay %d: %d %s at %d/%s live %v",
			s.client, i, r.id, r.sub.filter.name, r.group, r.after, slices.Sorted(maps.Keys(r.live.young))))
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
