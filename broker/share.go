package broker

import (
	"slices"
	"strings"
	"time"

	"github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// Members of Shared Subscriptions among this node's transient sessions
// (MQTT 5 §4.8.2). The publisher's node has picked this one; here one member is
// chosen. What a member leaves unfinished goes to another: QoS 1 always, QoS 2
// unless it was sent ([MQTT-4.8.2-5]).

// isShared tells a Shared Subscription from other filters, which are valid.
func isShared(filter string) bool { return strings.HasPrefix(filter, "$share/") }

// join puts sub among the members of a Shared Subscription, in order of clients:
// nodes that hash choose members by their place. mu is held.
func (s *subscriptions) join(filter string, sub *subscription) {
	of := s.shares[filter]
	if of == nil {
		of = &subscribers{}
		s.shares[filter] = of
	}
	i, _ := slices.BinarySearchFunc(of.list, sub.conn.client, func(m *subscription, c string) int {
		return strings.Compare(m.conn.client, c)
	})
	sub.of = of
	of.list = slices.Insert(of.list, i, sub)
}

// part takes sub out again. mu is held.
func (s *subscriptions) part(filter string, sub *subscription) {
	of := sub.of
	of.list = slices.DeleteFunc(of.list, func(m *subscription) bool { return m == sub })
	if len(of.list) == 0 {
		delete(s.shares, filter)
	}
}

// member is one member of a Shared Subscription, as it was when it was asked
// for.
type member struct {
	conn *conn
	grant
}

// members returns up to memberScan of a Shared Subscription's, those first whose
// turn it is; or from the one that hint names on, if it is not 0.
func (s *subscriptions) members(share string, hint uint64) (list []member) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	of := s.shares[share]
	if of == nil {
		return nil
	}
	n := len(of.list)
	if hint == 0 {
		hint = of.turn.Add(1)
	}
	for i := range min(n, memberScan) {
		sub := of.list[(hint+uint64(i))%uint64(n)]
		m := member{conn: sub.conn}
		m.grant.add(sub)
		list = append(list, m)
	}
	return list
}

// deliverShared gives m to one member: the one with the shortest queue, of equal
// ones the one whose turn it is, unless a hint names one. Without any, a message of QoS ≥ 1 goes back; not so if there are
// members and none may receive it, for it would come again.
func (b *Broker) deliverShared(m *shoalpb.Message, p *shoalpb.Pick) {
	list := b.subs.members(p.Share, p.Hint)
	if p.Hint == 0 {
		rank(list)
	}
	denied := 0
	for i := range list {
		if !list[i].conn.mayReceive(m) {
			denied++
		} else if list[i].take(m, p.Share) {
			b.metrics.matched.Add(1)
			return
		}
	}
	if denied > 0 && denied == len(list) {
		b.metrics.matched.Add(1)
		b.metrics.dropped[dropNotAuthorized].Add(1)
		return
	}
	if m.Qos > 0 {
		b.cluster.Redispatch(p.Share, m)
		return
	}
	b.metrics.matched.Add(1)
	b.metrics.dropped[dropNoMember].Add(1)
}

// rank sorts members by what waits for them; of equal ones the order stays.
func rank(list []member) {
	if len(list) < 2 {
		return
	}
	loads := make(map[*conn]int, len(list))
	for i := range list {
		loads[list[i].conn] = list[i].conn.load()
	}
	slices.SortStableFunc(list, func(a, b member) int { return loads[a.conn] - loads[b.conn] })
}

// load is how many messages wait to be sent. What is in flight does not count, or
// who acknowledges a little faster would take others' turns; how much a member is
// given at a time is for its Receive Maximum to say. A connection whose client takes
// no more for the moment comes after all others.
func (c *conn) load() int {
	c.mu.Lock()
	defer c.unlock()
	const busy = 1 << 30
	load := 0
	if c.outgoing != nil {
		out := c.outgoing.session
		load = out.Queued()
		if out.InFlight() >= int(c.window) {
			load += busy
		}
	}
	if c.phase.Load() != serving || c.pending >= c.broker.config.MaxOutputBytes {
		load = busy
	}
	return load
}

// take reports whether the member takes m: not if its connection ends.
func (r *member) take(m *shoalpb.Message, share string) bool {
	c := r.conn
	qos, retain := min(uint8(m.Qos), r.qos), m.Retain && r.retain
	c.mu.Lock()
	defer c.unlock()
	if c.phase.Load() != serving {
		return false
	}
	if qos > 0 {
		c.enqueue(session.Delivery{QoS: qos, Retain: retain, Identifiers: r.ids, Message: m, Share: share})
		return true
	}
	f := newFanout(m)
	defer f.free()
	c.deliverLocked(f, retain, r.ids)
	return true
}

// orphan is a message of a Shared Subscription that a transient session leaves
// behind.
type orphan struct {
	share   string
	message *shoalpb.Message
}

// orphans are those of a connection that ends. mu is held.
func (c *conn) orphans() (list []orphan, unsent int) {
	c.outgoing.session.Unfinished(func(d session.Delivery, sent bool) bool {
		if d.Share == "" || d.Message == nil || sent && d.QoS != 1 {
			return true
		}
		m, ok := c.outgoing.left(&d)
		if ok {
			list = append(list, orphan{d.Share, m})
			if !sent {
				unsent++
			}
		}
		return true
	})
	return list, unsent
}

// passOn gives what came through a Shared Subscription and was not sent to
// others: the client has unsubscribed.
func (c *conn) passOn(share string) {
	var list []orphan
	c.mu.Lock()
	if c.outgoing != nil && !c.durable {
		withdrawn := c.outgoing.session.Withdraw(func(d *session.Delivery) bool { return d.Share == share })
		for i := range withdrawn {
			if m, ok := c.outgoing.left(&withdrawn[i]); ok {
				list = append(list, orphan{share, m})
			}
			delete(c.outgoing.deadlines, withdrawn[i].Seq)
		}
		c.broker.metrics.queued.Add(-int64(len(withdrawn)))
		c.broker.metrics.dropped[dropPassedOn].Add(uint64(len(list)))
		c.broker.metrics.dropped[dropExpired].Add(uint64(len(withdrawn) - len(list)))
	}
	c.unlock()
	for _, o := range list {
		c.broker.cluster.Redispatch(o.share, o.message)
	}
}

// left is the message of an unfinished delivery with what is left of its Message
// Expiry Interval; ok is false if that is nothing.
func (out *outgoing) left(d *session.Delivery) (m *shoalpb.Message, ok bool) {
	at, expires := out.deadlines[d.Seq]
	if !expires {
		return d.Message, true
	}
	left := time.Until(at)
	if left <= 0 {
		return nil, false
	}
	ms := uint64(left / time.Millisecond)
	return &shoalpb.Message{
		Topic: d.Message.Topic, Payload: d.Message.Payload, Properties: d.Message.Properties, Qos: d.Message.Qos,
		Retain: d.Message.Retain, ExpiryMs: &ms, Publisher: d.Message.Publisher,
	}, true
}
