package sender

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// options of the tests: a target may keep silent for 3 s, dialling is tried again
// after 20 ms and up to 80 ms.
var options = Options{Silence: 3 * time.Second, Retry: 20 * time.Millisecond, RetryMax: 80 * time.Millisecond}

// target is a pipe whose other end the test is.
type target struct {
	ctx      context.Context
	requests chan int // what was sent; nobody reads: Send is held up
	replies  chan string
	dead     chan struct{} // the connection is broken
	closed   bool
}

func (t *target) Send(r int) error {
	select {
	case t.requests <- r:
		return nil
	case <-t.dead:
	case <-t.ctx.Done():
	}
	return io.EOF
}

func (t *target) Recv() (string, error) {
	select {
	case r := <-t.replies:
		return r, nil
	default:
	}
	select {
	case r := <-t.replies:
		return r, nil
	case <-t.dead:
		return "", io.ErrUnexpectedEOF
	case <-t.ctx.Done():
		return "", t.ctx.Err()
	}
}

func (t *target) Close() { t.closed = true }

// script is a stream that the test decides about; its fields are the loop's until
// it has ended.
type script struct {
	wake    chan struct{}
	dialled chan *target
	refuse  atomic.Bool // dialling fails
	always  bool        // owes word even if nothing was sent
	queue   chan int

	owed  int
	begun int
	taken []string
	why   []error
	left  []time.Duration // since start
	start time.Time
	ticks int
	wait  time.Duration
}

func newScript() *script {
	return &script{wake: make(chan struct{}, 1), dialled: make(chan *target, 16), queue: make(chan int, 16), start: time.Now()}
}

func (s *script) Wait(ctx context.Context) bool { return ctx.Err() == nil }

func (s *script) Dial(ctx context.Context) (Pipe[int, string], error) {
	if s.refuse.Load() {
		return nil, errRefused
	}
	t := &target{ctx: ctx, requests: make(chan int), replies: make(chan string, 16), dead: make(chan struct{})}
	s.dialled <- t
	return t, nil
}

func (s *script) Begin() { s.begun++; s.owed = 0 }

func (s *script) Next() (int, bool) {
	select {
	case n := <-s.queue:
		s.owed++
		return n, true
	default:
		return 0, false
	}
}

func (s *script) Wake() <-chan struct{} { return s.wake }

var errRefused = errors.New("refused")

func (s *script) Take(r string) error {
	s.taken = append(s.taken, r)
	if s.owed > 0 {
		s.owed--
	}
	if r == "no" {
		return errRefused
	}
	return nil
}

func (s *script) Owed() bool { return s.always || s.owed > 0 }

func (s *script) Tick() { s.ticks++ }

func (s *script) Left(err error) time.Duration {
	s.why = append(s.why, err)
	s.left = append(s.left, time.Since(s.start))
	return s.wait
}

func (s *script) send(n int) {
	s.queue <- n
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run runs a loop for the time that f takes.
func run(t *testing.T, s *script, o Options, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		Run(ctx, s, o)
	}()
	f()
	synctest.Wait()
	cancel()
	<-over
}

func TestSilentTargetIsLeft(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(s *script, x *target)
		// left is when the target is left; 0 for not within a minute.
		left time.Duration
	}{
		{"nothing is owed", func(*script, *target) {}, 0},
		{"an answer is owed", func(s *script, x *target) { s.send(1); <-x.requests }, 3 * time.Second},
		{"it takes no bytes", func(s *script, x *target) { s.send(1) }, 3 * time.Second},
		{"one of two answers comes", func(s *script, x *target) {
			s.send(1)
			<-x.requests
			time.Sleep(time.Second)
			s.send(2)
			<-x.requests
			time.Sleep(time.Second)
			x.replies <- "yes"
		}, 5 * time.Second},
		{"all answers come", func(s *script, x *target) {
			s.send(1)
			<-x.requests
			time.Sleep(2 * time.Second)
			x.replies <- "yes"
		}, 0},
		{"each answer comes late", func(s *script, x *target) {
			for range 20 {
				s.send(1)
				<-x.requests
				time.Sleep(2900 * time.Millisecond)
				x.replies <- "yes"
			}
		}, 0},
		{"signs come", func(s *script, x *target) {
			s.always = true
			s.send(1)
			<-x.requests
			for range 59 {
				time.Sleep(time.Second)
				x.replies <- "here"
			}
		}, 0},
		{"signs cease", func(s *script, x *target) {
			s.always = true
			s.send(1)
			<-x.requests
			for range 9 {
				time.Sleep(time.Second)
				x.replies <- "here"
			}
		}, 12 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript()
				run(t, s, options, func() {
					x := <-s.dialled
					synctest.Wait()
					test.do(s, x)
					time.Sleep(time.Minute - time.Since(s.start) - time.Second)
				})
				switch {
				case test.left == 0:
					if len(s.why) != 1 || errors.Is(s.why[0], ErrSilent) {
						t.Errorf("left at %v: %v", s.left, s.why)
					}
				case !errors.Is(s.why[0], ErrSilent) || s.left[0] != test.left:
					t.Errorf("left at %v: %v; want at %v for its silence", s.left[0], s.why[0], test.left)
				}
			})
		})
	}
}

// A stream without a bound of silence waits.
func TestSilenceOfProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		run(t, s, Options{Retry: options.Retry}, func() {
			x := <-s.dialled
			s.send(1)
			<-x.requests
			time.Sleep(time.Hour)
			x.replies <- "yes"
		})
		if len(s.why) != 1 || !slices.Equal(s.taken, []string{"yes"}) {
			t.Errorf("left %v, took %q", s.why, s.taken)
		}
	})
}

// Dialling that hangs is silence, too.
func TestSilentDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &hangingDial{script: newScript()}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		Run(ctx, s, options)
		want := []time.Duration{3 * time.Second, 6020 * time.Millisecond, 9060 * time.Millisecond, 10 * time.Second}
		if !slices.Equal(s.left, want) {
			t.Errorf("left at %v, want %v", s.left, want)
		}
		if !errors.Is(s.why[0], ErrSilent) {
			t.Error(s.why[0])
		}
	})
}

type hangingDial struct{ *script }

func (s *hangingDial) Dial(ctx context.Context) (Pipe[int, string], error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// What came before the pipe broke is taken; what came behind a refusal is not.
func TestLastWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		run(t, s, options, func() {
			x := <-s.dialled
			x.replies <- "one"
			x.replies <- "two"
			close(x.dead)
			x = <-s.dialled
			x.replies <- "no"
			x.replies <- "three"
			x = <-s.dialled
			synctest.Wait()
			close(x.dead)
			s.send(1) // is held up by nothing: the pipe is broken
			<-s.dialled
		})
		if want := []string{"one", "two", "no"}; !slices.Equal(s.taken, want) {
			t.Errorf("took %q, want %q", s.taken, want)
		}
		if !errors.Is(s.why[0], io.ErrUnexpectedEOF) || !errors.Is(s.why[1], errRefused) {
			t.Errorf("left for %v", s.why)
		}
		if s.begun != 4 {
			t.Errorf("began %d times on 4 pipes", s.begun)
		}
	})
}

// The pause before the next dialling grows while nobody takes anything, begins
// anew when somebody has, and is never shorter than the stream wants it.
func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		s.refuse.Store(true)
		run(t, s, options, func() {
			time.Sleep(500 * time.Millisecond)
			synctest.Wait()
			s.refuse.Store(false)
			x := <-s.dialled
			x.replies <- "yes"
			synctest.Wait()
			close(x.dead)
			<-s.dialled
		})
		var gaps []time.Duration
		for i := range s.left[:len(s.left)-1] {
			if i > 0 {
				gaps = append(gaps, s.left[i]-s.left[i-1])
			}
		}
		want := []time.Duration{20, 40, 80, 80}
		for i := range want {
			if gaps[i] != want[i]*time.Millisecond {
				t.Fatalf("dialled after %v", gaps)
			}
		}
		if last := len(s.left) - 1; s.left[last]-s.left[last-1] != 20*time.Millisecond {
			t.Errorf("after an answer dialled after %v", s.left[last]-s.left[last-1])
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		s.wait = time.Second
		s.refuse.Store(true)
		run(t, s, options, func() { time.Sleep(4500 * time.Millisecond) })
		if len(s.left) != 5 {
			t.Errorf("dialled %d times in 4.5 s", len(s.left))
		}
	})
}

func TestTicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := newScript(), options
		o.Tick = time.Second
		run(t, s, o, func() { time.Sleep(5500 * time.Millisecond) })
		if s.ticks != 5 {
			t.Errorf("%d ticks in 5.5 s", s.ticks)
		}
	})
}
