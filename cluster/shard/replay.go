package shard

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shoalmq/shoal/broker/topic"
	"github.com/shoalmq/shoal/cluster/stream"
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
	// since the replay began, and that no page has passed.
	live liveTopics
	// needs is the size of a message that found no room in the queue: a hint for
	// Replays, no part of the state.
	needs int
}

// liveTopics are topics in two generations: with too many, the older ones are
// forgotten. Pages have long seen what they brought.
type liveTopics struct{ young, old map[string]*liveTopic }

// liveTopic is what came live of one topic.
type liveTopic struct {
	// publishers are who published it, ascending; nil for anybody: an entry of a
	// format before FormatOrder has brought it.
	publishers []string
	// last is the index of the entry that brought the latest.
	last uint64
	// given: the first message was given as the replay's value, with RETAIN 1.
	given bool
}

// find returns what came of a topic, nil if nothing did.
func (l *liveTopics) find(name string) *liveTopic {
	if t := l.young[name]; t != nil {
		return t
	}
	return l.old[name]
}

// add returns the record of a topic, made if missing.
func (l *liveTopics) add(name string, t *liveTopic) *liveTopic {
	if known := l.find(name); known != nil {
		return known
	}
	if len(l.young) >= maxReplayLive {
		l.young, l.old = nil, l.young
	}
	if l.young == nil {
		l.young = map[string]*liveTopic{}
	}
	l.young[strings.Clone(name)] = t
	return t
}

// passed forgets a topic that a page has gone past.
func (l *liveTopics) passed(name string) {
	delete(l.young, name)
	delete(l.old, name)
}

// isFrom tells whether the client has published one of the messages.
func (t *liveTopic) isFrom(client string) bool {
	return t.publishers == nil || slices.Contains(t.publishers, client)
}

// note takes one more message, brought by the entry of an index.
func (t *liveTopic) note(client string, index uint64, given bool) {
	t.last, t.given = index, t.given || given
	if i, known := slices.BinarySearch(t.publishers, client); t.publishers != nil && !known {
		t.publishers = slices.Insert(t.publishers, i, strings.Clone(client))
	}
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
		if m.now.eff != nil && s.attached() {
			m.now.eff.Replayed = append(m.now.eff.Replayed, Superseded{s.owner.node, s.owner.boot, s.client, s.conn})
		}
		m.gauges.replaying--
		delete(m.roomy, s)
	}
	m.weighReplay(s)
}

// waitsFor tells whether r has still to bring what is retained of a topic, if
// anything is.
func (m *Machine) waitsFor(r *replay, name string) bool {
	if !topic.MatchOne(r.sub.filter.name, name) {
		return false
	}
	group := m.cfg.RegisterOf(name)
	return group > r.group || group == r.group && name > r.after
}

// isReplayValue tells whether a message that s is to get live is the value of a
// running replay: the topic's first, while the replay has not passed it. It is
// delivered with RETAIN 1 then, and the page leaves the topic out.
func (m *Machine) isReplayValue(s *session, message *shoalpb.Message) bool {
	if s.extra == nil || !message.Retain || len(message.Payload) == 0 || m.format < stream.FormatOrder {
		return false
	}
	return slices.ContainsFunc(s.extra.replays, func(r *replay) bool {
		if !m.waitsFor(r, message.Topic) {
			return false
		}
		t := r.live.find(message.Topic)
		return t == nil || t.publishers != nil && !t.given
	})
}

// seenLive notes that a message with RETAIN was queued for s, as the value of
// replays or not. The session has been touched.
func (m *Machine) seenLive(s *session, message *shoalpb.Message, given bool) {
	if s.extra == nil {
		return
	}
	for _, r := range s.extra.replays {
		switch {
		case m.format < stream.FormatOrder:
			if topic.MatchOne(r.sub.filter.name, message.Topic) {
				r.live.add(message.Topic, &liveTopic{})
			}
		case m.waitsFor(r, message.Topic):
			r.live.add(message.Topic, &liveTopic{publishers: []string{}}).note(message.Publisher, m.applied, given)
		}
	}
}

// joinsReplay tells whether a message that is QoS 0 in effect takes its place in the
// session's queue: behind retained messages of QoS 0 that wait there, or as what a
// replay has not passed. All others go beside the queue.
func (m *Machine) joinsReplay(s *session, name string) bool {
	if !s.attached() {
		return false
	}
	if s.queue != nil && s.queue.volatile > 0 {
		return true
	}
	return s.extra != nil && slices.ContainsFunc(s.extra.replays, func(r *replay) bool { return m.waitsFor(r, name) })
}

// live takes a message that was published with QoS 0 and joins a replay.
func (m *Machine) live(c *shoalpb.Live) {
	s := m.owned(c.Client, c.Conn)
	if s == nil {
		if m.now.eff != nil {
			m.now.eff.Detached++
		}
		return
	}
	defer m.matcher.clear()
	for _, f := range m.matcher.match(m, c.Message) {
		if f.session == s {
			var b *body
			f.qos = 0
			m.give(&b, c.Message, &f)
			return
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
	taken, passed := m.choosePage(s, r, c)
	if !m.fits(s, r, taken) {
		m.weighReplay(s)
		return
	}
	m.touch(s)
	for _, x := range taken {
		var b *body
		flag := refFlag(min(uint8(x.message.Qos), r.sub.options.qos()))
		if x.retain {
			flag |= refRetain
		}
		m.enqueue(s, &b, x.message, r.sub.from, flag)
	}
	for _, message := range c.Messages[:passed] {
		r.live.passed(message.Topic)
	}
	switch {
	case passed == len(c.Messages):
		r.group, r.after = c.NextGroup, strings.Clone(c.NextAfter)
	case passed > 0:
		r.after = strings.Clone(c.Messages[passed-1].Topic)
		r.group = m.cfg.RegisterOf(r.after)
	}
	if r.group == 0 {
		m.endReplay(s, r.sub)
		return
	}
	m.weighReplay(s)
}

// replayed is a message that a replay takes out of a page.
type replayed struct {
	message *shoalpb.Message
	retain  bool // RETAIN flag to send
}

// choosePage returns what a replay takes of a page, and how many of its messages it
// passes: all but those from the first on of which it cannot be told whether the
// session has a newer value of the topic. It is asked for again.
//
// The page was asked for at the entry c.ReadIndex, then what was under way to the
// registers was waited for, then the page was read, then once more what was under way
// was waited for. Therefore:
//
//   - Nothing of the topic came live: all writers of this value and of older ones were
//     matched before the subscription was visible. The session gets it.
//   - Its publisher's came live: either this value, or a newer one, for the messages
//     of one publisher reach register and subscribers in the same order.
//   - Others' came live, the latest before the page was asked for: what they brought
//     is in the register by now, below this value. The session gets it.
//   - Others' came live later: this value may be older, or newer.
func (m *Machine) choosePage(s *session, r *replay, c *shoalpb.Page) (taken []replayed, passed int) {
	for i, message := range c.Messages {
		if !r.takes(s, message) {
			continue
		}
		t := r.live.find(message.Topic)
		switch {
		case t == nil:
			taken = append(taken, replayed{message, true})
		case t.isFrom(message.Publisher):
		case c.ReadIndex == 0 || t.last > c.ReadIndex:
			return taken, i
		default:
			taken = append(taken, replayed{message, !t.given || r.sub.options&optRetainAsPublished != 0})
		}
	}
	return taken, len(c.Messages)
}

// fits tells whether a queue has room for what a replay takes of a page: live
// messages may have come since it was read, and no replay is to push them out.
// Into an empty queue a single message goes whatever its size.
func (m *Machine) fits(s *session, r *replay, taken []replayed) bool {
	size := 0
	for _, x := range taken {
		size += contentBytes(x.message)
	}
	r.needs = 0
	if m.hasRoom(s, len(taken), size) || (s.queue == nil || s.queue.unfinished == 0) && len(taken) == 1 {
		return true
	}
	r.needs = contentBytes(taken[0].message)
	return false
}

// hasRoom tells whether messages fit into the session's queue beside what is there.
func (m *Machine) hasRoom(s *session, messages, size int) bool {
	l, queued, bytes := m.limitsOf(s), 0, 0
	if s.queue != nil {
		queued, bytes = s.queue.unfinished, s.queue.bytes
	}
	return queued+messages <= l.messages && bytes+size <= l.bytes
}

// takes tells whether a retained message is for the session: not if it has expired,
// or is its own and the subscription has No Local ([MQTT-3.8.3-3]).
func (r *replay) takes(s *session, message *shoalpb.Message) bool {
	expired := message.ExpiryMs != nil && *message.ExpiryMs == 0
	return !expired && (r.sub.options&optNoLocal == 0 || message.Publisher != s.client)
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
	// Route is the number of the subscription's route change: no page is read before
	// it is visible.
	Route uint64
	// Index is that of the state, and Live tells whether topics that the replay has
	// not passed came live until then.
	Index uint64
	Live  bool
}

// Replays visits one replay of each session whose queue is short enough for a
// page, in no order. It looks at no others.
func (m *Machine) Replays(yield func(Replay) bool) {
	for s := range m.roomy {
		room, bytes := m.replayRoom(s)
		r := s.extra.replays[0]
		more := yield(Replay{
			Client: s.client, ID: r.id, Filter: r.sub.filter.name, Group: r.group, After: r.after, Messages: room, Bytes: bytes,
			Route: r.sub.filter.route, Index: m.applied, Live: len(r.live.young)+len(r.live.old) > 0,
		})
		if !more {
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
	row.Live, row.Seen = liveRows(r.live.young, false, nil)
	row.Older, row.Seen = liveRows(r.live.old, true, row.Seen)
	return row
}

// liveRows adds the topics of a generation to seen, and returns apart from them
// those that entries of a format before FormatOrder brought.
func liveRows(topics map[string]*liveTopic, older bool, seen []*shoalpb.LiveRow) (names []string, all []*shoalpb.LiveRow) {
	for _, name := range slices.Sorted(maps.Keys(topics)) {
		t := topics[name]
		if t.publishers == nil {
			names = append(names, name)
			continue
		}
		seen = append(seen, &shoalpb.LiveRow{Topic: name, Publishers: t.publishers, Last: t.last, Given: t.given, Older: older})
	}
	return names, seen
}

// replays restores the replays of a session.
func (r *restorer) replays(s *session, rows []*shoalpb.ReplayRow) error {
	for _, row := range rows {
		i, ok := s.find(row.Subscription.GetFilter())
		if !ok || row.Group == 0 {
			return fmt.Errorf("replay %d of %q: %w", row.Id, row.Subscription.GetFilter(), errCorrupt)
		}
		x := &replay{id: row.Id, sub: s.subs[i], group: row.Group, after: row.After}
		x.live = restoreLive(row)
		s.more().replays = append(s.more().replays, x)
	}
	r.m.gauges.replaying += isSet(len(rows) > 0)
	r.m.weighReplay(s)
	return nil
}

func restoreLive(row *shoalpb.ReplayRow) (l liveTopics) {
	generations := [2]map[string]*liveTopic{{}, {}}
	for i, names := range [2][]string{row.Live, row.Older} {
		for _, name := range names {
			generations[i][name] = &liveTopic{}
		}
	}
	for _, t := range row.Seen {
		generations[isSet(t.Older)][t.Topic] = &liveTopic{publishers: append([]string{}, t.Publishers...), last: t.Last, given: t.Given}
	}
	return liveTopics{generations[0], generations[1]}
}
