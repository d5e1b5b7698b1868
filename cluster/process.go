package cluster

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// process is one boot of this node: everything that is numbered or known to
// others by (node, boot). When the boot is fenced the process ends as a whole
// and another takes its place.
type process struct {
	n       *Node
	boot    uint64
	tasks   *tasks
	sources []*source     // by group
	feeds   []*feedClient // by group; feeds[0] is unused
	admits  []*admission  // by group; admits[0] is unused
	full    []atomic.Pointer[fullOutboxes]
	routes  *ownRoutes
	orphans *redispatcher
	// underway are retained publishes that not everybody has answered.
	underway underway
	resumes  *resumer
	// fenced tells that the boot is fenced, on the word of a committed entry.
	fenced signal

	mu       sync.Mutex
	over     bool
	links    map[string][]*link // open ones and those that have not drained
	openings map[string]*openings
	forwards map[processID]*forwarder
	inboxes  map[inboxKey]*inbox
}

// processID names a process of a node.
type processID struct {
	node string
	boot uint64
}

func newProcess(n *Node, boot uint64, shards int) *process {
	p := &process{
		n: n, boot: boot, tasks: newTasks(n.tasks.ctx),
		links: make(map[string][]*link), openings: make(map[string]*openings), forwards: make(map[processID]*forwarder),
		inboxes: make(map[inboxKey]*inbox), fenced: newSignal(),
	}
	p.full = make([]atomic.Pointer[fullOutboxes], shards+1)
	p.routes = newOwnRoutes(p)
	p.orphans = newRedispatcher(p, shards)
	p.resumes = newResumer(p)
	for id := range uint32(shards + 1) {
		s := newSource(id)
		s.name, s.log, s.boot, s.node = groupName(id), n.log, boot, n.config.NodeID
		s.fence, s.met = n.knownFence, n.metFence
		s.leader = office{n: n, group: id}
		s.fenced = p.fenced.set
		s.full = func(targets []*shoalpb.Target) { p.setFull(id, targets) }
		p.sources = append(p.sources, s)
		p.feeds = append(p.feeds, newFeedClient(p, id))
		p.admits = append(p.admits, newAdmission())
	}
	return p
}

func (p *process) start() {
	for id, s := range p.sources {
		p.tasks.run(s.run)
		if id > 0 {
			p.tasks.run(p.feeds[id].run)
		}
	}
	p.tasks.run(p.resumes.run)
	p.tasks.run(p.orphans.run)
	p.tasks.run(p.sweep)
}

// stop ends the process: its connections are told, what waits fails.
func (p *process) stop(err error) {
	p.mu.Lock()
	p.over = true
	var open []*link
	for _, ls := range p.links {
		open = append(open, ls...)
	}
	p.mu.Unlock()
	p.tasks.stop()
	for _, l := range open {
		if !l.isClosed() {
			l.sink.Lost(err)
		}
	}
	p.tasks.wait()
	p.waitClosed(open)
	for _, l := range open {
		l.abandon()
	}
}

// waitClosed waits until the connections have closed their links: until then
// they may still take back routes, which must not touch the next process.
func (p *process) waitClosed(open []*link) {
	ctx, cancel := context.WithTimeout(p.n.tasks.ctx, closeTimeout)
	defer cancel()
	for _, l := range open {
		for !l.isClosed() && ctx.Err() == nil {
			pause(ctx, retryDelay)
		}
	}
}

// loseClients closes all connections: the lease is gone for too long.
func (p *process) loseClients(err error) {
	p.mu.Lock()
	var open []*link
	for _, ls := range p.links {
		open = append(open, ls...)
	}
	p.mu.Unlock()
	for _, l := range open {
		if !l.isClosed() {
			l.sink.Lost(err)
		}
	}
}

// sweep asks again, once a second, for what notices may have lost.
func (p *process) sweep(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		p.forgetInboxes()
		limit := time.Now().Add(-time.Second)
		for _, l := range p.pendingLinks() {
			l.askAgain(limit)
			l.recordAgain(limit)
		}
	}
}

// forgetInboxes drops what is known of streams of fenced processes.
func (p *process) forgetInboxes() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n.readDirectory(func(d *directoryMachine) {
		for k := range p.inboxes {
			if k.node != "" && d.MinBoot(k.node) > k.boot {
				delete(p.inboxes, k)
			}
		}
	})
}

func (p *process) pendingLinks() (pending []*link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ls := range p.links {
		for _, l := range ls {
			l.mu.Lock()
			if len(l.pending) > 0 || l.registers.waits() {
				pending = append(pending, l)
			}
			l.mu.Unlock()
		}
	}
	return pending
}

// fullOutboxes are the targets for which a shard said that its outbox is full.
type fullOutboxes struct {
	targets []*shoalpb.Target
	until   time.Time
}

// setFull takes what the latest answer of a shard said.
func (p *process) setFull(group uint32, targets []*shoalpb.Target) {
	if len(targets) == 0 {
		if p.full[group].Load() != nil {
			p.full[group].Store(nil)
		}
		return
	}
	p.full[group].Store(&fullOutboxes{targets, time.Now().Add(fullTime)})
}

// isFull tells whether one of targets must not get more through group's outbox
// for now: publishers that need it wait, and with them their reading.
func (p *process) isFull(group uint32, targets []*shoalpb.Target) bool {
	f := p.full[group].Load()
	if f == nil || time.Now().After(f.until) {
		return false
	}
	for _, t := range targets {
		for _, x := range f.targets {
			if keyOf(t) == keyOf(x) {
				return true
			}
		}
	}
	return false
}

// control queues a session command. done may be nil.
func (p *process) control(group uint32, c *shoalpb.Command, owner *link, done func(uint64, *shoalpb.Answer, error)) {
	p.sources[group].enqueueControl(&command{data: encodeCommand(c), owner: owner, done: done})
}

func (p *process) feed(group uint32) *feedClient { return p.feeds[group] }

// forward is the stream to another process.
func (p *process) forward(node string, boot uint64) *forwarder {
	id := processID{node, boot}
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.forwards[id]
	if f == nil {
		f = newForwarder(p, id)
		p.forwards[id] = f
		p.tasks.run(f.run)
	}
	return f
}

func (p *process) dropForward(id processID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.forwards, id)
}

func (p *process) remember(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return false
	}
	p.links[l.client] = append(p.links[l.client], l)
	return true
}

func (p *process) forget(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ls := p.links[l.client]
	for i, other := range ls {
		if other == l {
			ls = append(ls[:i:i], ls[i+1:]...)
			break
		}
	}
	if len(ls) == 0 {
		delete(p.links, l.client)
	} else {
		p.links[l.client] = ls
	}
}

// find is the link of a connection, nil if there is none that has not drained.
func (p *process) find(client string, conn uint64) *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.links[client] {
		if l.conn == conn {
			return l
		}
	}
	return nil
}

func (p *process) lapsed(l *link) { p.resumes.lapsed(l) }

// openings are the Opens of one client that are under way in this process.
type openings struct {
	count int
	// over is the highest connection number that was asked to close before its
	// Open was answered here.
	over uint64
}

// opens notes that an Open of client is under way.
func (p *process) opens(client string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.openings[client]
	if o == nil {
		o = &openings{}
		p.openings[client] = o
	}
	o.count++
}

// opened ends what opens began, and tells whether conn was asked to close
// meanwhile; conn 0 is an Open without success.
func (p *process) opened(client string, conn uint64) (over bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.openings[client]
	if o.count--; o.count == 0 {
		delete(p.openings, client)
	}
	return conn <= o.over
}

// takeover makes a former connection close and drain. One that this process
// does not know has nothing to drain (its Open was given up, or it was drained
// before), unless it is about to be opened: then it closes at once.
func (p *process) takeover(client string, conn uint64) {
	if l := p.find(client, conn); l != nil {
		if !l.isClosed() {
			l.sink.Superseded()
		}
		return
	}
	p.mu.Lock()
	o := p.openings[client]
	if o != nil {
		o.over = max(o.over, conn)
	}
	p.mu.Unlock()
	if o == nil {
		p.control(p.n.shardOf(client), &shoalpb.Command{Drained: &shoalpb.Drained{Client: client, Conn: conn}}, nil, nil)
	}
}

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
	o := &opening{l: l, done: done}
	p.opens(l.client)
	o.command = &command{owner: l, keep: true, done: o.answered, data: encodeCommand(&shoalpb.Command{Open: &shoalpb.Open{
		Client: r.Client, CleanStart: r.CleanStart, ExpiryS: r.ExpirySeconds, Window: uint32(r.Window), Will: r.Will, Limits: r.Queue,
	}})}
	o.timer = time.AfterFunc(openTimeout, o.giveUp)
	p.sources[l.shard].enqueueControl(o.command)
}

// opening is an Open that is under way; it ends once, by its answer or by time.
type opening struct {
	l       *link
	command *command
	timer   *time.Timer
	done    func(session.Link, session.Opened, error)

	mu   sync.Mutex
	over bool
}

func (o *opening) end() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	first := !o.over
	o.over = true
	return first
}

// giveUp answers the client in time. An Open without a number is taken back: it
// must not come to the shard after the client's next one.
func (o *opening) giveUp() {
	if o.end() {
		o.done(nil, session.Opened{}, session.ErrUnavailable)
	}
	o.l.p.sources[o.l.shard].cancel(o.command)
}

func (o *opening) answered(_ uint64, a *shoalpb.Answer, err error) {
	o.timer.Stop()
	now := time.Now()
	o.l.p.admits[o.l.shard].leave(now.Sub(o.command.queued), now)
	opened := a.GetOpen()
	if err == nil {
		err = answerError(a)
	}
	if err == nil && opened == nil {
		err = session.ErrUnavailable
	}
	if err != nil {
		o.l.p.opened(o.l.client, 0)
		o.fail(err)
		return
	}
	l := o.l
	l.conn, l.durable = opened.Conn, opened.Durable
	known := l.p.remember(l)
	over := l.p.opened(l.client, l.conn)
	switch {
	case !known:
		o.fail(session.ErrUnavailable)
	case over:
		o.fail(session.ErrNotOwner)
		l.Close(session.CloseRequest{DiscardWill: true})
	case !l.p.n.lease.valid(): // the owner may be another by now
		o.fail(session.ErrUnavailable)
		l.Close(session.CloseRequest{DiscardWill: true})
	case !o.end(): // nobody waits for it any more
		l.Close(session.CloseRequest{DiscardWill: true})
	default:
		o.serve(opened)
	}
}

// fail ends the opening without a link.
func (o *opening) fail(err error) {
	if o.end() {
		o.done(nil, session.Opened{}, err)
	}
}

// serve hands the link out. While there are former owners its publishes wait.
func (o *opening) serve(opened *shoalpb.OpenAnswer) {
	l := o.l
	if len(opened.Former) > 0 {
		l.mu.Lock()
		l.blocked, l.held = true, true
		l.mu.Unlock()
		l.p.tasks.run(func(ctx context.Context) { l.p.n.takeover(ctx, l, opened.Former) })
	}
	o.done(l, session.Opened{Present: opened.Present, Durable: opened.Durable, SentHi: opened.SentHi}, nil)
}

// resumer wakes links whose publishes wait: for the end of a hold, or for the
// lease.
type resumer struct {
	p      *process
	mu     sync.Mutex
	ready  []*link
	parked []*link
	wake   signal
}

func newResumer(p *process) *resumer { return &resumer{p: p, wake: newSignal()} }

func (r *resumer) add(l *link) {
	r.mu.Lock()
	r.ready = append(r.ready, l)
	r.mu.Unlock()
	r.wake.set()
}

// lapsed parks l until the lease is valid again; while it is valid, what l
// needs is full, and it is tried again from time to time.
func (r *resumer) lapsed(l *link) {
	r.mu.Lock()
	r.parked = append(r.parked, l)
	r.mu.Unlock()
	if r.p.n.lease.valid() {
		time.AfterFunc(retryDelay, r.wake.set)
	}
}

// run resumes links; granted tells that the lease may be valid again.
func (r *resumer) run(ctx context.Context) {
	for {
		select {
		case <-r.wake:
		case <-r.p.n.lease.granted:
		case <-ctx.Done():
			return
		}
		r.mu.Lock()
		list := r.ready
		r.ready = nil
		if r.p.n.lease.valid() {
			list = append(list, r.parked...)
			r.parked = nil
		}
		r.mu.Unlock()
		for _, l := range list {
			l.resume()
		}
	}
}
