package shard

import (
	"slices"
	"sync"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// match is one session that gets a message: one copy at the highest granted QoS
// of its matching subscriptions, with the identifiers of all of them
// ([MQTT-3.3.4-2], [MQTT-3.3.4-3]).
type match struct {
	session *session
	from    *origin
	qos     uint8 // min(published, granted)
	retain  bool
}

// matcher finds the sessions that match a message. It holds only scratch.
type matcher struct {
	filters []*filter
	collect func(*filter) bool // appends to filters
	found   []match
	at      map[*session]int // in found, if more than one filter matched
}

func newMatcher() *matcher {
	mt := &matcher{at: map[*session]int{}}
	mt.collect = func(f *filter) bool {
		mt.filters = append(mt.filters, f)
		return true
	}
	return mt
}

// matchers are for the methods that only read, which run beside each other.
var matchers = sync.Pool{New: func() any { return newMatcher() }}

// match returns the sessions that get a message, in no order. The result is
// valid until the next call or clear.
func (mt *matcher) match(m *Machine, message *shoalpb.Message) []match {
	m.filters.Match(message.Topic, mt.collect)
	for _, f := range mt.filters {
		for _, sub := range f.subs {
			if sub.options&optNoLocal != 0 && sub.session.client == message.Publisher {
				continue // [MQTT-3.8.3-3]
			}
			mt.add(sub, message)
		}
	}
	return mt.found
}

// add adds what one subscription gives to its session's match.
func (mt *matcher) add(sub *subscription, message *shoalpb.Message) {
	qos := min(uint8(message.Qos), sub.options.qos())
	retain := message.Retain && sub.options&optRetainAsPublished != 0
	if len(mt.filters) > 1 {
		if i, ok := mt.at[sub.session]; ok {
			f := &mt.found[i]
			f.qos = max(f.qos, qos)
			f.retain = f.retain || retain
			f.from = f.from.with(sub.from)
			return
		}
		mt.at[sub.session] = len(mt.found)
	}
	mt.found = append(mt.found, match{sub.session, sub.from, qos, retain})
}

// with returns the identifiers of two matches, ascending: the order must not
// depend on that of the filters.
func (o *origin) with(more *origin) *origin {
	switch {
	case more == nil:
		return o
	case o == nil:
		return more
	}
	all := slices.Concat(o.ids, more.ids)
	slices.Sort(all)
	return &origin{ids: all}
}

// list returns the Subscription Identifiers.
func (o *origin) list() []uint32 {
	if o == nil {
		return nil
	}
	return o.ids
}

// clear forgets a message's matches.
func (mt *matcher) clear() {
	clear(mt.filters)
	mt.filters = mt.filters[:0]
	clear(mt.found)
	mt.found = mt.found[:0]
	clear(mt.at)
}

// volatile is the delivery of a message that is QoS 0 in effect.
func (f *match) volatile(message *shoalpb.Message) Volatile {
	s := f.session
	return Volatile{
		Client:      s.client,
		Conn:        s.conn,
		Node:        s.owner.node,
		Boot:        s.owner.boot,
		Identifiers: f.from.list(),
		Retain:      f.retain,
		Shared:      f.from.isShared(),
		Message:     message,
	}
}
