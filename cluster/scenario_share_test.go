package cluster

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shoalmq/shoal/broker/session"
)

const (
	shareTopic  = "t/x"
	shareFilter = "$share/g/t/+"
)

// shareGroup are the members of a Shared Subscription.
type shareGroup []*client

// got are all payloads that members have, sorted.
func (g shareGroup) got() (all []string) {
	for _, m := range g {
		all = append(all, m.in.payloads()...)
	}
	slices.Sort(all)
	return all
}

// expectOnce waits until the members have each of these payloads once.
func (g shareGroup) expectOnce(t *testing.T, want []string) {
	t.Helper()
	want = slices.Clone(want)
	slices.Sort(want)
	eventually(t, "the members have all", func() error {
		if got := g.got(); !slices.Equal(got, want) {
			return fmt.Errorf("%d messages, of %d: missing %.200q", len(got), len(want), missing(got, want))
		}
		return nil
	})
}

// expectAll waits until the members have each of these payloads at least once.
func (g shareGroup) expectAll(t *testing.T, want []string) {
	t.Helper()
	eventually(t, "the members have all", func() error {
		if lost := missing(g.got(), want); len(lost) > 0 {
			return fmt.Errorf("%d are missing: %.200q", len(lost), lost)
		}
		return nil
	})
}

func missing(got, want []string) (lost []string) {
	have := map[string]bool{}
	for _, p := range got {
		have[p] = true
	}
	for _, p := range want {
		if !have[p] {
			lost = append(lost, p)
		}
	}
	return lost
}

// expectBalance checks that members got about as much each.
func (g shareGroup) expectBalance(t *testing.T, what string) {
	t.Helper()
	least, most := 1<<30, 0
	var counts []int
	for _, m := range g {
		n := len(m.in.payloads())
		counts = append(counts, n)
		least, most = min(least, n), max(most, n)
	}
	t.Logf("%s: %v, max/min %.2f", what, counts, float64(most)/float64(max(least, 1)))
	if 2*most > 3*least {
		t.Errorf("%s: members got %v", what, counts)
	}
}

// publishAll publishes n messages through every node and returns their payloads.
func (c *testCluster) publishAll(what string, qos uint32, n int) (payloads []string) {
	for _, node := range c.up() {
		p := node.open(c.t, what+"-"+node.config.NodeID, true, 0)
		var answers []<-chan error
		for i := range n {
			payload := fmt.Sprintf("%s-%s-%d", what, node.config.NodeID, i)
			payloads = append(payloads, payload)
			answers = append(answers, p.publishing(shareTopic, qos, payload))
		}
		for _, a := range answers {
			if err := wait(c.t, "publish", a); err != nil {
				c.t.Fatalf("publish: %v", err)
			}
		}
		p.link.Close(session.CloseRequest{})
	}
	return payloads
}

// join opens members on all nodes: each shard and each node has as many.
func (c *testCluster) join(what string, expiry uint32, each int) (g shareGroup) {
	for i := range each {
		for shard := range uint32(c.parts) {
			n := c.up()[(int(shard)+i)%c.size]
			m := n.open(c.t, c.clientIn(shard+1, fmt.Sprintf("%s-%d", what, i)), true, expiry)
			m.subscribe(shareFilter, 1)
			g = append(g, m)
		}
	}
	return g
}

// TestSharedBalance: each message goes to one member, and members get about as
// much each, durable and transient ones; where there are durable ones they get
// what is not QoS 0.
func TestSharedBalance(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, 3)
	transient := c.join("transient", 0, 2)
	transient.expectOnce(t, c.publishAll("one", 1, 400))
	transient.expectBalance(t, "transient")
	before := len(transient.got())
	durable := c.join("durable", 100, 2)
	durable.expectOnce(t, c.publishAll("two", 1, 400))
	durable.expectBalance(t, "durable")
	if n := len(transient.got()); n != before {
		t.Errorf("transient members got %d more", n-before)
	}
}

// TestSharedQoS2: a durable publisher's QoS 2 reaches one member once.
func TestSharedQoS2(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, 3)
	for i, expiry := range []uint32{0, 100} {
		g := c.join(fmt.Sprintf("member-%d", i), expiry, 1)
		p := c.node("n1").open(t, fmt.Sprintf("publisher-%d", i), true, 100)
		var want []string
		for id := range uint16(200) {
			payload := fmt.Sprintf("m-%d-%d", i, id)
			want = append(want, payload)
			done := make(chan error, 1)
			p.link.Received(id+1, false, message(shareTopic, 2, payload), func(err error) { done <- err })
			if err := wait(t, "PUBREC", done); err != nil {
				t.Fatal(err)
			}
		}
		g.expectOnce(t, want)
		for _, m := range g {
			if !m.opened.Durable {
				m.leave(shareFilter)
			}
		}
	}
}

// TestSharedAway: what waits for members who are away goes to the first that
// comes back, also from other shards; what comes later too.
func TestSharedAway(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, 3)
	g := c.join("member", 100, 2)
	for _, m := range g {
		m.link.Close(session.CloseRequest{})
	}
	eventually(t, "all members are away", func() error {
		for _, s := range c.up()[0].share(shareFilter).Candidates {
			if s.Attached > 0 || s.Members != 2 {
				return fmt.Errorf("shard %d has %d of %d", s.Group, s.Attached, s.Members)
			}
		}
		return nil
	})
	want := c.publishAll("away", 1, 100)
	if got := g.got(); len(got) > 0 {
		t.Fatalf("members who are away got %q", got)
	}
	back := shareGroup{c.node("n2").open(t, c.clientIn(1, "member-0"), false, 100)}
	want = append(want, c.publishAll("back", 1, 50)...)
	back.expectOnce(t, want)
}

// TestSharedSessionEnds: what a member was sent and has not acknowledged goes to
// others when its session ends, if it was QoS 1; and a member that takes no more
// holds nobody up.
func TestSharedSessionEnds(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, 1)
	var held atomic.Int64
	stuck := c.node("n1").openWith(t, session.OpenRequest{Client: "stuck", CleanStart: true, ExpirySeconds: 100},
		func(session.Delivery) { held.Add(1) })
	stuck.subscribe(shareFilter, 1)
	m := c.node("n2").open(t, "member", true, 100)
	m.subscribe(shareFilter, 1)
	g := shareGroup{m}
	want := c.publishAll("some", 1, 100)
	eventually(t, "the other has its part", func() error {
		if n := len(g.got()); n < len(want)/2 {
			return fmt.Errorf("%d of %d", n, len(want))
		}
		return nil
	})
	// One after the other: the member that takes no more gets none of these.
	before, p := len(g.got()), c.node("n3").open(t, "publisher", true, 0)
	for i := range 50 {
		want = append(want, fmt.Sprintf("later-%d", i))
		p.publish(shareTopic, 1, want[len(want)-1])
	}
	eventually(t, "the other has what came later", func() error {
		if n := len(g.got()); n < before+50 {
			return fmt.Errorf("%d of %d", n-before, 50)
		}
		return nil
	})
	t.Logf("the member that takes no more was sent %d of %d", held.Load(), len(want))
	if held.Load() == 0 {
		t.Fatal("it was sent nothing")
	}
	now := uint32(0)
	stuck.link.Close(session.CloseRequest{ExpirySeconds: &now})
	g.expectOnce(t, want)
}

// TestSharedUnsubscribe: messages that are picked for members who have gone reach
// others, while members come and go.
func TestSharedUnsubscribe(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, 3)
	steady := shareGroup{c.node("n3").open(t, "steady", true, 0)}
	steady[0].subscribe(shareFilter, 1)
	all := slices.Clone(steady)
	var mu sync.Mutex
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i, name := range c.names {
		wg.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-stop:
					return
				default:
				}
				m := c.node(name).open(t, fmt.Sprintf("goes-%d-%d", i, k), true, 0)
				m.subscribe(shareFilter, 1)
				mu.Lock()
				all = append(all, m)
				mu.Unlock()
				m.leave(shareFilter)
				m.link.Close(session.CloseRequest{})
			}
		})
	}
	want := c.publishAll("steady", 1, 300)
	close(stop)
	wg.Wait()
	all.expectOnce(t, want)
}

// TestScenarioShared kills nodes under a group of durable members: each message
// that was acknowledged reaches a member.
func TestScenarioShared(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioShared)
}

func testScenarioShared(t *testing.T, size int) {
	c := newSized(t, size, 3)
	var members []*device
	for i := range 6 {
		d := newDevice(c, c.clientIn(uint32(i%3)+1, fmt.Sprintf("member-%d", i)))
		c.must(d.stay(c.on(c.names[i%3])))
		c.must(d.subscribe(shareFilter, 1))
		members = append(members, d)
	}
	p := newDevice(c, "publisher")
	c.must(p.stay(c.on("n1")))
	var want []string
	some := func(what string) {
		var sent []*outgoing
		for i := range 50 {
			want = append(want, fmt.Sprintf("%s-%d", what, i))
			sent = append(sent, p.publish(shareTopic, 1, want[len(want)-1]))
		}
		for _, m := range sent {
			wait(t, "PUBACK", m.acked)
		}
	}
	for _, name := range []string{c.on("n2"), "n3"} {
		some("before " + name)
		c.kill(name)
		some("without " + name)
		for _, d := range members {
			if !d.connected() {
				c.must(d.stay(c.on("n1")))
			}
		}
		some("connected elsewhere, without " + name)
		c.start(name)
		c.ready()
		if !p.connected() {
			c.must(p.stay(c.on("n1")))
		}
	}
	eventually(t, "the members have all", func() error {
		var got []string
		for _, d := range members {
			mine, faults := d.payloads()
			if len(faults) > 0 {
				return fmt.Errorf("faults %q", faults)
			}
			got = append(got, mine...)
		}
		if lost := missing(got, want); len(lost) > 0 {
			return fmt.Errorf("%d of %d are missing: %.200q", len(lost), len(want), lost)
		}
		return nil
	})
}

// TestSharedBeyondMemory: messages that have left memory go to other members
// too, in the same shard and in another one, over restarts.
func TestSharedBeyondMemory(t *testing.T) {
	const budget, n, size = 256 << 10, 1500, 1200
	c := startCluster(t, 3, 2, nil, func(c *Config) { c.QueueMemory = budget })
	ids := []string{c.clientIn(1, "a"), c.clientIn(1, "b"), c.clientIn(2, "c")}
	for i, id := range ids {
		c.away(c.names[i], id, shareFilter)
	}
	p := c.node("n1").open(t, "publisher", true, 0)
	p.flood(shareTopic, n, size)
	for _, x := range c.up() {
		within(t, x, budget)
	}
	c.restartAll()
	back := c.node("n3").open(t, ids[0], false, 3600)
	eventually(t, "one gets all", func() error {
		if got := len(back.in.payloads()); got != n {
			return fmt.Errorf("got %d of %d", got, n)
		}
		return nil
	})
	seen := map[string]bool{}
	for _, payload := range back.in.payloads() {
		if len(payload) != size || seen[payload] {
			t.Fatalf("%.10q came twice, or in part", payload)
		}
		seen[payload] = true
	}
	if c.loaded() < n/2 {
		t.Errorf("only %d messages were read back", c.loaded())
	}
}

// TestScenarioSharedCutOff cuts a node with transient members off: what was on
// the way to it goes to others, and each message that was acknowledged reaches a
// member.
func TestScenarioSharedCutOff(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioSharedCutOff)
}

func testScenarioSharedCutOff(t *testing.T, size int) {
	c := newSized(t, size, 3)
	c.lead(0, "n1")
	g := c.join("member", 0, 2)
	p := c.at("n1").open(t, "publisher", true, 0)
	var want []string
	var answers []<-chan error
	send := func(n int) {
		for range n {
			want = append(want, fmt.Sprint("m-", len(want)))
			answers = append(answers, p.publishing(shareTopic, 1, want[len(want)-1]))
		}
	}
	send(100)
	c.net.isolate(c.on("n2"))
	send(200)
	for i, a := range answers {
		if err := wait(t, "PUBACK", a); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	g.expectAll(t, want)
	c.net.rejoin(c.on("n2"))
	c.ready()
}

// TestSharedNodeStops: what the connections of a node leave when it stops goes to
// members elsewhere first, also to a shard.
func TestSharedNodeStops(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 3)
	for i, expiry := range []uint32{0, 100} {
		m := c.node("n1").open(t, fmt.Sprint("member-", i), true, expiry)
		m.subscribe(shareFilter, 1)
		n := c.node("n3")
		var want []string
		for k := range 50 {
			want = append(want, fmt.Sprintf("left-%d-%d", i, k))
			n.Redispatch(shareFilter, message(shareTopic, 1, want[k]))
		}
		c.mu.Lock()
		delete(c.nodes, "n3")
		c.mu.Unlock()
		if err := n.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		shareGroup{m}.expectOnce(t, want)
		c.start("n3")
		c.ready()
		if expiry == 0 {
			m.leave(shareFilter)
		}
	}
}
