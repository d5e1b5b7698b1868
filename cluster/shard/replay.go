package shard

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shoalmq/shoal/broker/topic"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// replay is what a durable session is owed of the retained messages that match a
// subscription (MQTT 5 §3.8.4): page by page, each committed together with the
// place where the next begins. So it goes on under any leader and on any
// connection, and no topic comes twice.
type replay struct {
	id  uint64
	sub *subscription
	// group and after are where the next page begins: topics of group's
	// registers above after.
	group uint32
	after string
	// live are topics that were published retained, and given to the session,
	// since the replay began, and that no page has passed: the session has a
	// value that is no older than what a page could bring.
	live liveTopics
	// needs is the size of a message that found no room in the queue: a hint for
	// Replays, no part of the state.
	needs int
}

// liveTopics are topics in two generations: with too many, the older ones are
// forgotten. Pages have long seen what they brought.
type liveTopics struct{ young, old map[string]struct{} }

func (l *liveTopics) add(name string) {
	if l.has(name) {
		return
	}
	if len(l.young) >= maxReplayLive {
		l.young, l.old = nil, l.young
	}
	if l.young == nil {
		l.young = map[string]struct{}{}
	}
	l.young[strings.Clone(name)] = struct{}{}
}

func (l *liveTopics) has(name string) bool {
	_, young := l.young[name]
	_, old := l.old[name]
	return young || old
}

// passed forgets a topic that a page has gone past.
func (l *liveTopics) passed(name string) {
	delete(l.young, name)
	delete(l.old, name)
}

// startReplay begins the replay of a subscription at group, in place of one that
// is under way.
func (m *Machine) startReplay(s *session, sub *subscription, group uint32) {
	m.endReplay(s, sub)
	m.nextReplay++
	x := s.more()
	m.gauges.replaying += isSet(len(x.replays) == 0)
	x.replays = append(x.replays, &replay{id: m.nextReplay, sub: sub, group: group})
	m.weighReplay(s)
}

// replays tells whether s is owed any.
func (s *session) replays() bool { return s.extra != nil && len(s.extra.replays) > 0 }

// weighReplay notes whether the session's queue has room for a page of what it is
// owed, after any change to either. It tells the leader of one that has.
func (m *Machine) weighReplay(s *session) {
	if !s.replays() {
		return
	}
	if room, bytes := m.replayRoom(s); room <= 0 || bytes <= 0 {
		delete(m.roomy, s)
		return
	}
	m.roomy[s] = struct{}{}
	if m.now.eff != nil {
		m.now.eff.ReplayMoved = true
	}
}

// endReplay ends the replay of a subscription, if one is under way. s has been
// touched.
func (m *Machine) endReplay(s *session, sub *subscription) {
	if !s.replays() {
		return
	}
	s.extra.replays = slices.DeleteFunc(s.extra.replays, func(r *replay) bool { return r.sub == sub })
	if len(s.extra.replays) == 0 {
		s.extra.replays = nil
		m.gauges.replaying--
		delete(m.roomy, s)
	}
	m.weighReplay(s)
}

// seenLive notes that a message with RETAIN was queued for s: replays leave its
// topic out from now on. The session has been touched.
func (s *session) seenLive(message *shoalpb.Message) {
	if s.extra == nil {
		return
	}
	for _, r := range s.extra.replays {
		if topic.MatchOne(r.sub.filter.name, message.Topic) {
			r.live.add(message.Topic)
		}
	}
}

// findReplay returns the replay of a number.
func (s *session) findReplay(id uint64) *replay {
	if s.extra == nil {
		return nil
	}
	for _, r := range s.extra.replays {
		if r.id == id {
			return r
		}
	}
	return nil
}

// page takes a page of a replay into the session's queue, if the replay still
// stands where the page begins: of two leaders' pages one is taken.
func (m *Machine) page(c *shoalpb.Page) {
	s := m.sessions[c.Client]
	if s == nil {
		return
	}
	r := s.findReplay(c.Replay)
	if r == nil || r.group != c.Group || r.after != c.After {
		return
	}
	if !m.fits(s, r, c.Messages) {
		m.weighReplay(s)
		return
	}
	m.touch(s)
	for _, message := range c.Messages {
		if r.takes(s, message) {
			var b *body
			qos := min(uint8(message.Qos), r.sub.options.qos())
			m.enqueue(s, &b, message, r.sub.from, refFlag(qos)|refRetain)
		}
	}
	for _, message := range c.Messages {
		r.live.passed(message.Topic)
	}
	r.group, r.after = c.NextGroup, strings.Clone(c.NextAfter)
	if r.group == 0 {
		m.endReplay(s, r.sub)
		return
	}
	m.weighReplay(s)
}

// fits tells whether a queue has room for what a replay takes of a page: live
// messages may have come since it was read, and no replay is to push them out.
// Into an empty queue a single message goes whatever its size.
func (m *Machine) fits(s *session, r *replay, messages []*shoalpb.Message) bool {
	taken, first, size := 0, 0, 0
	for _, message := range messages {
		if !r.takes(s, message) {
			continue
		}
		if taken++; taken == 1 {
			first = contentBytes(message)
		}
		size += contentBytes(message)
	}
	l, queued, bytes := m.limitsOf(s), 0, 0
	if s.queue != nil {
		queued, bytes = s.queue.unfinished, s.queue.bytes
	}
	r.needs = 0
	if queued+taken <= l.messages && bytes+size <= l.bytes || queued == 0 && taken == 1 {
		return true
	}
	r.needs = first
	return false
}

// takes tells whether a retained message is for the session: not if it has come
// live, has expired, or is its own and the subscription has No Local
// ([MQTT-3.8.3-3]).
func (r *replay) takes(s *session, message *shoalpb.Message) bool {
	expired := message.ExpiryMs != nil && *message.ExpiryMs == 0
	return !expired && !r.live.has(message.Topic) && (r.sub.options&optNoLocal == 0 || message.Publisher != s.client)
}

// Replay is a replay that can go on.
type Replay struct {
	Client string
	ID     uint64
	// Filter is the Topic Filter; Group and After are where the next page begins.
	Filter string
	Group  uint32
	After  string
	// Messages and Bytes are what the queue has room for: at least one message.
	Messages, Bytes int
}

// Replays visits one replay of each session whose queue is short enough for a
// page, in no order. It looks at no others.
func (m *Machine) Replays(yield func(Replay) bool) {
	for s := range m.roomy {
		room, bytes := m.replayRoom(s)
		r := s.extra.replays[0]
		if !yield(Replay{s.client, r.id, r.sub.filter.name, r.group, r.after, room, bytes}) {
			return
		}
	}
}

// replayRoom is how many messages, and bytes of them, a page for s may have.
func (m *Machine) replayRoom(s *session) (messages, bytes int) {
	l := m.limitsOf(s)
	queued, size := 0, 0
	if s.queue != nil {
		queued, size = s.queue.unfinished, s.queue.bytes
	}
	most := min(replayQueue, l.messages)
	if queued > most/2 || queued > 0 && l.bytes-size < s.extra.replays[0].needs {
		return 0, 0
	}
	return most - queued, max(l.bytes-size, isSet(queued == 0))
}

// forgetVolatile finishes entries of QoS 0, which come from replays alone, that a
// connection before may have sent: they are sent at most once.
func (m *Machine) forgetVolatile(s *session) {
	for seq := uint64(0); s.queue != nil; {
		var r *ref
		if seq, r = s.queue.next(seq+1, false); r == nil || seq > s.sentHi {
			return
		}
		if r.flag.qos() == 0 {
			m.finish(s, seq)
			m.counters.Acked++
		}
	}
}

func (r *replay) row() *shoalpb.ReplayRow {
	row := &shoalpb.ReplayRow{Id: r.id, Subscription: r.sub.row(), Group: r.group, After: r.after}
	row.Live = slices.Sorted(maps.Keys(r.live.young))
	row.Older = slices.Sorted(maps.Keys(r.live.old))
	return row
}

// replays restores the replays of a session.
func (r *restorer) replays(s *session, rows []*shoalpb.ReplayRow) error {
	for _, row := range rows {
		i, ok := s.find(row.Subscription.GetFilter())
		if !ok || row.Group == 0 {
			return fmt.Errorf("replay %d of %q: %w", row.Id, row.Subscription.GetFilter(), errCorrupt)
		}
		x := &replay{id: row.Id, sub: s.subs[i], group: row.Group, after: row.After}
		x.live = liveTopics{setOf(row.Live), setOf(row.Older)}
		s.more().replays = append(s.more().replays, x)
	}
	r.m.gauges.replaying += isSet(len(rows) > 0)
	r.m.weighReplay(s)
	return nil
}

func setOf(names []string) map[string]struct{} {
	if len(names) == 0 {
		return nil
	}
	set := make(map[string]struct{}, len(names))
	for _, name := range names {
		set[name] = struct{}{}
	}
	return set
}
