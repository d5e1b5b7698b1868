package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// grow starts a node that the cluster does not know yet.
func (c *testCluster) grow(name string) *testNode {
	c.t.Helper()
	c.names = append(c.names, name)
	return c.start(name)
}

// operate carries out a command at any node.
func (c *testCluster) operate(command, node string, force bool) {
	c.t.Helper()
	eventually(c.t, command+" "+node, func() error {
		_, err := c.up()[0].Operate(context.Background(), command, node, force)
		return err
	})
}

// placed waits until no replica moves, each shard has want replicas, all of them
// on nodes named, and the directory has the voters given.
func (c *testCluster) placed(want int, voters int, nodes ...string) {
	c.t.Helper()
	begin := time.Now()
	eventually(c.t, fmt.Sprintf("%d replicas on %v", want, nodes), func() error { return c.placedOn(want, voters, nodes) })
	c.t.Logf("%d replicas on %v, %d voters after %v", want, nodes, voters, time.Since(begin).Round(time.Millisecond))
}

func (c *testCluster) placedOn(want, voters int, nodes []string) error {
	s := c.node(c.leader(0)).Status()
	load := map[string]int{}
	for _, p := range s.Placement {
		if p.Joining != "" || p.Leaving != "" || len(p.Replicas) != want {
			return fmt.Errorf("%s is on %v, joining %q, leaving %q (%s)", p.Group, p.Replicas, p.Joining, p.Leaving, s.Waiting)
		}
		for _, r := range p.Replicas {
			load[nodeOf(r)]++
			if !slices.Contains(nodes, nodeOf(r)) {
				return fmt.Errorf("%s is on %v", p.Group, p.Replicas)
			}
		}
	}
	for _, node := range nodes {
		if even := want * c.parts / len(nodes); load[node] < even || load[node] > even+1 {
			return fmt.Errorf("loads are %v", load)
		}
	}
	got := 0
	for _, r := range s.Groups[0].Replicas {
		if strings.HasSuffix(r, "(voter)") {
			got++
		}
	}
	if got != voters {
		return fmt.Errorf("the directory is on %v (%s)", s.Groups[0].Replicas, s.Waiting)
	}
	return nil
}

// subscribes makes a device subscribe, over as many connections as it takes.
func (d *device) subscribes(filter string, qos uint32, nodes ...string) {
	d.c.t.Helper()
	eventually(d.c.t, d.id+" subscribes "+filter, func() error {
		if !d.connected() {
			if err := d.stay(nodes...); err != nil {
				return err
			}
		}
		return d.subscribe(filter, qos)
	})
}

// publishes sends a message and waits until it is acknowledged, over as many
// connections as it takes.
func (d *device) publishes(topic string, qos uint32, payload string, nodes ...string) {
	d.c.t.Helper()
	d.completes(d.publish(topic, qos, payload), nodes...)
}

// completes waits until a message is acknowledged for good, over as many
// connections as it takes.
func (d *device) completes(m *outgoing, nodes ...string) {
	d.c.t.Helper()
	eventually(d.c.t, m.payload+" is acknowledged", func() error {
		select {
		case <-m.acked:
			return nil
		default:
		}
		err := errors.New("not yet")
		if !d.connected() {
			err = errors.Join(err, d.stay(nodes...))
		}
		return err
	})
}

// gets waits until a device has got just these payloads in order, over as many
// connections as it takes.
func (d *device) gets(node string, payloads ...string) {
	d.c.t.Helper()
	eventually(d.c.t, d.id+" gets what it is owed", func() error {
		if !d.connected() {
			if err := d.stay(node); err != nil {
				return err
			}
		}
		if got, faults := d.payloads(); len(faults) > 0 || !slices.Equal(got, payloads) {
			return fmt.Errorf("got %q, want %q, faults %q", got, payloads, faults)
		}
		return nil
	})
}

// load publishes at nodes, one client each, until it is stopped; then every
// acknowledged message must have reached the durable subscriber.
type load struct {
	c     *testCluster
	sub   *device
	stop  chan struct{}
	wg    sync.WaitGroup
	mu    sync.Mutex
	acked []string
}

func (c *testCluster) load(nodes ...string) *load {
	c.t.Helper()
	l := &load{c: c, sub: newDevice(c, "load-sub"), stop: make(chan struct{})}
	l.sub.subscribes("load/#", 1, nodes...)
	for i, node := range nodes {
		pub := newDevice(c, fmt.Sprintf("load-pub-%d", i))
		if err := pub.stay(node); err != nil {
			c.t.Fatal(err)
		}
		l.wg.Go(func() { l.run(pub, nodes) })
	}
	return l
}

func (l *load) run(pub *device, nodes []string) {
	for i := 0; ; i++ {
		select {
		case <-l.stop:
			return
		default:
		}
		payload := fmt.Sprint(pub.id, "-", i)
		m := pub.publish("load/"+pub.id, 1, payload)
		for acked := false; !acked; {
			select {
			case <-m.acked:
				acked = true
			case <-time.After(50 * time.Millisecond):
				if !pub.connected() {
					_ = pub.stay(nodes...)
				}
			}
		}
		l.mu.Lock()
		l.acked = append(l.acked, payload)
		l.mu.Unlock()
		pause(context.Background(), 5*time.Millisecond)
	}
}

// end stops the load and checks what came.
func (l *load) end(node string) {
	l.c.t.Helper()
	close(l.stop)
	l.wg.Wait()
	eventually(l.c.t, "all that was acknowledged has come", func() error {
		if !l.sub.connected() {
			_ = l.sub.stay(node)
		}
		got := make(map[string]bool)
		come, _ := l.sub.payloads()
		for _, p := range come {
			got[p] = true
		}
		for _, p := range l.acked {
			if !got[p] {
				return fmt.Errorf("%s has not come, of %d", p, len(l.acked))
			}
		}
		return nil
	})
	l.c.t.Logf("%d messages acknowledged and delivered", len(l.acked))
	if _, faults := l.sub.payloads(); len(faults) > 0 {
		l.c.t.Error(faults)
	}
}

// TestGrowAndShrink takes two nodes in under load and removes two again, one of
// them a founder.
func TestGrowAndShrink(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 4)
	l := c.load("n1", "n2")
	c.grow("n4")
	c.grow("n5")
	c.ready()
	c.operate("rebalance", "", false)
	c.placed(3, 5, "n1", "n2", "n3", "n4", "n5")
	for _, name := range []string{"n3", "n4"} {
		c.operate("drain", name, false)
		c.operate("remove", name, false)
		eventually(t, name+" is told that it was removed", func() error {
			if err := c.node(name).Live(); err == nil || !strings.Contains(err.Error(), "removed") {
				return errors.Join(errors.New("it lives"), err)
			}
			return nil
		})
		c.kill(name)
	}
	c.placed(3, 3, "n1", "n2", "n5")
	l.end("n1")
}

// TestShrinkToOneAndGrow removes two of three founders, so that the third alone
// is the cluster, and lets others join it.
func TestShrinkToOneAndGrow(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 2)
	sub, pub := newDevice(c, "sub"), newDevice(c, "pub")
	sub.subscribes("a", 1, "n2")
	sub.hangUp()
	pub.publishes("a", 1, "kept", "n2")
	pub.hangUp()
	for _, name := range []string{"n1", "n3"} {
		if _, err := c.node("n2").Operate(context.Background(), "remove", name, false); err == nil {
			t.Errorf("%s may be removed although it serves and is needed", name)
		}
		c.operate("remove", name, true)
		eventually(t, name+" is told that it was removed", func() error {
			if err := c.node(name).Live(); err == nil || !strings.Contains(err.Error(), "removed") {
				return errors.Join(errors.New("it lives"), err)
			}
			return nil
		})
		c.kill(name)
	}
	c.placed(1, 1, "n2")
	if _, err := c.node("n2").Operate(context.Background(), "remove", "n2", true); err == nil {
		t.Error("the last node may be removed")
	}
	c.grow("n4")
	c.grow("n5")
	eventually(t, "n5 is ready", c.node("n5").Ready)
	c.placed(3, 3, "n2", "n4", "n5")
	sub.gets("n5", "kept")
}
