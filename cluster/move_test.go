package cluster

import (
	"context"
	"fmt"
	"sync"
	"testing"
)

// steps are those of a move that replaces a replica.
var steps = []string{"place", "CHANGE_ADD_NONVOTER", "CHANGE_ADD_VOTER", "CHANGE_REMOVE", "place"}

// stopAt makes the next move stop before its k-th step, wherever the directory's
// leader is then, and returns what tells that it has; the leader goes on no more.
func (c *testCluster) stopAt(k int) (stopped <-chan string) {
	at := make(chan string, 1)
	c.onStep(k, func(ctx context.Context, node string) {
		at <- node
		<-ctx.Done()
	})
	return at
}

// onStep calls f, once, before the k-th step of the next move. A step that has to
// wait is tried again, which does not count.
func (c *testCluster) onStep(k int, f func(ctx context.Context, node string)) {
	var mu sync.Mutex
	next, last := 0, ""
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	c.net.step = func(ctx context.Context, node, what string) {
		mu.Lock()
		if what != last && next < len(steps) && what == steps[next] {
			next, last = next+1, what
		} else {
			mu.Unlock()
			return
		}
		now := next
		mu.Unlock()
		if now == k+1 {
			f(ctx, node)
		}
	}
}

// TestDirectoryLeaderDiesInAMove kills, or cuts off, the directory's leader
// before each step of a move: its successor completes it.
func TestDirectoryLeaderDiesInAMove(t *testing.T) {
	for k, step := range steps {
		t.Run(fmt.Sprint(k, " ", step), func(t *testing.T) {
			t.Parallel()
			c := newScenario(t, 3, 1)
			c.grow("n4")
			c.ready()
			l := c.load("n1", "n2")
			stopped := c.stopAt(k)
			c.operate("drain", "n3", false)
			leader := wait(t, "the move stops", stopped)
			if k%2 == 0 {
				c.kill(leader)
				c.start(leader)
			} else {
				c.net.isolate(leader)
				eventually(t, "another leads the directory", func() error {
					for _, n := range c.up() {
						if n.config.NodeID != leader && n.group(0).leads() {
							return nil
						}
					}
					return errNoLeader
				})
				c.net.rejoin(leader)
			}
			c.placed(3, 3, "n1", "n2", "n4")
			l.end("n2")
		})
	}
}

// TestJoiningNodeDiesInAMove kills the node that a replica goes to, before each
// step: the move is given up, or ends when the node is back; never anything is in
// between for good.
func TestJoiningNodeDiesInAMove(t *testing.T) {
	for k := 1; k < len(steps); k++ {
		t.Run(fmt.Sprint(k, " ", steps[k]), func(t *testing.T) {
			t.Parallel()
			c := newScenario(t, 3, 1)
			c.grow("n4")
			c.ready()
			l := c.load("n1", "n2")
			leader := c.leader(0)
			if leader == "n4" {
				t.Skip("n4 leads the directory")
			}
			stopped := make(chan struct{})
			goOn := make(chan struct{})
			c.onStep(k, func(context.Context, string) {
				close(stopped)
				<-goOn
			})
			c.operate("drain", "n3", false)
			wait(t, "the move stops", stopped)
			c.kill("n4")
			close(goOn)
			eventually(t, "n4 is down", func() (err error) {
				c.node(leader).readDirectory(func(d *directoryMachine) {
					if n, _ := d.Node("n4"); n.Up {
						err = fmt.Errorf("it is up")
					}
				})
				return err
			})
			newDevice(c, "check").publishes("check", 1, "the shard serves", "n1", "n2")
			c.start("n4")
			c.placed(3, 3, "n1", "n2", "n4")
			l.end("n2")
		})
	}
}

// TestDeadNodeIsReplaced removes a node that is gone for good; another one takes
// its place.
func TestDeadNodeIsReplaced(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 3)
	l := c.load("n1", "n2")
	c.kill("n3")
	if _, err := c.node("n1").Operate(context.Background(), "remove", "n3", false); err == nil {
		t.Error("two replicas are enough for remove")
	}
	c.grow("n4")
	eventually(t, "n4 is ready", c.node("n4").Ready)
	c.operate("remove", "n3", false)
	c.placed(3, 3, "n1", "n2", "n4")
	eventually(t, "n3 is forgotten", func() (err error) {
		for _, n := range c.node("n1").Status().Nodes {
			if n.Node == "n3" {
				err = fmt.Errorf("it is %v", n)
			}
		}
		return err
	})
	l.end("n2")
}
