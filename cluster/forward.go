package cluster

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/cluster/sender"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// forwarder is the stream of this process to another: publishes for its
// transient subscribers. What is numbered is kept and sent again until the
// target has taken it or is fenced; then its subscribers are gone with it, and
// nothing is owed. QoS 0 is unnumbered, bounded and may be dropped.
type forwarder struct {
	p  *process
	to processID

	mu        sync.Mutex
	waiting   []forwarded
	volatiles volatiles
	over      bool
	wake      signal

	// Owned by run:
	next    uint64 // number of the next message
	flights []forwardRun
	sent    int
}

type forwarded struct {
	m     *shoalpb.Message
	picks []*shoalpb.Pick
	done  func(error)
}

type forwardRun struct {
	first    uint64
	messages []forwarded
	loose    int // QoS 0 messages sent beside them, unanswered
}

func newForwarder(p *process, to processID) *forwarder {
	return &forwarder{p: p, to: to, wake: newSignal(), next: 1}
}

// enqueue forwards m; done comes when the target has taken it or is fenced.
func (f *forwarder) enqueue(m *shoalpb.Message, picks []*shoalpb.Pick, done func(error)) {
	f.mu.Lock()
	if f.over {
		f.mu.Unlock()
		f.giveUp(forwarded{m, picks, done}, true)
		return
	}
	f.waiting = append(f.waiting, forwarded{m, picks, done})
	f.mu.Unlock()
	f.wake.set()
}

func (f *forwarder) volatile(m *shoalpb.Message, picks []*shoalpb.Pick) {
	f.mu.Lock()
	fits := !f.over && f.volatiles.add(m, picks)
	f.mu.Unlock()
	if !fits {
		f.p.n.metrics.dropped.WithLabelValues("forward_full").Inc()
		return
	}
	f.wake.set()
}

// end is what becomes of messages when the stream is over: done if the target
// is fenced, refused if this process is.
func (f *forwarder) end() error {
	if f.p.tasks.ctx.Err() != nil {
		return session.ErrNotOwner
	}
	return nil
}

func (f *forwarder) run(ctx context.Context) {
	defer f.finish()
	sender.Run(ctx, f, toProcess)
}

// Wait implements sender.Stream.
func (f *forwarder) Wait(ctx context.Context) bool { return ctx.Err() == nil && !f.p.n.isFenced(f.to) }

// Dial implements sender.Stream.
func (f *forwarder) Dial(ctx context.Context) (forwardPipe, error) {
	return f.p.n.dialForward(ctx, f.to)
}

// finish answers everything that waits.
func (f *forwarder) finish() {
	f.p.dropForward(f.to)
	f.mu.Lock()
	f.over = true
	waiting := f.waiting
	f.lose(len(f.volatiles.list))
	f.waiting, f.volatiles = nil, volatiles{}
	f.mu.Unlock()
	for _, r := range f.flights {
		f.lose(r.loose)
		for _, m := range r.messages {
			f.giveUp(m, false)
		}
	}
	for _, m := range waiting {
		f.giveUp(m, true)
	}
}

// giveUp ends a message that the target has not answered, and now will not. What
// was for members of Shared Subscriptions there goes to others; with QoS 2 only
// if it is unsent: a member may have it.
func (f *forwarder) giveUp(m forwarded, unsent bool) {
	err := f.end()
	if err != nil || len(m.picks) == 0 || m.m.Qos != 1 && !unsent {
		m.done(err)
		return
	}
	var left atomic.Int32
	left.Store(int32(len(m.picks)))
	for _, p := range m.picks {
		f.p.orphans.add(orphan{p.Share, m.m, func(e error) {
			if left.Add(-1) == 0 {
				m.done(e)
			}
		}})
	}
}

// Begin implements sender.Stream. QoS 0 is not sent again; some of it may have come.
func (f *forwarder) Begin() {
	for i := range f.flights {
		f.lose(f.flights[i].loose)
		f.flights[i].loose = 0
	}
	f.sent = 0
}

// Wake implements sender.Stream.
func (f *forwarder) Wake() <-chan struct{} { return f.wake }

// Take implements sender.Stream: the answer to the oldest request. Requests of
// QoS 0 alone have no messages and are answered too.
func (f *forwarder) Take(r *shoalpb.ForwardReply) error {
	if r.Refusal != shoalpb.Refusal_REFUSAL_NONE || f.sent == 0 {
		return errAgain
	}
	run := f.flights[0]
	f.flights = f.flights[1:]
	f.sent--
	for _, m := range run.messages {
		m.done(nil)
	}
	return nil
}

// Next implements sender.Stream: runs, up to batchesInFlight under way.
func (f *forwarder) Next() (*shoalpb.ForwardRequest, bool) {
	if f.sent == batchesInFlight {
		return nil, false
	}
	var loose []volatileMessage
	if f.sent == len(f.flights) {
		run, v := f.take()
		if len(run.messages) == 0 && len(v) == 0 {
			return nil, false
		}
		loose, run.loose = v, len(v)
		f.flights = append(f.flights, run)
	}
	run := f.flights[f.sent]
	f.sent++
	r := &shoalpb.ForwardRequest{
		Node: f.p.n.config.NodeID, Boot: f.p.boot, Target: f.to.node, TargetBoot: f.to.boot,
		First: run.first, Fence: f.p.n.knownFence(),
	}
	r.Volatiles, r.VolatilePicks = split(loose)
	for i, m := range run.messages {
		r.Messages = append(r.Messages, m.m)
		r.Picks = appendPicks(r.Picks, i, m.picks)
	}
	return r, true
}

// Owed implements sender.Stream.
func (f *forwarder) Owed() bool { return f.sent > 0 }

// Tick implements sender.Stream.
func (f *forwarder) Tick() {}

// Left implements sender.Stream.
func (f *forwarder) Left(error) time.Duration { return 0 }

func (f *forwarder) take() (forwardRun, []volatileMessage) {
	f.mu.Lock()
	defer f.mu.Unlock()
	size, n := 0, 0
	for n < len(f.waiting) && n < batchCommands && size < batchBytes {
		size += len(f.waiting[n].m.Payload) + len(f.waiting[n].m.Topic)
		n++
	}
	run := forwardRun{first: f.next, messages: f.waiting[:n:n]}
	f.waiting = f.waiting[n:]
	f.next += uint64(n)
	return run, f.volatiles.take()
}

// lose counts QoS 0 messages that were dropped on the way.
func (f *forwarder) lose(n int) {
	f.p.n.metrics.dropped.WithLabelValues("forward_lost").Add(float64(n))
}

// forwardPipe carries forwards to one node and its replies back.
type forwardPipe = sender.Pipe[*shoalpb.ForwardRequest, *shoalpb.ForwardReply]

// localForward is the pipe of a node to itself.
type localForward struct {
	n       *Node
	ctx     context.Context
	cancel  context.CancelFunc
	replies chan *shoalpb.ForwardReply
}

func (l *localForward) Send(r *shoalpb.ForwardRequest) error {
	select {
	case l.replies <- l.n.acceptForward(r):
		return nil
	case <-l.ctx.Done():
		return io.EOF
	}
}

func (l *localForward) Recv() (*shoalpb.ForwardReply, error) {
	select {
	case r := <-l.replies:
		return r, nil
	case <-l.ctx.Done():
		return nil, io.EOF
	}
}

func (l *localForward) Close() { l.cancel() }

// whileAlive derives a context that ends when a process is fenced.
func (n *Node) whileAlive(parent context.Context, to processID) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	go func() {
		defer cancel()
		for {
			fences := n.fences.next()
			if n.isFenced(to) {
				return
			}
			select {
			case <-fences:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, cancel
}

// dialForward opens a pipe to a process, which breaks when that is fenced.
func (n *Node) dialForward(parent context.Context, to processID) (forwardPipe, error) {
	ctx, cancel := n.whileAlive(parent, to)
	if to.node == n.config.NodeID {
		return &localForward{n: n, ctx: ctx, cancel: cancel, replies: make(chan *shoalpb.ForwardReply, batchesInFlight)}, nil
	}
	peer, err := n.peer(to.node)
	if err != nil {
		cancel()
		return nil, err
	}
	stream, err := peer.Forward(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	return &remotePipe[shoalpb.ForwardRequest, shoalpb.ForwardReply]{stream, cancel}, nil
}

// serveForward is the peer's side of a forward stream.
func (n *Node) serveForward(stream grpc.BidiStreamingServer[shoalpb.ForwardRequest, shoalpb.ForwardReply]) error {
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := stream.Send(n.acceptForward(r)); err != nil {
			return err
		}
	}
}

// inboxKey names a stream into this process.
type inboxKey struct {
	node  string
	boot  uint64
	group uint32
}

// inbox is the target's side of one stream of forwards.
type inbox struct {
	mu   sync.Mutex
	last uint64
}

// acceptForward takes a run of publishes for this node's transient subscribers,
// or refuses it: from a fenced source, for another boot, ahead of this node's
// fences, or after a gap.
func (n *Node) acceptForward(r *shoalpb.ForwardRequest) *shoalpb.ForwardReply {
	p := n.proc.Load()
	if p == nil || r.Target != n.config.NodeID || r.TargetBoot != p.boot {
		return &shoalpb.ForwardReply{Refusal: shoalpb.Refusal_REFUSAL_LIFE}
	}
	// From the check to the last delivery no fence passes: a fenced source's run
	// is not delivered after one that was sent because of the fence.
	n.passing.RLock()
	defer n.passing.RUnlock()
	if r.Node != "" && n.isFenced(processID{r.Node, r.Boot}) {
		return &shoalpb.ForwardReply{Refusal: shoalpb.Refusal_REFUSAL_FENCED}
	}
	if r.Fence > n.fenceNumber() {
		return &shoalpb.ForwardReply{Refusal: shoalpb.Refusal_REFUSAL_FENCE_AHEAD}
	}
	in := p.inbox(inboxKey{r.Node, r.Boot, r.Group})
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(r.Messages) > 0 && r.First > in.last+1 {
		return &shoalpb.ForwardReply{Refusal: shoalpb.Refusal_REFUSAL_GAP, Last: in.last}
	}
	picks, loose := picksOf(r.Picks), picksOf(r.VolatilePicks)
	for i, m := range r.Messages {
		if k := r.First + uint64(i); k > in.last {
			in.last = k
			n.deliver(m, picks.at(i))
		}
	}
	for i, m := range r.Volatiles {
		n.deliver(m, loose.at(i))
	}
	return &shoalpb.ForwardReply{Last: in.last}
}

func (p *process) inbox(k inboxKey) *inbox {
	p.mu.Lock()
	defer p.mu.Unlock()
	in := p.inboxes[k]
	if in == nil {
		in = &inbox{}
		p.inboxes[k] = in
	}
	return in
}
