package cluster

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

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
	// questions are those to each shard's leader; questions[0] is unused. seen is
	// the highest index that was heard of each group.
	questions []*questions
	seen      []atomic.Uint64
	summons   *summons
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
	p.seen = make([]atomic.Uint64, shards+1)
	p.summons = newSummons(p)
	p.routes = newOwnRoutes(p)
	p.orphans = newRedispatcher(p, shards)
	p.resumes = newResumer(p)
	for id := range uint32(shards + 1) {
		s := newSource(id)
		s.name, s.log, s.boot, s.node = groupName(id), n.log, boot, n.config.NodeID
		s.fence, s.met = n.knownFence, n.metFence
		s.leader = office{n: n, group: id}
		s.heard = func(index uint64) { p.heard(id, index) }
		s.fenced = p.fenced.set
		s.full = func(targets []*shoalpb.Target) { p.setFull(id, targets) }
		p.sources = append(p.sources, s)
		p.feeds = append(p.feeds, newFeedClient(p, id))
		p.admits = append(p.admits, newAdmission())
		p.questions = append(p.questions, newQuestions(p, id))
	}
	return p
}

func (p *process) start() {
	for id, s := range p.sources {
		p.tasks.run(s.run)
		if id > 0 {
			p.tasks.run(p.feeds[id].run)
			p.tasks.run(p.questions[id].run)
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
		l.lost(err)
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
		l.lost(err)
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
		p.summons.forget()
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
