package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/shoalmq/shoal/cluster/shard"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// A takeover asks first: opening.go tells how. What has to be asked for it travels
// in lists: to the processes of the connections that are to end (summons), and to
// the shards' leaders (questions).

// takeover makes a connection close and drain for the sake of another. One that
// this process does not know has nothing to drain (its Open was refused, or it was
// drained before), unless it is about to be opened: then it closes at once.
func (p *process) takeover(client string, conn uint64) {
	if l := p.find(client, conn); l != nil {
		if o := l.opening.Load(); o != nil && o.superseded() {
			return
		}
		l.disowned()
		return
	}
	p.mu.Lock()
	all := p.openings[client]
	if all != nil {
		all.over = max(all.over, conn)
	}
	p.mu.Unlock()
	if all == nil {
		p.control(p.n.shardOf(client), &shoalpb.Command{Drained: &shoalpb.Drained{Client: client, Conn: conn}}, nil, nil)
	}
}

// lost ends the connection with its process, or with the lease.
func (l *link) lost(err error) {
	if o := l.opening.Load(); o != nil && o.superseded() {
		return
	}
	if !l.isClosed() {
		l.sink.Lost(err)
	}
}

// refuse gives back the session of a client that has got no CONNACK. withdraw: as
// if it had never been opened.
func (l *link) refuse(withdraw bool) {
	l.mu.Lock()
	l.closed, l.drained = true, true
	l.mu.Unlock()
	l.p.control(l.shard, &shoalpb.Command{Close: &shoalpb.Close{
		Client: l.client, Conn: l.conn, Drained: true, DiscardWill: true, Refused: withdraw,
	}}, nil, nil)
	l.p.forget(l)
}

// confirmed is told that the connection's bid has been performed.
func (l *link) confirmed() {
	l.mu.Lock()
	l.unconfirmed = false
	fetch := l.fetching && !l.closed
	l.mu.Unlock()
	if !fetch {
		return
	}
	f := l.p.feed(l.shard)
	if f.attach(l); l.isClosed() { // and has detached, before
		f.detach(l)
	}
}

// told takes the answer to the question whether former owners hold l's publishes,
// those of a closed connection too. It reports whether that was the last.
func (l *link) told(a *shoalpb.AwaitAnswer, fence uint64) (last bool) {
	if !a.Owner {
		l.disowned()
	}
	switch {
	case a.Gone || l.hasDrained():
		return true
	case a.Done:
		l.p.n.metFence(fence)
		l.unhold()
		return true
	}
	l.p.summons.call(l.client, a.Former)
	return false
}

// summons asks processes to end connections: one call at a time to each, with all
// that have gathered meanwhile. Safe for concurrent use.
type summons struct {
	p  *process
	mu sync.Mutex
	of map[processID]*summoned
}

// summoned is what one process is asked.
type summoned struct {
	list     []*shoalpb.Connection
	queued   map[uint64]bool // connections in list
	calling  bool
	answered time.Time
}

func newSummons(p *process) *summons { return &summons{p: p, of: make(map[processID]*summoned)} }

// call asks for the end of connections of a client. Failures do not matter:
// whoever waits asks again.
func (s *summons) call(client string, others []*shoalpb.Owner) {
	for _, o := range others {
		id := processID{o.Node, o.Boot}
		switch {
		case o.Node == "": // it has ended
		case o.Node != s.p.n.config.NodeID:
			s.add(id, &shoalpb.Connection{Client: client, Conn: o.Conn})
		case o.Boot == s.p.boot:
			s.p.takeover(client, o.Conn)
		}
	}
}

func (s *summons) add(id processID, c *shoalpb.Connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.of[id]
	if x == nil {
		x = &summoned{queued: make(map[uint64]bool)}
		s.of[id] = x
	}
	if x.queued[c.Conn] {
		return
	}
	x.queued[c.Conn] = true
	x.list = append(x.list, c)
	if !x.calling {
		x.calling = s.p.tasks.run(func(ctx context.Context) { s.run(ctx, id, x) })
	}
}

func (s *summons) run(ctx context.Context, id processID, x *summoned) {
	for {
		s.mu.Lock()
		list := x.list[:min(len(x.list), takeoverPage)]
		x.list = x.list[len(list):]
		for _, c := range list {
			delete(x.queued, c.Conn)
		}
		if len(list) == 0 || ctx.Err() != nil {
			x.list, x.calling = nil, false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		next := time.Now().Add(takeoverAsk)
		if err := s.p.n.endConnections(ctx, id, list); err != nil {
			s.p.n.log.Debug("ask a process to end connections", "node", id.node, "connections", len(list), "err", err)
			pause(ctx, time.Until(next)) // it may be dead, and refuse at once
			continue
		}
		s.mu.Lock()
		x.answered = time.Now()
		s.mu.Unlock()
	}
}

// heard tells whether the processes of all others have answered since then: what
// is theirs is about to end.
func (s *summons) heard(others []*shoalpb.Owner, since time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range others {
		if o.Node == "" || o.Node == s.p.n.config.NodeID && o.Boot == s.p.boot {
			continue
		}
		if x := s.of[processID{o.Node, o.Boot}]; x == nil || x.answered.Before(since) {
			return false
		}
	}
	return true
}

// forget drops what is known of processes that are not asked any more.
func (s *summons) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, x := range s.of {
		if !x.calling && time.Since(x.answered) > openTimeout {
			delete(s.of, id)
		}
	}
}

// endConnections asks a process to close and drain connections.
func (n *Node) endConnections(parent context.Context, id processID, list []*shoalpb.Connection) error {
	if id.node == n.config.NodeID {
		n.closeFormer(id.boot, list)
		return nil
	}
	ctx, cancel := context.WithTimeout(parent, takeoverAsk)
	defer cancel()
	peer, err := n.peer(id.node)
	if err != nil {
		return err
	}
	ask := func(r *shoalpb.TakeoverRequest) (*shoalpb.TakeoverReply, error) {
		n.metrics.takeoverAsked.Inc()
		return peer.Takeover(ctx, r)
	}
	reply, err := ask(&shoalpb.TakeoverRequest{Client: list[0].Client, Conn: list[0].Conn, Boot: id.boot, List: list})
	if err != nil || reply.Listed {
		return err
	}
	for _, c := range list[1:] { // an older build
		if _, err := ask(&shoalpb.TakeoverRequest{Client: c.Client, Conn: c.Conn, Boot: id.boot}); err != nil {
			return err
		}
	}
	return nil
}

// closeFormer closes and drains connections of a process of this node.
func (n *Node) closeFormer(boot uint64, list []*shoalpb.Connection) {
	if p := n.proc.Load(); p != nil && p.boot == boot {
		for _, c := range list {
			p.takeover(c.Client, c.Conn)
		}
	}
}

// acceptTakeover is the peer's side of endConnections.
func (n *Node) acceptTakeover(r *shoalpb.TakeoverRequest) *shoalpb.TakeoverReply {
	list := r.List
	if len(list) == 0 { // of an older build
		list = []*shoalpb.Connection{{Client: r.Client, Conn: r.Conn}}
	}
	n.closeFormer(r.Boot, list)
	return &shoalpb.TakeoverReply{Listed: true}
}

// runFormer asks, once a second, the processes of former owners that were there a
// second ago already to end them: the connection that took over, whose process
// asks first, may be gone itself.
func (l *shardLead) runFormer(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	before := map[uint64]bool{}
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := map[uint64]bool{}
		late := map[processID][]*shoalpb.Connection{}
		l.g.read(func(m machine) {
			m.(*shardMachine).FormerOwners(func(client string, o *shoalpb.Owner) bool {
				now[o.Conn] = true
				if before[o.Conn] {
					id := processID{o.Node, o.Boot}
					late[id] = append(late[id], &shoalpb.Connection{Client: client, Conn: o.Conn})
				}
				return len(now) < takeoverPage
			})
		})
		before = now
		var wg sync.WaitGroup // a dead node must not hold up the others
		for id, list := range late {
			wg.Go(func() {
				if err := l.n.endConnections(ctx, id, list); err != nil {
					l.n.log.Debug("ask a process to end connections", "node", id.node, "connections", len(list), "err", err)
				}
			})
		}
		wg.Wait()
	}
}

// question is what somebody wants to hear from a shard's leader. told is called
// with each answer, without locks, and reports whether that was the last.
type question struct {
	*shoalpb.AwaitQuestion
	told func(a *shoalpb.AwaitAnswer, fence uint64) (last bool)
}

// questions are those of this process to one shard's leader. A call carries all
// that have gathered; the leader answers when the first of them is decided. The
// pace of calls that bring nothing is bounded, whatever the number of questions.
type questions struct {
	p     *process
	group uint32
	pace  *tempo

	mu   sync.Mutex
	list []*question
	wake signal
}

func newQuestions(p *process, group uint32) *questions {
	return &questions{p: p, group: group, pace: newTempo(awaitBurst, awaitEvery), wake: newSignal()}
}

func (q *questions) add(list ...*question) {
	if len(list) == 0 {
		return
	}
	q.mu.Lock()
	q.list = append(q.list, list...)
	q.mu.Unlock()
	q.wake.set()
}

func (q *questions) take() []*question {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.list
	q.list = nil
	if len(list) > takeoverPage {
		list, q.list = list[:takeoverPage:takeoverPage], list[takeoverPage:]
		q.wake.set()
	}
	return list
}

func (q *questions) run(ctx context.Context) {
	for {
		select {
		case <-q.wake:
		case <-ctx.Done():
			return
		}
		if !q.pace.wait(ctx) {
			return
		}
		list := q.take()
		if len(list) == 0 || !q.p.tasks.run(func(ctx context.Context) { q.ask(ctx, list) }) {
			q.pace.giveBack()
		}
	}
}

// ask makes one call. What it leaves open is asked again.
func (q *questions) ask(ctx context.Context, list []*question) {
	request := &shoalpb.AwaitRequest{Group: q.group}
	for _, x := range list {
		request.List = append(request.List, x.AwaitQuestion)
	}
	reply, err := q.p.n.await(ctx, request)
	switch {
	case err != nil:
		pause(ctx, retryDelay)
		q.add(list...)
		return
	case !reply.Listed:
		q.pace.giveBack()
		q.askSingly(ctx, list)
		return
	}
	open := q.tell(list, reply)
	if len(open) < len(list) {
		q.pace.giveBack()
	}
	q.add(open...)
}

// tell hands answers on and returns the questions that stay open.
func (q *questions) tell(list []*question, reply *shoalpb.AwaitReply) (open []*question) {
	for _, a := range reply.Answers {
		if int(a.Place) >= len(list) {
			continue
		}
		if x := list[a.Place]; x != nil && x.told(a, reply.Fence) {
			list[a.Place] = nil
		}
	}
	for _, x := range list {
		if x != nil {
			open = append(open, x)
		}
	}
	return open
}

// askSingly asks a leader of an older build, which knows no lists, nor bids.
func (q *questions) askSingly(ctx context.Context, list []*question) {
	var wg sync.WaitGroup
	for _, x := range list {
		wg.Go(func() {
			r, err := q.p.n.await(ctx, &shoalpb.AwaitRequest{Group: q.group, Client: x.Client, Conn: x.Conn})
			if err != nil {
				pause(ctx, retryDelay)
			}
			if err != nil || !x.told(&shoalpb.AwaitAnswer{Done: r.Done, Owner: r.Owner, Former: r.Former, Gone: !r.Owner}, r.Fence) {
				q.add(x)
			}
		})
	}
	wg.Wait()
}

// tempo bounds how often something is done: in bursts, and at a rate. Safe for
// concurrent use.
type tempo struct {
	burst float64
	every time.Duration

	mu   sync.Mutex
	left float64
	at   time.Time // left was so much then
}

func newTempo(burst int, every time.Duration) *tempo {
	return &tempo{burst: float64(burst), every: every, left: float64(burst)}
}

// wait waits until it may be done, and reports false if ctx ends first.
func (p *tempo) wait(ctx context.Context) bool {
	for ctx.Err() == nil {
		p.mu.Lock()
		now := time.Now()
		p.left = min(p.burst, p.left+float64(now.Sub(p.at))/float64(p.every))
		p.at = now
		if p.left >= 1 {
			p.left--
			p.mu.Unlock()
			return true
		}
		missing := time.Duration((1 - p.left) * float64(p.every))
		p.mu.Unlock()
		pause(ctx, missing)
	}
	return false
}

// giveBack takes back that it was done.
func (p *tempo) giveBack() {
	p.mu.Lock()
	p.left = min(p.burst, p.left+1)
	p.mu.Unlock()
}

// await asks a shard's leader.
func (n *Node) await(parent context.Context, req *shoalpb.AwaitRequest) (*shoalpb.AwaitReply, error) {
	ctx, cancel := context.WithTimeout(parent, 2*askTimeout) // one may be silent
	defer cancel()
	if l := n.leadOf(req.Group); l != nil {
		reply := l.await(ctx, req)
		if reply.NotLeader {
			return nil, errNotLeader
		}
		return reply, nil
	}
	return askLeader(ctx, n, req.Group, func(ctx context.Context, p shoalpb.PeerClient) (*shoalpb.AwaitReply, error) {
		n.metrics.takeoverAsked.Inc()
		return p.Await(ctx, req)
	})
}

// await answers when one of the questions is decided, or when some time has
// passed.
func (l *shardLead) await(ctx context.Context, req *shoalpb.AwaitRequest) *shoalpb.AwaitReply {
	list := req.List
	if len(list) == 0 { // of an older build
		list = []*shoalpb.AwaitQuestion{{Client: req.Client, Conn: req.Conn}}
	}
	for _, q := range list {
		if l.g.applied() < max(q.Index, shard.OpenIndex(q.Conn)) { // deposed without knowing
			return &shoalpb.AwaitReply{NotLeader: true}
		}
	}
	w := l.owners.wait(list)
	defer l.owners.leave(w)
	reply := l.answer(list, nil, false)
	t := time.NewTimer(takeoverAsk)
	defer t.Stop()
	for over := false; len(reply.Answers) == 0 && !over; {
		select {
		case <-w.wake:
			reply = l.answer(list, l.owners.changed(w), false)
		case <-t.C:
			reply, over = l.answer(list, nil, true), true
		case <-ctx.Done():
			over = true
		case <-l.tasks.ctx.Done():
			return &shoalpb.AwaitReply{NotLeader: true}
		}
	}
	if len(req.List) == 0 && len(reply.Answers) > 0 {
		a := reply.Answers[0]
		reply.Done, reply.Owner, reply.Former = a.Done, !a.Gone, a.Former
	}
	return reply
}

// answer looks at the questions at some places of the list, nil for all. Without
// open it answers those that are decided only.
func (l *shardLead) answer(list []*shoalpb.AwaitQuestion, places []int, open bool) *shoalpb.AwaitReply {
	r := &shoalpb.AwaitReply{Listed: true}
	l.g.read(func(m machine) {
		s := m.(*shardMachine)
		r.Fence = s.FenceNumber()
		look := func(place int) {
			q := list[place]
			others, owner, known := s.Others(q.Client, q.Conn)
			if done := len(others) == 0; done || !owner || open {
				r.Answers = append(r.Answers, &shoalpb.AwaitAnswer{
					Place: uint32(place), Done: done, Owner: owner, Gone: !known, Former: others,
				})
			}
		}
		if places == nil {
			for place := range list {
				look(place)
			}
		}
		for _, place := range places {
			look(place)
		}
	})
	return r
}

// owners are the calls that wait for a change of sessions' owners at a shard's
// leader. Safe for concurrent use.
type owners struct {
	mu sync.Mutex
	of map[string][]ownersPlace // by client
}

type ownersPlace struct {
	w     *ownersWait
	place int
}

// ownersWait is one call.
type ownersWait struct {
	list   []*shoalpb.AwaitQuestion
	places []int // that have changed
	wake   signal
}

func newOwners() *owners { return &owners{of: make(map[string][]ownersPlace)} }

func (o *owners) wait(list []*shoalpb.AwaitQuestion) *ownersWait {
	w := &ownersWait{list: list, wake: newSignal()}
	o.mu.Lock()
	defer o.mu.Unlock()
	for place, q := range list {
		o.of[q.Client] = append(o.of[q.Client], ownersPlace{w, place})
	}
	return w
}

func (o *owners) leave(w *ownersWait) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, q := range w.list {
		kept := o.of[q.Client][:0:0]
		for _, x := range o.of[q.Client] {
			if x.w != w {
				kept = append(kept, x)
			}
		}
		if len(kept) == 0 {
			delete(o.of, q.Client)
		} else {
			o.of[q.Client] = kept
		}
	}
}

// change wakes those who wait for a client.
func (o *owners) change(client string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, x := range o.of[client] {
		x.w.places = append(x.w.places, x.place)
		x.w.wake.set()
	}
}

// changed takes the places that have changed.
func (o *owners) changed(w *ownersWait) []int {
	o.mu.Lock()
	defer o.mu.Unlock()
	places := w.places
	w.places = nil
	if places == nil {
		places = []int{}
	}
	return places
}
