package cluster

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/cluster/shard"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// heldOpen is a CONNECT whose Open is on its way from n2 to the shard's leader,
// n1, and is held there until it has been given up.
type heldOpen struct {
	c *testCluster
}

// newHeldOpen brings r to n2 and waits until its client has been told that nobody
// knows what becomes of it.
func newHeldOpen(t *testing.T, c *testCluster, r session.OpenRequest) *heldOpen {
	t.Helper()
	c.node("n2").open(t, c.clientIn(1, "warm"), true, 0) // its stream to n1 is there
	c.net.hold("n1", "n2")
	r.Window = 32
	done := make(chan error, 1)
	c.node("n2").Open(r, &client{t: t, n: c.node("n2"), in: newInbox()}, func(_ session.Link, _ session.Opened, err error) { done <- err })
	if err := wait(t, "the Open is given up", done); !errors.Is(err, session.ErrUndecided) {
		t.Fatalf("an Open that is on its way is answered %v", err)
	}
	return &heldOpen{c: c}
}

// arrive lets the Open go its way, and returns when the shard and its node have
// dealt with it.
func (h *heldOpen) arrive(t *testing.T) {
	t.Helper()
	h.c.net.heal()
	p := h.c.node("n2").proc.Load()
	eventually(t, "the late Open is answered", func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if n := len(p.openings); n > 0 {
			return fmt.Errorf("%d openings", n)
		}
		return nil
	})
	// Behind what n2 says to that.
	h.c.node("n2").open(t, h.c.clientIn(1, "behind"), true, 0)
}

// TestScenarioHeldOpen: an Open that comes to its shard after its client has given
// up changes nothing (scenario 49).
func TestScenarioHeldOpen(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T) (*testCluster, *willWatch) {
		t.Parallel()
		c := newTimed(t, 3, 1)
		c.lead(0, "n3")
		c.lead(1, "n1")
		return c, newWillWatch(c)
	}
	t.Run("a Will that is delayed", func(t *testing.T) {
		c, w := begin(t)
		c.node("n3").openWith(t, willOf("dead-0", 300, 3600, false), nil).link.Close(session.CloseRequest{})
		h := newHeldOpen(t, c, session.OpenRequest{Client: "dead-0", ExpirySeconds: 3600})
		h.arrive(t)
		c.pass(301 * time.Second)
		w.expectExactly("dead-0")
	})
	t.Run("a session with a queue", func(t *testing.T) {
		c, _ := begin(t)
		sub := c.node("n3").open(t, "sub", true, 3600)
		sub.subscribe("q", 1)
		sub.link.Close(session.CloseRequest{})
		c.node("n3").open(t, "pub", true, 0).publish("q", 1, "m")
		h := newHeldOpen(t, c, session.OpenRequest{Client: "sub", CleanStart: true})
		h.arrive(t)
		back := c.node("n3").open(t, "sub", false, 3600)
		if !back.opened.Present {
			t.Fatal("the session is gone")
		}
		back.expect("m")
	})
	t.Run("a newer connection", func(t *testing.T) {
		for _, expiry := range []uint32{0, 3600} {
			t.Run(fmt.Sprint(expiry), func(t *testing.T) {
				c, w := begin(t)
				c.node("n3").openWith(t, willOf("c-0", 0, expiry, false), nil).link.Close(session.CloseRequest{DiscardWill: true})
				h := newHeldOpen(t, c, session.OpenRequest{Client: "c-0", CleanStart: true})
				newer := c.node("n3").openWith(t, willOf("c-0", 0, expiry, false), nil)
				h.arrive(t)
				newer.publish("will/x", 1, "here")
				w.expectExactly("here")
				if len(newer.superseded) > 0 {
					t.Error("the newer connection was superseded")
				}
			})
		}
	})
	t.Run("nothing", func(t *testing.T) {
		c, w := begin(t)
		h := newHeldOpen(t, c, willOf("new-0", 0, 3600, false))
		h.arrive(t)
		eventually(t, "nothing is left of it", func() (err error) {
			c.shard(1, func(m *shard.Machine) {
				if others, _, _ := m.Others("new-0", 0); len(others) > 0 || m.Conn("new-0") != 0 {
					err = fmt.Errorf("%v", others)
				}
			})
			return err
		})
		if c.node("n3").open(t, "new-0", false, 3600).opened.Present {
			t.Error("the session of a refused connection is there")
		}
		c.node("n3").open(t, "pub", true, 0).publish("will/x", 1, "end")
		w.expectExactly("end")
	})
}

// TestScenarioFrozenOwner: the node of a connection with a Will is frozen. Its
// client is served elsewhere at once; what it publishes there comes after the Will
// (scenario 48).
func TestScenarioFrozenOwner(t *testing.T) {
	t.Parallel()
	for _, expiry := range []uint32{0, 3600} {
		t.Run(fmt.Sprint(expiry), func(t *testing.T) {
			t.Parallel()
			c := newScenario(t, 3, 2)
			for id := range uint32(3) {
				c.lead(id, "n3")
			}
			w := newWillWatch(c)
			c.node("n1").openWith(t, willOf("c-0", 0, expiry, true), nil)
			c.net.freeze("n1")
			next := c.node("n2").openWith(t, willOf("c-0", 0, expiry, true), nil)
			m := message("will/c-0", 1, "online")
			m.Retain = true
			done := make(chan error, 1)
			next.link.Publish(m, func(err error) { done <- err })
			if err := wait(t, "PUBACK", done); err != nil {
				t.Fatal(err)
			}
			for _, x := range w.subs {
				x.expect("c-0", "online")
			}
			last := ""
			for id := range uint32(2) {
				c.shard(id+1, func(m *shard.Machine) {
					m.Retained("will/c-0", "", m.Clock(), func(msg *shoalpb.Message) bool {
						last = string(msg.Payload)
						return true
					})
				})
			}
			if last != "online" {
				t.Errorf("%q is retained", last)
			}
			c.net.heal()
			c.ready()
		})
	}
}

// TestScenarioManyTakeovers: thousands of clients of a frozen node come back
// elsewhere. What that asks of others does not grow with their number
// (scenario 56).
func TestScenarioManyTakeovers(t *testing.T) {
	t.Parallel()
	const clients, parts = 4000, 6
	c := newScenario(t, 3, parts)
	for id := range uint32(parts + 1) {
		c.lead(id, "n3")
	}
	openAll(t, c.node("n1"), clients)
	c.net.freeze("n1")
	calls := func() (sum float64) {
		for _, n := range c.up() {
			sum += valueOf(t, n.metrics.takeoverAsked)
		}
		return sum
	}
	before, at := calls(), time.Now()
	all := openAll(t, c.node("n2"), clients)
	for _, l := range all { // until the fence, they are held
		eventually(t, "publishes may go", func() error {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.held && !l.closed { // a busy machine may lose its lease
				return errors.New("held")
			}
			return nil
		})
	}
	took := time.Since(at).Seconds()
	each := (calls() - before) / took / parts
	t.Logf("%.1f s, %.1f calls a second and shard", took, each)
	if each > 10 {
		t.Errorf("%.1f calls a second and shard", each)
	}
	c.net.heal()
}

// openAll opens connections of many clients, again where one is refused.
func openAll(t *testing.T, n *testNode, count int) []*link {
	t.Helper()
	links := make([]*link, count)
	var wg sync.WaitGroup
	gate := make(chan struct{}, 512)
	for i := range links {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			for links[i] == nil && t.Context().Err() == nil {
				done := make(chan struct{})
				x := &client{t: t, n: n, in: newInbox(), superseded: make(chan struct{}, 1), lost: make(chan struct{}, 1)}
				n.Open(session.OpenRequest{Client: fmt.Sprint("many-", i), ExpirySeconds: 3600, Window: 1}, x,
					func(l session.Link, _ session.Opened, err error) {
						if err == nil {
							links[i] = l.(*link)
						}
						x.link = l
						close(done)
					})
				<-done
			}
		})
	}
	wg.Wait()
	return links
}

// valueOf is a counter's value.
func valueOf(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families[0].Metric[0].Counter.GetValue()
}
