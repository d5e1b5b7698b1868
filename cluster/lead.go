package cluster

import (
	"context"
	"sync"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// shardLead is what this node does while it leads a shard, besides committing.
type shardLead struct {
	n     *Node
	g     *group
	term  uint64
	tasks *tasks

	mu    sync.Mutex
	seats map[*feedSeat]struct{}
	// held are QoS 0 deliveries that no seat has asked for yet; over: the lead
	// has ended.
	held      []heldVolatile
	heldBytes int
	over      bool
	senders   map[outboxKey]*outboxSender
	// joining counts, by client, the Lives that are proposed and not applied.
	joining map[string]int

	owners     *owners
	outboxGrew signal
	fenceGrew  signal
	// dueGrew wakes the dispatcher, deadlineMoved the clock.
	dueGrew, deadlineMoved signal
	// stranded wakes runRelieve.
	stranded signal
	// replayMoved wakes the replays of retained messages.
	replayMoved signal
	confirms    together
}

// broadcast wakes all that wait at the time.
type broadcast struct {
	mu sync.Mutex
	c  chan struct{}
}

func newBroadcast() *broadcast { return &broadcast{c: make(chan struct{})} }

func (b *broadcast) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.c
}

func (b *broadcast) broadcast() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.c)
	b.c = make(chan struct{})
}

func newShardLead(ctx context.Context, n *Node, g *group, term uint64) *shardLead {
	return &shardLead{
		n: n, g: g, term: term, tasks: newTasks(ctx),
		seats: make(map[*feedSeat]struct{}), senders: make(map[outboxKey]*outboxSender), joining: make(map[string]int),
		owners: newOwners(), outboxGrew: newSignal(), fenceGrew: newSignal(),
		dueGrew: newSignal(), stranded: newSignal(), deadlineMoved: newSignal(), replayMoved: newSignal(),
	}
}

func (l *shardLead) start() {
	l.tasks.run(l.runFences)
	l.tasks.run(l.runOutbox)
	l.tasks.run(l.runClock)
	l.tasks.run(l.runDispatch)
	l.tasks.run(l.runRelieve)
	l.tasks.run(l.runFormer)
	l.tasks.run(l.runReplays)
	l.outboxGrew.set()
	l.dueGrew.set()
	l.replayMoved.set()
	l.fenceGrew.set()
}

// runFences proposes the fences that the own directory copy has and the shard
// lacks: on election, and whenever the copy gets one.
func (l *shardLead) runFences(ctx context.Context) {
	for {
		select {
		case <-l.fenceGrew:
		case <-ctx.Done():
			return
		}
		for l.behind() && ctx.Err() == nil {
			if err := l.proposeFence(ctx); err != nil {
				pause(ctx, retryDelay)
			}
		}
	}
}

func (l *shardLead) shardFence() (number uint64) {
	l.g.read(func(m machine) { number = m.(*shardMachine).FenceNumber() })
	return number
}

func (l *shardLead) behind() bool { return l.shardFence() < l.n.fenceNumber() }

func (l *shardLead) proposeFence(ctx context.Context) error {
	fence := &shoalpb.Fence{}
	have := l.shardFence()
	l.n.readDirectory(func(d *directoryMachine) {
		fence.Number, fence.Nodes = d.FenceNumber(), d.FencesSince(have)
	})
	return l.commit(ctx, &shoalpb.Proposal{Fence: fence})
}

// commit proposes p and waits for the outcome.
func (l *shardLead) commit(ctx context.Context, p *shoalpb.Proposal) error {
	done := make(chan error, 1)
	if !l.g.propose(ctx, &proposal{data: encodeProposal(p), done: func(_ result, err error) { done <- err }}) {
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
