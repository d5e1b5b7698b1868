package broker

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/shoalmq/shoal/broker/topic"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// subscriptions are those of this node's transient sessions.
type subscriptions struct {
	mu   sync.RWMutex
	trie topic.Trie[*subscribers]
	// shares are the members of Shared Subscriptions, by all of the filter.
	shares map[string]*subscribers
	// cache has the matches of Topic Names lately published.
	cache map[string]*match
	// clock counts subscriptions: a match made at a clock has those that were
	// born by then.
	clock uint64
}

// subscribers are the subscriptions of one Topic Filter.
type subscribers struct {
	list []*subscription
	// version grows with every change of list or of what is in it.
	version uint64
	// turn is where the choice of a Shared Subscription's member begins.
	turn atomic.Uint64
}

// subscription is one client's subscription of one Topic Filter.
type subscription struct {
	conn  *conn
	of    *subscribers
	index int // in of.list, if it is not shared
	// born is when it was made, or replaced with Retain Handling 0.
	born uint64
	id   uint32
	qos  uint8
	// route is the QoS of the route that stands for it, noRoute while the
	// connection's reader is asking for one.
	route int8
	// noLocal and retain are the options No Local and Retain As Published.
	noLocal, retain bool
}

const noRoute = -1

// subscriberState is a connection's part of subscriptions.
type subscriberState struct {
	byFilter map[string]*subscription
	gone     bool
}

// match is what a Topic Name matches. It is true while the trie's generation
// and the sum of its filters' versions are what they were.
type match struct {
	generation, version uint64
	filters             []*subscribers
	targets             []target
}

// target is a connection that gets one copy of a message, whatever number of
// its subscriptions match. Targets are read without a lock and never changed.
type target struct {
	conn *conn
	grant
	// noLocal: one of the subscriptions has No Local, so for what the client
	// publishes itself own holds, nil if nothing matches then.
	noLocal bool
	own     *grant
}

// grant is what overlapping subscriptions come to.
type grant struct {
	qos    uint8
	retain bool // Retain As Published
	ids    []uint32
}

func newSubscriptions() *subscriptions {
	return &subscriptions{shares: make(map[string]*subscribers), cache: make(map[string]*match)}
}

// add adds or replaces a subscription ([MQTT-3.8.4-3]). The caller asks for a
// route, calls routed, and removes the former route, if it is not noRoute, when
// the new one stands. ok is false if the connection is gone or has too many.
func (s *subscriptions) add(c *conn, p *shoalpb.Subscription) (former int8, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub, former := c.subs.byFilter[p.Filter], noRoute
	switch {
	case c.subs.gone:
		return noRoute, false
	case sub != nil:
		former = sub.route
	case len(c.subs.byFilter) >= c.bounds.subscriptions():
		return noRoute, false
	default:
		sub = s.insert(c, p.Filter)
	}
	if former == noRoute || p.RetainHandling == 0 {
		s.clock++
		sub.born = s.clock
	}
	sub.route = noRoute
	sub.id, sub.qos = p.Identifier, uint8(p.Qos)
	sub.noLocal, sub.retain = p.NoLocal, p.RetainAsPublished
	sub.of.version++
	return former, true
}

// routed says that a route was asked for. It returns false if the connection has
// gone meanwhile: the caller removes the route.
func (s *subscriptions) routed(c *conn, filter string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := c.subs.byFilter[filter]
	if sub == nil {
		return false
	}
	sub.route = int8(sub.qos)
	return true
}

func (s *subscriptions) insert(c *conn, filter string) *subscription {
	sub := &subscription{conn: c}
	if isShared(filter) {
		s.join(filter, sub)
	} else {
		of, ok := s.trie.Lookup(filter)
		if !ok {
			of = &subscribers{}
			s.trie.Set(filter, of)
		}
		sub.of, sub.index = of, len(of.list)
		of.list = append(of.list, sub)
	}
	if c.subs.byFilter == nil {
		c.subs.byFilter = make(map[string]*subscription)
	}
	c.subs.byFilter[filter] = sub
	c.broker.metrics.subscriptions.Add(1)
	return sub
}

// remove removes a subscription and returns its QoS, -1 if there was none.
func (s *subscriptions) remove(c *conn, filter string) (qos int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := c.subs.byFilter[filter]
	if sub == nil {
		return -1
	}
	delete(c.subs.byFilter, filter)
	s.unlink(filter, sub)
	return int(sub.qos)
}

func (s *subscriptions) unlink(filter string, sub *subscription) {
	sub.conn.broker.metrics.subscriptions.Add(-1)
	if isShared(filter) {
		s.part(filter, sub)
		return
	}
	of := sub.of
	last := len(of.list) - 1
	of.list[sub.index] = of.list[last]
	of.list[sub.index].index = sub.index
	of.list[last] = nil
	of.list = of.list[:last]
	of.version++
	if last == 0 {
		s.trie.Delete(filter)
	}
}

// removeAll removes the subscriptions of a connection that ends, and their
// routes.
func (s *subscriptions) removeAll(c *conn) {
	s.mu.Lock()
	subs := c.subs.byFilter
	c.subs = subscriberState{gone: true}
	for filter, sub := range subs {
		s.unlink(filter, sub)
	}
	s.mu.Unlock()
	for filter, sub := range subs {
		if sub.route != noRoute {
			c.broker.cluster.RemoveRoute(filter, uint8(sub.route))
		}
	}
}

// now is the clock.
func (s *subscriptions) now() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.clock
}

// lookup returns a copy of a subscription.
func (s *subscriptions) lookup(c *conn, filter string) (sub subscription, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if p := c.subs.byFilter[filter]; p != nil {
		return *p, true
	}
	return sub, false
}

// match returns the targets of a message, and the clock at which they were all.
// The slice is shared and read only.
func (s *subscriptions) match(name string) (targets []target, clock uint64) {
	s.mu.RLock()
	clock = s.clock
	m := s.cache[name]
	if m != nil && m.generation == s.trie.Generation() && m.version == m.sum() {
		s.mu.RUnlock()
		return m.targets, clock
	}
	m = s.find(name)
	s.mu.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.cache) >= maxCachedTopics {
		clear(s.cache)
	}
	// The name may point into a buffer of the caller's.
	s.cache[strings.Clone(name)] = m
	return m.targets, clock
}

// find matches anew.
func (s *subscriptions) find(name string) *match {
	m := &match{generation: s.trie.Generation()}
	s.trie.Match(name, func(of *subscribers) bool {
		m.filters = append(m.filters, of)
		return true
	})
	m.version = m.sum()
	m.targets = merge(m.filters)
	return m
}

func (m *match) sum() (version uint64) {
	for _, of := range m.filters {
		version += of.version
	}
	return version
}

// merge makes one target of all subscriptions of a connection.
func merge(filters []*subscribers) []target {
	n := 0
	for _, of := range filters {
		n += len(of.list)
	}
	targets := make([]target, 0, n)
	var index map[*conn]int
	if len(filters) > 1 {
		index = make(map[*conn]int, n)
	}
	for _, of := range filters {
		for _, sub := range of.list {
			i, known := index[sub.conn]
			if !known {
				i = len(targets)
				targets = append(targets, target{conn: sub.conn})
				if index != nil {
					index[sub.conn] = i
				}
			}
			targets[i].add(sub, known)
		}
	}
	return targets
}

// add adds a subscription to what its connection gets: the highest QoS, all
// identifiers. own counts those without No Local from the first one on that has
// it.
func (t *target) add(sub *subscription, others bool) {
	if sub.noLocal && !t.noLocal {
		t.noLocal = true
		if others {
			own := t.grant
			own.ids = slices.Clone(own.ids)
			t.own = &own
		}
	}
	t.grant.add(sub)
	if !t.noLocal || sub.noLocal {
		return
	}
	if t.own == nil {
		t.own = &grant{}
	}
	t.own.add(sub)
}

// of returns what holds for the messages of a publisher, nil if nothing matches
// ([MQTT-3.8.3-3]).
func (t *target) of(publisher string) *grant {
	if t.noLocal && publisher == t.conn.client {
		return t.own
	}
	return &t.grant
}

func (g *grant) add(sub *subscription) {
	g.qos = max(g.qos, sub.qos)
	g.retain = g.retain || sub.retain
	if sub.id != 0 {
		g.ids = append(g.ids, sub.id)
	}
}
