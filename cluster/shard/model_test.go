package shard

import (
	"maps"
	"slices"

	"github.com/shoalmq/shoal/broker/topic"
	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// model is a shard written with lists and maps alone, as plainly as possible:
// messages are copied into each queue, nothing is counted twice, everything is
// searched from the start. It has no checkpoints. Machine must behave alike.
type model struct {
	config   Config
	sessions map[string]*modelSession
	streams  map[string]map[uint64]*shoalpb.Answer // consumed numbers by source
	minBoot  map[string]uint64
	fenceNo  uint64
	clock    uint64
	index    uint64 // of the entry
	due      map[uint64]*modelDue
	nextDue  uint64
	boxes    map[string]*modelBox
	routes   map[string]*modelRoute
	shares   map[string]*modelShare
	moved    []string // shares whose members came or went in this entry
	retained map[string]*modelRetained
	replays  uint64 // begun
	format   uint32 // highest of the entries
	left     int    // what the entry may sweep still
}

type modelSession struct {
	client                       string
	durable                      bool
	owner                        *shoalpb.Owner
	former                       []*shoalpb.Owner
	expiry, window               uint32
	limits                       *shoalpb.QueueLimits
	will                         *shoalpb.Will
	willConn, detached           uint64
	lastConn                     uint64 // of the last owner, if detached in format 2
	bid                          *modelBid
	wills                        map[uint64]map[string]bool // what dispatched Wills wait for, by connection
	subs                         map[string]*shoalpb.Subscription
	queue                        []*modelEntry
	seq, sentHi, openHi, dropped uint64
	exchanges                    []*modelExchange
	replays                      []*modelReplay
}

type modelEntry struct {
	seq, until       uint64
	qos              uint32
	released, retain bool
	ids              []uint32
	share            string
	message          *shoalpb.Message
}

type modelExchange struct {
	id, hash uint64
	conn     uint64
	released bool
	waits    map[string]bool // "target n"
	retained string          // one of waits
	whole    bool
}

// modelBox is an outbox: what is unanswered by number.
type modelBox struct {
	target *shoalpb.Target
	next   uint64
	list   map[uint64]*shoalpb.Command
	until  map[uint64]uint64 // when messages expire
}

// modelRoute is what the directory was told last about a filter.
type modelRoute struct {
	qos   uint32
	n     uint64
	seats seats // of a Shared Subscription
}

func newModel(c Config) *model {
	return &model{
		config: c, sessions: map[string]*modelSession{}, streams: map[string]map[uint64]*shoalpb.Answer{},
		minBoot: map[string]uint64{}, boxes: map[string]*modelBox{}, due: map[uint64]*modelDue{}, routes: map[string]*modelRoute{}, shares: map[string]*modelShare{},
		retained: map[string]*modelRetained{},
	}
}

func (m *model) apply(index uint64, e *shoalpb.Entry) (results []*shoalpb.BatchAnswer) {
	place := uint64(0)
	m.index = index
	m.clock, m.format = max(m.clock, e.ClockMs), max(m.format, e.Format)
	m.left = m.config.sweepPage
	m.sweep()
	m.pass()
	m.passRetained()
	for _, p := range e.Proposals {
		var answer *shoalpb.BatchAnswer
		switch {
		case p.Batch != nil:
			answer = m.batch(p.Batch, index<<20+place)
			answer.Index = index
			place += uint64(len(p.Batch.Commands))
		case p.Fence != nil:
			m.fence(p.Fence)
		case p.Tick != nil: // the clock was all
		case p.Dispatch != nil:
			m.dispatch(p.Dispatch)
		case p.Page != nil:
			m.page(p.Page)
		case p.Relieve != nil:
			m.relieve(p.Relieve)
		default:
			m.answered(p.OutboxAnswered)
		}
		results = append(results, answer)
	}
	moved := m.moved
	m.moved = nil
	for _, f := range moved {
		m.routeShare(f)
	}
	return results
}

func (m *model) batch(b *shoalpb.Batch, conn uint64) *shoalpb.BatchAnswer {
	consumed := m.streams[source(b)]
	last := uint64(len(consumed))
	a := &shoalpb.BatchAnswer{Fence: m.fenceNo, Last: last}
	switch {
	case b.Node != "" && b.Boot < m.minBoot[b.Node]:
		a.Refusal, a.Last = shoalpb.Refusal_REFUSAL_FENCED, 0
		return a
	case b.Fence > m.fenceNo:
		a.Refusal = shoalpb.Refusal_REFUSAL_FENCE_AHEAD
		return a
	case b.First > last+1:
		a.Refusal = shoalpb.Refusal_REFUSAL_GAP
		return a
	}
	if consumed == nil {
		consumed = map[uint64]*shoalpb.Answer{}
		m.streams[source(b)] = consumed
	}
	for n := range consumed {
		if n <= b.Answered {
			consumed[n] = nil
		}
	}
	for i, c := range b.Commands {
		n := b.First + uint64(i)
		if n > last {
			if consumed[n] = m.command(b, c, conn+uint64(i)); consumed[n] != nil {
				consumed[n].N = n
			}
			a.Last = n
		}
		if consumed[n] != nil {
			a.Answers = append(a.Answers, consumed[n])
		}
	}
	return a
}

func (m *model) command(b *shoalpb.Batch, c *shoalpb.Command, conn uint64) *shoalpb.Answer {
	switch {
	case c.Append != nil:
		if m.appendAll(c.Append.Message, c.Append.Picks) && b.Node != "" {
			return refuse(shoalpb.Code_CODE_QUEUE_FULL)
		}
		return nil
	case c.Retain != nil:
		if !m.retain(c.Retain.Message, m.until(c.Retain.Message)) {
			return refuse(shoalpb.Code_CODE_QUOTA)
		}
		return nil
	case c.Open != nil:
		return m.open(c.Open, &shoalpb.Owner{Node: b.Node, Boot: b.Boot, Conn: conn})
	case c.Drained != nil:
		m.drained(c.Drained.Client, c.Drained.Conn)
		return nil
	case c.Confirm != nil:
		return m.confirm(c.Confirm)
	case c.Close.GetRefused():
		return m.refuse(c.Close)
	}
	s := m.ownerOf(c)
	switch {
	case s == nil:
		if c.Close.GetDiscardWill() {
			m.discard(c.Close)
		}
		if c.Close.GetDrained() {
			m.drained(c.Close.Client, c.Close.Conn)
		}
		return notOwner()
	case c.Close != nil:
		m.close(s, c.Close)
	case !s.durable:
		return notOwner()
	case c.Subscribe != nil:
		return m.subscribe(s, c.Subscribe)
	case c.Unsubscribe != nil:
		a := &shoalpb.UnsubscribeAnswer{}
		for _, f := range c.Unsubscribe.Filters {
			a.Existed = append(a.Existed, s.subs[f] != nil)
			was := s.subs[f] != nil
			delete(s.subs, f)
			s.endReplay(f)
			m.route(f)
			if was && isShared(f) {
				m.passUnsent(s, f, maxLimit)
			}
		}
		return &shoalpb.Answer{Unsubscribe: a}
	case c.Received != nil:
		return m.receive(s, c.Received)
	case c.Released != nil:
		return m.released(s, c.Released)
	case c.Release != nil:
		for _, e := range s.queue {
			if e.seq == c.Release.Seq && e.seq <= s.sentHi && e.qos == 2 {
				e.released = true
			}
		}
	default:
		m.ack(s, c.Ack)
	}
	return nil
}

// sendable is the highest seq that each connection may send.
func (m *model) sendable() map[uint64]uint64 {
	all := map[uint64]uint64{}
	for _, s := range m.sessions {
		if !m.attached(s) {
			continue
		}
		all[s.owner.Conn] = 0
		for _, e := range s.queue {
			if e.seq <= s.sentHi {
				all[s.owner.Conn] = e.seq
			}
		}
	}
	return all
}

// ownerOf finds the session of a command, if its connection owns it.
func (m *model) ownerOf(c *shoalpb.Command) *modelSession {
	for _, of := range []interface {
		GetClient() string
		GetConn() uint64
	}{c.Close, c.Subscribe, c.Unsubscribe, c.Received, c.Released, c.Release, c.Ack} {
		if s := m.sessions[of.GetClient()]; s != nil && m.attached(s) && s.owner.Conn == of.GetConn() {
			return s
		}
	}
	return nil
}

func (m *model) open(o *shoalpb.Open, owner *shoalpb.Owner) *shoalpb.Answer {
	if s := m.sessions[o.Client]; s != nil && m.anyDead(s) {
		m.fenceSession(s)
		m.pass()
	}
	s := m.sessions[o.Client]
	if o.Ask && s != nil {
		if a := m.askFirst(s, o, owner); a != nil {
			return a
		}
	}
	if s == nil {
		s = &modelSession{client: o.Client}
		m.sessions[o.Client] = s
	}
	m.dropBid(s)
	present := m.present(s, o)
	m.attach(s, o, owner, present)
	return &shoalpb.Answer{Open: &shoalpb.OpenAnswer{
		Present: present, Conn: owner.Conn, SentHi: s.openHi, Former: slices.Clone(s.former), Durable: s.durable,
	}}
}

// attach makes owner the owner of s.
func (m *model) attach(s *modelSession, o *shoalpb.Open, owner *shoalpb.Owner, present bool) {
	if s.owner != nil {
		s.former = append(s.former, s.owner)
		m.detach(s, false)
	}
	if s.will != nil && !present {
		m.makeDue(s)
	}
	if !present {
		m.end(s)
		s.durable = o.ExpiryS > 0
	}
	s.owner, s.expiry, s.window, s.limits = owner, o.ExpiryS, max(o.Window, 1), o.Limits
	m.attend(s)
	s.will = o.Will
	s.queue = slices.DeleteFunc(s.queue, func(e *modelEntry) bool { return e.qos == 0 && e.seq <= s.sentHi })
	s.openHi = s.sentHi
	m.advance(s)
}

func (m *model) drained(client string, conn uint64) {
	if s := m.sessions[client]; s != nil {
		m.endFormer(s, func(o *shoalpb.Owner) bool { return o.Conn == conn })
		m.settle(s)
	}
}

func (m *model) close(s *modelSession, c *shoalpb.Close) {
	if c.ExpiryS != nil {
		s.expiry = *c.ExpiryS
	}
	if !c.Drained {
		s.former = append(s.former, s.owner)
	}
	m.detach(s, c.DiscardWill)
	m.settle(s)
}

// settle ends a session that nothing keeps.
func (m *model) settle(s *modelSession) {
	if s.owner != nil || s.durable && s.expiry > 0 || s.bid != nil {
		return
	}
	m.end(s)
	if len(s.former) == 0 {
		delete(m.sessions, s.client)
	}
}

// end ends the state of a session.
func (m *model) end(s *modelSession) {
	filters := slices.Sorted(maps.Keys(s.subs))
	for _, f := range filters {
		delete(s.subs, f)
		m.route(f)
	}
	m.passOn(slices.DeleteFunc(s.queue, func(e *modelEntry) bool { return !m.passes(s, e) }))
	*s = modelSession{client: s.client, owner: s.owner, former: s.former, lastConn: s.lastConn, wills: s.wills, subs: map[string]*shoalpb.Subscription{}}
}

func (m *model) subscribe(s *modelSession, c *shoalpb.Subscribe) *shoalpb.Answer {
	a := &shoalpb.SubscribeAnswer{}
	most := m.config.Subscriptions
	if own := int(s.limits.GetSubscriptions()); own > 0 {
		most = min(most, own)
	}
	total := len(s.subs)
	for _, sub := range c.Subscriptions {
		if s.subs[sub.Filter] == nil {
			total++
		}
		if total > most {
			return refuse(shoalpb.Code_CODE_QUOTA)
		}
	}
	for _, sub := range c.Subscriptions {
		if _, _, shared, err := topic.ParseShare(sub.Filter); shared && sub.NoLocal || err != nil {
			return refuse(shoalpb.Code_CODE_QUOTA)
		}
	}
	for i, sub := range c.Subscriptions {
		a.Existed = append(a.Existed, s.subs[sub.Filter] != nil)
		s.subs[sub.Filter] = sub
		m.replay(s, sub, a.Existed[i], c.Replay[i])
		m.route(sub.Filter)
		a.Route = max(a.Route, m.routes[sub.Filter].n)
	}
	return &shoalpb.Answer{Subscribe: a}
}

// route tells the directory of a filter if what it was told is not so any more.
func (m *model) route(filter string) {
	if isShared(filter) {
		m.routeShare(filter)
		return
	}
	has, qos := false, uint32(0)
	for _, s := range m.sessions {
		if sub := s.subs[filter]; sub != nil {
			has, qos = true, max(qos, sub.Qos)
		}
	}
	told := m.routes[filter]
	if has == (told != nil) && (told == nil || told.qos == qos) {
		return
	}
	n := m.push(&shoalpb.Target{}, &shoalpb.Command{Route: &shoalpb.RouteChange{Filter: filter, Present: has, Qos: qos}})
	delete(m.routes, filter)
	if has {
		m.routes[filter] = &modelRoute{qos: qos, n: n}
	}
}

func (m *model) push(t *shoalpb.Target, c *shoalpb.Command) uint64 {
	b := m.boxes[targetText(t)]
	if b == nil {
		b = &modelBox{target: t, next: 1, list: map[uint64]*shoalpb.Command{}, until: map[uint64]uint64{}}
		m.boxes[targetText(t)] = b
	}
	b.list[b.next] = c
	b.next++
	return b.next - 1
}

// appendAll gives a message to all sessions that match, and tells whether one
// refused it.
func (m *model) appendAll(msg *shoalpb.Message, picks []*shoalpb.Pick) (rejected bool) {
	return m.appendUntil(msg, m.until(msg), picks)
}

// appendUntil is appendAll for a message that expires at until.
func (m *model) appendUntil(msg *shoalpb.Message, until uint64, picks []*shoalpb.Pick) (rejected bool) {
	only := len(picks) > 0 && picks[0].Only
	for _, s := range m.sessions {
		if only {
			break
		}
		e := &modelEntry{message: msg, until: until}
		matched := false
		for _, sub := range s.subs {
			if isShared(sub.Filter) || !topic.MatchOne(sub.Filter, msg.Topic) || sub.NoLocal && s.client == msg.Publisher {
				continue
			}
			matched = true
			e.qos = max(e.qos, min(sub.Qos, msg.Qos))
			e.retain = e.retain || msg.Retain && sub.RetainAsPublished
			if sub.Identifier != 0 {
				e.ids = append(e.ids, sub.Identifier)
			}
		}
		if !matched || until <= m.clock {
			continue
		}
		if e.qos == 0 {
			if m.attached(s) && m.format < stream.FormatOrder {
				m.live(s, msg, false)
			}
			if !m.joins(s, msg.Topic) {
				continue
			}
			if !m.isRoomy(s, e) {
				s.dropped++
				continue
			}
		}
		value := m.isValue(s, msg)
		e.retain = e.retain || value
		slices.Sort(e.ids)
		if m.enqueue(s, e) {
			rejected = true
		}
		if e.seq > 0 {
			m.live(s, msg, value)
		}
	}
	for _, p := range picks {
		rejected = m.pick(p, msg, until) || rejected
	}
	return rejected
}

// advance lets the first unfinished entries be sent.
func (m *model) advance(s *modelSession) {
	if !m.attached(s) || s.bid != nil {
		return
	}
	for i, e := range s.queue {
		if i < max(int(2*s.window), 64) && e.seq <= s.queue[0].seq+65534 {
			s.sentHi = max(s.sentHi, e.seq)
		}
	}
}

func (m *model) ack(s *modelSession, c *shoalpb.Ack) {
	s.queue = slices.DeleteFunc(s.queue, func(e *modelEntry) bool {
		return slices.Contains(c.Seqs, e.seq) && e.seq <= s.sentHi ||
			slices.Contains(c.Expired, e.seq) && e.seq > s.openHi && !e.released
	})
	m.advance(s)
}
