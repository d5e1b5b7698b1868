package cluster

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/session"
)

// runAdmission is a storm on a shard that answers Opens at a fixed rate, in
// order: what an admission has to find out.
func runAdmission(a *admission, rate float64, arrivals int, lasts time.Duration) (served, refused int, worst time.Duration) {
	now := time.Unix(1000, 0)
	end := now.Add(lasts)
	free := now // when the shard has answered all it has
	type open struct{ at, done time.Time }
	var under []open
	tick := time.Millisecond
	carry := 0.0
	for ; now.Before(end); now = now.Add(tick) {
		for len(under) > 0 && !under[0].done.After(now) {
			took := under[0].done.Sub(under[0].at)
			worst = max(worst, took)
			a.leave(took, now)
			served++
			under = under[1:]
		}
		for carry += float64(arrivals) * tick.Seconds(); carry >= 1; carry-- {
			if !a.enter() {
				refused++
				continue
			}
			if free.Before(now) {
				free = now
			}
			free = free.Add(time.Duration(float64(time.Second) / rate))
			under = append(under, open{now, free})
		}
	}
	return served, refused, worst
}

func TestAdmissionFollowsTheShard(t *testing.T) {
	for _, rate := range []float64{50, 500, 5000} {
		a := newAdmission()
		runAdmission(a, rate, 10000, 30*time.Second) // to get to know it
		served, refused, worst := runAdmission(newFrom(a), rate, 10000, 10*time.Second)
		if float64(served) < 0.8*rate*10 {
			t.Errorf("rate %v: %d served of %v possible", rate, served, rate*10)
		}
		if refused == 0 {
			t.Errorf("rate %v: nobody was refused", rate)
		}
		if slowest := max(3*openGoal, time.Duration(2*openLeast/rate*float64(time.Second))); worst > slowest {
			t.Errorf("rate %v: an Open took %v", rate, worst)
		}
	}
}

// newFrom is an admission with the bound of another, without its Opens.
func newFrom(a *admission) *admission { return &admission{limit: a.limit} }

func TestAdmissionLetsBurstsThrough(t *testing.T) {
	a := newAdmission()
	for i := range openStart {
		if !a.enter() {
			t.Fatalf("the Open %d of a burst was refused", i)
		}
	}
	if a.enter() {
		t.Fatal("there is no bound")
	}
}

// What is beyond the bound is refused at once, and all is served again when the
// shard is.
func TestOpenIsRefusedWhileTooManyAreUnderWay(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 1)
	defer c.healDisks()
	n := c.node("n1")
	for _, other := range c.up() {
		c.disk(other.config.NodeID).setSlow(300 * time.Millisecond)
	}
	var busy, served, other atomic.Int64
	total := openStart + 200
	done := make(chan struct{}, total)
	for i := range total {
		x := &client{t: t, n: n, in: newInbox(), superseded: make(chan struct{}, 1), lost: make(chan struct{}, 1)}
		n.Open(session.OpenRequest{Client: c.clientIn(1, "c") + string(rune('a'+i%26)) + time.Duration(i).String(), CleanStart: true, Window: 8}, x,
			func(l session.Link, _ session.Opened, err error) {
				switch {
				case err == nil:
					served.Add(1)
					x.link = l
				case errors.Is(err, session.ErrBusy):
					busy.Add(1)
				default:
					other.Add(1)
				}
				done <- struct{}{}
			})
	}
	for range total {
		wait(t, "an Open is answered", done)
	}
	if busy.Load() < 200 {
		t.Errorf("%d refused, %d served, %d failed", busy.Load(), served.Load(), other.Load())
	}
	c.healDisks()
	eventually(t, "it is served again", func() error {
		got := make(chan error, 1)
		x := &client{t: t, n: n, in: newInbox(), superseded: make(chan struct{}, 1), lost: make(chan struct{}, 1)}
		n.Open(session.OpenRequest{Client: "late", CleanStart: true, Window: 8}, x, func(l session.Link, _ session.Opened, err error) {
			if err == nil {
				go l.Close(session.CloseRequest{})
			}
			got <- err
		})
		err := wait(t, "an answer", got)
		pause(context.Background(), time.Millisecond)
		return err
	})
}
