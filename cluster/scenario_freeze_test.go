package cluster

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/cluster/lease"
	"github.com/shoalmq/shoal/cluster/raftnet"
)

// flow publishes one message after the other on a connection, without waiting
// for what was sent before, and notes which were acknowledged.
type flow struct {
	mu    sync.Mutex
	sent  map[string]time.Duration // when it was handed over
	acked []string
	errs  int
	stop  chan struct{}
	over  chan struct{}
}

// flowing starts a flow; payloads are numbers.
func (c *client) flowing(topic string) *flow {
	f := &flow{sent: make(map[string]time.Duration), stop: make(chan struct{}), over: make(chan struct{})}
	go func() {
		defer close(f.over)
		for i := 0; ; i++ {
			select {
			case <-f.stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			payload := fmt.Sprint(i)
			f.mu.Lock()
			f.sent[payload] = bootTime()
			f.mu.Unlock()
			c.link.Publish(message(topic, 1, payload), func(err error) { f.done(payload, err) })
		}
	}()
	return f
}

func (f *flow) done(payload string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.errs++
		return
	}
	f.acked = append(f.acked, payload)
}

// end stops the flow and returns what was acknowledged of what was sent after
// the time given.
func (f *flow) end(after time.Duration) (acked []string) {
	close(f.stop)
	<-f.over
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, payload := range f.acked {
		if f.sent[payload] >= after {
			acked = append(acked, payload)
		}
	}
	return acked
}

// count tells how many publishes were acknowledged and refused so far.
func (f *flow) count() (acked, errs int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.acked), f.errs
}

// TestScenarioFrozenPublisherNode freezes a node while another gets a new
// subscription (scenario 19): what is published into the frozen node after
// SUBACK is matched again before it is acknowledged, or never is.
func TestScenarioFrozenPublisherNode(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioFrozenPublisherNode)
}

func testScenarioFrozenPublisherNode(t *testing.T, size int) {
	for _, test := range []struct {
		name      string
		directory string
	}{{"follower", "n3"}, {"leader", "n2"}} {
		if size == 5 && test.directory == "n2" {
			continue // clients are at drained nodes, which do not stay leaders
		}
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newSized(t, size, 2)
			c.lead(0, test.directory)
			frozen := c.at("n2")
			pub := frozen.open(t, "pub", true, 0)
			own := frozen.open(t, "own", true, 0) // makes acks possible without a quorum
			own.subscribe("f", 1)
			flow := pub.flowing("f")
			eventually(t, "acks", func() error { return atLeast(flow, 1) })
			c.net.freeze(c.on("n2"))
			durable := c.at("n1").open(t, "durable", true, 3600)
			durable.subscribe("f", 1)
			transient := c.at("n1").open(t, "transient", true, 0)
			transient.subscribe("f", 1)
			subscribed := bootTime()
			for range 20 { // some are sent after SUBACK and before the thaw
				pause(t.Context(), 10*time.Millisecond)
			}
			before, _ := flow.count()
			c.net.heal()
			eventually(t, "the frozen process goes on or is over", func() error {
				if len(pub.lost) > 0 {
					return nil
				}
				return atLeast(flow, before+1)
			})
			acked := flow.end(subscribed)
			eventually(t, "deliveries", func() error { return contains(durable.in.payloads(), acked) })
			eventually(t, "deliveries", func() error { return contains(transient.in.payloads(), acked) })
			c.ready()
		})
	}
}

func atLeast(f *flow, n int) error {
	if acked, _ := f.count(); acked < n {
		return fmt.Errorf("%d of %d are acknowledged", acked, n)
	}
	return nil
}

// contains tells whether all of some are in all.
func contains(all, some []string) error {
	has := make(map[string]bool, len(all))
	for _, x := range all {
		has[x] = true
	}
	for _, x := range some {
		if !has[x] {
			return fmt.Errorf("%q is missing", x)
		}
	}
	return nil
}

// TestScenarioLeftBehind has a client publish on a node that is frozen, move to
// another and send that message again and a second one (scenarios 26 and 27):
// what the frozen node still has under way is refused, so the subscriber gets
// both once and in order.
func TestScenarioLeftBehind(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioLeftBehind)
}

func testScenarioLeftBehind(t *testing.T, size int) {
	for _, test := range []struct {
		name   string
		expiry uint32
	}{{"durable subscriber", 3600}, {"transient subscriber", 0}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newSized(t, size, 2)
			c.lead(0, "n1")
			c.lead(1, "n3")
			sub := c.at("n3").open(t, c.clientIn(1, "sub"), true, test.expiry)
			sub.subscribe("f", 1)
			pub := newDevice(c, "pub")
			c.must(pub.stay(c.on("n2")))
			<-pub.publish("f", 1, "before").acked
			c.net.freeze(c.on("n2"))
			pub.publish("f", 1, "first")
			c.must(pub.stay(c.on("n1")))
			second := pub.publish("f", 1, "second")
			wait(t, "PUBACK", second.acked)
			if !c.at("n1").isFenced(processID{c.on("n2"), 1}) {
				t.Error("acknowledged while the former owner's process may go on")
			}
			// The subscriber's node first, so that the frozen one goes on for a
			// while without knowing that it is fenced.
			c.net.join(c.on("n2"), c.on("n3"))
			pause(t.Context(), 10*retryDelay)
			c.net.heal()
			eventually(t, "the frozen process is over", func() error {
				if p := c.at("n2").proc.Load(); p == nil || p.boot == 1 {
					return errors.New("it goes on")
				}
				return nil
			})
			c.ready()
			<-pub.publish("f", 1, "after").acked
			c.settled()
			sub.expect("before", "first", "second", "after")
		})
	}
}

// TestScenarioMinority cuts a node off from both others (scenario 28): it stops
// to acknowledge within the lease, closes its clients, refuses new ones and is
// not ready, while the others serve; then it comes back by itself.
func TestScenarioMinority(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioMinority)
}

func testScenarioMinority(t *testing.T, size int) {
	for _, test := range []struct {
		name      string
		directory string
	}{{"follower", "n2"}, {"directory leader", "n1"}} {
		if size == 5 && test.directory == "n1" {
			continue // clients are at drained nodes, which do not stay leaders
		}
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newSized(t, size, 2)
			if size == 5 {
				c.fronts["n3"] = "n5" // not the node that is cut off
			}
			c.lead(0, test.directory)
			cut := c.at("n1")
			own := cut.open(t, "own", true, 0)
			own.subscribe("own", 1)
			flow := cut.open(t, "pub", true, 0).flowing("own")
			moving := newDevice(c, "moving")
			c.must(moving.stay(c.on("n1")))
			far := c.at("n3").open(t, "far", true, 3600)
			far.subscribe("far", 1)
			eventually(t, "acks", func() error { return atLeast(flow, 1) })

			stalls := watchStalls(t)
			c.net.isolate(c.on("n1"))
			at := bootTime()
			stuck := moving.publish("far", 1, "sent into the minority")
			c.at("n2").open(t, "near", true, 0).publish("far", 1, "majority")
			// It has a subscriber in the minority, which is given up.
			c.at("n2").open(t, "near2", true, 0).publish("own", 1, "too late")
			wait(t, "clients of the minority are closed", own.lost)
			if d, late := bootTime()-at, stalls.sum(); d > 2*(lease.Duration+lease.CloseAfter)+late {
				t.Errorf("clients were closed after %v, of which this process was kept from running for %v", d, late)
			}
			if err := cut.Ready(); err == nil {
				t.Error("a node without a majority is ready")
			}
			if err := cut.tryOpen("new"); !errors.Is(err, session.ErrUnavailable) {
				t.Errorf("CONNECT to the minority: %v", err)
			}
			if acked := flow.end(at + lease.Duration); len(acked) > 0 {
				t.Errorf("acknowledged by the minority without a lease: %v", acked)
			}
			select {
			case <-stuck.acked:
				t.Error("the minority has acknowledged")
			default:
			}
			c.must(moving.stay(c.on("n2")))
			wait(t, "PUBACK", stuck.acked)
			far.expect("majority", "sent into the minority")
			for _, payload := range own.in.payloads() {
				if payload == "too late" {
					t.Error("the minority's subscriber got a message of the majority")
				}
			}

			c.net.heal()
			eventually(t, "another process of the node", func() error {
				if p := cut.proc.Load(); p == nil || p.boot == 1 {
					return errors.New("not yet")
				}
				return cut.Ready()
			})
			cut.open(t, "again", true, 0).publish("far", 1, "back")
			far.expect("majority", "sent into the minority", "back")
		})
	}
}

// stalls measures for how long this process was kept from running, so that what
// the program owes within a time is not asked of a machine that is busy.
type stalls struct{ late atomic.Int64 }

// watchStalls measures until the test ends.
func watchStalls(t *testing.T) *stalls {
	s := &stalls{}
	go func() {
		const tick = 10 * time.Millisecond
		for t.Context().Err() == nil {
			begin := bootTime()
			pause(t.Context(), tick)
			late := bootTime() - begin - tick
			if late > lease.Renew { // a node takes that for its own stall, and begins to wait anew
				late += lease.CloseAfter
			}
			s.late.Add(int64(late))
		}
	}()
	return s
}

// sum is the time by which a step that had to wait for a timer may have been late.
func (s *stalls) sum() time.Duration { return time.Duration(s.late.Load()) }

// tryOpen opens a connection that is expected to fail.
func (n *testNode) tryOpen(id string) error {
	done := make(chan error, 1)
	n.Open(session.OpenRequest{Client: id, Window: 32}, &client{},
		func(_ session.Link, _ session.Opened, err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		return errors.New("no answer")
	}
}

// TestScenarioNoDirectory takes the directory's leader away (scenario 29): for a
// short time that is a pause, for a longer one clients are closed, and no
// process is fenced.
func TestScenarioNoDirectory(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioNoDirectory)
}

func testScenarioNoDirectory(t *testing.T, size int) {
	t.Run("pause", func(t *testing.T) {
		t.Parallel()
		x := newOutage(t, size)
		x.c.net.filter(dropDirectory)
		pause(t.Context(), time.Second)
		x.heals()
		x.goesOn()
	})
	t.Run("lapse", func(t *testing.T) {
		t.Parallel()
		x := newOutage(t, size)
		x.c.net.hold("n1", "n2") // n1 leads the directory and has n3
		eventually(t, "the lease has ended", func() error {
			if x.c.node("n2").lease.valid() {
				return errors.New("it goes on")
			}
			return nil
		})
		x.heals()
		x.goesOn()
	})
	t.Run("closed", func(t *testing.T) {
		t.Parallel()
		x := newOutage(t, size)
		x.c.net.filter(dropDirectory)
		for _, pub := range x.pubs {
			wait(t, "the client is closed", pub.lost)
		}
		x.heals()
	})
}

func dropDirectory(m raftnet.Message) (<-chan struct{}, bool) { return nil, m.Group == 0 }

// outage is a cluster under load of one publisher on each node.
type outage struct {
	t     *testing.T
	c     *testCluster
	pubs  []*client
	flows []*flow
	sub   *client
}

func newOutage(t *testing.T, size int) *outage {
	x := &outage{t: t, c: newSized(t, size, 2)}
	x.c.lead(0, "n1")
	x.sub = x.c.at("n3").open(t, "sub", true, 3600)
	x.sub.subscribe("f/+", 1)
	for _, n := range x.c.up() {
		pub := n.open(t, "pub-"+n.config.NodeID, true, 0)
		x.pubs = append(x.pubs, pub)
		x.flows = append(x.flows, pub.flowing("f/"+n.config.NodeID))
	}
	return x
}

// heals ends the outage: all nodes serve again as the processes they were.
func (x *outage) heals() {
	x.t.Helper()
	x.c.net.heal()
	x.c.ready()
	for _, n := range x.c.up() {
		if boot := n.proc.Load().boot; boot != 1 {
			x.t.Errorf("%s was fenced", n.config.NodeID)
		}
	}
}

// goesOn checks that no client was closed and no publish refused. A client may
// be closed if the machine was so slow that the outage became a long one.
func (x *outage) goesOn() {
	x.t.Helper()
	for i, pub := range x.pubs {
		acked, _ := x.flows[i].count()
		eventually(x.t, "acks go on", func() error {
			if pub.lapse.Load() != 0 {
				return nil
			}
			return atLeast(x.flows[i], acked+1)
		})
		all := x.flows[i].end(0)
		_, errs := x.flows[i].count()
		if late := pub.lapse.Load(); late != 0 {
			if late > 0 && time.Duration(late) < lease.CloseAfter {
				x.t.Errorf("a client was closed %v after its node's lease", time.Duration(late))
			}
			return
		}
		if errs > 0 {
			x.t.Errorf("%d publishes were refused", errs)
		}
		eventually(x.t, "deliveries", func() error { return contains(x.sub.in.payloadsOf("f/"+pub.n.config.NodeID), all) })
	}
}
