package cluster

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/cluster/shard"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// clockSlack is how long a test of a clock may take: far less than the jumps that
// it must not follow.
const clockSlack = 150 * time.Second

// testTime is the time of a cluster, as its shards see it: the real one and what
// a test has added, for all nodes or to the wall clock of one.
type testTime struct {
	mu     sync.Mutex
	passed time.Duration
	wrong  map[string]time.Duration // wall clocks alone
}

func (t *testTime) pass(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.passed += d
}

// set makes the wall clock of a node wrong by d.
func (t *testTime) set(name string, d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.wrong == nil {
		t.wrong = make(map[string]time.Duration)
	}
	t.wrong[name] = d
}

func (t *testTime) hooks(name string) *ClockHooks {
	return &ClockHooks{
		Wall: func() time.Time {
			t.mu.Lock()
			defer t.mu.Unlock()
			return time.Now().Add(t.passed + t.wrong[name])
		},
		Boot: func() time.Duration {
			t.mu.Lock()
			defer t.mu.Unlock()
			return bootTime() + t.passed
		},
		Look: 5 * time.Millisecond,
	}
}

func newTimed(t *testing.T, size, parts int) *testCluster {
	return startTimed(t, size, parts, newNetwork(), &testTime{})
}

// pass lets time pass when all replicas know what time it is: followers hear of
// an entry with the next one, or half a second later, which is nothing beside
// the time between a test's jumps in real life.
func (c *testCluster) pass(d time.Duration) {
	c.t.Helper()
	for id := range uint32(c.parts) {
		leader := c.node(c.leader(id + 1)).group(id + 1).clock
		for _, n := range c.up() {
			if n.group(id+1) == nil {
				continue
			}
			eventually(c.t, n.config.NodeID+" knows the time", func() error {
				at, now := n.group(id+1).clock.now(), leader.now()
				if at+1000 >= now {
					return nil
				}
				c.tick(id + 1)
				return fmt.Errorf("%d, not %d", at, now)
			})
		}
	}
	c.time.pass(d)
}

// shard reads the state of a shard at its leader.
func (c *testCluster) shard(id uint32, f func(m *shard.Machine)) {
	c.t.Helper()
	c.node(c.leader(id)).group(id).read(func(m machine) { f(m.(*shardMachine).Machine) })
}

// clock is a shard's clock, at its leader.
func (c *testCluster) clock(id uint32) (at time.Duration) {
	c.t.Helper()
	c.shard(id, func(m *shard.Machine) { at = time.Duration(m.Clock()) * time.Millisecond })
	return at
}

func (c *testCluster) stats(id uint32) (s shard.Stats) {
	c.t.Helper()
	c.shard(id, func(m *shard.Machine) { s = m.Stats() })
	return s
}

// tick commits an entry in a shard, so that its clock is that of its leader.
func (c *testCluster) tick(id uint32) {
	c.t.Helper()
	eventually(c.t, "a tick", func() error {
		l := c.node(c.leader(id)).leadOf(id)
		if l == nil {
			return errNotLeader
		}
		ctx, cancel := context.WithTimeout(c.t.Context(), patience)
		defer cancel()
		return l.commit(ctx, &shoalpb.Proposal{Tick: &shoalpb.Tick{}})
	})
}

// stopAll stops all nodes; startAll starts them again.
func (c *testCluster) stopAll() {
	for _, n := range c.up() {
		if err := n.Close(context.Background()); err != nil {
			c.t.Fatal(err)
		}
	}
	c.mu.Lock()
	c.nodes = map[string]*testNode{}
	c.mu.Unlock()
}

func (c *testCluster) startAll() {
	c.t.Helper()
	for _, name := range c.names {
		c.start(name)
	}
	c.ready()
}

// TestShardClockEstimates: a replica's estimate is the best of what it heard.
func TestShardClockEstimates(t *testing.T) {
	var now time.Duration
	c := newShardClock(func() time.Duration { return now })
	c.old = 10
	want := func(what string, ms uint64, live bool) {
		t.Helper()
		if got := c.now(); got != ms || c.isLive() != live {
			t.Errorf("%s: %d, live %v; want %d, %v", what, got, c.isLive(), ms, live)
		}
	}
	now = 5 * time.Second
	want("nothing known", 0, false)
	c.heard(10, 1000)
	now += 500 * time.Millisecond
	want("from its own log", 1500, false)
	c.heard(11, 2000)
	now += time.Second
	want("an entry that is ahead", 3000, true)
	// Cut off for an hour, it hears what was said long ago.
	now += time.Hour
	c.heard(12, 3500)
	want("old entries", 3000+3600_000-720-1, true)
	c.heard(13, 3600_000+4000)
	want("the last one", 3600_000+4000, true)
	// A leader that is slower by less than the drift is followed.
	for i := range uint64(1000) {
		now += time.Second
		c.heard(14+i, 3600_000+4000+(i+1)*1000-(i+1)/10)
	}
	want("a slower leader", 3600_000+4000+1000_000-100, true)
	c.raise(5)
	want("raise never lowers", 3600_000+4000+1000_000-100, true)
}

// TestSessionExpiryAcrossLeaders: time goes on when the leader changes, and a
// session ends when all of its expiry has passed, not before.
func TestSessionExpiryAcrossLeaders(t *testing.T) {
	t.Parallel()
	c := newTimed(t, 3, 1)
	for i, name := range c.names {
		c.time.set(name, time.Duration(i)*time.Hour) // their wall clocks are of no help
	}
	for i, name := range c.names {
		c.lead(1, name)
		x := c.node("n1").open(t, "sleeper", false, 3600)
		if x.opened.Present != (i > 0) {
			t.Fatalf("round %d: present is %v", i, x.opened.Present)
		}
		x.link.Close(session.CloseRequest{})
		eventually(t, "the session is detached", func() error {
			var others []*shoalpb.Owner // a bid that is not confirmed too
			c.shard(1, func(m *shard.Machine) { others, _, _ = m.Others("sleeper", 0) })
			if len(others) != 0 {
				return fmt.Errorf("%v have it", others)
			}
			return nil
		})
		c.pass(30 * time.Minute)
		c.kill(name)
		c.leader(1)
		c.pass(29 * time.Minute)
		before := c.clock(1)
		c.tick(1)
		if now := c.clock(1); now < before+29*time.Minute-time.Second {
			t.Errorf("the clock went from %v to %v", before, now)
		}
		if n := c.stats(1).Durable; n != 1 {
			t.Fatalf("%d durable sessions after 59 minutes", n)
		}
		c.start(name)
		c.ready()
	}
	c.pass(2 * time.Minute)
	// Nobody does anything: the leader's timer alone ends it.
	eventually(t, "the session ends", func() error {
		if n := c.stats(1).Sessions; n != 0 {
			return fmt.Errorf("%d sessions", n)
		}
		return nil
	})
}

// TestClockOfRestarted: the time while all were down counts if the nodes agree
// how long that was; the wall clock of one node alone changes nothing.
func TestClockOfRestarted(t *testing.T) {
	t.Parallel()
	c := newTimed(t, 3, 1)
	x := c.node("n1").open(t, "sleeper", false, 24*3600)
	x.link.Close(session.CloseRequest{})
	var wall uint64
	anchored := func() {
		t.Helper()
		last := wall
		eventually(t, "the wall time is noted", func() error {
			c.shard(1, func(m *shard.Machine) { wall, _ = m.Anchor() })
			if wall == last {
				return fmt.Errorf("still %d", wall)
			}
			return nil
		})
	}
	anchored()

	before := c.clock(1)
	c.stopAll()
	c.time.pass(time.Hour)
	c.startAll()
	anchored()
	if now := c.clock(1); now < before+time.Hour-5*time.Second || now > before+time.Hour+clockSlack {
		t.Errorf("after an hour the clock went from %v to %v", before, now)
	}

	// n1's wall clock jumps by an hour, while it leads and while it does not.
	c.lead(1, "n1")
	before = c.clock(1)
	c.time.set("n1", time.Hour)
	c.tick(1)
	c.lead(1, "n2")
	c.tick(1)
	c.lead(1, "n1")
	c.tick(1)
	c.stopAll()
	c.startAll()
	c.tick(1)
	c.lead(1, "n2")
	c.tick(1)
	anchored()
	if now := c.clock(1); now > before+clockSlack {
		t.Errorf("a wrong wall clock moved time from %v to %v", before, now)
	}

	// No two agree: the clock stands until they do.
	c.stopAll()
	for i, name := range c.names {
		c.time.set(name, time.Duration(i+1)*time.Hour)
	}
	c.startAll()
	c.tick(1)
	for _, name := range c.names {
		c.time.set(name, 0)
	}
	anchored()
	if now := c.clock(1); now > before+clockSlack {
		t.Errorf("wall clocks that differ moved time from %v to %v", before, now)
	}
	if n := c.stats(1).Durable; n != 1 {
		t.Errorf("%d durable sessions", n)
	}
}

// TestAgeOfQueued: a queued message is as old as the time that has passed, and
// one that another shard's outbox holds is sent with what remains.
func TestAgeOfQueued(t *testing.T) {
	t.Parallel()
	c := newTimed(t, 3, 2)
	name := c.clientIn(1, "sub")
	sub := c.node("n1").open(t, name, true, 3600)
	sub.subscribe("t", 1)
	sub.link.Close(session.CloseRequest{})
	pub := c.node("n2").open(t, "pub", true, 0)
	done := make(chan error, 1)
	lasts := uint64(60_000)
	pub.link.Publish(&shoalpb.Message{Topic: "t", Qos: 1, Payload: []byte("m"), ExpiryMs: &lasts}, func(err error) { done <- err })
	if err := wait(t, "publish", done); err != nil {
		t.Fatal(err)
	}
	c.pass(20 * time.Second)
	ages := make(chan time.Duration, 16)
	sub = c.node("n3").openWith(t, session.OpenRequest{Client: name, ExpirySeconds: 3600}, func(d session.Delivery) { ages <- d.Age })
	age := wait(t, "delivery", ages)
	if age < 19*time.Second || age > 20*time.Second+clockSlack {
		t.Errorf("age is %v", age)
	}
	sub.link.Expired(1)
	eventually(t, "it is counted as expired", func() error {
		if st := c.stats(1); st.Expired != 1 || st.Queued != 0 {
			return fmt.Errorf("%d expired, %d queued", st.Expired, st.Queued)
		}
		return nil
	})
}

// TestAgeOfHeldBack: a message that waits at its publisher's node, here for the
// death of the connection before, grows older too.
func TestAgeOfHeldBack(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 1)
	c.lead(0, "n2")
	c.lead(1, "n2")
	sub := c.node("n2").open(t, "sub", true, 0)
	sub.subscribe("t", 1)
	c.node("n1").open(t, "pub", true, 3600)
	c.net.freeze("n1")
	pub := c.node("n3").open(t, "pub", false, 3600)
	lasts, from := uint64(3600_000), bootTime()
	done := make(chan error, 1)
	pub.link.Publish(&shoalpb.Message{Topic: "t", Qos: 1, Payload: []byte("m"), ExpiryMs: &lasts}, func(err error) { done <- err })
	err := wait(t, "publish", done)
	took := bootTime() - from
	c.net.rejoin("n1")
	if err != nil {
		t.Fatal(err)
	}
	sub.expect("m")
	sub.in.mu.Lock()
	defer sub.in.mu.Unlock()
	age := 3600*time.Second - time.Duration(*sub.in.got[0].ExpiryMs)*time.Millisecond
	if age > took || age == 0 && took > 2*time.Second {
		t.Errorf("its age is %v after it was held back for %v", age, took)
	}
}
