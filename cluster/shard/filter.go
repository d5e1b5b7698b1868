package shard

import (
	"maps"
	"slices"
	"strings"

	"github.com/shoalmq/shoal/broker/topic"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// subscription is one session's subscription to one filter.
type subscription struct {
	session *session
	filter  *filter
	from    *origin // the Subscription Identifier and the Shared Subscription, or nil
	place   uint32  // in filter.subs
	options options
}

// options are the Subscription Options in the bits of MQTT 5 §3.8.3.1.
type options uint8

const (
	optQoS               options = 3
	optNoLocal           options = 1 << 2
	optRetainAsPublished options = 1 << 3
	optRetainHandling            = 4 // shift
)

func optionsOf(s *shoalpb.Subscription) options {
	o := options(s.Qos&3) | options(s.RetainHandling&3)<<optRetainHandling
	if s.NoLocal {
		o |= optNoLocal
	}
	if s.RetainAsPublished {
		o |= optRetainAsPublished
	}
	return o
}

func (o options) qos() uint8 { return uint8(o & optQoS) }

// row is the subscription as it was asked for.
func (sub *subscription) row() *shoalpb.Subscription {
	s := &shoalpb.Subscription{
		Filter:            sub.filter.name,
		Qos:               uint32(sub.options.qos()),
		NoLocal:           sub.options&optNoLocal != 0,
		RetainAsPublished: sub.options&optRetainAsPublished != 0,
		RetainHandling:    uint32(sub.options>>optRetainHandling) & 3,
	}
	if ids := sub.from.list(); ids != nil {
		s.Identifier = ids[0]
	}
	return s
}

// filter is a Topic Filter with durable subscribers in this shard.
type filter struct {
	name string
	subs []*subscription // in no order, if it is not shared
	// qos1 and qos2 count the subs with that granted QoS.
	qos1, qos2 uint32
	// route is the outbox number of the latest route change.
	route uint64
	tracked
}

// qos is the highest granted QoS.
func (f *filter) qos() uint8 {
	switch {
	case f.qos2 > 0:
		return 2
	case f.qos1 > 0:
		return 1
	}
	return 0
}

// count adds by to the count of subs with a granted QoS; ^0 takes one off.
func (f *filter) count(qos uint8, by uint32) {
	switch qos {
	case 1:
		f.qos1 += by
	case 2:
		f.qos2 += by
	}
}

// find returns the place of a filter in the session's subscriptions.
func (s *session) find(filter string) (int, bool) {
	return slices.BinarySearchFunc(s.subs, filter, func(sub *subscription, f string) int {
		return strings.Compare(sub.filter.name, f)
	})
}

// subscribe adds or replaces subscriptions. All of them or, at a limit, none.
func (m *Machine) subscribe(c *shoalpb.Subscribe) *shoalpb.Answer {
	s := m.ownedDurable(c.Client, c.Conn)
	if s == nil {
		return notOwner()
	}
	if s.with(c.Subscriptions) > m.limitsOf(s).subscriptions || slices.ContainsFunc(c.Subscriptions, refused) {
		return refuse(shoalpb.Code_CODE_QUOTA)
	}
	a := &shoalpb.SubscribeAnswer{Existed: make([]bool, len(c.Subscriptions))}
	for i, want := range c.Subscriptions {
		var f *filter
		f, a.Existed[i] = m.setSubscription(s, want)
		a.Route = max(a.Route, f.route)
		m.replayFor(s, want, a.Existed[i], c.Replay, i)
	}
	return &shoalpb.Answer{Subscribe: a}
}

// with is about how many subscriptions the session would have: a filter that is
// given twice counts twice.
func (s *session) with(more []*shoalpb.Subscription) int {
	n := len(s.subs)
	for _, sub := range more {
		if _, has := s.find(sub.Filter); !has {
			n++
		}
	}
	return n
}

// replayFor begins the replay that Retain Handling asks for (MQTT 5 §3.8.3.1), if
// the node has named a group to begin with. Without, one that is under way goes
// on, with the new options: replacing a subscription loses nothing
// ([MQTT-3.8.4-4]).
func (m *Machine) replayFor(s *session, want *shoalpb.Subscription, existed bool, groups []uint32, i int) {
	at, _ := s.find(want.Filter)
	if isShared(want.Filter) { // a Shared Subscription gets none (MQTT 5 §4.8.2)
		return
	}
	if i < len(groups) && groups[i] != 0 && want.RetainHandling < 2 && !(existed && want.RetainHandling == 1) {
		m.startReplay(s, s.subs[at], groups[i])
	}
}

// refused tells what a shard takes no subscription for: the front end should
// have refused it.
func refused(s *shoalpb.Subscription) bool {
	_, _, shared, err := topic.ParseShare(s.Filter)
	return shared && s.NoLocal || err != nil
}

// setSubscription adds or replaces one subscription and tells whether it was
// there.
func (m *Machine) setSubscription(s *session, want *shoalpb.Subscription) (*filter, bool) {
	m.touch(s)
	options := optionsOf(want)
	i, existed := s.find(want.Filter)
	if existed {
		sub := s.subs[i]
		m.change(sub.filter, func(f *filter) {
			f.count(sub.options.qos(), ^uint32(0))
			f.count(options.qos(), 1)
			sub.options = options
		})
	} else {
		m.change(m.filter(want.Filter), func(f *filter) {
			s.subs = slices.Insert(s.subs, i, f.add(s, options))
			m.enterShare(s.subs[i])
		})
		m.gauges.subscriptions++
	}
	s.subs[i].identify(want.Identifier)
	return s.subs[i].filter, existed
}

func (sub *subscription) identify(identifier uint32) {
	sub.from = nil
	if identifier != 0 {
		sub.from = &origin{ids: []uint32{identifier}}
	}
	if isShared(sub.filter.name) {
		if sub.from == nil {
			sub.from = &origin{}
		}
		sub.from.share = sub.filter.name
	}
}

// filter returns the record of a filter, a new one without subscribers if there
// is none.
func (m *Machine) filter(name string) *filter {
	if f := m.lookup(name); f != nil {
		return f
	}
	f := &filter{name: strings.Clone(name)}
	if isShared(name) {
		m.shares[f.name] = &share{filter: f}
	} else {
		m.filters.Set(f.name, f)
	}
	return f
}

// lookup returns the record of a filter, nil if there is none.
func (m *Machine) lookup(name string) *filter {
	if isShared(name) {
		if sh := m.shares[name]; sh != nil {
			return sh.filter
		}
		return nil
	}
	f, _ := m.filters.Lookup(name)
	return f
}

// eachFilter visits all filters, in an order that depends on nothing but them.
func (m *Machine) eachFilter(yield func(*filter) bool) {
	more := true
	m.filters.All(func(_ string, f *filter) bool {
		more = yield(f)
		return more
	})
	for _, name := range slices.Sorted(maps.Keys(m.shares)) {
		if more = more && yield(m.shares[name].filter); !more {
			return
		}
	}
}

// change changes who subscribes f, and how. If that changes the shard's route
// for f, the directory is told.
func (m *Machine) change(f *filter, how func(*filter)) {
	had, qos := len(f.subs) > 0, f.qos()
	how(f)
	if sh := m.shares[f.name]; sh != nil {
		m.tellShare(sh)
		return
	}
	has := len(f.subs) > 0
	if has == had && f.qos() == qos {
		return
	}
	m.touch(f)
	m.tell(f)
	if !has {
		m.forget(f)
		m.filters.Delete(f.name)
	}
}

// tell tells the directory of the shard's route for f as it is.
func (m *Machine) tell(f *filter) {
	f.route = m.pushRoute(&shoalpb.RouteChange{Filter: f.name, Present: len(f.subs) > 0, Qos: uint32(f.qos())})
}

// add makes a subscription of f.
func (f *filter) add(s *session, o options) *subscription {
	sub := &subscription{session: s, filter: f, place: uint32(len(f.subs)), options: o}
	f.count(o.qos(), 1)
	if isShared(f.name) {
		f.subs = enter(f.subs, sub)
		return sub
	}
	f.subs = append(f.subs, sub)
	return sub
}

// remove takes a subscription out of f.
func (f *filter) remove(sub *subscription) {
	f.count(sub.options.qos(), ^uint32(0))
	if isShared(f.name) {
		f.subs = leave(f.subs, sub)
		return
	}
	last := len(f.subs) - 1
	moved := f.subs[last]
	f.subs[sub.place], moved.place = moved, sub.place
	f.subs[last] = nil
	f.subs = f.subs[:last]
}

func (m *Machine) unsubscribe(c *shoalpb.Unsubscribe) *shoalpb.Answer {
	s := m.ownedDurable(c.Client, c.Conn)
	if s == nil {
		return notOwner()
	}
	a := &shoalpb.UnsubscribeAnswer{Existed: make([]bool, len(c.Filters))}
	for n, name := range c.Filters {
		var i int
		if i, a.Existed[n] = s.find(name); !a.Existed[n] {
			continue
		}
		m.touch(s)
		sub := s.subs[i]
		s.subs = slices.Delete(s.subs, i, i+1)
		m.removeSubscription(sub)
		if isShared(name) {
			m.passUnsent(s, name, maxLimit)
		}
	}
	return &shoalpb.Answer{Unsubscribe: a}
}

func (m *Machine) removeSubscription(sub *subscription) {
	m.gauges.subscriptions--
	m.endReplay(sub.session, sub)
	m.change(sub.filter, func(f *filter) {
		f.remove(sub)
		m.leaveShare(sub)
	})
}

// unsubscribeAll ends all subscriptions with their session.
func (m *Machine) unsubscribeAll(s *session) {
	for _, sub := range s.subs {
		m.removeSubscription(sub)
	}
	s.subs = nil
}
