package cluster

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/shoalmq/shoal/cluster/lease"
	"github.com/shoalmq/shoal/cluster/raftnet"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// rounds is how often the window between SUBACK and a publish elsewhere is
// tried.
const rounds = 300

// TestSubackThenPublish subscribes a new filter on one node and publishes on
// another as soon as SUBACK is there (scenario 15): the message always comes.
func TestSubackThenPublish(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 6)
	for _, class := range []struct {
		name   string
		expiry uint32
	}{{"durable", 3600}, {"transient", 0}} {
		t.Run(class.name, func(t *testing.T) {
			var subs, pubs []*client
			for _, n := range c.up() {
				name := class.name + n.config.NodeID
				subs = append(subs, n.open(t, "sub"+name, true, class.expiry))
				pubs = append(pubs, n.open(t, "pub"+name, true, 0))
			}
			want := make([][]string, len(subs))
			for i := range rounds {
				at, filter := i%3, fmt.Sprintf("%s/%d/+", class.name, i)
				subs[at].subscribe(filter, 1)
				want[at] = append(want[at], fmt.Sprint(i))
				pubs[(at+1+i/3%2)%3].publish(fmt.Sprintf("%s/%d/x", class.name, i), 1, fmt.Sprint(i))
			}
			for i, sub := range subs {
				sub.expect(want[i]...)
			}
		})
	}
}

// subscribing asks for a subscription of a durable session.
func (c *client) subscribing(filter string) <-chan error {
	done := make(chan error, 1)
	c.link.Subscribe([]*shoalpb.Subscription{{Filter: filter, Qos: 1}}, func(_ []bool, err error) { done <- err })
	return done
}

// stays fails the test if c gets something soon. That nothing comes later is
// not shown, so a slow machine cannot make it fail.
func stays[T any](t *testing.T, what string, c <-chan T) {
	t.Helper()
	select {
	case v := <-c:
		t.Errorf("%s: %v", what, v)
	case <-time.After(300 * time.Millisecond):
	}
}

// TestScenarioRouteHeldBack holds back the route of a new filter (scenario 16):
// neither the first subscriber nor the second gets SUBACK before it is visible.
func TestScenarioRouteHeldBack(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioRouteHeldBack)
}

func testScenarioRouteHeldBack(t *testing.T, size int) {
	c := newSized(t, size, 2)
	c.lead(0, "n1")
	c.lead(1, "n2")
	first := c.at("n3").open(t, c.clientIn(1, "first"), true, 3600)
	second := c.at("n3").open(t, c.clientIn(1, "second"), true, 3600)
	pub := c.at("n1").open(t, "pub", true, 0)
	c.net.hold("n1", "n2")
	one, two := first.subscribing("f"), second.subscribing("f")
	c.shardHas(1, "n3", "f")
	stays(t, "SUBACK before the route is visible", one)
	stays(t, "SUBACK of the second subscriber before the route is visible", two)
	c.net.heal()
	for _, suback := range []<-chan error{one, two} {
		if err := wait(t, "SUBACK", suback); err != nil {
			t.Fatal(err)
		}
	}
	pub.publish("f", 1, "m")
	first.expect("m")
	second.expect("m")
}

// shardHas waits until a node's replica of a shard has a filter.
func (c *testCluster) shardHas(shard uint32, node, filter string) {
	c.t.Helper()
	c.shardFilter(shard, node, filter, true)
}

func (c *testCluster) shardFilter(shard uint32, node, filter string, want bool) {
	c.t.Helper()
	eventually(c.t, "committed", func() error {
		has := false
		c.node(node).group(shard).read(func(m machine) {
			m.(*shardMachine).RouteFilters(func(f string, _ uint8) bool {
				has = has || f == filter
				return !has
			})
		})
		if has != want {
			return fmt.Errorf("%s has filter %s: %v", groupName(shard), filter, has)
		}
		return nil
	})
}

// TestScenarioLeaderDiesBeforeRoute kills a shard's leader between the commit of
// a subscription and the sending of its route (scenario 17): SUBACK comes after
// the failover, and then a publish anywhere matches.
func TestScenarioLeaderDiesBeforeRoute(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioLeaderDiesBeforeRoute)
}

func testScenarioLeaderDiesBeforeRoute(t *testing.T, size int) {
	c := newSized(t, size, 2)
	c.lead(0, "n1")
	c.lead(1, "n2")
	sub := c.at("n3").open(t, c.clientIn(1, "sub"), true, 3600)
	pub := c.at("n1").open(t, "pub", true, 0)
	c.net.hold("n1", "n2")
	suback := sub.subscribing("f")
	c.shardHas(1, "n3", "f")
	stays(t, "SUBACK before the route is visible", suback)
	c.kill("n2")
	if err := wait(t, "SUBACK", suback); err != nil {
		t.Fatal(err)
	}
	pub.publish("f", 1, "m")
	sub.expect("m")
	c.start("n2")
	c.ready()
	again := c.node("n2").open(t, "again", true, 0)
	again.publish("f", 1, "from the node that died")
	sub.expect("m", "from the node that died")
}

// TestScenarioResubscribe holds back the removal of a route while the same
// filter is subscribed again and the shard's leader dies (scenario 18): the
// subscription matches everywhere.
func TestScenarioResubscribe(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioResubscribe)
}

func testScenarioResubscribe(t *testing.T, size int) {
	c := newSized(t, size, 2)
	c.lead(0, "n1")
	c.lead(1, "n2")
	sub := c.at("n3").open(t, c.clientIn(1, "sub"), true, 3600)
	sub.subscribe("f", 1)
	c.net.hold("n1", "n2")
	unsuback := make(chan error, 1)
	sub.link.Unsubscribe([]string{"f"}, func(_ []bool, err error) { unsuback <- err })
	c.shardFilter(1, "n3", "f", false)
	suback := sub.subscribing("f")
	c.shardHas(1, "n3", "f")
	stays(t, "SUBACK before the route is visible", suback)
	c.kill("n2")
	for _, answer := range []<-chan error{unsuback, suback} {
		if err := wait(t, "answer", answer); err != nil {
			t.Fatal(err)
		}
	}
	c.start("n2")
	c.ready()
	var want []string
	for _, n := range c.up() {
		want = append(want, n.config.NodeID)
		n.open(t, "pub-"+n.config.NodeID, true, 0).publish("f", 1, n.config.NodeID)
	}
	sub.expect(want...)
}

// TestScenarioStaleLeader gives a frozen leader of the directory answers that
// were on the way before it froze (scenario 20): they do not confirm that it
// leads, so it grants no lease after another was elected.
func TestScenarioStaleLeader(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioStaleLeader)
}

func testScenarioStaleLeader(t *testing.T, size int) {
	c := newSized(t, size, 1)
	c.lead(0, "n1")
	sub := c.at("n2").open(t, "sub", true, 0)
	held := make(chan struct{}, 2)
	release := make(chan struct{})
	c.net.filter(func(m raftnet.Message) (<-chan struct{}, bool) {
		if m.Group != 0 || !m.Answer || nodeOf(m.To) != "n1" {
			return nil, false
		}
		select {
		case held <- struct{}{}:
		default:
		}
		return release, false
	})
	wait(t, "a held answer", held)
	wait(t, "another held answer", held)
	c.net.freeze("n1")
	asked := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		asked <- c.node("n1").group(0).confirm(ctx)
	}()
	pause(t.Context(), retryDelay) // so that the question comes before the answers
	close(release)
	if err := wait(t, "confirmation", asked); err == nil {
		t.Error("leadership is confirmed by answers to earlier questions")
	}
	granted := c.node("n1").lease.expiry()
	eventually(t, "another leader", func() error {
		for _, n := range c.up() {
			if n.config.NodeID != "n1" && n.group(0).leads() {
				return nil
			}
		}
		return errNoLeader
	})
	sub.subscribe("new", 1) // comes when the frozen node's lease has lapsed
	if now := c.node("n1").lease.expiry(); now > granted {
		t.Errorf("the frozen leader's lease was prolonged by %v", now-granted)
	}
	c.net.heal()
	c.ready()
	c.node("n1").open(t, "pub", true, 0).publish("new", 1, "m")
	sub.expect("m")
}

// TestScenarioLaggingCopy keeps one node's copy of the directory behind
// (scenario 21): subscriptions become visible without it, and neither this
// leader nor the next gives it a lease before it has caught up.
func TestScenarioLaggingCopy(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioLaggingCopy)
}

func testScenarioLaggingCopy(t *testing.T, size int) {
	c := newSized(t, size, 1)
	c.lead(0, "n1")
	sub := c.at("n2").open(t, "sub", true, 0)
	sub.subscribe("before", 1)
	c.net.filter(func(m raftnet.Message) (<-chan struct{}, bool) {
		return nil, m.Group == 0 && !m.Answer && nodeOf(m.To) == c.on("n3") &&
			(m.Kind == raftnet.KindAppend || m.Kind == raftnet.KindSnapshot)
	})
	sub.subscribe("behind", 1)
	lagging := c.at("n3")
	if lagging.lease.valid() {
		t.Error("SUBACK came while a node without the route had a lease")
	}
	c.lead(0, "n2")
	for end := time.Now().Add(3 * lease.Renew); time.Now().Before(end); pause(t.Context(), retryDelay) {
		if lagging.lease.valid() {
			t.Fatal("the next leader gives a lease to a node that lacks a visible route")
		}
	}
	c.net.heal()
	c.ready()
	lagging.open(t, "pub", true, 0).publish("behind", 1, "m")
	sub.expect("m")
}
