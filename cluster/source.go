package cluster

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/cluster/sender"
	shoalpb "github.com/shoalmq/shoal/proto"
	"google.golang.org/protobuf/encoding/protowire"
)

// command is one command of this process on its way to a group.
type command struct {
	// data is an encoded Command. It may be shared by several sources.
	data []byte
	// encode, if set, gives data when a batch takes the command.
	encode func() []byte
	// owner is the link that the command was handed over by: awayTimeout ends it
	// while it has no number. Commands without an owner are never dropped.
	owner *link
	// n is its number, 0 until it is in a batch.
	n uint64
	// queued is when it was handed over, for awayTimeout.
	queued time.Time
	// keep: awayTimeout does not end it once it has a number; its answer has to
	// be acted on however late it comes.
	keep bool
	// late, if set, is called once when a kept command has a number for longer
	// than awayTimeout.
	late func()
	// done is called once without locks: with the answer (nil for done), or with
	// an error if the command was dropped or waited too long. After a timeout
	// the command may still be applied; done is not called again.
	done func(n uint64, a *shoalpb.Answer, err error)
}

func (c *command) finish(a *shoalpb.Answer, err error) {
	if done := c.done; done != nil {
		c.done = nil
		done(c.n, a, err)
	}
}

// source is the stream of this process to one group: it numbers commands when
// it builds a batch, keeps what is not answered, and sends it again to whoever
// leads. Control commands (sessions, acks) go before publishes; publishes are
// taken in turn from the links that have some.
type source struct {
	target uint32
	name   string
	log    *slog.Logger
	boot   uint64
	node   string
	fence  func() uint64                   // highest fence number known
	met    func(fence uint64)              // the target's fence number
	heard  func(index uint64)              // of the target's log
	leader office                          // of the group
	fenced func()                          // the boot is fenced
	full   func(targets []*shoalpb.Target) // outboxes that are full

	mu      sync.Mutex
	control []*command
	queues  []*commandQueue // links with waiting publishes, in turn
	waiting int
	closed  bool
	wake    signal
	// oldest is when the oldest unanswered batch was built, 0 for none.
	oldest atomic.Int64

	// Owned by run:
	next     uint64        // number of the next command
	answered uint64        // all numbers up to it are answered
	flights  []*batch      // numbered and unanswered, in order
	sent     int           // of flights, sent on the current pipe
	over     bool          // the boot is fenced
	trouble  string        // logged last
	retry    time.Duration // for how long trouble has the next pipe wait
}

// commandQueue is one link's waiting publishes to one group.
type commandQueue struct {
	list   []*command
	queued bool // in source.queues
	// dead: a publish was taken back, so nothing may come after it: the
	// publisher sends all of it again, in order, on its next connection.
	dead bool
}

type batch struct {
	first    uint64
	data     []byte
	commands []*command
	built    time.Duration
}

func (b *batch) last() uint64 { return b.first + uint64(len(b.commands)) - 1 }

// batchPipe carries encoded batches to one leader and their replies back.
type batchPipe = sender.Pipe[*shoalpb.AppendRequest, *shoalpb.AppendReply]

func newSource(target uint32) *source { return &source{target: target, wake: newSignal(), next: 1} }

// control queues a session command or an ack.
func (s *source) enqueueControl(c *command) {
	c.queued = time.Now()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		go c.finish(nil, session.ErrNotOwner) // the caller may hold a lock
		return
	}
	s.control = append(s.control, c)
	s.waiting++
	s.mu.Unlock()
	s.wake.set()
}

// enqueue queues a publish of the link that q belongs to.
func (s *source) enqueue(q *commandQueue, c *command) {
	c.queued = time.Now()
	s.mu.Lock()
	if s.closed || q.dead {
		s.mu.Unlock()
		go c.finish(nil, session.ErrNotOwner) // the caller may hold a lock
		return
	}
	q.list = append(q.list, c)
	if !q.queued {
		q.queued = true
		s.queues = append(s.queues, q)
	}
	s.waiting++
	s.mu.Unlock()
	s.wake.set()
}

// cancel takes a control command back if it has no number yet, which it reports.
func (s *source) cancel(c *command) bool {
	s.mu.Lock()
	i := slices.Index(s.control, c)
	if i >= 0 {
		s.control = slices.Delete(s.control, i, i+1)
		s.waiting--
	}
	s.mu.Unlock()
	if i < 0 {
		return false
	}
	c.finish(nil, session.ErrUnavailable)
	return true
}

// take removes up to a batch of commands: control first, then one publish of
// each link in turn.
func (s *source) take() []*command {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == 0 {
		return nil
	}
	out := make([]*command, 0, min(s.waiting, batchCommands))
	size := 0
	fits := func(c *command) bool {
		return len(out) == 0 || (len(out) < batchCommands && size+len(c.data) <= batchBytes)
	}
	for len(s.control) > 0 && fits(s.control[0]) {
		size += len(s.control[0].data)
		out = append(out, s.control[0])
		s.control[0] = nil
		s.control = s.control[1:]
	}
	for len(s.queues) > 0 {
		q := s.queues[0]
		if len(q.list) > 0 {
			c := q.list[0]
			if !fits(c) {
				break
			}
			size += len(c.data)
			out = append(out, c)
			q.list[0] = nil
			q.list = q.list[1:]
		}
		s.queues[0] = nil
		s.queues = s.queues[1:]
		if len(q.list) > 0 {
			s.queues = append(s.queues, q)
		} else {
			q.queued = false
		}
	}
	s.waiting -= len(out)
	return out
}

// build numbers commands and encodes their batch.
func (s *source) build(commands []*command) *batch {
	b := &batch{first: s.next, commands: commands, built: bootTime()}
	for _, c := range commands {
		if c.encode != nil {
			c.data = c.encode()
		}
	}
	head := shoalpb.Batch{
		Node: s.node, Boot: s.boot, TargetLife: 1, Target: s.target,
		First: b.first, Fence: s.fence(), Answered: s.answered,
	}
	b.data = appendBatch(&head, commands)
	for _, c := range commands {
		c.n = s.next
		s.next++
	}
	return b
}

// fieldBatchCommands is Batch.commands.
const fieldBatchCommands = 10

func appendBatch(head *shoalpb.Batch, commands []*command) []byte {
	size := head.SizeVT()
	for _, c := range commands {
		size += len(c.data) + 6
	}
	dst := make([]byte, head.SizeVT(), size)
	if _, err := head.MarshalToSizedBufferVT(dst); err != nil {
		panic("encode batch header: " + err.Error()) // cannot fail: no required fields
	}
	for _, c := range commands {
		dst = protowire.AppendTag(dst, fieldBatchCommands, protowire.BytesType)
		dst = protowire.AppendBytes(dst, c.data)
	}
	return dst
}

// run sends until ctx ends; then everything that waits fails.
func (s *source) run(ctx context.Context) {
	defer s.fail(session.ErrNotOwner)
	o := toGroup
	o.Tick = time.Second
	sender.Run(ctx, s, o)
}

// Wait implements sender.Stream. A fenced process waits for its end, which gives
// those who wait their answers.
func (s *source) Wait(ctx context.Context) bool {
	if s.over {
		<-ctx.Done()
	}
	return ctx.Err() == nil && (len(s.flights) > 0 || s.wait(ctx))
}

// Dial implements sender.Stream.
func (s *source) Dial(ctx context.Context) (batchPipe, error) { return dialGroup(ctx, &s.leader) }

// Begin implements sender.Stream: the target knows what it has of what is
// unanswered.
func (s *source) Begin() { s.sent = 0 }

// Wake implements sender.Stream.
func (s *source) Wake() <-chan struct{} { return s.wake }

// Owed implements sender.Stream.
func (s *source) Owed() bool { return s.sent > 0 }

// Tick implements sender.Stream.
func (s *source) Tick() { s.expire() }

// Left implements sender.Stream.
func (s *source) Left(err error) time.Duration {
	s.leader.left(err)
	s.expire()
	return s.retry
}

// wait blocks until a command waits.
func (s *source) wait(ctx context.Context) bool {
	for {
		s.mu.Lock()
		n := s.waiting
		s.mu.Unlock()
		if n > 0 {
			return true
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return false
		}
	}
}

// Next implements sender.Stream: batches, up to batchesInFlight under way.
func (s *source) Next() (*shoalpb.AppendRequest, bool) {
	if s.sent == batchesInFlight {
		return nil, false
	}
	if s.sent == len(s.flights) {
		commands := s.take()
		if len(commands) == 0 {
			return nil, false
		}
		s.flights = append(s.flights, s.build(commands))
		s.oldest.CompareAndSwap(0, int64(s.flights[0].built))
	}
	s.sent++
	return &shoalpb.AppendRequest{Group: s.target, Batch: s.flights[s.sent-1].data}, true
}

// Take implements sender.Stream: the answer to the oldest batch that was sent.
func (s *source) Take(r *shoalpb.AppendReply) error {
	a := r.Answer
	switch {
	case r.NotLeader:
		return &notLeading{r.Leader}
	case a == nil || s.sent == 0:
		s.log.Debug("batch not taken", "group", s.name, "why", r.Error)
		return errNotTaken
	}
	s.full(a.Full)
	s.met(a.Fence)
	s.heard(a.Index)
	switch a.Refusal {
	case shoalpb.Refusal_REFUSAL_NONE:
		s.trouble, s.retry = "", 0
		s.complete(a)
		return nil
	case shoalpb.Refusal_REFUSAL_FENCED:
		s.over = true
		s.fenced()
	case shoalpb.Refusal_REFUSAL_LIFE:
		s.complain("the group says that this batch is not for it, or for another life of it")
	case shoalpb.Refusal_REFUSAL_GAP:
		if a.Last+1 < s.flights[0].first {
			s.complain("the group has forgotten what it answered: an older state came back")
		}
	}
	return errAgain
}

var errNotTaken = errors.New("the batch may have been applied or not")

// complain logs trouble that does not pass by itself, once, and has the next try
// wait, longer each time.
func (s *source) complain(trouble string) {
	if trouble != s.trouble {
		s.trouble = trouble
		s.log.Warn("a group does not take what this node sends; trying again", "group", s.name, "why", trouble)
	}
	s.retry = min(max(2*s.retry, retryDelay), time.Second)
}

// complete answers the oldest batch.
func (s *source) complete(a *shoalpb.BatchAnswer) {
	b := s.flights[0]
	s.flights = s.flights[1:]
	s.sent--
	s.oldest.Store(0)
	if len(s.flights) > 0 {
		s.oldest.Store(int64(s.flights[0].built))
	}
	s.answered = b.last()
	more := a.Answers
	for _, c := range b.commands {
		var answer *shoalpb.Answer
		if len(more) > 0 && more[0].N == c.n {
			answer, more = more[0], more[1:]
		}
		c.finish(answer, nil)
	}
}

// expire fails commands that have waited longer than awayTimeout. Numbered
// ones stay in their batches: they may have been applied.
func (s *source) expire() {
	limit := time.Now().Add(-awayTimeout)
	for _, b := range s.flights {
		for _, c := range b.commands {
			if !c.queued.Before(limit) {
				continue
			}
			if late := c.late; late != nil {
				c.late = nil
				late()
			}
			if !c.keep {
				c.finish(nil, session.ErrUnavailable)
			}
		}
	}
	for _, c := range s.takeOld(limit) {
		c.finish(nil, session.ErrUnavailable)
	}
}

// takeOld removes unnumbered commands of links that were queued before limit.
// Commands without an owner wait for ever.
func (s *source) takeOld(limit time.Time) (old []*command) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.queues {
		if len(q.list) > 0 && q.list[0].queued.Before(limit) {
			// What has no owner has no publisher who would send what came before
			// it once more: its queue goes on.
			q.dead = q.list[0].owner != nil
			old = append(old, q.list...)
			q.list = nil
		}
	}
	kept := s.control[:0]
	for _, c := range s.control {
		if c.owner != nil && c.queued.Before(limit) {
			old = append(old, c)
		} else {
			kept = append(kept, c)
		}
	}
	s.control = kept
	s.waiting -= len(old)
	return old
}

// fail ends the source: everything that waits gets err.
func (s *source) fail(err error) {
	s.mu.Lock()
	s.closed = true
	waiting := s.control
	for _, q := range s.queues {
		waiting = append(waiting, q.list...)
		q.list, q.queued = nil, false
	}
	s.control, s.queues, s.waiting = nil, nil, 0
	s.mu.Unlock()
	for _, b := range s.flights {
		for _, c := range b.commands {
			c.finish(nil, err)
		}
	}
	s.flights = nil
	for _, c := range waiting {
		c.finish(nil, err)
	}
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
