package cluster

import (
	"context"
	"fmt"
	"testing"

	"github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// TestAllNodesRestart stops all nodes and starts them again: with the log
// alone, and after checkpoints. (raft's RestoreCommittedLogs left restarted
// servers without peers.)
func TestAllNodesRestart(t *testing.T) {
	c := newCluster(t, 3, 2)
	sub := c.nodes["n1"].open(t, "sub", true, 3600)
	sub.subscribe("a/+", 1)
	want := []string{}
	subs := []*client{sub}
	for round := range 3 {
		pub := c.nodes["n2"].open(t, "pub", true, 0)
		for i := range 20 {
			want = append(want, fmt.Sprint(round, "-", i))
			pub.publish("a/b", 1, want[len(want)-1])
		}
		if round == 1 {
			for _, n := range c.nodes {
				for _, g := range n.allGroups() {
					if err := g.checkpoint(); err != nil {
						t.Fatalf("checkpoint %s: %v", g.name, err)
					}
				}
			}
		}
		for _, n := range c.up() {
			if err := n.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		c.nodes = map[string]*testNode{}
		for _, name := range c.names {
			c.start(name)
		}
		c.ready()
		sub = c.nodes["n3"].open(t, "sub", false, 3600)
		if !sub.opened.Present {
			t.Fatalf("round %d: the session is gone", round)
		}
		subs = append(subs, sub)
	}
	eventually(t, "what was acknowledged is delivered", func() error {
		seen := map[string]bool{}
		for _, s := range subs {
			for _, p := range s.in.payloads() {
				seen[p] = true
			}
		}
		for _, p := range want {
			if !seen[p] {
				return fmt.Errorf("%s has not come", p)
			}
		}
		return nil
	})
}

// TestNothingStaysOfTransientSessions closes connections that have publishes
// queued and under way, and takes others over: no row may be left behind.
func TestNothingStaysOfTransientSessions(t *testing.T) {
	c := newCluster(t, 3, 2)
	sub := c.nodes["n1"].open(t, "sub", true, 3600)
	sub.subscribe("t/#", 1)
	for i := range 60 {
		id := fmt.Sprint("c", i%20)
		x := c.nodes[c.names[i%3]].open(t, id, true, 0)
		for range 10 {
			x.link.Publish(&shoalpb.Message{Topic: "t/1", Qos: 1, Payload: []byte("x")}, func(error) {})
		}
		if i%2 == 0 {
			x.link.Close(session.CloseRequest{})
		}
	}
	for i := range 20 {
		x := c.nodes["n2"].open(t, fmt.Sprint("c", i), true, 0)
		x.publish("t/2", 1, "y") // waits until former owners have drained
		x.link.Close(session.CloseRequest{})
	}
	eventually(t, "only the durable session has a row", func() error {
		for name, n := range c.nodes {
			rows := 0
			for _, g := range n.allGroups() {
				if g.id != 0 {
					g.read(func(m machine) { rows += m.(*shardMachine).Stats().Sessions })
				}
			}
			if rows != 1 {
				return fmt.Errorf("%s has %d rows", name, rows)
			}
			if p := n.proc.Load(); p != nil {
				p.mu.Lock()
				links, openings := len(p.links), len(p.openings)
				p.mu.Unlock()
				if links != map[bool]int{true: 1}[name == "n1"] || openings != 0 {
					return fmt.Errorf("%s knows %d clients' links and %d openings", name, links, openings)
				}
			}
		}
		return nil
	})
}

// TestCloseTwice closes a node that is busy, and again.
func TestCloseTwice(t *testing.T) {
	c := newCluster(t, 3, 2)
	n := c.nodes["n1"]
	pub := n.open(t, "pub", true, 0)
	sub := n.open(t, "sub", true, 3600)
	sub.subscribe("a", 1)
	for range 500 {
		pub.link.Publish(&shoalpb.Message{Topic: "a", Qos: 1, Payload: []byte("x")}, func(error) {})
	}
	for range 2 {
		if err := n.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.nodes, "n1")
}
