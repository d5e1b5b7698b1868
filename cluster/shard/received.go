package shard

import (
	"slices"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// received is one QoS 2 message of a durable publisher whose exchange is not
// finished: PUBREL or answers of targets are missing.
type received struct {
	session *session // nil when nobody waits for the exchange any more
	conn    uint64   // connection that spoke of it last
	hash    uint64
	id      uint32
	// released: PUBREL came; PUBCOMP waits for pending.
	released bool
	waiter   // of all its targets
	// whole: the message is retained, and the PUBREC waits for pending. What is
	// acknowledged is in its register, and no copy of it is on its way to a
	// subscription that is made later.
	whole bool
	// retained, of an exchange that began before FormatOrder, is the one of pending
	// that the PUBREC waits for: the register's.
	retained pending
}

// pending is one outbox entry that its target has not answered.
type pending struct {
	outbox *outbox
	n      uint64
}

// exchange returns the session's exchange of a Packet Identifier in the given
// half, or nil. One that is released may stand beside a new one of the same
// identifier.
func (s *session) exchange(id uint32, released bool) *received {
	if s.extra == nil {
		return nil
	}
	for _, r := range s.extra.received {
		if r.id == id && r.released == released {
			return r
		}
	}
	return nil
}

// receive decides the fate of a QoS 2 message, once.
func (m *Machine) receive(c *shoalpb.Received) *shoalpb.Answer {
	s := m.ownedDurable(c.Client, c.Conn)
	if s == nil {
		return notOwner()
	}
	if r := s.exchange(c.Id, false); r != nil {
		switch {
		case r.hash == c.Hash: // a repeat, whatever its DUP flag
			m.touch(s)
			r.conn = c.Conn
			if r.whole || r.retained.outbox != nil {
				return refuse(shoalpb.Code_CODE_PENDING)
			}
			return refuse(shoalpb.Code_CODE_KNOWN)
		case c.Dup || r.conn == c.Conn:
			return refuse(shoalpb.Code_CODE_ID_IN_USE)
		}
		// The client lost its state and begins anew. The old message was
		// accepted and goes its way.
		m.endExchange(r)
		m.counters.ReceivedReplaced++
	}
	if s.extra != nil && len(s.extra.received) >= maxReceived {
		return refuse(shoalpb.Code_CODE_QUOTA)
	}
	m.touch(s)
	r := newReceived(s, c.Conn, c.Id, c.Hash)
	x := s.more()
	x.received = append(x.received, r)
	// A session that rejects it is no exception: the exchange is decided here and
	// now, and other shards cannot be asked.
	var b *body
	m.distribute(&b, c.Message, c.Targets, c.Picks, &r.waiter)
	if c.Retain == 0 {
		return nil
	}
	register := m.distributeRetained(&b, c.Message, c.Retain, &r.waiter)
	if m.format >= stream.FormatOrder {
		r.whole = len(r.pending) > 0
	} else {
		r.retained = register
	}
	if !r.whole && r.retained.outbox == nil {
		return nil
	}
	return refuse(shoalpb.Code_CODE_PENDING)
}

// released takes the publisher's PUBREL.
func (m *Machine) released(c *shoalpb.Released) *shoalpb.Answer {
	s := m.ownedDurable(c.Client, c.Conn)
	if s == nil {
		return notOwner()
	}
	r := s.exchange(c.Id, false)
	if r == nil {
		r = s.exchange(c.Id, true)
	}
	if r == nil {
		return refuse(shoalpb.Code_CODE_UNKNOWN_ID)
	}
	m.touch(s)
	r.released = true
	r.conn = c.Conn
	if len(r.pending) == 0 {
		m.endExchange(r)
		return nil
	}
	return refuse(shoalpb.Code_CODE_PENDING)
}

// endExchange removes an exchange from its session. Its outbox entries go their
// way.
func (m *Machine) endExchange(r *received) {
	m.touch(r.session)
	x := r.session.extra
	x.received = slices.DeleteFunc(x.received, func(o *received) bool { return o == r })
	r.session = nil
}

func newReceived(s *session, conn uint64, id uint32, hash uint64) *received {
	r := &received{session: s, conn: conn, id: id, hash: hash}
	r.of = r
	return r
}

func (r *received) touched(m *Machine) {
	if r.session != nil {
		m.touch(r.session)
	}
}

// answered follows the answer to an outbox entry that the exchange waited for.
func (r *received) answered(m *Machine, p pending) {
	s := r.session
	if s == nil {
		return
	}
	if r.retained == p || r.whole && len(r.pending) == 0 {
		r.retained, r.whole = pending{}, false
		m.recorded(r)
	}
	if len(r.pending) > 0 || !r.released {
		return
	}
	m.endExchange(r)
	if eff := m.now.eff; eff != nil && s.attached() && s.conn == r.conn {
		eff.Completed = append(eff.Completed, Completed{
			Node: s.owner.node, Boot: s.owner.boot, Client: s.client, Conn: s.conn, ID: r.id,
		})
	}
}

// recorded tells that the PUBREC of an exchange may be sent.
func (m *Machine) recorded(r *received) {
	s := r.session
	if eff := m.now.eff; eff != nil && s.attached() && s.conn == r.conn {
		eff.Recorded = append(eff.Recorded, Completed{
			Node: s.owner.node, Boot: s.owner.boot, Client: s.client, Conn: s.conn, ID: r.id,
		})
	}
}
