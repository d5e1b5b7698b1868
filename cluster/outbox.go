package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/shoalmq/shoal/cluster/sender"
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
	leader office   // of a target that is a group
	after  uint64   // sent up to here on this pipe
	taken  bool     // the target has taken a run of this pipe
	sent   []uint64 // last numbers of the batches under way

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
		s = newOutboxSender(l, t)
		l.senders[keyOf(t)] = s
		l.tasks.run(s.run)
	}
	return s
}

func newOutboxSender(l *shardLead, t *shoalpb.Target) *outboxSender {
	return &outboxSender{l: l, target: t, wake: newSignal(), leader: office{n: l.n, group: t.Group}}
}

// run sends until the lead ends, or the target is a process that is over.
func (s *outboxSender) run(ctx context.Context) {
	o := toGroup
	if s.target.Node != "" {
		o = toProcess
	}
	sender.Run(ctx, s, o)
}

// Wait implements sender.Stream.
func (s *outboxSender) Wait(ctx context.Context) bool {
	for ctx.Err() == nil {
		fences := s.l.n.fences.next()
		if s.over() {
			return false
		}
		if s.some() {
			return true
		}
		select {
		case <-s.wake:
		case <-fences:
		case <-ctx.Done():
		}
	}
	return false
}

// over ends a sender whose target process is fenced: its outbox is gone.
func (s *outboxSender) over() bool {
	if s.target.Node == "" || !s.l.n.isFenced(processID{s.target.Node, s.target.Boot}) || s.l.behind() {
		return false
	}
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	delete(s.l.senders, keyOf(s.target))
	return true
}

// some tells whether entries are left.
func (s *outboxSender) some() bool {
	_, commands, _ := s.read(0, 1)
	return len(commands) > 0
}

// read takes a run of entries behind number after.
func (s *outboxSender) read(after uint64, bytes int) (first uint64, commands []*shoalpb.Command, missing []shard.Missing) {
	now := s.l.g.clock.now()
	s.l.g.read(func(m machine) {
		first, commands, missing = m.(*shardMachine).Outbox(s.target, after, bytes, now)
	})
	return first, commands, missing
}

// outboxRun are entries with consecutive numbers.
type outboxRun struct {
	first    uint64
	commands []*shoalpb.Command
}

type outboxReply struct {
	refusal shoalpb.Refusal
	// refused are entries that were not taken as they are.
	refused []*shoalpb.Answer
}

// outboxPipe carries runs to a target and its answers back.
type outboxPipe = sender.Pipe[outboxRun, outboxReply]

// Dial implements sender.Stream.
func (s *outboxSender) Dial(ctx context.Context) (outboxPipe, error) {
	if s.target.Node == "" {
		p, err := dialGroup(ctx, &s.leader)
		return &groupOutbox{s: s, pipe: p}, err
	}
	p, err := s.l.n.dialForward(ctx, processID{s.target.Node, s.target.Boot})
	return &nodeOutbox{s: s, pipe: p}, err
}

// Begin implements sender.Stream.
func (s *outboxSender) Begin() { s.after, s.sent, s.taken = 0, nil, false }

// Wake implements sender.Stream.
func (s *outboxSender) Wake() <-chan struct{} { return s.wake }

// Next implements sender.Stream: runs, up to batchesInFlight under way. The first
// run of a pipe goes alone until it is taken: a recovered target adopts whatever
// number it takes first (stream.In.Adopt), and must not take the second run when
// the first was refused, for a fence that it learns meanwhile.
func (s *outboxSender) Next() (run outboxRun, some bool) {
	if len(s.sent) == batchesInFlight || len(s.sent) > 0 && !s.taken {
		return run, false
	}
	first, commands, missing := s.read(s.after, outboxBatchBytes)
	if len(missing) > 0 {
		if commands = s.complete(commands, missing); len(commands) == 0 {
			time.AfterFunc(retryDelay, s.wake.set)
		}
	}
	if len(commands) == 0 {
		return run, false
	}
	s.after = first + uint64(len(commands)) - 1
	s.sent = append(s.sent, s.after)
	return outboxRun{first, commands}, true
}

// Take implements sender.Stream.
func (s *outboxSender) Take(r outboxReply) error {
	if r.refusal != shoalpb.Refusal_REFUSAL_NONE || len(s.sent) == 0 {
		return errAgain
	}
	s.done(s.sent[0], r.refused)
	s.sent, s.taken = s.sent[1:], true
	return nil
}

// Owed implements sender.Stream.
func (s *outboxSender) Owed() bool { return len(s.sent) > 0 }

// Tick implements sender.Stream.
func (s *outboxSender) Tick() {}

// Left implements sender.Stream.
func (s *outboxSender) Left(err error) time.Duration {
	s.leader.left(err)
	return 0
}

// complete reads the messages that have left memory. An entry without one has
// been answered meanwhile: the run ends before it, and is read again.
func (s *outboxSender) complete(commands []*shoalpb.Command, missing []shard.Missing) []*shoalpb.Command {
	now := s.l.g.clock.now()
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

// groupOutbox sends runs to the leader of another group as batches.
type groupOutbox struct {
	s    *outboxSender
	pipe batchPipe
}

func (o *groupOutbox) Send(run outboxRun) error {
	b := &shoalpb.Batch{
		Group: o.s.l.g.id, SourceLife: 1, TargetLife: 1, Target: o.s.target.Group,
		First: run.first, Fence: o.s.l.shardFence(), Commands: run.commands,
	}
	data, err := b.MarshalVT()
	if err != nil {
		panic("encode batch: " + err.Error()) // cannot fail: no required fields
	}
	return o.pipe.Send(&shoalpb.AppendRequest{Group: o.s.target.Group, Batch: data})
}

func (o *groupOutbox) Recv() (outboxReply, error) {
	r, err := o.pipe.Recv()
	if err != nil {
		return outboxReply{}, err
	}
	switch {
	case r.NotLeader:
		return outboxReply{}, &notLeading{r.Leader}
	case r.Error != "" || r.Answer == nil:
		return outboxReply{}, errNotTaken
	}
	return outboxReply{r.Answer.Refusal, r.Answer.Answers}, nil
}

func (o *groupOutbox) Close() { o.pipe.Close() }

// nodeOutbox sends runs to a process, for its transient subscribers.
type nodeOutbox struct {
	s    *outboxSender
	pipe forwardPipe
}

func (o *nodeOutbox) Send(run outboxRun) error {
	r := &shoalpb.ForwardRequest{
		Group: o.s.l.g.id, SourceLife: 1, Target: o.s.target.Node, TargetBoot: o.s.target.Boot,
		First: run.first, Fence: o.s.l.shardFence(),
	}
	for i, c := range run.commands {
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
