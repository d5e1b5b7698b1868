package cluster

import (
	"fmt"
	"sync"
	"time"

	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// Open implements broker.Cluster.
func (n *Node) Open(r session.OpenRequest, sink session.Sink, done func(session.Link, session.Opened, error)) {
	p := n.proc.Load()
	if err := n.Ready(); err != nil || p == nil {
		done(nil, session.Opened{}, fmt.Errorf("%w: %v", session.ErrUnavailable, err))
		return
	}
	l := &link{p: p, client: r.Client, shard: n.shardOf(r.Client), sink: sink}
	if !p.admits[l.shard].enter() {
		n.metrics.opensRefused.Inc()
		done(nil, session.Opened{}, session.ErrBusy)
		return
	}
	o := &opening{p: p, l: l, waits: r.Waits, done: done, open: &shoalpb.Open{
		Client: r.Client, CleanStart: r.CleanStart, ExpiryS: r.ExpirySeconds, Window: uint32(r.Window), Will: r.Will, Limits: r.Queue,
		Ask: n.entryFormat() >= stream.FormatOrder,
	}}
	l.opening.Store(o)
	o.timer = time.AfterFunc(openTimeout, o.giveUp)
	p.begin(o)
	o.try(false)
}

// opening is a CONNECT on its way to its session. It sends an Open to the
// session's shard. If other connections have the session it asks them to end, and
// sends another Open when they have, or when its time for that is up. When the
// shard has taken the Open, as a bid or at once, it waits a little for what the
// others have left, then confirms the bid and hands the link out.
//
// It is over once: by that, by an error, or by time. A CONNECT is answered with an
// error only while no Open has been given a number that has no answer, because
// that one may be applied long afterwards. Then its bid is withdrawn.
type opening struct {
	p     *process
	l     *link
	waits func() bool // see session.OpenRequest
	done  func(session.Link, session.Opened, error)
	timer *time.Timer // openTimeout

	// open is what all tries say. Its Seen and Force are the source's, which
	// encodes one try at a time.
	open *shoalpb.Open

	mu   sync.Mutex
	step openingStep
	// over: the client has been answered, or never will be; accepted: with CONNACK.
	over, accepted bool
	admitted       bool // the first Open has been answered
	left           bool // the process has forgotten the opening
	// command is the Open that has no answer yet, nil for none.
	command *command
	// answer is the shard's, once it has taken an Open.
	answer    *shoalpb.OpenAnswer
	confirmed bool
	// others are the connections that have, or had, the session, as far as heard;
	// since is when they were asked to end first.
	others []*shoalpb.Owner
	since  time.Time
	// turn counts steps, so that a timer or an answer of a former one is ignored.
	turn  int
	bound *time.Timer
}

// openingStep is what an opening waits for.
type openingStep uint8

const (
	stepOpen   openingStep = iota // the answer to its Open
	stepAsk                       // others to let the session go
	stepSettle                    // what the others have left; the shard has taken its Open
	stepOver                      // nothing: the link is handed out, or the opening has failed
)

// try sends an Open.
func (o *opening) try(force bool) {
	c := &command{owner: o.l, keep: true, done: o.answered}
	c.data = encodeCommand(&shoalpb.Command{Open: o.open})
	if o.open.Ask {
		c.encode = func() []byte {
			o.open.Force, o.open.Seen = force, o.p.index(o.l.shard)
			return encodeCommand(&shoalpb.Command{Open: o.open})
		}
	}
	o.mu.Lock()
	if o.over {
		o.mu.Unlock()
		o.leave(0)
		return
	}
	o.next(stepOpen)
	o.command = c
	o.mu.Unlock()
	o.p.sources[o.l.shard].enqueueControl(c)
}

// next goes to another step. Called with mu held.
func (o *opening) next(s openingStep) {
	o.step = s
	o.turn++
	if o.bound != nil {
		o.bound.Stop()
	}
}

// giveUp ends the opening when its time is up. An Open without a number is taken
// back: it must not come to the shard after the client's next one.
func (o *opening) giveUp() {
	o.mu.Lock()
	step, c := o.step, o.command
	o.mu.Unlock()
	switch {
	case step == stepSettle: // it has been waited for long enough
		o.accept()
	case step == stepAsk:
		o.end(session.ErrUnavailable)
	case step == stepOpen && (c == nil || !o.p.sources[o.l.shard].cancel(c)):
		o.fail(session.ErrUndecided)
	}
}

// answered takes the answer to an Open, or its failure.
func (o *opening) answered(n uint64, a *shoalpb.Answer, err error) {
	now := time.Now()
	o.mu.Lock()
	c := o.command
	o.command = nil
	first := !o.admitted
	o.admitted = true
	o.mu.Unlock()
	if first {
		o.p.admits[o.l.shard].leave(now.Sub(c.queued), now)
	}
	switch {
	case err != nil && n > 0: // it may be applied still
		o.end(session.ErrUndecided)
	case err != nil:
		o.end(session.ErrUnavailable)
	case a.GetCode() == shoalpb.Code_CODE_STALE:
		o.again()
	case a.GetCode() == shoalpb.Code_CODE_ATTACHED:
		o.ask(a.Open.GetFormer())
	case answerError(a) != nil:
		o.end(answerError(a))
	case a.GetOpen() == nil:
		o.end(session.ErrUnavailable)
	default:
		o.opened(a.Open)
	}
}

// end fails the opening when none of its Opens is on the way.
func (o *opening) end(err error) {
	o.fail(err)
	o.leave(0)
}

// fail tells the client, unless it has been told something. A session that the
// shard has given is given back.
func (o *opening) fail(err error) {
	o.mu.Lock()
	first := !o.over
	o.over = true
	taken, confirmed := o.step == stepSettle, o.confirmed
	if o.step != stepOpen { // else its answer is to come
		o.next(stepOver)
	}
	o.mu.Unlock()
	o.timer.Stop()
	if taken {
		o.l.refuse(o.open.Ask && !confirmed)
	}
	if first {
		o.done(nil, session.Opened{}, err)
	}
}

// superseded ends the opening for the sake of another connection of the client.
// It reports false if the client has got its CONNACK.
func (o *opening) superseded() bool {
	o.mu.Lock()
	accepted, step, c := o.accepted, o.step, o.command
	o.mu.Unlock()
	switch {
	case accepted:
		return false
	case step == stepOpen:
		if c == nil || !o.p.sources[o.l.shard].cancel(c) {
			o.fail(session.ErrUndecided)
		}
	default:
		o.end(session.ErrUndecided)
	}
	return true
}

// leave tells the process, once, that no Open is on the way any more. It reports
// whether the connection was asked to end meanwhile.
func (o *opening) leave(conn uint64) (over bool) {
	o.mu.Lock()
	first := !o.left
	o.left = true
	o.mu.Unlock()
	return first && o.p.opened(o.l.client, conn)
}

// again sends another Open in place of one that was numbered before a connection
// that has been accepted.
func (o *opening) again() {
	if !o.stillWaits() {
		o.end(session.ErrUndecided)
		return
	}
	o.try(false)
}

func (o *opening) stillWaits() bool {
	o.mu.Lock()
	over := o.over
	o.mu.Unlock()
	return !over && (o.waits == nil || o.waits())
}

// ask asks the connections that have the session to end. The client may have gone
// to one of them: then they are left alone.
func (o *opening) ask(others []*shoalpb.Owner) {
	if !o.stillWaits() {
		o.end(session.ErrUndecided)
		return
	}
	o.mu.Lock()
	if o.over {
		o.mu.Unlock()
		o.leave(0)
		return
	}
	o.next(stepAsk)
	o.await(others)
	o.mu.Unlock()
	o.p.summons.call(o.l.client, others)
	o.question(0)
}

// await notes what is waited for, for a limited time. Called with mu held.
func (o *opening) await(others []*shoalpb.Owner) {
	o.others = others
	if o.since.IsZero() {
		o.since = time.Now()
	}
	turn := o.turn
	o.bound = time.AfterFunc(time.Until(o.since.Add(takeoverAsk)), func() { o.timeUp(turn) })
}

// question asks the shard's leader whether the session is free of other
// connections than conn.
func (o *opening) question(conn uint64) {
	o.mu.Lock()
	turn := o.turn
	o.mu.Unlock()
	o.p.questions[o.l.shard].add(&question{
		AwaitQuestion: &shoalpb.AwaitQuestion{Client: o.l.client, Conn: conn, Index: o.p.seen[o.l.shard].Load()},
		told:          func(a *shoalpb.AwaitAnswer, fence uint64) bool { return o.told(turn, conn, a, fence) },
	})
}

// told takes an answer to the question of a turn, and reports whether it is the
// last. Once the link is handed out its publishes wait for the answer about its own
// connection. The one about no connection was asked before there was one, and would
// name it among those that have the session.
func (o *opening) told(turn int, conn uint64, a *shoalpb.AwaitAnswer, fence uint64) (last bool) {
	o.mu.Lock()
	step, accepted, current := o.step, o.accepted, turn == o.turn
	if current && !a.Done {
		o.others = a.Former
	}
	o.mu.Unlock()
	switch {
	case !current && conn == 0:
		return true
	case accepted:
		return o.l.told(a, fence)
	case !current:
		return true
	case !a.Owner:
		o.superseded()
		return true
	case !a.Done:
		o.p.summons.call(o.l.client, a.Former)
		return false
	case step == stepAsk:
		o.try(false)
		return true
	}
	o.p.n.metFence(fence)
	o.mu.Lock()
	o.others = nil
	o.mu.Unlock()
	if !o.accept() { // its time was up just now
		return o.l.told(a, fence)
	}
	return true
}

// timeUp ends the step of a turn: the others are not waited for any longer. Those
// whose processes have answered are about to end, and get some more time.
func (o *opening) timeUp(turn int) {
	o.mu.Lock()
	if turn != o.turn || o.step != stepAsk && o.step != stepSettle {
		o.mu.Unlock()
		return
	}
	if left := time.Until(o.since.Add(takeoverMost)); left > 0 && o.p.summons.heard(o.others, o.since) {
		o.bound = time.AfterFunc(left, func() { o.timeUp(turn) })
		o.mu.Unlock()
		return
	}
	step := o.step
	o.mu.Unlock()
	if step == stepAsk {
		o.try(true)
	} else {
		o.accept()
	}
}

// opened takes what the shard says about an Open that it has taken.
func (o *opening) opened(a *shoalpb.OpenAnswer) {
	l := o.l
	l.conn, l.durable = a.Conn, a.Durable
	known := o.p.remember(l)
	ended := o.leave(a.Conn)
	o.mu.Lock()
	o.next(stepSettle)
	o.answer, o.others = a, a.Former
	if a.WillDue {
		o.others = append(o.others, &shoalpb.Owner{}) // the Will that Confirm makes due
	}
	wait := o.open.Ask && len(o.others) > 0
	if wait {
		o.await(o.others)
	}
	over := o.over
	o.mu.Unlock()
	switch {
	case over || ended || !known || !o.p.n.lease.valid(): // the owner may be another by now
		o.fail(session.ErrUndecided)
		return
	case a.WillDue:
		o.confirm(func() { o.question(a.Conn) })
	case !wait:
		o.accept()
	}
	if len(a.Former) > 0 && !a.WillDue {
		o.question(a.Conn)
	}
	o.p.summons.call(l.client, a.Former)
}

// accept hands the link out: CONNACK leaves. While there are former owners its
// publishes wait. It reports false if the client has been answered before.
func (o *opening) accept() bool {
	if !o.p.n.lease.valid() {
		o.fail(session.ErrUndecided)
	}
	o.mu.Lock()
	if o.over || o.step != stepSettle {
		o.mu.Unlock()
		return false
	}
	l := o.l
	if len(o.others) > 0 { // before an answer can end the hold
		l.mu.Lock()
		l.blocked, l.held = true, true
		l.mu.Unlock()
	}
	o.over, o.accepted = true, true
	o.next(stepOver)
	a, confirmed := o.answer, o.confirmed
	o.mu.Unlock()
	o.timer.Stop()
	l.opening.Store(nil)
	if a.Bid && !confirmed {
		o.confirm(func() {})
	}
	o.done(l, session.Opened{Present: a.Present, Durable: a.Durable, SentHi: a.SentHi}, nil)
	return true
}

// confirm confirms the bid, and calls then when that is committed. Everything that
// the connection sends comes after it in this process's stream.
func (o *opening) confirm(then func()) {
	l := o.l
	o.mu.Lock()
	o.confirmed = true
	o.mu.Unlock()
	l.mu.Lock()
	l.unconfirmed = true
	l.mu.Unlock()
	o.p.sources[l.shard].enqueueControl(&command{
		keep: true,
		data: encodeCommand(&shoalpb.Command{Confirm: &shoalpb.Confirm{Client: l.client, Conn: l.conn}}),
		done: func(_ uint64, a *shoalpb.Answer, err error) {
			switch {
			case err != nil: // the process ends
			case a.GetCode() == shoalpb.Code_CODE_DONE:
				l.confirmed()
				then()
			case !o.superseded():
				l.disowned()
			}
		},
	})
}

// openings are those of one client that are under way in this process.
type openings struct {
	count  int
	latest *opening
	// over is the highest connection number that was asked to end before its Open
	// was answered here.
	over uint64
}

// begin notes that an opening is under way. An earlier one of the client is over:
// it must not come after this one.
func (p *process) begin(o *opening) {
	p.mu.Lock()
	all := p.openings[o.l.client]
	if all == nil {
		all = &openings{}
		p.openings[o.l.client] = all
	}
	all.count++
	earlier := all.latest
	all.latest = o
	p.mu.Unlock()
	if earlier != nil {
		earlier.superseded()
	}
}

// opened ends what begin began, and tells whether conn was asked to end
// meanwhile; conn 0 is an opening without success.
func (p *process) opened(client string, conn uint64) (over bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.openings[client]
	if all.count--; all.count == 0 {
		delete(p.openings, client)
	}
	return conn <= all.over
}

// heard notes an index of a group's log.
func (p *process) heard(group uint32, index uint64) {
	for {
		seen := p.seen[group].Load()
		if index <= seen || p.seen[group].CompareAndSwap(seen, index) {
			return
		}
	}
}

// index is the highest index of a group's log that this process knows to be
// committed.
func (p *process) index(group uint32) uint64 {
	seen := p.seen[group].Load()
	if g := p.n.group(group); g != nil {
		seen = max(seen, g.applied())
	}
	return seen
}
