package shard

import (
	"cmp"
	"slices"
	"strings"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// outbox is what this shard makes one target do: numbered densely from 1 and
// kept until answered. That of a group lasts for ever; that of a node's process
// until it is fenced.
type outbox struct {
	target  *shoalpb.Target // never changes
	base    uint64          // number of entries[0]
	entries []outboxEntry
	bytes   int
	grewAt  int // place in Effects.OutboxGrew, if that place names this target
	// retained is the number of the newest entry with a retained message, or a higher
	// one: a hint for Retaining, and no part of the state.
	retained uint64
	// The state file has the rows fileBase <= n < fileNext.
	fileBase, fileNext uint64
}

// outboxEntry is a message, to be delivered or to be retained, or a route
// change.
type outboxEntry struct {
	body  *body
	route *shoalpb.RouteChange
	// retain: the target is to keep the message, not to deliver it.
	retain bool
	// picks of Shared Subscriptions that the message is for at the target.
	picks []*shoalpb.Pick
	// waiter, if any, waits for the answer.
	waiter *waiter
}

// waiter waits for the answers of outbox entries: for a QoS 2 exchange, or for a
// Will.
type waiter struct {
	pending []pending // entries that are not answered
	of      interface {
		// answered is called when the entry p is taken off pending.
		answered(m *Machine, p pending)
		// touched is called before.
		touched(m *Machine)
	}
}

// left follows the end of the outbox entry p.
func (w *waiter) left(m *Machine, p pending) {
	w.of.touched(m)
	w.pending = slices.DeleteFunc(w.pending, func(x pending) bool { return x == p })
	w.of.answered(m, p)
}

// directoryTarget is the directory's group.
var directoryTarget = &shoalpb.Target{}

func compareTargets(a, b *shoalpb.Target) int {
	return cmp.Or(cmp.Compare(a.Group, b.Group), strings.Compare(a.Node, b.Node), cmp.Compare(a.Boot, b.Boot))
}

// next is the number of the next entry.
func (o *outbox) next() uint64 { return o.base + uint64(len(o.entries)) }

// findOutbox returns the place of a target in m.outboxes.
func (m *Machine) findOutbox(t *shoalpb.Target) (int, bool) {
	return slices.BinarySearchFunc(m.outboxes, t, func(o *outbox, t *shoalpb.Target) int {
		return compareTargets(o.target, t)
	})
}

// outbox returns the outbox to a target, made if missing.
func (m *Machine) outbox(t *shoalpb.Target) *outbox {
	i, ok := m.findOutbox(t)
	if !ok {
		o := &outbox{target: cloneTarget(t), base: 1, fileBase: 1, fileNext: 1}
		m.outboxes = slices.Insert(m.outboxes, i, o)
	}
	return m.outboxes[i]
}

func cloneTarget(t *shoalpb.Target) *shoalpb.Target {
	return &shoalpb.Target{Group: t.Group, Node: strings.Clone(t.Node), Boot: t.Boot}
}

// pushOutbox adds an entry and returns its number.
func (m *Machine) pushOutbox(o *outbox, e outboxEntry) uint64 {
	n := o.next()
	o.entries = append(o.entries, e)
	if e.body != nil && e.body.retain {
		o.retained = n
	}
	o.bytes += e.bytes()
	m.file.refs++
	m.grew(o)
	return n
}

// pushRoute tells the directory of a route.
func (m *Machine) pushRoute(r *shoalpb.RouteChange) uint64 {
	return m.pushOutbox(m.outbox(directoryTarget), outboxEntry{route: r})
}

func (e outboxEntry) bytes() int {
	if e.body != nil {
		return e.body.bytes()
	}
	return len(e.route.Filter)
}

// command is the entry as its target sees it at a time.
func (e outboxEntry) command(now uint64) *shoalpb.Command {
	switch {
	case e.route != nil:
		return &shoalpb.Command{Route: e.route}
	case e.retain:
		return &shoalpb.Command{Retain: &shoalpb.Retain{Message: e.body.remaining(now)}}
	}
	return &shoalpb.Command{Append: &shoalpb.Append{Message: e.body.remaining(now), Picks: e.picks}}
}

// outboxAnswered removes entries that their target has answered. What was
// removed before, by an answer or a fence, is not counted again.
func (m *Machine) outboxAnswered(c *shoalpb.OutboxAnswered) {
	i, ok := m.findOutbox(c.Target)
	if !ok {
		return
	}
	o := m.outboxes[i]
	end := min(c.UpTo+1, o.next())
	for _, a := range c.Refused {
		if a.N >= o.base && a.N < end {
			m.counters.OutboxRefused++
		}
	}
	for o.base < end {
		m.pop(o)
	}
}

// pop removes the oldest entry.
func (m *Machine) pop(o *outbox) {
	e, n := o.entries[0], o.base
	o.entries[0] = outboxEntry{}
	o.entries = o.entries[1:]
	o.base++
	o.bytes -= e.bytes()
	m.file.refs++
	if e.body != nil {
		m.drop(e.body)
	}
	if e.waiter != nil {
		e.waiter.left(m, pending{o, n})
	}
}

// full lists the targets whose outbox is full.
func (m *Machine) full() (full []*shoalpb.Target) {
	for _, o := range m.outboxes {
		if len(o.entries) >= m.cfg.OutboxEntries || o.bytes >= m.cfg.OutboxBytes {
			full = append(full, o.target)
		}
	}
	return full
}

// dropOutboxEntry removes the oldest entry of the outbox to a dead process, and
// the outbox when it is empty. It reports false when there is none. The entries
// are lost with the process, and counted; nobody waits for them any more.
func (m *Machine) dropOutboxEntry(p *process) bool {
	i, ok := m.findOutbox(&shoalpb.Target{Node: p.node, Boot: p.boot})
	if !ok {
		return false
	}
	o := m.outboxes[i]
	if len(o.entries) == 0 {
		m.outboxes = slices.Delete(m.outboxes, i, i+1)
		m.file.deadOutboxes = append(m.file.deadOutboxes, o)
		return true
	}
	if e := o.entries[0]; e.body.qos == 1 { // with QoS 2 a member may have it
		m.missProcess(&e.body, nil, e.picks)
	} else {
		m.counters.OutboxFenced++
	}
	m.pop(o)
	return true
}
