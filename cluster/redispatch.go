package cluster

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/cluster/directory"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// redispatcher gives messages of Shared Subscriptions, which a transient member
// has left unfinished, to other members. What waits dies with the process, like
// the members' own queues did.
type redispatcher struct {
	p *process
	// queues are its publishes to the groups.
	queues []commandQueue

	mu    sync.Mutex
	list  []orphan
	bytes int
	over  bool
	wake  signal
	// left counts what closed connections left and no other target has yet.
	left atomic.Int64
}

// orphan is one such message; done is called when another target has it, or when
// there is none.
type orphan struct {
	share string
	m     *shoalpb.Message
	done  func(error)
}

func newRedispatcher(p *process, shards int) *redispatcher {
	return &redispatcher{p: p, queues: make([]commandQueue, shards+1), wake: newSignal()}
}

// Redispatch implements broker.Cluster.
func (n *Node) Redispatch(share string, m *shoalpb.Message) {
	p := n.proc.Load()
	if p == nil {
		n.metrics.dropped.WithLabelValues("redispatch").Inc()
		return
	}
	p.orphans.left.Add(1)
	p.orphans.add(orphan{share, m, func(error) { p.orphans.left.Add(-1) }})
}

// passOn gives what connections have left to other members before the node
// stops, as far as that takes no longer than passOnTimeout.
func (n *Node) passOn(ctx context.Context) {
	p := n.proc.Load()
	if p == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, passOnTimeout)
	defer cancel()
	for p.orphans.left.Load() > 0 && ctx.Err() == nil {
		pause(ctx, retryDelay)
	}
}

// add queues o. What is beyond redispatchBytes is dropped and counted.
func (r *redispatcher) add(o orphan) {
	size := messageBytes(o.m)
	r.mu.Lock()
	if r.over || r.bytes+size > redispatchBytes && len(r.list) > 0 {
		r.mu.Unlock()
		r.p.n.metrics.dropped.WithLabelValues("redispatch").Inc()
		o.done(session.ErrNotOwner)
		return
	}
	r.list = append(r.list, o)
	r.bytes += size
	r.mu.Unlock()
	r.wake.set()
}

func (r *redispatcher) take() []orphan {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.list
	r.list, r.bytes = nil, 0
	return list
}

func (r *redispatcher) run(ctx context.Context) {
	defer r.finish()
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
		for _, o := range r.take() {
			sent := r.send(o)
			for !sent && ctx.Err() == nil {
				pause(ctx, retryDelay)
				sent = r.send(o)
			}
			if !sent {
				o.done(session.ErrNotOwner)
			}
		}
		// One that found nobody at its new target comes at once again: the
		// directory knows soon.
		pause(ctx, retryDelay)
	}
}

func (r *redispatcher) finish() {
	r.mu.Lock()
	r.over = true
	list := r.list
	r.list = nil
	r.mu.Unlock()
	r.p.n.metrics.dropped.WithLabelValues("redispatch").Add(float64(len(list)))
	for _, o := range list {
		o.done(session.ErrNotOwner)
	}
}

// send sends o on. It reports false if this node's lease did not hold: it might
// not know members who have been told that they are.
func (r *redispatcher) send(o orphan) bool {
	n := r.p.n
	claim := n.lease.claim()
	s := n.share(o.share)
	if !r.p.routes.has(o.share) { // the own members are gone, whatever the directory says still
		s.Candidates = slices.DeleteFunc(s.Candidates, func(c directory.ShareCandidate) bool { return c.Node == n.config.NodeID })
	}
	c, _ := s.PickNext(uint8(o.m.Qos))
	if !n.lease.holds(claim) {
		return false
	}
	pick := []*shoalpb.Pick{{Share: o.share, Only: true}}
	switch {
	case c == nil:
		n.metrics.dropped.WithLabelValues("no_member").Inc()
		o.done(nil)
	case c.Node == n.config.NodeID:
		n.deliver(o.m, pick)
		o.done(nil)
	case c.Node != "":
		r.p.forward(c.Node, c.Boot).enqueue(o.m, pick, o.done)
	default:
		data := encodeCommand(&shoalpb.Command{Append: &shoalpb.Append{Message: o.m, Picks: pick}})
		r.p.sources[c.Group].enqueue(&r.queues[c.Group], &command{data: data, keep: true, done: func(_ uint64, _ *shoalpb.Answer, err error) {
			if err != nil && r.p.tasks.ctx.Err() == nil { // it got no number: nobody has it
				r.add(o)
				return
			}
			o.done(err)
		}})
	}
	return true
}
