package cluster

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// dropped sums what nodes count as dropped between them.
func dropped(t *testing.T, nodes []*testNode) (sum int) {
	t.Helper()
	for _, n := range nodes {
		r := prometheus.NewRegistry()
		r.MustRegister(n.metrics.dropped)
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				sum += int(m.GetCounter().GetValue())
			}
		}
	}
	return sum
}

// QoS 0 to a durable session goes by its leader's memory. While leaderships
// move, what does not arrive is counted, and that is little.
func TestQoS0WhileLeadersMove(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 1)
	c.lead(1, "n1")
	sub := c.node("n3").open(t, "sub", true, 1000)
	sub.subscribe("a", 0)
	sent := 0
	stop := make(chan struct{})
	done := make(chan struct{})
	var count atomic.Int64
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			c.node("n2").PublishQoS0(message("a", 0, fmt.Sprint(sent)))
			sent++
			count.Add(1)
			pause(context.Background(), 200*time.Microsecond)
		}
	}()
	for round := range 6 {
		c.lead(1, []string{"n2", "n3", "n1"}[round%3])
		at := count.Load()
		eventually(t, "messages go on", func() error {
			if count.Load() < at+100 {
				return errNoLeader
			}
			return nil
		})
	}
	close(stop)
	<-done
	got, lost := 0, 0
	eventually(t, "all are accounted for", func() error {
		got, lost = len(sub.in.payloads()), dropped(t, c.up())
		if got+lost != sent {
			return fmt.Errorf("%d sent, %d came, %d counted as dropped", sent, got, lost)
		}
		return nil
	})
	t.Logf("%d sent, %d came, %d dropped", sent, got, lost)
	last := -1
	for _, p := range sub.in.payloads() {
		var i int
		fmt.Sscan(p, &i)
		if i <= last {
			t.Fatalf("%d after %d", i, last)
		}
		last = i
	}
}

// A delivery comes before its session's node has asked for it here: it is kept
// for a moment, and handed over first.
func TestHeldDeliveriesComeWithTheFetch(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, 1)
	n := c.node("n1")
	x := n.open(t, "sub", true, 1000)
	x.subscribe("a", 0)
	// The feed goes, as when a leader has just been elected.
	p := n.proc.Load()
	f := p.feed(1)
	l := x.link.(*link)
	f.detach(l)
	lead := n.leadNow(1)
	eventually(t, "nobody fetches", func() error {
		lead.mu.Lock()
		defer lead.mu.Unlock()
		for s := range lead.seats {
			s.mu.Lock()
			some := len(s.fetches) > 0
			s.mu.Unlock()
			if some {
				return errNoLeader
			}
		}
		return nil
	})
	n.PublishQoS0(message("a", 0, "1"))
	eventually(t, "it is held", func() error {
		lead.mu.Lock()
		defer lead.mu.Unlock()
		if len(lead.held) == 0 && dropped(t, c.up()) == 0 {
			return errNoLeader
		}
		return nil
	})
	f.attach(l)
	n.PublishQoS0(message("a", 0, "2"))
	eventually(t, "both are accounted for, in order", func() error {
		got := x.in.payloads()
		if len(got)+dropped(t, c.up()) != 2 || len(got) == 0 || got[len(got)-1] != "2" {
			return fmt.Errorf("got %q, %d dropped", got, dropped(t, c.up()))
		}
		return nil
	})
}
