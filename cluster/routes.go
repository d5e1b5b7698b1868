package cluster

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/cluster/directory"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// routeCacheTopics bounds the topics whose targets are remembered: telemetry
// repeats its topics, and beyond this a match is cheap beside the memory.
const routeCacheTopics = 64 << 10

// routeCache answers matches against the own directory copy, remembered until
// the copy's routes change.
type routeCache struct {
	n *Node
	// gen is the generation of the copy's routes, set with the group's lock
	// held, so that no one can report an applied index whose routes this cache
	// does not have yet.
	gen atomic.Uint64

	mu     sync.RWMutex
	of     uint64 // generation of topics
	topics map[string]*directory.Targets
}

func newRouteCache(n *Node) *routeCache { return &routeCache{n: n} }

// match returns where messages of topic go. The result is shared: read only.
func (c *routeCache) match(topic string) *directory.Targets {
	gen := c.gen.Load()
	c.mu.RLock()
	t := c.topics[topic]
	same := c.of == gen
	c.mu.RUnlock()
	if same && t != nil {
		return t
	}
	t = &directory.Targets{}
	c.n.readDirectory(func(d *directoryMachine) {
		gen = c.gen.Load() // changes only under the group's lock
		d.Match(topic, t)
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of > gen {
		return t
	}
	if c.topics == nil || c.of != gen || len(c.topics) >= routeCacheTopics {
		c.topics, c.of = make(map[string]*directory.Targets), gen
	}
	c.topics[topic] = t
	return t
}

// ownRoutes are the routes of this process's transient subscribers: one for
// each Topic Filter, with the highest QoS asked for.
type ownRoutes struct {
	p       *process
	mu      sync.Mutex
	by      map[string]*ownRoute
	version int // of the latest change of any filter
}

type ownRoute struct {
	count   int
	qos     uint8 // asked of the directory
	visible bool  // with qos, on every node
	waiting []func(error)
	// version is that of the latest change sent.
	version int
	// failed: the change was given up; the next add sends it again.
	failed bool
}

func newOwnRoutes(p *process) *ownRoutes {
	return &ownRoutes{p: p, by: make(map[string]*ownRoute)}
}

// AddRoute implements broker.Cluster.
func (n *Node) AddRoute(filter string, qos uint8, done func(error)) {
	p := n.proc.Load()
	if p == nil {
		done(session.ErrUnavailable)
		return
	}
	p.routes.add(filter, qos, done)
}

// RemoveRoute implements broker.Cluster.
func (n *Node) RemoveRoute(filter string, qos uint8) {
	if p := n.proc.Load(); p != nil {
		p.routes.remove(filter)
	}
}

// isShared tells a Shared Subscription from other filters, which are valid.
func isShared(filter string) bool { return strings.HasPrefix(filter, "$share/") }

// members are those of a Shared Subscription, as a route tells them.
func (r *ownRoute) members(filter string) uint32 {
	if !isShared(filter) {
		return 0
	}
	return uint32(r.count)
}

// has tells whether filter has subscribers.
func (o *ownRoutes) has(filter string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.by[filter] != nil
}

func (o *ownRoutes) add(filter string, qos uint8, done func(error)) {
	o.mu.Lock()
	r := o.by[filter]
	change := r == nil || qos > r.qos || r.failed || isShared(filter) // members count
	if r == nil {
		r = &ownRoute{}
		o.by[filter] = r
	}
	r.count++
	if !change && r.visible {
		o.mu.Unlock()
		done(nil)
		return
	}
	r.waiting = append(r.waiting, done)
	if !change {
		o.mu.Unlock()
		return
	}
	r.qos, r.visible, r.failed = max(qos, r.qos), false, false
	o.send(filter, r)
}

// send queues the route as it is now; it unlocks o.mu after queueing, so that
// changes of one filter keep their order.
func (o *ownRoutes) send(filter string, r *ownRoute) {
	o.version++
	version := o.version
	r.version = version
	c := encodeCommand(&shoalpb.Command{Route: &shoalpb.RouteChange{Filter: filter, Present: r.count > 0, Qos: uint32(r.qos), Members: r.members(filter)}})
	o.p.sources[0].enqueueControl(&command{data: c, done: func(k uint64, a *shoalpb.Answer, err error) {
		if err == nil {
			err = answerError(a)
		}
		if err != nil {
			o.settle(filter, version, err)
			return
		}
		o.p.n.visible.await(routeSource{boot: o.p.boot}, k, func(err error) { o.settle(filter, version, err) })
	}})
	o.mu.Unlock()
}

// settle tells those who wait for filter, if version is its latest change.
func (o *ownRoutes) settle(filter string, version int, err error) {
	o.mu.Lock()
	r := o.by[filter]
	if r == nil || r.version != version {
		o.mu.Unlock()
		return
	}
	waiting := r.waiting
	r.waiting = nil
	r.visible, r.failed = err == nil, err != nil
	o.mu.Unlock()
	for _, done := range waiting {
		done(err)
	}
}

// remove takes one add back; the last one removes the route. A route keeps its
// QoS while anyone is left: too high a QoS costs only work.
func (o *ownRoutes) remove(filter string) {
	o.mu.Lock()
	r := o.by[filter]
	if r == nil || r.count == 0 {
		o.mu.Unlock()
		return
	}
	r.count--
	if r.count > 0 {
		if isShared(filter) {
			o.send(filter, r)
			return
		}
		o.mu.Unlock()
		return
	}
	delete(o.by, filter)
	waiting := r.waiting
	o.send(filter, r)
	// Those who asked for it have taken it back, so there is nothing left to wait
	// for. One of them may be a client that did not wait for its SUBACK.
	for _, done := range waiting {
		done(nil)
	}
}
