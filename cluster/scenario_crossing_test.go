package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shoalmq/shoal/broker/session"
)

// crossing has a writer of ascending numbers into one register, and subscribers
// that come and go meanwhile.
type crossing struct {
	topic string
	qos   uint32
	// pipeline is how many messages are under way at a time.
	pipeline int
	acked    atomic.Int64 // the highest acknowledged
}

// publish publishes number n over l; done comes with its acknowledgement: of QoS 2
// PUBREC, after which PUBREL is sent.
func (x *crossing) publish(l session.Link, n int64, done func(error)) {
	m := retainedMessage(x.topic, x.qos, strconv.FormatInt(n, 10))
	if x.qos == 1 {
		l.Publish(m, done)
		return
	}
	id := uint16(n%1000) + 1
	l.Received(id, false, m, func(err error) {
		if err == nil {
			go l.Released(id, func(bool, error) {})
		}
		done(err)
	})
}

// write writes numbers at a node until stop is closed, and returns when the last is
// acknowledged. No number is published twice: when a connection is lost the next one
// goes on.
func (x *crossing) write(t *testing.T, node *testNode, stop <-chan struct{}) {
	n := int64(0)
	for {
		w := node.open(t, "writer", true, 3600)
		answers := make(chan error, x.pipeline)
		stopped := stop
		for open, over := 0, false; !over; {
			for ; open < x.pipeline && stopped != nil; open++ {
				n++
				number := n
				x.publish(w.link, number, func(err error) {
					for old := x.acked.Load(); err == nil && old < number && !x.acked.CompareAndSwap(old, number); {
						old = x.acked.Load()
					}
					answers <- err
				})
			}
			if open == 0 {
				w.link.Close(session.CloseRequest{})
				return
			}
			select {
			case err := <-answers:
				open--
				over = err != nil
			case <-stopped:
				stopped = nil
			case <-w.lost:
				over = true
			}
		}
		w.link.Close(session.CloseRequest{})
	}
}

// crosser is one subscriber: what it got, in order.
type crosser struct {
	*client
	least int64 // acknowledged before it subscribed
	mu    sync.Mutex
	got   []crossed
}

type crossed struct {
	value  int64
	retain bool
}

// cross subscribes at a node.
func (x *crossing) cross(t *testing.T, n *testNode, id, filter string, qos uint32) *crosser {
	s := &crosser{}
	var opened sync.WaitGroup
	opened.Add(1)
	s.client = n.openWith(t, session.OpenRequest{Client: id, CleanStart: true, ExpirySeconds: 3600}, func(d session.Delivery) {
		opened.Wait()
		s.take(d)
	})
	opened.Done()
	s.least = x.acked.Load()
	s.subscribe(filter, qos)
	return s
}

func (s *crosser) take(d session.Delivery) {
	switch {
	case d.Released || d.QoS == 1:
		s.link.Ack(d.Seq)
	case d.Seq > 0 && d.QoS == 0:
		s.link.Ack(d.Seq)
	case d.QoS == 2:
		s.link.Release(d.Seq, func(err error) {
			if err == nil {
				s.link.Ack(d.Seq)
			}
		})
	}
	if d.Released {
		return
	}
	value, _ := strconv.ParseInt(string(d.Message.Payload), 10, 64)
	s.mu.Lock()
	s.got = append(s.got, crossed{value, d.Retain})
	s.mu.Unlock()
}

func (s *crosser) values() []crossed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

// await waits for what a subscriber gets. It reports false if its node has closed the
// connection: it may have been without a lease.
func (s *crosser) await(enough func([]crossed) bool) (here bool) {
	here = true
	eventually(s.t, "deliveries", func() error {
		select {
		case <-s.lost:
			s.lost <- struct{}{}
			here = false
			return nil
		default:
		}
		if got := s.values(); !enough(got) {
			return fmt.Errorf("%d came, first acknowledged %d", len(got), s.least)
		}
		return nil
	})
	return here
}

// check returns what is wrong with what a subscriber got; last is the number that it
// must have reached, 0 if it may still be on its way.
func (s *crosser) check(last int64) error {
	got := s.values()
	for i, v := range got {
		switch {
		case i == 0 && v.value < s.least:
			return fmt.Errorf("the first value is %d, though %d was acknowledged before SUBSCRIBE", v.value, s.least)
		case v.retain != (i == 0):
			return fmt.Errorf("RETAIN is %t of delivery %d: %v", v.retain, i, got[:min(i+3, len(got))])
		case i > 0 && v.value <= got[i-1].value:
			return fmt.Errorf("%d comes after %d: %v", v.value, got[i-1].value, got[max(0, i-3):min(i+3, len(got))])
		}
	}
	if last > 0 && (len(got) == 0 || got[len(got)-1].value != last) {
		return fmt.Errorf("it ends with %v, not with %d", got[max(0, len(got)-3):], last)
	}
	return nil
}

// TestScenarioRegisterCrossing: retained publishes cross with new subscriptions on
// all nodes (scenario 46). Each subscriber gets a value with RETAIN 1 that is no older
// than what was acknowledged before its SUBSCRIBE, then newer ones only, and ends
// with the last.
func TestScenarioRegisterCrossing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		nodes, shards int
		qos           uint32
		pipeline      int
	}{{3, 2, 1, 1}, {3, 6, 1, 8}, {3, 1, 2, 4}, {5, 6, 1, 8}, {5, 6, 2, 4}} {
		t.Run(fmt.Sprintf("%d nodes, %d shards, QoS %d, %d at a time", test.nodes, test.shards, test.qos, test.pipeline), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, test.nodes, test.shards)
			x := &crossing{topic: "plant/a", qos: test.qos, pipeline: test.pipeline}
			stop := make(chan struct{})
			var writing sync.WaitGroup
			writing.Go(func() { x.write(t, c.node("n1"), stop) })
			eventually(t, "the first value", func() error {
				if x.acked.Load() == 0 {
					return errors.New("nothing is acknowledged")
				}
				return nil
			})
			var all []*crosser
			for i := 0; len(all) < 20*test.nodes; i++ {
				n := c.up()[i%test.nodes]
				filter := []string{x.topic, "plant/+", "#"}[i%3]
				s := x.cross(t, n, fmt.Sprint("s", i), filter, uint32(1+i%2))
				if s.await(func(got []crossed) bool { return len(got) > 0 }) {
					all = append(all, s)
				}
			}
			close(stop)
			writing.Wait()
			last, wrong := x.acked.Load(), 0
			for _, s := range all {
				end := last
				if !s.await(func(got []crossed) bool { return got[len(got)-1].value >= last }) {
					end = 0
				}
				if err := s.check(end); err != nil {
					wrong++
					t.Error(err)
				}
			}
			t.Logf("%d of %d subscribers wrong; %d written", wrong, len(all), last)
		})
	}
}
