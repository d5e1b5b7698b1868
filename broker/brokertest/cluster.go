// Package brokertest has a replicated side in memory, for tests of the front
// end: Cluster keeps the contract of broker.Cluster and session.Link with maps
// and one lock, and can be told to fail, or to answer late.
//
// It calls done functions and Sinks without holding its lock. Wills and the
// passing of time are not its business: it records what it was told.
package brokertest

import (
	"maps"
	"slices"
	"sync"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/broker/topic"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// Op is a call whose done can be held back or made to fail.
type Op string

// The calls of broker.Cluster and session.Link that have a done.
const (
	Open        Op = "Open"
	AddRoute    Op = "AddRoute"
	Publish     Op = "Publish"
	Received    Op = "Received"
	Released    Op = "Released"
	Subscribe   Op = "Subscribe"
	Unsubscribe Op = "Unsubscribe"
	Release     Op = "Release"
	Retained    Op = "Retained"
	Retain      Op = "Retain"
)

// Cluster is a broker.Cluster of one node without a disk.
type Cluster struct {
	local broker.Local

	mu       sync.Mutex
	ready    error
	fails    map[Op]error
	held     map[Op][]func()
	owners   map[string]*link
	sessions map[string]*durable
	routes   map[route]int
	links    int
	requests []session.OpenRequest
	closes   []session.CloseRequest
	wills    []*shoalpb.Will
	messages []*shoalpb.Message
	retained map[string]*shoalpb.Message
	names    []string // of retained, sorted; nil when they have changed
	expired  []uint64
	again    []Redispatched
}

// Redispatched is one call of Redispatch.
type Redispatched struct {
	Share   string
	Message *shoalpb.Message
}

type route struct {
	filter string
	qos    uint8
}

var _ broker.Cluster = (*Cluster)(nil)

// New makes a Cluster that delivers to local.
func New(local broker.Local) *Cluster {
	return &Cluster{
		local:    local,
		fails:    make(map[Op]error),
		held:     make(map[Op][]func()),
		owners:   make(map[string]*link),
		sessions: make(map[string]*durable),
		routes:   make(map[route]int),
		retained: make(map[string]*shoalpb.Message),
	}
}

// SetReady sets what Ready returns.
func (c *Cluster) SetReady(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ready = err
}

// Fail makes an Op fail, without effect, until it is called with nil.
func (c *Cluster) Fail(op Op, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fails[op] = err
}

// Hold keeps the done of an Op back from now on.
func (c *Cluster) Hold(op Op) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held[op] = make([]func(), 0, 1)
}

// Held is how many are kept back.
func (c *Cluster) Held(op Op) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.held[op])
}

// ReleaseOne lets the n-th that is kept back go, and keeps the others.
func (c *Cluster) ReleaseOne(op Op, n int) {
	c.mu.Lock()
	done := c.held[op][n]
	c.held[op] = append(c.held[op][:n], c.held[op][n+1:]...)
	c.mu.Unlock()
	done()
}

// ReleaseAll lets go what is kept back and keeps nothing back any more.
func (c *Cluster) ReleaseAll(op Op) {
	c.mu.Lock()
	held := c.held[op]
	delete(c.held, op)
	c.mu.Unlock()
	for _, done := range held {
		done()
	}
}

// Routes is the number of AddRoute that no RemoveRoute has taken back.
func (c *Cluster) Routes() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, count := range c.routes {
		n += count
	}
	return n
}

// BadRoutes is the number of RemoveRoute without AddRoute.
func (c *Cluster) BadRoutes() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, count := range c.routes {
		n -= min(count, 0)
	}
	return n
}

// Links is the number of Links that have not been closed.
func (c *Cluster) Links() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.links
}

// Requests returns the requests of all Opens.
func (c *Cluster) Requests() []session.OpenRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]session.OpenRequest(nil), c.requests...)
}

// Closes returns the CloseRequests of all Links that were closed.
func (c *Cluster) Closes() []session.CloseRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]session.CloseRequest(nil), c.closes...)
}

// Wills returns the Wills of all Opens that had one.
func (c *Cluster) Wills() []*shoalpb.Will {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*shoalpb.Will(nil), c.wills...)
}

// Messages returns the messages of QoS 1 and 2 that were routed.
func (c *Cluster) Messages() []*shoalpb.Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*shoalpb.Message(nil), c.messages...)
}

// Supersede tells the connection of a client that another one is about to take
// its session.
func (c *Cluster) Supersede(client string) {
	c.mu.Lock()
	l := c.owners[client]
	c.mu.Unlock()
	l.sink.Superseded()
}

// Subscriptions is the number of subscriptions of a durable session.
func (c *Cluster) Subscriptions(client string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sessions[client].subs)
}

// Lose tells every open connection that the node has lost its lease.
func (c *Cluster) Lose(err error) {
	c.mu.Lock()
	var sinks []session.Sink
	for _, l := range c.owners {
		sinks = append(sinks, l.sink)
	}
	c.mu.Unlock()
	for _, s := range sinks {
		s.Lost(err)
	}
}

// Ready is part of broker.Cluster.
func (c *Cluster) Ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready
}

// begin returns the error that an Op is to fail with. mu is held.
func (c *Cluster) begin(op Op) error { return c.fails[op] }

// finish calls done now, or later if it is to be held. mu is held, and released.
func (c *Cluster) finish(op Op, done func()) {
	if held, hold := c.held[op]; hold {
		c.held[op] = append(held, done)
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	done()
}

// Open is part of broker.Cluster.
func (c *Cluster) Open(r session.OpenRequest, sink session.Sink, done func(session.Link, session.Opened, error)) {
	c.mu.Lock()
	c.requests = append(c.requests, r)
	if err := c.begin(Open); err != nil {
		c.finish(Open, func() { done(nil, session.Opened{}, err) })
		return
	}
	former := c.owners[r.Client]
	l := &link{cluster: c, client: r.Client, sink: sink, window: int(r.Window)}
	c.owners[r.Client] = l
	c.links++
	opened := c.open(r, l)
	if r.Will != nil {
		c.wills = append(c.wills, r.Will)
	}
	c.finish(Open, func() {
		if former != nil {
			former.sink.Superseded()
		}
		done(l, opened, nil)
	})
}

// open finds or makes the session. mu is held.
func (c *Cluster) open(r session.OpenRequest, l *link) session.Opened {
	d := c.sessions[r.Client]
	if r.CleanStart && d != nil {
		delete(c.sessions, r.Client)
		d = nil
	}
	present := d != nil
	if !present {
		if r.ExpirySeconds == 0 {
			return session.Opened{}
		}
		d = newDurable(r.Client)
		c.sessions[r.Client] = d
	}
	d.expires = r.ExpirySeconds != 0
	d.owner, d.fetching, d.next = l, false, 0
	d.queue = slices.DeleteFunc(d.queue, func(e session.Delivery) bool { return e.QoS == 0 && e.Seq <= d.sentHi })
	l.durable = d
	return session.Opened{Present: present, Durable: true, SentHi: d.sentHi}
}

// AddRoute is part of broker.Cluster.
func (c *Cluster) AddRoute(filter string, qos uint8, done func(error)) {
	c.mu.Lock()
	err := c.begin(AddRoute)
	c.routes[route{filter, qos}]++
	c.finish(AddRoute, func() { done(err) })
}

// RemoveRoute is part of broker.Cluster.
func (c *Cluster) RemoveRoute(filter string, qos uint8) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.routes[route{filter, qos}]--
}

// picks are the Shared Subscriptions with transient members that match.
func (c *Cluster) picks(name string) (picks []*shoalpb.Pick) {
	c.mu.Lock()
	defer c.mu.Unlock()
	shares := map[string]bool{}
	for r, n := range c.routes {
		if _, filter, shared, _ := topic.ParseShare(r.filter); shared && n > 0 && topic.MatchOne(filter, name) && !shares[r.filter] {
			shares[r.filter] = true
			picks = append(picks, &shoalpb.Pick{Share: r.filter})
		}
	}
	return picks
}

// PublishQoS0 is part of broker.Cluster.
func (c *Cluster) PublishQoS0(m *shoalpb.Message) {
	c.local.Deliver(m, c.picks(m.Topic))
	c.mu.Lock()
	if len(c.sessions) == 0 {
		c.mu.Unlock()
		return
	}
	// The message is valid during this call only.
	own := &shoalpb.Message{
		Topic: m.Topic, Payload: append([]byte(nil), m.Payload...), Properties: append([]byte(nil), m.Properties...),
		Retain: m.Retain, ExpiryMs: m.ExpiryMs, Publisher: m.Publisher,
	}
	touched := c.enqueue(own)
	c.mu.Unlock()
	c.pump(touched)
}

// route hands a message of QoS 1 or 2 to everyone.
func (c *Cluster) route(m *shoalpb.Message) {
	c.mu.Lock()
	c.messages = append(c.messages, m)
	if m.Retain {
		c.retain(m)
	}
	touched := c.enqueue(m)
	c.mu.Unlock()
	c.local.Deliver(m, c.picks(m.Topic))
	c.pump(touched)
}

// retain sets or clears the retained message of a topic. mu is held.
func (c *Cluster) retain(m *shoalpb.Message) {
	if len(m.Payload) == 0 {
		delete(c.retained, m.Topic)
	} else {
		c.retained[m.Topic] = m
	}
	c.names = nil
}

// SetRetained makes messages the retained ones of their topics, as if another
// node had.
func (c *Cluster) SetRetained(list ...*shoalpb.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range list {
		c.retain(m)
	}
}

// topics returns the topics after one that have retained messages. mu is held.
func (c *Cluster) topics(after string) []string {
	if c.names == nil {
		c.names = slices.Sorted(maps.Keys(c.retained))
	}
	i, found := slices.BinarySearch(c.names, after)
	if found {
		i++
	}
	return c.names[i:]
}

// Expired returns the numbers that Link.Expired was called with.
func (c *Cluster) Expired() []uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.expired)
}

// Queued is how many entries a durable session's queue has, sent or not.
func (c *Cluster) Queued(client string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.sessions[client]; d != nil {
		return len(d.queue)
	}
	return 0
}

// RetainedMessage returns the retained message of a topic, nil if there is none.
func (c *Cluster) RetainedMessage(name string) *shoalpb.Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.retained[name]
}

// Retained is part of broker.Cluster: pages of retainedPage messages.
func (c *Cluster) Retained(filter string, from session.RetainedCursor, done func([]*shoalpb.Message, session.RetainedCursor, error)) {
	c.mu.Lock()
	err := c.begin(Retained)
	next := session.RetainedCursor{Done: true}
	var page []*shoalpb.Message
	for _, name := range c.topics(from.After) {
		if !topic.MatchOne(filter, name) {
			continue
		}
		if len(page) == retainedPage {
			next.Done = false
			break
		}
		page, next.After = append(page, c.retained[name]), name
	}
	if err != nil {
		page, next = nil, from
	}
	c.finish(Retained, func() { done(page, next, err) })
}

const retainedPage = 100

// RegisterOf is part of broker.Cluster: there is one shard.
func (c *Cluster) RegisterOf(string) uint32 { return 1 }

// Redispatch is part of broker.Cluster.
func (c *Cluster) Redispatch(share string, m *shoalpb.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.again = append(c.again, Redispatched{share, m})
}

// Redispatched returns the calls of Redispatch.
func (c *Cluster) Redispatched() []Redispatched {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.again)
}
