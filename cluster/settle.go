package cluster

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalmq/shoal/cluster/shard"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// A retained publish takes two ways, to its register and to those who match, and
// either may be the faster one. A new subscription reads registers, so it has to wait
// for what was on its way:
//
//   - before it reads, so that a publish that was matched before the subscription was
//     visible is in the register;
//   - after it has read, so that a publish that is in the register and matched the
//     subscription has come live before the page is used.
//
// To settle is to wait for all that is under way at the moment: at every process,
// from before the match until everybody has answered, and then at every shard, whose
// outbox may carry it further. What a fenced process had under way is over: whoever
// has applied the fence takes no more of it.

// underway has the retained publishes of a process that are under way.
type underway struct {
	mu      sync.Mutex
	last    uint64
	open    map[uint64]uint32 // the register's shard, by number
	waiters map[*underwayWait]struct{}
}

type underwayWait struct {
	left map[uint64]struct{}
	done chan struct{}
}

// begin notes a publish, before it is matched. The caller calls end, once or more
// often, when everybody has answered it.
func (u *underway) begin(register uint32) (end func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last++
	n := u.last
	if u.open == nil {
		u.open = make(map[uint64]uint32)
	}
	u.open[n] = register
	return func() { u.end(n) }
}

func (u *underway) end(n uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.open, n)
	for w := range u.waiters {
		delete(w.left, n)
		if len(w.left) == 0 {
			delete(u.waiters, w)
			close(w.done)
		}
	}
}

// wait waits for the publishes that are under way now, to the registers of a shard, or
// of all if it is 0.
func (u *underway) wait(ctx context.Context, register uint32) error {
	w := &underwayWait{left: make(map[uint64]struct{}), done: make(chan struct{})}
	u.mu.Lock()
	for n, r := range u.open {
		if r == register || register == 0 {
			w.left[n] = struct{}{}
		}
	}
	if len(w.left) == 0 {
		u.mu.Unlock()
		return nil
	}
	if u.waiters == nil {
		u.waiters = make(map[*underwayWait]struct{})
	}
	u.waiters[w] = struct{}{}
	u.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		u.mu.Lock()
		delete(u.waiters, w)
		u.mu.Unlock()
		return ctx.Err()
	}
}

// settlings lets those who ask at about the same time settle together, by the shard of
// the registers.
type settlings struct {
	mu sync.Mutex
	by map[uint32]*together
}

func (s *settlings) of(register uint32) *together {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = make(map[uint32]*together)
	}
	if s.by[register] == nil {
		s.by[register] = &together{}
	}
	return s.by[register]
}

// settle waits until all retained publishes to the registers of a shard, or of all if it
// is 0, that are under way now are in their registers, and with all who matched.
func (n *Node) settle(ctx context.Context, register uint32) error {
	return n.settlings.of(register).do(ctx, n.tasks, func(ctx context.Context) error {
		return n.settleNow(ctx, register)
	})
}

func (n *Node) settleNow(parent context.Context, register uint32) error {
	ctx, cancel := context.WithTimeout(parent, awayTimeout)
	defer cancel()
	var processes []processID
	shards := 0
	n.readDirectory(func(d *directoryMachine) {
		shards = int(d.Shards())
		for _, x := range d.Nodes() {
			if x.Up {
				processes = append(processes, processID{x.Info.Node, x.Info.Boot})
			}
		}
	})
	err := inParallel(len(processes), func(i int) error { return n.settleProcess(ctx, processes[i], register) })
	if err != nil {
		return err
	}
	fence := n.fenceNumber()
	return inParallel(shards, func(i int) error { return n.settleShard(ctx, uint32(i+1), fence) })
}

// inParallel calls f with 0 to n-1 and returns the first error.
func inParallel(n int, f func(int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		if i == n-1 {
			errs[i] = f(i)
			break
		}
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// settleProcess asks a process until it has answered or is fenced. One with another
// boot is fenced as soon as the own copy of the directory knows.
func (n *Node) settleProcess(ctx context.Context, p processID, register uint32) error {
	req := &shoalpb.SettleRequest{Register: register, Node: p.node, Boot: p.boot}
	for !n.isFenced(p) {
		r, err := n.askSettle(ctx, p.node, req)
		if err == nil && !r.Other && !r.Pending {
			return nil
		}
		if pause(ctx, retryDelay); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func (n *Node) askSettle(parent context.Context, node string, req *shoalpb.SettleRequest) (*shoalpb.SettleReply, error) {
	if node == n.config.NodeID {
		return n.acceptSettle(parent, req), nil
	}
	peer, err := n.peer(node)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(parent, 2*settleAsk)
	defer cancel()
	return callSettle(ctx, peer, req)
}

// callSettle asks a peer. One of a version that does not know the question has
// promised nothing that could be waited for.
func callSettle(ctx context.Context, peer shoalpb.PeerClient, req *shoalpb.SettleRequest) (*shoalpb.SettleReply, error) {
	r, err := peer.Settle(ctx, req)
	if status.Code(err) == codes.Unimplemented {
		return &shoalpb.SettleReply{}, nil
	}
	return r, err
}

// settleShard asks whoever leads a shard until it has answered.
func (n *Node) settleShard(ctx context.Context, group uint32, fence uint64) error {
	req := &shoalpb.SettleRequest{Group: group, Fence: fence}
	for {
		r := &shoalpb.SettleReply{NotLeader: true}
		var err error
		if n.leadOf(group) != nil {
			r = n.acceptSettle(ctx, req)
		}
		if r.NotLeader {
			r, err = askLeader(ctx, n, group, func(ctx context.Context, p shoalpb.PeerClient) (*shoalpb.SettleReply, error) {
				return callSettle(ctx, p, req)
			})
		}
		if err == nil && !r.NotLeader && !r.Pending {
			return nil
		}
		if pause(ctx, retryDelay); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// acceptSettle answers what peers ask, and this node itself, within about settleAsk.
func (n *Node) acceptSettle(parent context.Context, r *shoalpb.SettleRequest) *shoalpb.SettleReply {
	ctx, cancel := context.WithTimeout(parent, settleAsk)
	defer cancel()
	if r.Group != 0 {
		l := n.leadOf(r.Group)
		if l == nil {
			return &shoalpb.SettleReply{NotLeader: true}
		}
		err := l.settle(ctx, r.Fence)
		return &shoalpb.SettleReply{NotLeader: errors.Is(err, errNotLeader), Pending: err != nil}
	}
	p := n.proc.Load()
	if p == nil || p.boot != r.Boot || n.config.NodeID != r.Node {
		return &shoalpb.SettleReply{Other: true}
	}
	return &shoalpb.SettleReply{Pending: p.underway.wait(ctx, r.Register) != nil}
}

// settle waits until what the shard has due, and then what its outbox has, of retained
// messages is with its targets. The leadership is confirmed first: a deposed leader
// knows less.
func (l *shardLead) settle(ctx context.Context, fence uint64) error {
	if l.confirms.do(ctx, l.tasks, l.confirm) != nil {
		return errNotLeader
	}
	var mark shard.Retaining
	steps := []func(m *shardMachine) bool{
		func(m *shardMachine) bool { mark = m.RetainedDue(); return m.FenceNumber() >= fence },
		func(m *shardMachine) (ok bool) { mark, ok = m.RetainedSent(mark); return ok },
		func(m *shardMachine) bool { return m.RetainedAnswered(mark) },
	}
	for _, step := range steps {
		for {
			ok := false
			l.g.read(func(m machine) { ok = step(m.(*shardMachine)) })
			if ok {
				break
			}
			if pause(ctx, settlePace); ctx.Err() != nil {
				return ctx.Err()
			}
			if l.tasks.ctx.Err() != nil {
				return errNotLeader
			}
		}
	}
	return nil
}

// confirm confirms the leadership, within confirmTimeout.
func (l *shardLead) confirm(parent context.Context) error {
	ctx, cancel := context.WithTimeout(parent, confirmTimeout)
	defer cancel()
	return l.g.confirm(ctx)
}

// together lets those who ask at about the same time share one answer to a question
// that begins after all of them have asked.
type together struct {
	mu      sync.Mutex
	next    *shared // not begun
	running bool
}

type shared struct {
	done chan struct{}
	err  error
}

// do calls f, in a goroutine of tasks, or shares a call that has not begun.
func (t *together) do(ctx context.Context, tasks *tasks, f func(context.Context) error) error {
	t.mu.Lock()
	if t.next == nil {
		t.next = &shared{done: make(chan struct{})}
	}
	mine := t.next
	if !t.running {
		t.running = tasks.run(func(ctx context.Context) { t.run(ctx, f) })
	}
	started := t.running
	t.mu.Unlock()
	if !started {
		return errNotLeader
	}
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run goes on as long as anyone waits.
func (t *together) run(ctx context.Context, f func(context.Context) error) {
	for {
		t.mu.Lock()
		now := t.next
		t.next = nil
		t.running = now != nil
		t.mu.Unlock()
		if now == nil {
			return
		}
		now.err = f(ctx)
		close(now.done)
	}
}

const (
	// replayPatience is how long SUBACK waits for the end of a replay.
	replayPatience = 2 * time.Second
	// settleAsk is how long a node takes for an answer: what it waits for may take until a
	// shard has a leader. Then it is asked again.
	settleAsk = time.Second
	// settlePace is how often a shard's leader looks again: an answer takes about as
	// long as a commit.
	settlePace = 2 * time.Millisecond
)
