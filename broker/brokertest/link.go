package brokertest

import (
	"github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// link is the session.Link of one connection.
type link struct {
	cluster *Cluster
	client  string
	sink    session.Sink
	window  int
	durable *durable // nil for a transient session
	closed  bool
}

var _ session.Link = (*link)(nil)

// begin checks that the connection is open, and locks mu. What asks for the session
// also wants to own it.
func (l *link) begin(op Op) error {
	l.cluster.mu.Lock()
	switch {
	case l.closed:
		return session.ErrClosed
	case op != Publish && op != Retain && l.cluster.owners[l.client] != l:
		return session.ErrNotOwner
	}
	return l.cluster.begin(op)
}

// Publish is part of session.Link.
func (l *link) Publish(m *shoalpb.Message, done func(error)) {
	err := l.begin(Publish)
	if err == nil {
		l.cluster.mu.Unlock()
		l.cluster.route(m)
		l.cluster.mu.Lock()
	}
	l.cluster.finish(Publish, func() { done(err) })
}

// Received is part of session.Link.
func (l *link) Received(id uint16, _ bool, m *shoalpb.Message, done func(error)) {
	err := l.begin(Received)
	if err == nil && !l.durable.ids[id] {
		l.durable.ids[id] = true
		l.cluster.mu.Unlock()
		l.cluster.route(m)
		l.cluster.mu.Lock()
	}
	l.cluster.finish(Received, func() { done(err) })
}

// Released is part of session.Link.
func (l *link) Released(id uint16, done func(bool, error)) {
	err := l.begin(Released)
	known := false
	if err == nil {
		known = l.durable.ids[id]
		delete(l.durable.ids, id)
	}
	l.cluster.finish(Released, func() { done(known, err) })
}

// Subscribe is part of session.Link.
func (l *link) Subscribe(subs []*shoalpb.Subscription, done func([]bool, error)) {
	err := l.begin(Subscribe)
	var existed []bool
	if err == nil {
		for _, s := range subs {
			_, known := l.durable.subs[s.Filter]
			existed = append(existed, known)
			l.durable.subs[s.Filter] = s
			if s.RetainHandling == 0 || s.RetainHandling == 1 && !known {
				l.cluster.replay(l.durable, s)
			}
		}
	}
	if err == nil { // before SUBACK, as a shard may
		l.cluster.mu.Unlock()
		l.cluster.pump([]*durable{l.durable})
		l.cluster.mu.Lock()
	}
	l.cluster.finish(Subscribe, func() { done(existed, err) })
}

// Unsubscribe is part of session.Link.
func (l *link) Unsubscribe(filters []string, done func([]bool, error)) {
	err := l.begin(Unsubscribe)
	var existed []bool
	if err == nil {
		for _, f := range filters {
			_, known := l.durable.subs[f]
			existed = append(existed, known)
			delete(l.durable.subs, f)
		}
	}
	l.cluster.finish(Unsubscribe, func() { done(existed, err) })
}

// Ack is part of session.Link.
func (l *link) Ack(seq uint64) {
	if l.begin("Ack") != nil {
		l.cluster.mu.Unlock()
		return
	}
	l.durable.finish(seq)
	l.cluster.mu.Unlock()
	l.cluster.pump([]*durable{l.durable})
}

// Expired is part of session.Link.
func (l *link) Expired(seq uint64) {
	l.cluster.mu.Lock()
	l.cluster.expired = append(l.cluster.expired, seq)
	l.cluster.mu.Unlock()
	l.Ack(seq)
}

// Retain is part of session.Link.
func (l *link) Retain(m *shoalpb.Message, done func()) {
	if l.begin(Retain) == nil {
		l.cluster.retain(m)
	}
	l.cluster.finish(Retain, done)
}

// Release is part of session.Link.
func (l *link) Release(seq uint64, done func(error)) {
	err := l.begin(Release)
	if err == nil {
		for i := range l.durable.queue {
			if l.durable.queue[i].Seq == seq {
				l.durable.queue[i].Released = true
			}
		}
	}
	l.cluster.finish(Release, func() { done(err) })
}

// Fetch is part of session.Link.
func (l *link) Fetch() {
	l.cluster.mu.Lock()
	d := l.durable
	if d == nil || d.owner != l {
		l.cluster.mu.Unlock()
		return
	}
	d.fetching = true
	l.cluster.mu.Unlock()
	l.cluster.pump([]*durable{d})
}

// Close is part of session.Link.
func (l *link) Close(r session.CloseRequest) {
	c := l.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	c.links--
	c.closes = append(c.closes, r)
	if c.owners[l.client] != l {
		return
	}
	delete(c.owners, l.client)
	d := l.durable
	if d == nil {
		return
	}
	d.owner, d.fetching = nil, false
	if r.ExpirySeconds != nil {
		d.expires = *r.ExpirySeconds != 0
	}
	if !d.expires && c.sessions[l.client] == d {
		delete(c.sessions, l.client)
	}
}
