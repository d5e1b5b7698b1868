package broker

import (
	"hash/maphash"
	"slices"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// replays are the retained messages that a transient session's subscriptions
// are owed, guarded by conn.mu. A durable session's are its shard's business.
//
// They are read page by page, one filter after the other in the order of the
// SUBACKs, and sent while little else waits for the client: a replay of any
// length takes one page of memory, and neither live messages nor PINGRESP wait
// behind more than replayOutputBytes of it.
//
// A topic that has been delivered live with RETAIN 1 since the subscription stood
// is left out: what a page has of it may be older ([MQTT-4.6.0-6]).
type replays struct {
	// owed are the replays that have not ended, by filter; queue are those whose
	// SUBACK has left, also ended ones.
	owed  map[string]*replay
	queue []*replay
	// subscribing counts SUBSCRIBEs between announce and owe.
	subscribing int

	// current is the replay that is being read, nil for none.
	current *replay
	// page is what is left of the last page, which came at the time at. sub is
	// the subscription it is sent for.
	page []*shoalpb.Message
	at   time.Time
	sub  subscription
	// asking: an answer or a timer is to come.
	asking  bool
	backoff time.Duration

	live liveTopics
}

// replay is what one subscription is owed.
type replay struct {
	filter string
	from   session.RetainedCursor // where the page read last ends
	ended  bool
}

// announce says that a subscription is about to stand: from now on live retained
// messages are noted.
func (c *conn) announce() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase.Load() != serving {
		return
	}
	if c.replays == nil {
		c.replays = &replays{owed: make(map[string]*replay)}
	}
	c.replays.subscribing++
}

// owe follows announce when it is known whether the subscription is owed a
// replay. That of a subscription that it replaces ends with it; without, the
// former one goes on: nothing is lost by replacing ([MQTT-3.8.4-4]).
func (c *conn) owe(filter string, owed bool) *replay {
	c.mu.Lock()
	defer c.unlock()
	rs := c.replays
	if rs == nil { // the connection has ended
		return nil
	}
	rs.subscribing--
	if !owed {
		c.replayOn()
		return nil
	}
	rs.end(filter)
	r := &replay{filter: filter}
	rs.owed[filter] = r
	return r
}

// startReplays begins what waited for SUBACK, or ends it if that failed. mu is
// held.
func (c *conn) startReplays(list []*replay, granted bool) {
	rs := c.replays
	if rs == nil || len(list) == 0 {
		return
	}
	for _, r := range list {
		switch {
		case r.ended:
		case granted:
			rs.enqueue(r)
		default:
			rs.end(r.filter)
		}
	}
	c.replayOn()
}

// enqueue queues a replay. A client that subscribes again and again, and does not
// read, must not make the queue grow.
func (rs *replays) enqueue(r *replay) {
	if len(rs.queue) > 2*len(rs.owed) {
		rs.queue = slices.DeleteFunc(rs.queue, func(r *replay) bool { return r.ended })
	}
	rs.queue = append(rs.queue, r)
}

// endReplay follows UNSUBSCRIBE.
func (c *conn) endReplay(filter string) {
	c.mu.Lock()
	defer c.unlock()
	if c.replays != nil {
		c.replays.end(filter)
		c.replayOn()
	}
}

func (rs *replays) end(filter string) {
	r := rs.owed[filter]
	if r == nil {
		return
	}
	r.ended = true
	delete(rs.owed, filter)
	if rs.current == r {
		rs.current, rs.page = nil, nil
	}
}

// replayOn sends what the client has room for and asks for the next page when
// one is through. mu is held, and to be given back with unlock.
func (c *conn) replayOn() {
	rs := c.replays
	if rs == nil || c.phase.Load() != serving {
		return
	}
	for c.roomForReplay() {
		switch {
		case len(rs.page) > 0:
			m := rs.page[0]
			rs.page[0], rs.page = nil, rs.page[1:]
			c.sendRetained(m)
		case rs.asking:
			return
		case rs.current != nil && rs.current.from.Done:
			rs.end(rs.current.filter)
		case rs.current != nil:
			rs.asking = true
			c.ask = rs.current
			return
		case !rs.advance():
			if len(rs.owed) == 0 && rs.subscribing == 0 {
				c.replays = nil
			}
			return
		}
	}
}

// advance makes the next in the queue current.
func (rs *replays) advance() bool {
	for len(rs.queue) > 0 {
		r := rs.queue[0]
		rs.queue[0], rs.queue = nil, rs.queue[1:]
		if !r.ended {
			rs.current = r
			return true
		}
	}
	return false
}

// roomForReplay: little waits for the client. mu is held.
func (c *conn) roomForReplay() bool {
	return c.pending < replayOutputBytes && (c.outgoing == nil || c.outgoing.session.Queued() == 0)
}

// askRetained asks for a page. mu is not held.
func (c *conn) askRetained(r *replay) {
	c.broker.cluster.Retained(r.filter, r.from, func(page []*shoalpb.Message, next session.RetainedCursor, err error) {
		sub, stands := c.broker.subs.lookup(c, r.filter)
		c.mu.Lock()
		defer c.unlock()
		rs := c.replays
		if rs == nil || c.phase.Load() != serving {
			return
		}
		rs.asking = false
		switch {
		case r.ended:
		case !stands:
			rs.end(r.filter)
		case err != nil:
			c.retryReplay(err)
		default:
			rs.backoff = 0
			rs.sub, rs.at = sub, time.Now()
			rs.page, r.from = slices.Clone(page), next
		}
		c.replayOn()
	})
}

// retryReplay asks again later: the shard has no leader at the moment. mu is
// held.
func (c *conn) retryReplay(err error) {
	rs := c.replays
	rs.backoff = min(max(2*rs.backoff, minReplayBackoff), maxReplayBackoff)
	rs.asking = true
	c.broker.log.Debug("retained messages are not available", "client", c.client, "filter", rs.current.filter, "error", err)
	time.AfterFunc(rs.backoff, func() {
		c.mu.Lock()
		defer c.unlock()
		if c.replays == rs {
			rs.asking = false
			c.replayOn()
		}
	})
}

// sendRetained sends a retained message for the subscription of the page at
// hand ([MQTT-3.3.1-8], [MQTT-3.8.3-3]). mu is held.
func (c *conn) sendRetained(m *shoalpb.Message) {
	rs := c.replays
	if rs.live.since(m.Topic, rs.sub.born) || rs.sub.noLocal && m.Publisher == c.client {
		return
	}
	c.broker.metrics.matched.Add(1)
	if c.withheld(m) {
		return
	}
	d := session.Delivery{QoS: min(uint8(m.Qos), rs.sub.qos), Retain: true, Age: time.Since(rs.at), Message: m}
	if rs.sub.id != 0 {
		d.Identifiers = []uint32{rs.sub.id}
	}
	if d.QoS > 0 {
		c.enqueue(d)
		return
	}
	p := packet.Publish{Retain: true, SubscriptionIDs: d.Identifiers}
	fillPublish(&p, m)
	if p.HasExpiry {
		left := remaining(&d)
		if left <= 0 { // [MQTT-3.3.2-5]
			c.broker.metrics.dropped[dropExpired].Add(1)
			return
		}
		p.MessageExpiry = expirySeconds(left)
	}
	c.sendQoS0(&p)
}

// liveTopics remembers the topics delivered live with RETAIN 1 to a session that
// is owed a replay, by hash: a collision of 64 bits, once in 10^9 replays of
// 100,000 topics, would leave a topic out. It keeps between maxLiveTopics and
// twice that: the register has long seen what is forgotten.
type liveTopics struct {
	young, old map[uint64]uint64 // stamps
}

// liveMark is a live message with RETAIN 1: its topic, and the time of the
// subscriptions (subscriptions.clock) that it was matched at.
type liveMark struct{ hash, stamp uint64 }

var topicSeed = maphash.MakeSeed()

func newLiveMark(topic string, stamp uint64) *liveMark {
	return &liveMark{maphash.String(topicSeed, topic), stamp}
}

func (l *liveTopics) add(m *liveMark) {
	if len(l.young) >= maxLiveTopics {
		l.young, l.old = nil, l.young
	}
	if l.young == nil {
		l.young = make(map[uint64]uint64)
	}
	l.young[m.hash] = max(l.young[m.hash], m.stamp)
}

// since tells whether a message of the topic was delivered for a subscription
// that stands since born.
func (l *liveTopics) since(topic string, born uint64) bool {
	if len(l.young)+len(l.old) == 0 {
		return false
	}
	h := maphash.String(topicSeed, topic)
	stamp, known := l.young[h]
	if older, ok := l.old[h]; ok && older >= stamp {
		stamp, known = older, true
	}
	return known && stamp >= born
}

// noteLive notes a live message that the client will get. mu is held.
func (c *conn) noteLive(m *liveMark) {
	if m != nil && c.replays != nil {
		c.replays.live.add(m)
	}
}
