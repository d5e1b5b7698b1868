package cluster

import (
	"context"
	"sync"

	"github.com/shoalmq/shoal/cluster/shard"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// outboxKey names a target of an outbox.
type outboxKey struct {
	group uint32
	node  string
	boot  uint64
}

func keyOf(t *shoalpb.Target) outboxKey { return outboxKey{t.Group, t.Node, t.Boot} }

// outboxSender empties a shard's outbox towards one target, while this node
// leads the shard. It keeps nothing it could lose: a later leader starts again
// from the oldest entry left, and the target knows what it has.
type outboxSender struct {
	l      *shardLead
	target *shoalpb.Target
	wake   signal

	// Owned by run:
	after uint64   // sent up to here on this pipe
	taken bool     // the target has taken a run of this pipe
	sent  []uint64 // last numbers of the batches under way

	mu       sync.Mutex
	answered uint64 // by the target
	refused  []*shoalpb.Answer
	removed  uint64 // proposed to be removed
	removing bool
}

// runOutbox starts a sender for every target that has entries.
func (l *shardLead) runOutbox(ctx context.Context) {
	for {
		select {
		case <-l.outboxGrew:
		case <-ctx.Done():
			return
		}
		var targets []*shoalpb.Target
		l.g.read(func(m machine) {
			m.(*shardMachine).OutboxTargets(func(t *shoalpb.Target) bool {
				targets = append(targets, t)
				return true
			})
		})
		for _, t := range targets {
			l.sender(t).wake.set()
		}
	}
}

func (l *shardLead) sender(t *shoalpb.Target) *outboxSender {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.senders[keyOf(t)]
	if s == nil {
		s = &outboxSender{l: l, target: t, wake: newSignal()}
		l.senders[keyOf(t)] = s
		l.tasks.run(s.run)
	}
	return s
}

// run sends until the lead ends, or the target is a process that is over.
func (s *outboxSender) run(ctx context.Context) {
	for ctx.Err() == nil {
		if s.over() {
			return
		}
		pipe, ok := s.dial(ctx)
		if !ok {
			pause(ctx, retryDelay)
			continue
		}
		s.serve(ctx, pipe)
		pipe.Close()
		pause(ctx, retryDelay)
	}
}

// over ends a sender whose target process is fenced: its outbox is gone.
func (s *outboxSender) over() bool {
	if s.target.Node == "" {
		return false
	}
	fenced := false
	s.l.n.readDirectory(func(d *directoryMachine) { fenced = d.MinBoot(s.target.Node) > s.target.Boot })
	if !fenced || s.l.behind() {
		return false
	}
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	delete(s.l.senders, keyOf(s.target))
	return true
}

// outboxPipe carries runs of entries to a target and its answers back, in
// order.
type outboxPipe interface {
	Send(first uint64, commands []*shoalpb.Command) error
	// Recv returns the answer to the next run.
	Recv() (outboxReply, error)
	Close()
}

type outboxReply struct {
	refusal shoalpb.Refusal
	// refused are entries that were not taken as they are.
	refused []*shoalpb.Answer
}

func (s *outboxSender) serve(parent context.Context, pipe outboxPipe) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	replies := make(chan outboxReply, batchesInFlight)
	go func() {
		defer cancel()
		for {
			r, err := pipe.Recv()
			if err != nil {
				return
			}
			select {
			case replies <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	s.after, s.sent, s.taken = 0, nil, false
	for {
		if s.fill(ctx, pipe) != nil {
			return
		}
		select {
		case r := <-replies:
			if r.refusal != shoalpb.Refusal_REFUSAL_NONE || len(s.sent) == 0 {
				return
			}
			s.done(s.sent[0], r.refused)
			s.sent, s.taken = s.sent[1:], true
		case <-s.wake:
		case <-ctx.Done():
			return
		}
	}
}

// fill sends runs until batchesInFlight are under way or nothing is left. The
// first run of a pipe goes alone until it is taken: a recovered target adopts
// whatever number it takes first (stream.In.Adopt), and must not take the second
// run when the first was refused, for a fence that it learns meanwhile.
func (s *outboxSender) fill(ctx context.Context, pipe outboxPipe) error {
	most := batchesInFlight
	if !s.taken {
		most = 1
	}
	for len(s.sent) < most {
		var first uint64
		var commands []*shoalpb.Command
		var missing []shard.Missing
		now := s.l.g.clock.now()
		s.l.g.read(func(m machine) {
			first, commands, missing = m.(*shardMachine).Outbox(s.target, s.after, outboxBatchBytes, now)
		})
		if len(commands) == 0 {
			return nil
		}
		if len(missing) > 0 {
			if commands = s.complete(commands, missing, now); len(commands) == 0 {
				pause(ctx, retryDelay)
				continue
			}
		}
		if err := pipe.Send(first, commands); err != nil {
			return err
		}
		s.after = first + uint64(len(commands)) - 1
		s.sent = append(s.sent, s.after)
	}
	return nil
}

// complete reads the messages that have left memory. An entry without one has
// been answered meanwhile: the run ends before it, and is read again.
func (s *outboxSender) complete(commands []*shoalpb.Command, missing []shard.Missing, now uint64) []*shoalpb.Command {
	numbers := make([]uint64, len(missing))
	for i, x := range missing {
		numbers[i] = x.Body
	}
	found := s.l.g.load(numbers)
	for _, x := range missing {
		m, ok := found[x.Body]
		if !ok {
			return commands[:x.Index]
		}
		left := shard.Remaining(m.Message, m.at, now)
		if c := commands[x.Index]; c.Retain != nil {
			c.Retain.Message = left
		} else {
			c.Append.Message = left
		}
	}
	return commands
}

// done removes what the target has answered: lazily, one proposal at a time.
func (s *outboxSender) done(last uint64, refused []*shoalpb.Answer) {
	s.mu.Lock()
	s.refused = append(s.refused, refused...)
	s.answered = max(s.answered, last)
	start := !s.removing
	s.removing = true
	s.mu.Unlock()
	if start {
		s.l.tasks.run(s.remove)
	}
}

func (s *outboxSender) remove(ctx context.Context) {
	for {
		s.mu.Lock()
		upTo, refused := s.answered, s.refused
		if upTo == s.removed || ctx.Err() != nil {
			s.removing = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		err := s.l.commit(ctx, &shoalpb.Proposal{OutboxAnswered: &shoalpb.OutboxAnswered{Target: s.target, UpTo: upTo, Refused: refused}})
		if err != nil {
			pause(ctx, retryDelay)
			continue
		}
		s.mu.Lock()
		s.removed, s.refused = upTo, s.refused[len(refused):]
		s.mu.Unlock()
	}
}

func (s *outboxSender) dial(ctx context.Context) (outboxPipe, bool) {
	n := s.l.n
	if s.target.Node == "" {
		p, ok := n.dialGroup(ctx, s.target.Group)
		return &groupOutbox{s: s, pipe: p}, ok
	}
	p, err := n.dialForward(ctx, processID{s.target.Node, s.target.Boot})
	if err != nil {
		return nil, false
	}
	return &nodeOutbox{s: s, pipe: p}, true
}

// groupOutbox sends runs to the leader of another group as batches.
type groupOutbox struct {
	s    *outboxSender
	pipe batchPipe
}

func (o *groupOutbox) Send(first uint64, commands []*shoalpb.Command) error {
	b := &shoalpb.Batch{
		Group: o.s.l.g.id, SourceLife: 1, TargetLife: 1, Target: o.s.target.Group,
		First: first, Fence: o.s.l.shardFence(), Commands: commands,
	}
	data, err := b.MarshalVT()
	if err != nil {
		return err
	}
	return o.pipe.Send(data)
}

func (o *groupOutbox) Recv() (outboxReply, error) {
	r, err := o.pipe.Recv()
	if err != nil {
		return outboxReply{}, err
	}
	if r.NotLeader || r.Error != "" || r.Answer == nil {
		return outboxReply{}, errNotLeader
	}
	return outboxReply{r.Answer.Refusal, r.Answer.Answers}, nil
}

func (o *groupOutbox) Close() { o.pipe.Close() }

// nodeOutbox sends runs to a process, for its transient subscribers.
type nodeOutbox struct {
	s    *outboxSender
	pipe forwardPipe
}

func (o *nodeOutbox) Send(first uint64, commands []*shoalpb.Command) error {
	r := &shoalpb.ForwardRequest{
		Group: o.s.l.g.id, SourceLife: 1, Target: o.s.target.Node, TargetBoot: o.s.target.Boot,
		First: first, Fence: o.s.l.shardFence(),
	}
	for i, c := range commands {
		r.Messages = append(r.Messages, c.GetAppend().GetMessage())
		r.Picks = appendPicks(r.Picks, i, c.GetAppend().GetPicks())
	}
	return o.pipe.Send(r)
}

func (o *nodeOutbox) Recv() (outboxReply, error) {
	r, err := o.pipe.Recv()
	if err != nil {
		return outboxReply{}, err
	}
	return outboxReply{refusal: r.Refusal}, nil
}

func (o *nodeOutbox) Close() { o.pipe.Close() }
