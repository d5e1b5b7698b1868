package cluster

import (
	"fmt"
	"testing"
)

// exchange is a QoS 2 message on its way from one device to another, which is
// interrupted before one step.
type exchange struct {
	step     string
	pub, sub *device
	// atPub: the publisher is to stop before step, else the subscriber; neither
	// if step is one of the broker's, which begins and is not waited for.
	atPub, atSub bool
}

// exchangeSteps are the steps between which a node dies. Those of the broker
// itself are under way when it happens.
var exchangeSteps = []exchange{
	{step: "Received"},
	{step: "PUBREC arrives", atPub: true},
	{step: "PUBREL", atPub: true},
	{step: "Released"},
	{step: "PUBCOMP arrives", atPub: true},
	{step: "PUBLISH arrives", atSub: true},
	{step: "PUBREC", atSub: true},
	{step: "Release"},
	{step: "PUBREL arrives", atSub: true},
	{step: "PUBCOMP", atSub: true},
	{step: "ack"},
}

// TestScenarioQoS2 kills nodes between all steps of QoS 2 (scenario 39): the
// publishers' node n1, the subscribers' node n2, the leader of the publishers'
// shard, the leader of the subscribers' shard, all of them.
func TestScenarioQoS2(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioQoS2)
}

func testScenarioQoS2(t *testing.T, size int) {
	for _, test := range []struct {
		name       string
		parts      int
		pubs, subs uint32 // shards
		pubLeader  string
		subLeader  string
		kills      [][]string
	}{
		{"one shard", 1, 1, 1, "n3", "n3", [][]string{{"n3"}, {"n1"}, {"n2"}, {"n1", "n2", "n3"}}},
		{"own leader", 6, 2, 5, "n3", "n1", [][]string{{"n3"}, {"n1"}, {"n2"}, {"n1", "n2", "n3"}}},
		{"other leader", 6, 3, 4, "n1", "n3", [][]string{{"n3"}, {"n1"}}},
		{"subscriber leads", 6, 3, 4, "n3", "n2", [][]string{{"n2"}}},
	} {
		if size == 5 && test.name != "own leader" {
			continue // no node of a client leads
		}
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newSized(t, size, test.parts)
			if size == 5 {
				test.kills = [][]string{{"n3"}, {"n1", "n4"}, {"n5"}}
			}
			for round, names := range test.kills {
				c.lead(test.pubs, test.pubLeader)
				c.lead(test.subs, test.subLeader)
				t.Logf("killing %v", names)
				c.interrupt(round, test.pubs, test.subs, names)
			}
		})
	}
}

// interrupt brings one exchange before each step, kills the nodes named, starts
// them again and has all exchanges completed, with another message after each.
func (c *testCluster) interrupt(round int, pubs, subs uint32, names []string) {
	c.t.Helper()
	var list []*exchange
	for i, x := range exchangeSteps {
		x.pub = newDevice(c, c.clientIn(pubs, fmt.Sprintf("pub-%d-%d", round, i)))
		x.sub = newDevice(c, c.clientIn(subs, fmt.Sprintf("sub-%d-%d", round, i)))
		c.must(x.pub.stay(c.on("n1")))
		c.must(x.sub.stay(c.on("n2")))
		c.must(x.sub.subscribe(x.topic(), 2))
		list = append(list, &x)
	}
	for _, x := range list {
		x.begin()
	}
	for _, name := range names {
		c.kill(name)
	}
	for _, name := range names {
		c.start(name)
	}
	for _, x := range list {
		x.end()
	}
	for _, x := range list {
		x.sub.expect("first", "second")
		x.pub.expect()
		x.sub.hangUp()
		x.pub.hangUp()
	}
	c.settled()
}

func (x *exchange) topic() string { return "t/" + x.sub.id }

// begin publishes and returns when the exchange has come to its step.
func (x *exchange) begin() {
	switch {
	case x.atPub:
		x.pub.stopAt(x.step)
	case x.atSub:
		x.sub.stopAt(x.step)
	case x.step == "Released":
		x.pub.stopAt("PUBREL")
	case x.step == "Release":
		x.sub.stopAt("PUBREC")
	case x.step == "ack":
		x.sub.stopAt("PUBCOMP")
	}
	x.pub.publish(x.topic(), 2, "first")
	if x.step == "Received" {
		return
	}
	eventually(x.pub.c.t, x.step, func() error {
		if !x.pub.hasStopped() && !x.sub.hasStopped() {
			return fmt.Errorf("not there yet")
		}
		return nil
	})
	if !x.atPub && !x.atSub {
		x.pub.goOn()
		x.sub.goOn()
	}
}

// end completes the exchange, on whatever connections are left or can be made.
func (x *exchange) end() {
	c := x.pub.c
	for _, d := range []*device{x.pub, x.sub} {
		d.goOn()
		if !d.connected() {
			c.must(d.stay(c.on("n3"), c.on("n1"), c.on("n2")))
		}
	}
	x.pub.publish(x.topic(), 2, "second")
}

// must ends the test if err is not nil.
func (c *testCluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}
