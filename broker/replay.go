package broker

import (
	"hash/maphash"
	"slices"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/broker/topic"
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
// A live message with RETAIN 1 of a topic that a replay has not passed is that replay's
// value: it is delivered with RETAIN 1, and the page leaves the topic out
// ([MQTT-4.6.0-6]).
type replays struct {
	// owed are the replays that have not ended, by filter; queue are those whose
	// SUBACK has left, also ended ones.
	owed  topic.Trie[*replay]
	queue []*replay
	// subscribing are those whose subscriptions may stand already, between announce
	// and owe.
	subscribing []*replay

	// current is the replay that is being read, nil for none.
	current *replay
	// page is what is left of the last page, which came at the time at. sub is
	// the subscription it is sent for.
	page []*shoalpb.Message
	at   time.Time
	sub  subscription
	// asking: an answer or a timer is to come. asked is how many live messages had
	// been noted when the page was asked for; settled tells that what was under way
	// then was waited for.
	asking  bool
	asked   uint64
	settled bool
	backoff time.Duration

	live liveTopics
}

// replay is what one subscription is owed.
type replay struct {
	filter string
	born   uint64                 // of the subscription
	from   session.RetainedCursor // where the page read last ends
	passed session.RetainedCursor // where the topic sent last is
	ended  bool
	// early: SUBACK has not left. ready, if not nil, is called when the first page
	// has come.
	early bool
	ready func()
}

// announce says that a subscription is about to stand: from now on live retained
// messages are noted, and may be its replay's values.
func (c *conn) announce(filter string) *replay {
	r := &replay{filter: filter, born: c.broker.subs.now() + 1}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase.Load() != serving {
		return r
	}
	if c.replays == nil {
		c.replays = &replays{}
	}
	c.replays.subscribing = append(c.replays.subscribing, r)
	return r
}

// owe follows announce when it is known whether the subscription, made at born, is
// owed the replay. That of a subscription that it replaces ends with it; without, the
// former one goes on: nothing is lost by replacing ([MQTT-3.8.4-4]).
func (c *conn) owe(r *replay, born uint64, owed bool) bool {
	c.mu.Lock()
	defer c.unlock()
	rs := c.replays
	if rs == nil { // the connection has ended
		return false
	}
	rs.subscribing = slices.DeleteFunc(rs.subscribing, func(x *replay) bool { return x == r })
	if !owed {
		c.replayOn()
		return false
	}
	r.born = born
	rs.end(r.filter)
	rs.owed.Set(r.filter, r)
	return true
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
		case r.early:
			r.early, r.ready = false, nil
		case r.ended:
		case granted:
			rs.enqueue(r)
		default:
			rs.end(r.filter)
		}
	}
	c.replayOn()
}

// prefetch reads the first page before SUBACK leaves, and then calls finish, so that what
// is published after SUBACK comes after a short replay: with RETAIN 0. It waits no
// longer than maxPrefetchTime, and not at all behind another replay. It reports false
// if there is nothing to wait for: then the caller finishes.
func (c *conn) prefetch(list []*replay, finish func()) (waits bool) {
	c.mu.Lock()
	rs := c.replays
	i := slices.IndexFunc(list, func(r *replay) bool { return !r.ended })
	if rs == nil || i < 0 || c.phase.Load() != serving || rs.current != nil || len(rs.queue) > 0 {
		c.unlock()
		return false
	}
	r, came := list[i], false
	timer := time.AfterFunc(maxPrefetchTime, finish)
	r.early = true
	r.ready = func() {
		switch {
		case !timer.Stop():
		case waits:
			c.spawn(finish)
		default:
			came = true
		}
	}
	rs.enqueue(r)
	c.replayOn()
	c.unlock() // asks for the page, which may come at once
	c.mu.Lock()
	defer c.unlock()
	waits = !came
	return waits
}

// enqueue queues a replay. A client that subscribes again and again, and does not
// read, must not make the queue grow.
func (rs *replays) enqueue(r *replay) {
	if len(rs.queue) > 2*rs.owed.Len() {
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
	r, owed := rs.owed.Lookup(filter)
	if !owed {
		return
	}
	r.ended = true
	rs.owed.Delete(filter)
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
		case len(rs.page) > 0 && rs.current.early:
			return
		case len(rs.page) > 0:
			m := rs.page[0]
			rs.page[0], rs.page = nil, rs.page[1:]
			if !c.sendRetained(m) {
				rs.again()
				continue
			}
			rs.current.passed.After = m.Topic
		case rs.asking:
			return
		case rs.current != nil && rs.current.from.Done:
			rs.end(rs.current.filter)
		case rs.current != nil:
			rs.ask()
			c.ask = rs.current
			return
		case !rs.advance():
			if rs.owed.Len() == 0 && len(rs.subscribing) == 0 {
				c.replays = nil
			}
			return
		}
	}
}

// ask notes that the next page of the current replay is asked for. What came live may
// be newer than the page: to know, what is under way has to be waited for first.
func (rs *replays) ask() {
	from := &rs.current.from
	from.Settle = from.Settle || rs.live.count > 0
	rs.asking, rs.asked = true, rs.live.count
}

// again has the rest of the page read once more, behind the topic sent last.
func (rs *replays) again() {
	rs.page = nil
	rs.current.from = session.RetainedCursor{Group: rs.current.passed.Group, After: rs.current.passed.After, Settle: true}
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
		if r.ready != nil {
			r.ready()
			r.ready = nil
		}
		switch {
		case r.ended:
		case !stands:
			rs.end(r.filter)
		case err != nil:
			c.retryReplay(err)
		default:
			rs.backoff = 0
			rs.sub, rs.at = sub, time.Now()
			rs.settled = r.from.Settle || r.from.After == ""
			rs.page, r.from = slices.Clone(page), next
			if len(page) > 0 {
				r.enter(c.broker.cluster.RegisterOf(page[0].Topic))
			}
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

// enter notes that the next page is of a shard.
func (r *replay) enter(group uint32) {
	if r.passed.Group != group {
		r.passed = session.RetainedCursor{Group: group}
	}
}

// sendRetained sends a retained message for the subscription of the page at hand
// ([MQTT-3.3.1-8], [MQTT-3.8.3-3]), unless the client has it, or a newer one. It
// reports false if that cannot be told: the page is to be read again. mu is held.
//
// Once the page was read, what was in the registers, and matched the subscription, has
// come live. So, if nothing of the topic came, the client gets this value. If its
// publisher's came, it was this value or a newer one: the messages of one publisher
// reach register and subscribers in the same order. If only others' came, this value
// was matched before the subscription stood. It is newer than what had come when the
// page was asked for, if what was under way then was waited for before the read; else
// nobody knows.
func (c *conn) sendRetained(m *shoalpb.Message) bool {
	rs := c.replays
	if rs.sub.noLocal && m.Publisher == c.client {
		return true
	}
	retain := true
	if live := rs.live.since(hashOf(m.Topic), rs.sub.born); live != nil {
		switch {
		case rs.live.since(hashOf(m.Topic, m.Publisher), rs.sub.born) != nil:
			return true
		case !rs.settled || live.count > rs.asked:
			return false
		}
		retain = live.given < rs.sub.born || rs.sub.retain
	}
	c.broker.metrics.matched.Add(1)
	if c.withheld(m) {
		return true
	}
	d := session.Delivery{QoS: min(uint8(m.Qos), rs.sub.qos), Retain: retain, Age: time.Since(rs.at), Message: m}
	if rs.sub.id != 0 {
		d.Identifiers = []uint32{rs.sub.id}
	}
	if d.QoS > 0 {
		c.enqueue(d)
		return true
	}
	p := packet.Publish{Retain: retain, SubscriptionIDs: d.Identifiers}
	fillPublish(&p, m)
	if p.HasExpiry {
		left := remaining(&d)
		if left <= 0 { // [MQTT-3.3.2-5]
			c.broker.metrics.dropped[dropExpired].Add(1)
			return true
		}
		p.MessageExpiry = expirySeconds(left)
	}
	c.sendQoS0(&p)
	return true
}

// liveTopics remembers what was delivered live with RETAIN 1 to a session that is owed
// a replay, by topic, and by topic and publisher, hashed: a collision of 64 bits, once
// in 10^9 replays of 100,000 topics, would leave a topic out. It keeps between
// maxLiveTopics and twice that: the register has long seen what is forgotten.
type liveTopics struct {
	young, old map[uint64]liveTopic
	count      uint64 // of messages noted
}

// liveTopic is the latest of a topic. stamp is the time of the subscriptions
// (subscriptions.clock) that it was matched at, given that of the latest that was
// delivered as a replay's value. count is its number among all.
type liveTopic struct{ stamp, given, count uint64 }

// liveMark is a live message with RETAIN 1, while it is being delivered, and the time
// of the subscriptions that it was matched at.
type liveMark struct {
	message *shoalpb.Message
	stamp   uint64
}

var topicSeed = maphash.MakeSeed()

// hashOf is the hash of strings without a zero byte.
func hashOf(parts ...string) uint64 {
	var h maphash.Hash
	h.SetSeed(topicSeed)
	for _, s := range parts {
		h.WriteString(s)
		h.WriteByte(0)
	}
	return h.Sum64()
}

// note adds a message under a hash.
func (l *liveTopics) note(hash, stamp uint64, given bool) {
	if len(l.young) >= maxLiveTopics {
		l.young, l.old = nil, l.young
	}
	if l.young == nil {
		l.young = make(map[uint64]liveTopic)
	}
	t, known := l.young[hash]
	if !known {
		t = l.old[hash]
	}
	t.stamp, t.count = max(t.stamp, stamp), l.count
	if given {
		t.given = max(t.given, stamp)
	}
	l.young[hash] = t
}

// since returns what was delivered for a subscription that stands since born, nil for
// nothing.
func (l *liveTopics) since(hash, born uint64) *liveTopic {
	if l.count == 0 {
		return nil
	}
	t, known := l.young[hash]
	if !known {
		t, known = l.old[hash]
	}
	if !known || t.stamp < born {
		return nil
	}
	return &t
}

// noteLive notes a live message that the client will get, as the value of a replay or
// not. mu is held.
func (c *conn) noteLive(m *liveMark, value bool) {
	if m == nil || c.replays == nil {
		return
	}
	l := &c.replays.live
	l.count++
	l.note(hashOf(m.message.Topic), m.stamp, value)
	l.note(hashOf(m.message.Topic, m.message.Publisher), m.stamp, value)
}

// isReplayValue tells whether a live message is the value of a replay: the first of its
// topic, while the replay has not passed that. mu is held.
func (c *conn) isReplayValue(m *liveMark) (value bool) {
	if m == nil || c.replays == nil || len(m.message.Payload) == 0 {
		return false
	}
	rs, name := c.replays, m.message.Topic
	var group uint32
	live := rs.live.since(hashOf(name), 0)
	waits := func(r *replay) bool {
		if m.stamp < r.born || live != nil && live.given >= r.born {
			return false
		}
		if group == 0 && r.passed.Group != 0 {
			group = c.broker.cluster.RegisterOf(name)
		}
		return r.passed.Group == 0 || group > r.passed.Group || group == r.passed.Group && name > r.passed.After
	}
	rs.owed.Match(name, func(r *replay) bool {
		value = value || waits(r)
		return !value
	})
	for _, r := range rs.subscribing {
		value = value || topic.MatchOne(r.filter, name) && waits(r)
	}
	return value
}
