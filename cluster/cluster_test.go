package cluster

import (
	"fmt"
	"testing"

	"github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

func TestOneNodeServes(t *testing.T) {
	c := newCluster(t, 1, 6)
	n := c.nodes["n1"]
	sub := n.open(t, "sub", true, 3600)
	sub.subscribe("a/+", 1)
	pub := n.open(t, "pub", true, 0)
	pub.publish("a/b", 1, "one")
	pub.publish("a/b", 1, "two")
	sub.expect("one", "two")
}

func TestThreeNodesDurableSubscriber(t *testing.T) {
	for _, parts := range []int{1, 6} {
		t.Run(fmt.Sprint(parts), func(t *testing.T) {
			c := newCluster(t, 3, parts)
			sub := c.nodes["n1"].open(t, "sub", true, 3600)
			sub.subscribe("a/+", 2)
			var want []string
			for _, name := range c.names {
				pub := c.nodes[name].open(t, "pub-"+name, true, 0)
				for i := range 50 {
					want = append(want, fmt.Sprintf("%s-%d", name, i))
					pub.publish("a/b", 1, want[len(want)-1])
				}
			}
			sub.expect(want...)
		})
	}
}

func TestThreeNodesTransientSubscriber(t *testing.T) {
	c := newCluster(t, 3, 6)
	sub := c.nodes["n1"].open(t, "sub", true, 0)
	sub.subscribe("a/+", 1)
	pub := c.nodes["n2"].open(t, "pub", true, 0)
	var want []string
	for i := range 100 {
		want = append(want, fmt.Sprint(i))
		pub.publish("a/b", 1, want[i])
	}
	sub.expect(want...)
}

func TestQoS2OfDurablePublisherReachesAllOnce(t *testing.T) {
	c := newCluster(t, 3, 6)
	durable := c.nodes["n1"].open(t, "durable", true, 3600)
	durable.subscribe("a/#", 2)
	transient := c.nodes["n3"].open(t, "transient", true, 0)
	transient.subscribe("a/#", 2)
	pub := c.nodes["n2"].open(t, "pub", true, 3600)
	var want []string
	for i := range 100 {
		want = append(want, fmt.Sprint(i))
		m := &shoalpb.Message{Topic: "a/b", Qos: 2, Payload: []byte(want[i])}
		id := uint16(i%7 + 1)
		done := make(chan error, 1)
		pub.link.Received(id, false, m, func(err error) { done <- err })
		if err := wait(t, "received", done); err != nil {
			t.Fatal(err)
		}
		pub.link.Released(id, func(_ bool, err error) { done <- err })
		if err := wait(t, "released", done); err != nil {
			t.Fatal(err)
		}
	}
	durable.expect(want...)
	transient.expect(want...)
}

func TestTakeoverAcrossNodes(t *testing.T) {
	c := newCluster(t, 3, 6)
	first := c.nodes["n1"].open(t, "c", true, 3600)
	first.subscribe("x", 1)
	second := c.nodes["n2"].open(t, "c", false, 3600)
	if !second.opened.Present {
		t.Error("session not present after takeover")
	}
	wait(t, "superseded", first.superseded)
	second.publish("x", 1, "from the second")
	second.expect("from the second")
	if err := wait(t, "publish on the first", first.publishing("x", 1, "late")); err == nil {
		t.Error("the first connection's publish was acknowledged after takeover")
	}
}

// TestTakeoverByOneThatLeaves: a connection is closed by a takeover also when the
// newcomer has gone before its node could see to it.
func TestTakeoverByOneThatLeaves(t *testing.T) {
	c := newCluster(t, 3, 1)
	var old []*client
	for i := range 20 {
		id := fmt.Sprint("c", i)
		old = append(old, c.nodes["n1"].open(t, id, true, 0))
		c.nodes["n2"].open(t, id, true, 0).link.Close(session.CloseRequest{})
	}
	for _, o := range old {
		wait(t, "superseded", o.superseded)
	}
}

var _ session.Sink = (*client)(nil)
