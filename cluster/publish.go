package cluster

import (
	"hash/fnv"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/shoalmq/shoal/cluster/directory"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// parts counts what has to answer before a publish is acknowledged.
type parts struct {
	l    *link
	left atomic.Int32
	done func(error)
	// settled, if not nil, is called before done, and also when that is not.
	settled func()
	mu      sync.Mutex
	err     error
}

func (p *parts) part(err error) {
	if err != nil {
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
	}
	if p.left.Add(-1) > 0 {
		return
	}
	p.mu.Lock()
	err = p.err
	p.mu.Unlock()
	if p.settled != nil {
		p.settled()
	}
	p.l.settle(p.done, err)
}

// answered is the done function of a command that is a part.
func (p *parts) answered(_ uint64, a *shoalpb.Answer, err error) {
	if err == nil {
		err = answerError(a)
	}
	p.part(err)
}

// route matches p and puts it into the streams. It reports false, with nothing
// done, if the lease did not hold from before the match until after it: another
// node may have acknowledged a subscription that this match has not seen. So it
// does while an outbox on the way is full.
func (l *link) route(p *publish) bool {
	if p.lazy {
		return l.routeLazy(p)
	}
	if !p.m.Retain {
		return l.routeTo(p, p.done)
	}
	if !l.registers.claim(p.m.Topic, p.received) {
		return false
	}
	p.settled = l.p.underway.begin(l.p.n.shardOf(p.m.Topic))
	routed := l.routeTo(p, func(err error) {
		l.registers.release(p.m.Topic)
		p.done(err)
	})
	if !routed {
		l.registers.release(p.m.Topic)
		p.settled()
	}
	return routed
}

// routeTo is route without a look at registers; done is called when all has been
// answered.
func (l *link) routeTo(p *publish, done func(error)) bool {
	n := l.p.n
	claim := n.lease.claim()
	t := n.routes.match(p.m.Topic)
	if !n.lease.holds(claim) {
		return false
	}
	t = n.picked(t, p.m)
	var targets []*shoalpb.Target
	if p.received {
		targets = outboxTargets(t)
		needed := targets
		if p.m.Retain {
			needed = append(slices.Clone(targets), &shoalpb.Target{Group: n.shardOf(p.m.Topic)})
		}
		if l.p.isFull(l.shard, needed) {
			return false
		}
	}
	w := &parts{l: l, done: done, settled: p.settled}
	w.left.Store(1)
	if p.received {
		l.routeReceived(p, t, targets, w)
	} else {
		l.routePublish(p, t, w)
	}
	w.part(nil)
	return true
}

func (l *link) routePublish(p *publish, t *directory.Targets, w *parts) {
	var data []byte
	for _, s := range t.Shards {
		if s.QoS == 0 {
			l.p.feed(s.Group).volatile(p.m, s.Picks)
			continue
		}
		if s.Picks != nil {
			l.send(s.Group, encodeCommand(&shoalpb.Command{Append: &shoalpb.Append{Message: p.m, Picks: s.Picks}}), w)
			continue
		}
		if data == nil {
			data = encodeCommand(&shoalpb.Command{Append: &shoalpb.Append{Message: p.m}})
		}
		l.send(s.Group, data, w)
	}
	for _, t := range t.Nodes {
		switch {
		case t.Node == l.p.n.config.NodeID:
			l.p.n.deliver(p.m, t.Picks)
		case t.QoS == 0:
			l.p.forward(t.Node, t.Boot).volatile(p.m, t.Picks)
		default:
			w.left.Add(1)
			l.p.forward(t.Node, t.Boot).enqueue(p.m, t.Picks, w.part)
		}
	}
	if p.m.Retain {
		l.send(l.p.n.shardOf(p.m.Topic), encodeCommand(&shoalpb.Command{Retain: &shoalpb.Retain{Message: p.m}}), w)
	}
}

// routeReceived sends the whole decision to the publisher's own shard, whose
// outbox reaches the targets.
func (l *link) routeReceived(p *publish, t *directory.Targets, targets []*shoalpb.Target, w *parts) {
	r := &shoalpb.Received{
		Client: l.client, Conn: l.conn, Id: uint32(p.id), Hash: messageHash(p.m), Dup: p.dup, Message: p.m,
		Targets: targets, Picks: receivedPicks(t),
	}
	volatiles := func(a *shoalpb.Answer) {
		if a != nil && (a.Code != shoalpb.Code_CODE_PENDING || p.dup) {
			return // a repeat, or refused: they had it
		}
		for _, s := range t.Shards {
			if s.QoS == 0 {
				l.p.feed(s.Group).volatile(p.m, s.Picks)
			}
		}
	}
	if !p.m.Retain {
		l.sendThen(l.shard, encodeCommand(&shoalpb.Command{Received: r}), w, volatiles)
		return
	}
	r.Retain = l.p.n.shardOf(p.m.Topic)
	data := encodeCommand(&shoalpb.Command{Received: r})
	x := l.record(p.id, data, w.part)
	w.left.Add(1)
	l.enqueue(l.shard, data, func(_ uint64, a *shoalpb.Answer, err error) {
		if err == nil {
			volatiles(a)
		}
		l.recordAnswered(p.id, x, a, err)
	})
}

// receivedPicks are the picks of targets that are reached by outbox.
func receivedPicks(t *directory.Targets) (picks []*shoalpb.TargetPick) {
	for _, p := range targetPicks(t) {
		if p.Target.Group == 0 || qosOf(t, p.Target.Group) > 0 {
			picks = append(picks, p)
		}
	}
	return picks
}

// outboxTargets are where a durable publisher's QoS 2 message goes by outbox.
func outboxTargets(t *directory.Targets) []*shoalpb.Target {
	targets := make([]*shoalpb.Target, 0, len(t.Shards)+len(t.Nodes))
	for _, s := range t.Shards {
		if s.QoS > 0 {
			targets = append(targets, &shoalpb.Target{Group: s.Group})
		}
	}
	for _, n := range t.Nodes {
		targets = append(targets, &shoalpb.Target{Node: n.Node, Boot: n.Boot})
	}
	return targets
}

func (l *link) send(group uint32, data []byte, w *parts) {
	l.sendThen(group, data, w, func(*shoalpb.Answer) {})
}

// sendThen sends a part of a publish and calls then with its answer.
func (l *link) sendThen(group uint32, data []byte, w *parts, then func(*shoalpb.Answer)) {
	w.left.Add(1)
	l.enqueue(group, data, func(n uint64, a *shoalpb.Answer, err error) {
		if err == nil {
			then(a)
		}
		w.answered(n, a, err)
	})
}

// enqueue queues an encoded command among the link's publishes to group.
func (l *link) enqueue(group uint32, data []byte, done func(uint64, *shoalpb.Answer, error)) {
	l.mu.Lock()
	q := l.queue(group)
	l.mu.Unlock()
	l.p.sources[group].enqueue(q, &command{data: data, owner: l, keep: true, late: l.lose, done: done})
}

// PublishQoS0 implements broker.Cluster.
func (n *Node) PublishQoS0(m *shoalpb.Message) {
	p := n.proc.Load()
	if p == nil || !n.lease.held.Load() {
		n.metrics.dropped.WithLabelValues("no_lease").Inc()
		return
	}
	t := n.picked(n.routes.match(m.Topic), m)
	var kept *shoalpb.Message
	keep := func() *shoalpb.Message {
		if kept == nil {
			kept = cloneMessage(m)
		}
		return kept
	}
	for _, s := range t.Shards {
		p.feed(s.Group).volatile(keep(), s.Picks)
	}
	for _, t := range t.Nodes {
		if t.Node == n.config.NodeID {
			n.deliver(m, t.Picks)
		} else {
			p.forward(t.Node, t.Boot).volatile(keep(), t.Picks)
		}
	}
}

// cloneMessage copies m and what it points to.
func cloneMessage(m *shoalpb.Message) *shoalpb.Message {
	c := &shoalpb.Message{
		Topic: m.Topic, Qos: m.Qos, Retain: m.Retain, Publisher: m.Publisher, ExpiryMs: m.ExpiryMs,
		Payload: append([]byte(nil), m.Payload...), Properties: append([]byte(nil), m.Properties...),
	}
	return c
}

// messageHash tells a repeat of a QoS 2 PUBLISH from another message.
func messageHash(m *shoalpb.Message) uint64 {
	h := fnv.New64a()
	h.Write([]byte(m.Topic))
	h.Write([]byte{0})
	h.Write(m.Payload)
	return h.Sum64()
}

func encodeCommand(c *shoalpb.Command) []byte {
	data, err := c.MarshalVT()
	if err != nil {
		panic("encode command: " + err.Error()) // cannot fail: no required fields
	}
	return data
}
