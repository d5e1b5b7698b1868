// Package sender has the one loop that all streams between nodes share: it dials
// whoever the target is now, sends, takes the answers in order, and leaves a
// target that owes word and keeps silent (design §3a: nobody waits for a silent
// leader). What a stream sends, keeps and sends again is the stream's own.
package sender

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Pipe carries requests to one target, and its replies back in order. Send is
// called by one goroutine and Recv by another; both end with the context that the
// pipe was dialled with. After a Send has failed, Recv returns the replies that
// came before, and then fails too. Close follows when both have returned.
type Pipe[Req, Rep any] interface {
	Send(Req) error
	Recv() (Rep, error)
	Close()
}

// Stream is what a loop works for. Only the loop's goroutine calls its methods.
type Stream[Req, Rep any] interface {
	// Wait blocks until there is something to send or to hear; false ends the
	// loop. It returns false soon after ctx has ended.
	Wait(ctx context.Context) bool
	// Dial opens a pipe to whoever is the target now. The pipe ends with ctx.
	Dial(ctx context.Context) (Pipe[Req, Rep], error)
	// Begin tells that a pipe is open. Nothing has been sent on it: what is
	// unanswered goes first.
	Begin()
	// Next is the next request; false if there is none before the next wake, reply
	// or tick.
	Next() (req Req, some bool)
	// Wake receives when Next may have another answer than before.
	Wake() <-chan struct{}
	// Take takes a reply. An error leaves this pipe, and is given to Left.
	Take(Rep) error
	// Owed tells whether the target owes word: an answer, or a sign that it is there.
	Owed() bool
	// Tick is called every Options.Tick while a pipe is open.
	Tick()
	// Left tells why there is no pipe any more, or why none could be opened. The
	// next is dialled after wait, or later.
	Left(err error) (wait time.Duration)
}

// Options are what loops differ in.
type Options struct {
	// Silence is how long a target may owe word before it is left. 0: for ever,
	// for streams to a process, which nobody else can take the place of: its fence
	// ends them.
	Silence time.Duration
	// Retry is the pause before a pipe is dialled again. It doubles up to RetryMax
	// while no target takes anything.
	Retry, RetryMax time.Duration
	// Tick is how often Stream.Tick is called; 0 is never.
	Tick time.Duration
}

// ErrSilent is why a target is left that owed word for longer than
// Options.Silence.
var ErrSilent = errors.New("the target owes an answer and keeps silent")

// Run serves s until its Wait says that it is over, which it does when ctx ends.
func Run[Req, Rep any](ctx context.Context, s Stream[Req, Rep], o Options) {
	retry := o.Retry
	for s.Wait(ctx) {
		served, err := once(ctx, s, o)
		if served {
			retry = o.Retry
		}
		pause(ctx, max(s.Left(err), retry))
		retry = min(2*retry, max(o.RetryMax, o.Retry))
	}
}

// once dials one target and serves it until it is left. It reports whether a reply
// of the target was one to go on with.
func once[Req, Rep any](parent context.Context, s Stream[Req, Rep], o Options) (served bool, err error) {
	ctx, leave := context.WithCancelCause(parent)
	defer leave(nil)
	x := &exchange[Req, Rep]{s: s, leave: leave, silence: o.Silence}
	x.expect() // a word from the dialling: it opens connections
	pipe, err := s.Dial(ctx)
	if err == nil {
		err = x.serve(ctx, pipe, o)
		pipe.Close()
	}
	x.relax()
	if cause := context.Cause(ctx); errors.Is(cause, ErrSilent) {
		err = cause
	}
	return x.served, err
}

// exchange is what happens on one pipe.
type exchange[Req, Rep any] struct {
	s       Stream[Req, Rep]
	leave   context.CancelCauseFunc
	silence time.Duration
	// timer leaves the pipe; nil if it has never been set.
	timer *time.Timer
	// waits: the timer runs.
	waits  bool
	served bool
}

// expect begins to wait for word, if the loop does not wait for it yet. The timer
// is not the loop's own, which may be held up in a Send: a frozen target takes no
// bytes.
func (x *exchange[Req, Rep]) expect() {
	switch {
	case x.silence == 0 || x.waits:
	case x.timer == nil:
		x.timer = time.AfterFunc(x.silence, func() { x.leave(ErrSilent) })
		x.waits = true
	default:
		x.timer.Reset(x.silence)
		x.waits = true
	}
}

// relax ends the wait for word.
func (x *exchange[Req, Rep]) relax() {
	if x.waits {
		x.timer.Stop()
		x.waits = false
	}
}

// settle waits for word or not, as the stream says; heard begins a new wait.
func (x *exchange[Req, Rep]) settle(heard bool) {
	switch {
	case !x.s.Owed():
		x.relax()
	case heard && x.waits:
		x.timer.Reset(x.silence)
	default:
		x.expect()
	}
}

// serve sends and takes replies until the pipe ends. Replies that came before the
// end are taken, unless one of them was the reason to leave.
func (x *exchange[Req, Rep]) serve(ctx context.Context, pipe Pipe[Req, Rep], o Options) error {
	replies := make(chan Rep, 2)
	var broken error // receive's until it closes replies
	go func() {
		defer close(replies)
		broken = receive(pipe, replies)
	}()
	x.s.Begin()
	x.relax()
	x.settle(false)
	err := x.converse(pipe, replies, o.Tick)
	x.leave(err)
	for r := range replies {
		if err == nil {
			err = x.s.Take(r)
		}
	}
	if err == nil {
		err = broken
	}
	return err
}

func receive[Req, Rep any](pipe Pipe[Req, Rep], replies chan<- Rep) error {
	for {
		r, err := pipe.Recv()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		replies <- r
	}
}

// converse returns the reason to leave that a reply gave; nil if the pipe is
// broken.
func (x *exchange[Req, Rep]) converse(pipe Pipe[Req, Rep], replies <-chan Rep, every time.Duration) error {
	var tick <-chan time.Time
	if every > 0 {
		t := time.NewTicker(every)
		defer t.Stop()
		tick = t.C
	}
	sendable := true
	for {
		if sendable {
			sendable = x.sendAll(pipe)
		}
		select {
		case r, ok := <-replies:
			if !ok {
				return nil
			}
			if err := x.s.Take(r); err != nil {
				return err
			}
			x.served = true
			x.settle(true)
		case <-x.s.Wake():
		case <-tick:
			x.s.Tick()
		}
	}
}

// sendAll sends what there is to send. After a failure nothing more can be sent on
// this pipe, whose last replies are still to come.
func (x *exchange[Req, Rep]) sendAll(pipe Pipe[Req, Rep]) (sendable bool) {
	for {
		req, some := x.s.Next()
		if !some {
			return true
		}
		x.expect()
		if pipe.Send(req) != nil {
			return false
		}
		x.settle(false)
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
