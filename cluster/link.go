package cluster

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// link is one connection's door to its session's shard.
type link struct {
	p       *process
	client  string
	shard   uint32
	sink    session.Sink
	conn    uint64 // set before the link is handed out
	durable bool
	// opening is nil when the client has got its CONNACK.
	opening atomic.Pointer[opening]

	mu     sync.Mutex
	closed bool
	// unconfirmed: the shard has not performed the bid yet; fetching: deliveries
	// begin when it has.
	unconfirmed, fetching bool
	// blocked: publishes go to waiting, in order, because former owners have
	// not drained, or the lease has lapsed, or others wait already.
	blocked bool
	held    bool // by former owners
	waiting []*publish
	// unsettled counts publishes that were routed and not wholly answered. The
	// connection has drained when it is closed, this is 0 and nothing waits: what it
	// has handed over outlives it.
	unsettled int
	// closing is what Close asked for, until it is sent; drained: Drained was sent,
	// or Close said so.
	closing *session.CloseRequest
	drained bool
	queues  map[uint32]*commandQueue
	// acks and expired gather what Ack and Expired got until a batch takes them.
	acks, expired []uint64
	// replaying: a replay of retained messages may be under way; replayWaits are the
	// SUBACKs that wait for its end.
	replaying   bool
	replayWaits []*replayWait
	// pending are the Released exchanges that wait for their targets, from
	// asking on.
	pending map[uint16]*release

	registers registers // has a lock of its own
}

var _ session.Link = (*link)(nil)

// release is a Released exchange. The notice of its completion may overtake the
// answer that it is pending.
type release struct {
	done     func(known bool, err error)
	asked    time.Time
	answered bool // pending, said the shard
	complete bool // said a notice
}

// publish is one message of QoS ≥ 1 on its way into the streams.
type publish struct {
	m    *shoalpb.Message
	done func(error)
	// received: a durable publisher's QoS 2 message, recorded in its shard.
	received bool
	id       uint16
	dup      bool
	// lazy: QoS 0, for the topic's register alone.
	lazy bool
	// settled, of a retained message: it is not under way any more. It may be called
	// again.
	settled func()
	// since is when it began to wait, by the boot-time clock.
	since time.Duration
}

// waited takes the time that p has waited off its Message Expiry Interval
// ([MQTT-3.3.2-6]).
func (p *publish) waited() {
	if p.m.ExpiryMs != nil {
		left := *p.m.ExpiryMs - min(*p.m.ExpiryMs, milliseconds(bootTime()-p.since))
		p.m.ExpiryMs = &left
	}
}

// Publish implements session.Link.
func (l *link) Publish(m *shoalpb.Message, done func(error)) {
	l.submit(&publish{m: m, done: done})
}

// Received implements session.Link.
func (l *link) Received(id uint16, dup bool, m *shoalpb.Message, done func(error)) {
	l.submit(&publish{m: m, done: done, received: true, id: id, dup: dup})
}

// submit routes p, or makes it wait behind what waits. It is called by one
// goroutine at a time, the connection's reader.
func (l *link) submit(p *publish) {
	// A repeat of a QoS 2 message may be of one that was accepted: its shard knows.
	if l.p.n.watch.low.Load() && !(p.received && p.dup) {
		p.done(session.ErrQuota)
		return
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		p.done(session.ErrClosed)
		return
	}
	if l.blocked {
		p.since = bootTime()
		l.waiting = append(l.waiting, p)
		l.mu.Unlock()
		return
	}
	l.unsettled++
	l.mu.Unlock()
	if l.route(p) {
		return
	}
	l.postpone(p)
}

// postpone takes back a publish that could not be routed now: it waits, first
// of all that wait.
func (l *link) postpone(p *publish) {
	l.mu.Lock()
	l.unsettled--
	l.blocked = true
	p.since = bootTime()
	l.waiting = append([]*publish{p}, l.waiting...)
	l.mu.Unlock()
	l.p.lapsed(l)
}

// resume routes what waits, unless former owners still hold it or the lease is
// gone. Called when either changes, from one goroutine of the process.
func (l *link) resume() {
	for {
		l.mu.Lock()
		if l.held || !l.blocked {
			l.mu.Unlock()
			return
		}
		if len(l.waiting) == 0 {
			l.waiting, l.blocked = nil, false
			l.mu.Unlock()
			return
		}
		p := l.waiting[0]
		l.waiting[0] = nil
		l.waiting = l.waiting[1:]
		l.unsettled++
		l.mu.Unlock()
		p.waited()
		if !l.route(p) {
			l.postpone(p)
			return
		}
	}
}

// unhold ends the hold by former owners.
func (l *link) unhold() {
	l.mu.Lock()
	l.held = false
	l.mu.Unlock()
	l.p.resumes.add(l)
}

// queue is the link's queue of publishes to a group. Called with mu held.
func (l *link) queue(group uint32) *commandQueue {
	q := l.queues[group]
	if q == nil {
		if l.queues == nil {
			l.queues = make(map[uint32]*commandQueue, 2)
		}
		q = &commandQueue{}
		l.queues[group] = q
	}
	return q
}

// settle ends one routed publish.
func (l *link) settle(done func(error), err error) {
	l.mu.Lock()
	l.unsettled--
	closed, drained := l.closed, l.drain()
	l.mu.Unlock()
	if drained {
		l.p.forget(l)
	}
	if !closed {
		done(err)
	}
}

// drain tells the shard of the end of a closed connection when all that it handed
// over is settled. It reports once that it has; the caller has the process forget
// the link. Called with mu held.
func (l *link) drain() bool {
	if !l.closed || l.unsettled > 0 || len(l.waiting) > 0 || l.drained {
		return false
	}
	l.drained = true
	if l.closing != nil {
		l.sendClose()
	} else {
		l.p.control(l.shard, &shoalpb.Command{Drained: &shoalpb.Drained{Client: l.client, Conn: l.conn}}, nil, nil)
	}
	return true
}

// sendClose queues Close, behind everything that was handed over and is settled.
// Called with mu held.
func (l *link) sendClose() {
	r := l.closing
	l.closing = nil
	l.p.control(l.shard, &shoalpb.Command{Close: &shoalpb.Close{
		Client: l.client, Conn: l.conn, Drained: l.drained,
		ExpiryS: r.ExpirySeconds, DiscardWill: r.DiscardWill,
	}}, nil, nil)
}

// closeNow sends Close though not all is settled: a shard may be away for long, and
// the session must not count as connected meanwhile.
func (l *link) closeNow() {
	l.registers.close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing != nil {
		l.sendClose()
	}
}

// Close implements session.Link. The shard hears of it when all that was handed
// over is settled: a QoS 2 message of a durable session is taken from its owner
// only.
func (l *link) Close(r session.CloseRequest) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed, l.closing, l.pending = true, &r, nil
	l.mu.Unlock()
	l.p.feed(l.shard).detach(l)
	l.mu.Lock()
	drained := l.drain()
	l.mu.Unlock()
	if drained {
		l.p.forget(l)
		return
	}
	time.AfterFunc(settleTimeout, l.closeNow)
}

// Released implements session.Link.
func (l *link) Released(id uint16, done func(known bool, err error)) {
	r := &release{done: done, asked: time.Now()}
	l.mu.Lock()
	if l.pending == nil {
		l.pending = make(map[uint16]*release)
	}
	l.pending[id] = r
	l.mu.Unlock()
	l.sendReleased(id, func(a *shoalpb.Answer, err error) {
		if err == nil && a.GetCode() == shoalpb.Code_CODE_PENDING {
			l.answered(id, r)
			return
		}
		l.endRelease(id, r)
		switch {
		case err != nil:
			done(false, err)
		case a == nil:
			done(true, nil)
		case a.Code == shoalpb.Code_CODE_UNKNOWN_ID:
			done(false, nil)
		default:
			done(false, answerError(a))
		}
	})
}

// answered notes that r waits for its targets, unless a notice already came.
func (l *link) answered(id uint16, r *release) {
	l.mu.Lock()
	r.answered = true
	complete := r.complete
	l.mu.Unlock()
	if complete {
		l.completed(id)
	}
}

func (l *link) endRelease(id uint16, r *release) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending[id] == r {
		delete(l.pending, id)
	}
}

func (l *link) sendReleased(id uint16, done func(a *shoalpb.Answer, err error)) {
	l.p.control(l.shard, &shoalpb.Command{Released: &shoalpb.Released{Client: l.client, Conn: l.conn, Id: uint32(id)}}, l,
		func(_ uint64, a *shoalpb.Answer, err error) {
			if !l.isClosed() {
				done(a, err)
			}
		})
}

// completed takes a notice: the targets of id have all answered.
func (l *link) completed(id uint16) {
	l.mu.Lock()
	r := l.pending[id]
	if r == nil {
		l.mu.Unlock()
		return
	}
	r.complete = true
	answered := r.answered
	if answered {
		delete(l.pending, id)
	}
	l.mu.Unlock()
	if answered {
		r.done(true, nil)
	}
}

// askAgain asks for what notices may have lost: releases that have waited since
// before limit. It asks under the lock, so that the client cannot have used the
// identifier again before the question has its place in the stream.
func (l *link) askAgain(limit time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, r := range l.pending {
		if !r.answered || !r.asked.Before(limit) {
			continue
		}
		r.asked = time.Now()
		l.sendReleased(id, func(a *shoalpb.Answer, err error) {
			if err == nil && (a == nil || a.Code == shoalpb.Code_CODE_UNKNOWN_ID) {
				l.completedIf(id, r)
			}
		})
	}
}

// completedIf is completed for one exchange, if it still is that of id.
func (l *link) completedIf(id uint16, r *release) {
	l.mu.Lock()
	same := l.pending[id] == r
	l.mu.Unlock()
	if same {
		l.completed(id)
	}
}

// Subscribe implements session.Link.
func (l *link) Subscribe(subs []*shoalpb.Subscription, done func(existed []bool, err error)) {
	c := &shoalpb.Subscribe{Client: l.client, Conn: l.conn, Subscriptions: subs, Replay: l.p.n.replays(subs)}
	if slices.ContainsFunc(c.Replay, func(group uint32) bool { return group != 0 }) {
		l.mu.Lock()
		l.replaying = true
		l.mu.Unlock()
	}
	l.p.control(l.shard, &shoalpb.Command{Subscribe: c}, l,
		func(_ uint64, a *shoalpb.Answer, err error) {
			if err == nil {
				err = answerError(a)
			}
			if err == nil && a.GetSubscribe() == nil {
				err = session.ErrUnavailable
			}
			if err != nil {
				done(nil, err)
				return
			}
			answer := a.Subscribe
			l.p.n.visible.await(routeSource{group: l.shard}, answer.Route, func(err error) {
				l.afterReplay(err, func() { done(answer.Existed, err) })
			})
		})
}

// afterReplay calls done when the session is owed no retained messages, or after a
// while: a short replay is over before SUBACK leaves, so that what is published then
// comes as a live message.
func (l *link) afterReplay(err error, done func()) {
	l.mu.Lock()
	if err != nil || !l.replaying || l.closed {
		l.mu.Unlock()
		done()
		return
	}
	w := &replayWait{done: done}
	l.replayWaits = append(l.replayWaits, w)
	l.mu.Unlock()
	time.AfterFunc(replayPatience, w.end)
}

// replayWait is a SUBACK that waits for the end of a replay.
type replayWait struct {
	done func()
	once sync.Once
}

func (w *replayWait) end() { w.once.Do(w.done) }

// replayed takes a notice: the session is owed no retained messages any more.
func (l *link) replayed() {
	l.mu.Lock()
	waits := l.replayWaits
	l.replaying, l.replayWaits = false, nil
	l.mu.Unlock()
	for _, w := range waits {
		w.end()
	}
}

// Unsubscribe implements session.Link.
func (l *link) Unsubscribe(filters []string, done func(existed []bool, err error)) {
	l.p.control(l.shard, &shoalpb.Command{Unsubscribe: &shoalpb.Unsubscribe{Client: l.client, Conn: l.conn, Filters: filters}}, l,
		func(_ uint64, a *shoalpb.Answer, err error) {
			if err == nil {
				err = answerError(a)
			}
			done(a.GetUnsubscribe().GetExisted(), err)
		})
}

// Ack implements session.Link: acks of one connection that no batch has taken
// yet go into one command.
func (l *link) Ack(seq uint64) {
	l.mu.Lock()
	first := len(l.acks)+len(l.expired) == 0
	l.acks = append(l.acks, seq)
	l.mu.Unlock()
	l.acked(first)
}

// Expired implements session.Link; it goes with the acks.
func (l *link) Expired(seq uint64) {
	l.mu.Lock()
	first := len(l.acks)+len(l.expired) == 0
	l.expired = append(l.expired, seq)
	l.mu.Unlock()
	l.acked(first)
}

// acked queues a command for what has gathered, with the first of it.
func (l *link) acked(first bool) {
	if !first {
		return
	}
	l.p.sources[l.shard].enqueueControl(&command{encode: l.takeAcks, done: func(_ uint64, a *shoalpb.Answer, _ error) {
		if a.GetCode() == shoalpb.Code_CODE_NOT_OWNER {
			l.disowned()
		}
	}})
}

func (l *link) takeAcks() []byte {
	l.mu.Lock()
	ack := &shoalpb.Ack{Client: l.client, Conn: l.conn, Seqs: l.acks, Expired: l.expired}
	l.acks, l.expired = nil, nil
	l.mu.Unlock()
	return encodeCommand(&shoalpb.Command{Ack: ack})
}

// Release implements session.Link.
func (l *link) Release(seq uint64, done func(error)) {
	l.p.control(l.shard, &shoalpb.Command{Release: &shoalpb.Release{Client: l.client, Conn: l.conn, Seq: seq}}, l,
		func(_ uint64, a *shoalpb.Answer, err error) {
			if err == nil {
				err = answerError(a)
			}
			if !l.isClosed() {
				done(err)
			}
		})
}

// Fetch implements session.Link.
func (l *link) Fetch() {
	l.mu.Lock()
	l.fetching = true
	now := !l.unconfirmed
	l.mu.Unlock()
	if now {
		l.p.feed(l.shard).attach(l)
	}
}

// disowned is told when the shard answers that another connection owns the
// session: the connection ends, whether or not a notice reached it.
func (l *link) disowned() {
	if !l.isClosed() {
		l.sink.Superseded()
	}
}

// lose ends the connection because a group is away that has numbered a publish of
// it. The publish is not settled: it may still be applied, and until it is
// answered nothing of a later connection of the client may overtake it.
func (l *link) lose() {
	if !l.isClosed() {
		l.sink.Lost(session.ErrUnavailable)
	}
}

func (l *link) hasDrained() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.drained
}

// abandon ends what a closed connection has left and its process cannot send any
// more.
func (l *link) abandon() {
	l.mu.Lock()
	waiting := l.waiting
	l.waiting = nil
	l.mu.Unlock()
	for _, p := range waiting {
		p.done(session.ErrNotOwner)
	}
}

func (l *link) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// answerError turns an exception into the error of the contract.
func answerError(a *shoalpb.Answer) error {
	switch a.GetCode() {
	case shoalpb.Code_CODE_DONE, shoalpb.Code_CODE_KNOWN, shoalpb.Code_CODE_PENDING:
		return nil
	case shoalpb.Code_CODE_NOT_OWNER:
		return session.ErrNotOwner
	case shoalpb.Code_CODE_ID_IN_USE:
		return session.ErrIDInUse
	case shoalpb.Code_CODE_QUEUE_FULL:
		return session.ErrQueueFull
	default:
		return session.ErrQuota
	}
}
