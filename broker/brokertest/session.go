package brokertest

import (
	"sort"

	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/broker/topic"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// durable is a durable session, guarded by Cluster.mu.
type durable struct {
	client  string
	subs    map[string]*shoalpb.Subscription
	ids     map[uint16]bool // QoS 2 from the client
	queue   []session.Delivery
	seq     uint64
	sentHi  uint64
	expires bool

	owner    *link
	fetching bool   // Fetch was called by owner
	next     uint64 // entries up to here were handed to owner
	volatile []session.Delivery
	pumping  bool
}

func newDurable(client string) *durable {
	return &durable{client: client, subs: make(map[string]*shoalpb.Subscription), ids: make(map[uint16]bool)}
}

// enqueue puts a message into the queues of the sessions that match. mu is held.
func (c *Cluster) enqueue(m *shoalpb.Message) (touched []*durable) {
	for _, d := range c.sessions {
		if entry, ok := d.match(m); ok {
			d.append(entry)
			touched = append(touched, d)
		}
	}
	return touched
}

func (d *durable) append(e session.Delivery) {
	if e.QoS > 0 {
		d.seq++
		e.Seq = d.seq
		d.queue = append(d.queue, e)
	} else if d.owner != nil && d.fetching {
		d.volatile = append(d.volatile, e)
	}
}

// replay enqueues the retained messages for a new subscription. mu is held.
func (c *Cluster) replay(d *durable, s *shoalpb.Subscription) {
	for _, name := range c.topics("") {
		m := c.retained[name]
		if !topic.MatchOne(s.Filter, name) || s.NoLocal && m.Publisher == d.client {
			continue
		}
		e := session.Delivery{QoS: uint8(min(m.Qos, s.Qos)), Retain: true, Message: m}
		if s.Identifier != 0 {
			e.Identifiers = []uint32{s.Identifier}
		}
		d.seq++ // those of QoS 0 too, so that they are paced
		e.Seq = d.seq
		d.queue = append(d.queue, e)
	}
}

// match makes one delivery of all subscriptions that match.
func (d *durable) match(m *shoalpb.Message) (e session.Delivery, ok bool) {
	filters := make([]string, 0, len(d.subs))
	for f := range d.subs {
		filters = append(filters, f)
	}
	sort.Strings(filters)
	for _, f := range filters {
		s := d.subs[f]
		if !topic.MatchOne(f, m.Topic) || s.NoLocal && m.Publisher == d.client {
			continue
		}
		ok = true
		e.QoS = max(e.QoS, uint8(min(s.Qos, m.Qos)))
		e.Retain = e.Retain || s.RetainAsPublished && m.Retain
		if s.Identifier != 0 {
			e.Identifiers = append(e.Identifiers, s.Identifier)
		}
	}
	e.Message = m
	return e, ok
}

// pump hands entries to the Sinks of the sessions, one goroutine at a time for
// each session.
func (c *Cluster) pump(sessions []*durable) {
	for _, d := range sessions {
		c.mu.Lock()
		if d.pumping {
			c.mu.Unlock()
			continue
		}
		d.pumping = true
		for entries := d.take(); len(entries) > 0; entries = d.take() {
			sink := d.owner.sink
			c.mu.Unlock()
			sink.Deliver(entries)
			c.mu.Lock()
		}
		d.pumping = false
		c.mu.Unlock()
	}
}

// take takes what the owner may have now.
func (d *durable) take() (entries []session.Delivery) {
	if d.owner == nil || !d.fetching {
		d.volatile = nil
		return nil
	}
	entries, d.volatile = d.volatile, nil
	most := max(2*d.owner.window, 64)
	for i, e := range d.queue {
		if i >= most {
			break
		}
		if e.Seq > d.next {
			d.next = e.Seq
			d.sentHi = max(d.sentHi, e.Seq)
			entries = append(entries, e)
		}
	}
	return entries
}

// finish removes the entry seq.
func (d *durable) finish(seq uint64) {
	for i := range d.queue {
		if d.queue[i].Seq == seq {
			d.queue = append(d.queue[:i:i], d.queue[i+1:]...)
			return
		}
	}
}
