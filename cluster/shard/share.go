package shard

import (
	"slices"
	"strings"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// share is a Shared Subscription (MQTT 5 §4.8.2). It is kept apart from the
// filters that match by themselves: the publisher's node picks it.
type share struct {
	*filter
	// attached are the members that are connected. They and filter.subs are
	// ascending by client, so that all replicas pick alike. left of them are not
	// connected any more, while a fence is swept: see clear.
	attached []*subscription
	left     int
	// turn is where the members' turn begins.
	turn uint64
	// told is what the directory was told last.
	told seats
	// moved: it is in Machine.movedShares.
	moved bool
}

// seats is what a Shared Subscription has to offer in this shard.
type seats struct {
	qos               uint8
	members, attached int
}

// isShared tells a Shared Subscription from other filters, which have been
// checked.
func isShared(filter string) bool { return strings.HasPrefix(filter, "$share/") }

func (sh *share) seats() seats { return seats{sh.qos(), len(sh.subs), len(sh.attached) - sh.left} }

// clear takes those out of attached that a sweep has detached, all at once.
func (sh *share) clear() {
	if sh.left > 0 {
		sh.left = 0
		sh.attached = slices.DeleteFunc(sh.attached, func(sub *subscription) bool { return sub.session.owner == nil })
	}
}

func (sh *share) row(func(*body)) []byte {
	return encode(&shoalpb.FilterRow{Route: sh.route, Filter: nameInside(sh.name), Turn: sh.turn})
}

// enterShare and leaveShare note that an attached session has become a member, or
// is none any more.
func (m *Machine) enterShare(sub *subscription) {
	if sh := m.shares[sub.filter.name]; sh != nil && sub.session.owner != nil {
		sh.attached = enter(sh.attached, sub)
	}
}

func (m *Machine) leaveShare(sub *subscription) {
	if sh := m.shares[sub.filter.name]; sh != nil && !m.now.sweeps {
		sh.attached = leave(sh.attached, sub)
	}
}

// enter puts a member into a list that is ascending by client, leave takes it
// out.
func enter(list []*subscription, sub *subscription) []*subscription {
	i, _ := findMember(list, sub.session.client)
	return slices.Insert(list, i, sub)
}

func leave(list []*subscription, sub *subscription) []*subscription {
	if i, ok := findMember(list, sub.session.client); ok {
		return slices.Delete(list, i, i+1)
	}
	return list
}

func findMember(list []*subscription, client string) (int, bool) {
	return slices.BinarySearchFunc(list, client, func(sub *subscription, c string) int {
		return strings.Compare(sub.session.client, c)
	})
}

// sharesOf are the session's memberships of Shared Subscriptions.
func (s *session) sharesOf() []*subscription {
	first, _ := s.find("$share/")
	end := first
	for end < len(s.subs) && isShared(s.subs[end].filter.name) {
		end++
	}
	return s.subs[first:end]
}

// attendShares notes that a session is attached now, or is not any more. The
// directory is told at the end of the entry: many may come and go in one.
func (m *Machine) attendShares(s *session) {
	for _, sub := range s.sharesOf() {
		sh := m.shares[sub.filter.name]
		switch {
		case s.owner != nil:
			sh.attached = enter(sh.attached, sub)
		case m.now.sweeps:
			sh.left++
		default:
			sh.attached = leave(sh.attached, sub)
		}
		if !sh.moved {
			sh.moved = true
			m.movedShares = append(m.movedShares, sh)
		}
	}
}

// tellMoved tells the directory of the Shared Subscriptions whose members came
// and went.
func (m *Machine) tellMoved() {
	for i, sh := range m.movedShares {
		m.movedShares[i] = nil
		sh.moved = false
		if m.shares[sh.name] == sh {
			m.tellShare(sh)
		}
	}
	m.movedShares = m.movedShares[:0]
}

// tellShare tells the directory how many members there are, if it does not know.
func (m *Machine) tellShare(sh *share) {
	now := sh.seats()
	if now == sh.told {
		return
	}
	m.touch(sh)
	sh.told = now
	sh.route = m.pushRoute(&shoalpb.RouteChange{
		Filter: sh.name, Present: now.members > 0, Qos: uint32(now.qos),
		Members: uint32(now.members), Attached: uint32(now.attached),
	})
	if now.members == 0 {
		m.forget(sh)
		delete(m.shares, sh.name)
	}
}

// choose returns the place of the member that gets a message, published with qos
// and of a size, among those who come into question; it returns none if there
// are none. Members that are connected come first, then those with room in their
// queues, then those for whom least waits; of equal ones it is the next one's turn.
func (m *Machine) choose(sh *share, hint uint64, qos uint8, size int) (list []*subscription, place int) {
	if sh == nil {
		return nil, 0
	}
	list, place = m.chooseOf(sh, sh.attached, hint, size, func(sub *subscription) bool { return sub.session.attached() })
	if list == nil && qos > 0 {
		list, place = m.chooseOf(sh, sh.subs, hint, size, func(sub *subscription) bool { return min(qos, sub.options.qos()) > 0 })
	}
	return list, place
}

// chooseOf chooses among those members that can take the message.
func (m *Machine) chooseOf(sh *share, among []*subscription, hint uint64, size int, canTake func(*subscription) bool) (list []*subscription, place int) {
	if hint != 0 && len(among) > 0 {
		if place = int(hint % uint64(len(among))); canTake(among[place]) {
			return among, place
		}
	}
	best := crowd{full: true, queued: maxLimit}
	for i := range min(len(among), pickScan) {
		at := int((sh.turn + uint64(i)) % uint64(len(among)))
		if !canTake(among[at]) {
			continue
		}
		if c := m.crowd(among[at].session, size); list == nil || c.less(best) {
			best, place, list = c, at, among
		}
	}
	return list, place
}

// crowd is how many wait in front of a message in a queue.
type crowd struct {
	full   bool
	queued int
}

func (c crowd) less(than crowd) bool {
	if c.full != than.full {
		return than.full
	}
	return c.queued < than.queued
}

func (m *Machine) crowd(s *session, size int) crowd {
	if s.queue == nil {
		return crowd{}
	}
	l, queued := m.limitsOf(s), s.queue.unfinished
	if m.format >= stream.FormatOrder && s.attached() {
		// What is in flight does not wait: who acknowledges a little faster would
		// take the others' turns.
		queued = max(0, queued+1-int(s.window))
	}
	return crowd{s.queue.unfinished >= l.messages || s.queue.bytes+size > l.bytes, queued}
}

// deliverPick gives a message to one member of a Shared Subscription, or makes
// it due if there is none who could take it. message is nil if it has left
// memory; then *b is its body.
func (m *Machine) deliverPick(b **body, message *shoalpb.Message, p *shoalpb.Pick) (rejected bool) {
	qos, retain, size := m.published(*b, message)
	sh := m.shares[p.Share]
	list, place := m.choose(sh, p.Hint, qos, size)
	if list == nil {
		m.missMember(b, message, p.Share, qos)
		return false
	}
	if p.Hint == 0 {
		m.touch(sh)
		sh.turn = uint64(place) + 1
	}
	sub := list[place]
	found := match{sub.session, sub.from, min(qos, sub.options.qos()), retain && sub.options&optRetainAsPublished != 0}
	return m.give(b, message, &found)
}

// published returns what does not change about a message.
func (m *Machine) published(b *body, message *shoalpb.Message) (qos uint8, retain bool, size int) {
	if b != nil {
		return b.qos, b.retain, int(b.size)
	}
	return uint8(message.Qos), message.Retain, contentBytes(message)
}

// missMember takes a message that met no member here: the leader looks for one
// elsewhere.
func (m *Machine) missMember(b **body, message *shoalpb.Message, share string, qos uint8) {
	if qos == 0 {
		m.counters.NoMember++
		return
	}
	m.addDue(&due{body: m.use(b, message), pick: &shoalpb.Pick{Share: strings.Clone(share), Only: true}})
}

// missProcess is about a message for a process that is dead: its own subscribers
// are gone, but each pick may go to another member.
func (m *Machine) missProcess(b **body, message *shoalpb.Message, picks []*shoalpb.Pick) {
	if len(picks) == 0 || !picks[0].Only {
		m.counters.OutboxFenced++
	}
	qos, _, _ := m.published(*b, message)
	for _, p := range picks {
		m.missMember(b, message, p.Share, qos)
	}
}

// passOn makes the entry seq of a queue due for another member, if it came
// through a Shared Subscription: what was never sent always, what may have been
// sent with QoS 1, never with QoS 2 ([MQTT-4.8.2-4], [MQTT-4.8.2-5]). The caller
// takes the entry out of the queue and drops its reference.
func (m *Machine) passOn(s *session, seq uint64, r *ref) bool {
	if !r.from.isShared() || seq <= s.sentHi && r.flag.qos() != 1 || r.body.expired(m.clock) {
		return false
	}
	b := r.body
	m.addDue(&due{body: m.use(&b, nil), pick: &shoalpb.Pick{Share: r.from.share, Only: true}})
	m.counters.Redispatched++
	return true
}

// passUnsent makes up to limit entries due that came to s through a Shared
// Subscription and were never sent. rest says that others wait, of any.
func (m *Machine) passUnsent(s *session, share string, limit int) (rest bool) {
	for seq := s.sentHi; s.queue != nil; {
		var r *ref
		if seq, r = s.queue.next(seq+1, true); r == nil {
			break
		}
		if r.from.share != share || limit == 0 {
			rest = true
			if limit == 0 {
				break
			}
			continue
		}
		if m.passOn(s, seq, r) {
			m.finish(s, seq)
			limit--
		}
	}
	m.closeHoles(s)
	return rest
}

// strand notes that a detached session may have entries that are another
// member's to deliver.
func (m *Machine) strand(s *session) {
	q := s.queue
	if s.attached() || !s.durable || q == nil || q.unfinished == q.sent || len(s.sharesOf()) == 0 {
		return
	}
	m.stranded[s] = struct{}{}
	if m.now.eff != nil {
		m.now.eff.Stranded = true
	}
}

// relieve passes unsent messages of a detached member on.
func (m *Machine) relieve(c *shoalpb.Relieve) {
	s := m.sessions[c.Client]
	if s == nil || s.attached() {
		return
	}
	if rest := m.passUnsent(s, c.Share, int(c.Limit)); !rest {
		delete(m.stranded, s)
	}
}

// Stranded visits, in no order, detached sessions that may have messages of a
// Shared Subscription that were never sent. Others that are connected could have
// them: see Relieve.
func (m *Machine) Stranded(yield func(client, share string) bool) {
	for s := range m.stranded {
		for _, sub := range s.sharesOf() {
			if !yield(s.client, sub.filter.name) {
				return
			}
		}
	}
}

// CanTake tells whether a Shared Subscription has a member here that could take
// a message published with qos.
func (m *Machine) CanTake(share string, qos uint8) bool {
	list, _ := m.choose(m.shares[share], 0, qos, 0)
	return list != nil
}
