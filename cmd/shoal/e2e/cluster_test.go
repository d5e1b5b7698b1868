package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// logTailBytes is how much of each node's log a failed test shows.
const logTailBytes = 6 << 10

// cluster is some nodes on loopback: three, if not said otherwise.
type cluster struct {
	t     testing.TB
	nodes []*node
}

// newCluster plans three nodes with their data directories below dir, and
// starts none.
func newCluster(t testing.TB, shards int, dir string) *cluster {
	t.Helper()
	return newClusterOf(t, 3, shards, dir)
}

// newClusterOf is newCluster with another number of nodes.
func newClusterOf(t testing.TB, size, shards int, dir string) *cluster {
	t.Helper()
	c := &cluster{t: t}
	logs := t.TempDir()
	var join []string
	for i := range size {
		name := string(rune('a' + i))
		n := &node{t: t, name: name, dir: filepath.Join(dir, name), surface: httpClient}
		for _, addr := range []*string{&n.mqtt, &n.http, &n.gossip, &n.rpc} {
			*addr = loopback(freePort(t))
		}
		var err error
		if n.log, err = os.Create(filepath.Join(logs, name+".log")); err != nil {
			t.Fatal(err)
		}
		join = append(join, n.gossip)
		c.nodes = append(c.nodes, n)
	}
	for _, n := range c.nodes {
		n.flags = []string{fmt.Sprintf("--bootstrap-expect=%d", size), fmt.Sprintf("--shards=%d", shards)}
		if size > 1 { // with --join a node alone waits for others
			n.flags = append(n.flags, "--join="+strings.Join(join, ","))
		}
	}
	t.Cleanup(c.end)
	return c
}

// startCluster starts three nodes and waits until they serve.
func startCluster(t testing.TB, shards int) *cluster {
	t.Helper()
	return startClusterOf(t, 3, shards)
}

// startClusterOf is startCluster with another number of nodes.
func startClusterOf(t testing.TB, size, shards int) *cluster {
	t.Helper()
	c := newClusterOf(t, size, shards, t.TempDir())
	c.start()
	c.awaitReady()
	return c
}

// start starts the nodes that do not run.
func (c *cluster) start() {
	c.t.Helper()
	for _, n := range c.nodes {
		if !n.running() {
			n.start()
		}
	}
}

func (c *cluster) awaitReady() {
	c.t.Helper()
	for _, n := range c.nodes {
		eventually(c.t, "node "+n.name+" ready", func() error {
			c.failIfEnded()
			return n.ready()
		})
	}
}

// failIfEnded fails the test if a node has ended that nobody has killed.
func (c *cluster) failIfEnded() {
	c.t.Helper()
	for _, n := range c.nodes {
		if n.running() {
			n.ifEnded(func(err error) { c.t.Fatalf("node %s has ended by itself: %v", n.name, err) })
		}
	}
}

// heal starts and thaws whatever needs it, and waits until all serve.
func (c *cluster) heal() {
	c.t.Helper()
	for _, n := range c.nodes {
		if n.running() && n.frozen {
			n.thaw()
		}
	}
	c.start()
	c.awaitReady()
}

// killAll kills all running nodes before it waits for any.
func (c *cluster) killAll() {
	c.t.Helper()
	for _, n := range c.nodes {
		if n.running() {
			n.signal(syscall.SIGKILL)
		}
	}
	for _, n := range c.nodes {
		if n.running() {
			n.wait()
		}
	}
}

// end stops everything, and shows the logs if the test failed or a node ended
// by itself, which is a failure.
func (c *cluster) end() {
	for _, n := range c.nodes {
		if !n.running() {
			continue
		}
		n.ifEnded(func(err error) { c.t.Errorf("node %s has ended by itself: %v", n.name, err) })
		n.process.Process.Kill()
		n.wait()
	}
	if c.t.Failed() {
		c.showLogs()
	}
	for _, n := range c.nodes {
		n.log.Close()
	}
}

func (c *cluster) showLogs() {
	keep, err := os.MkdirTemp("", "shoal-e2e-logs-")
	if err != nil {
		c.t.Log(err)
		return
	}
	for _, n := range c.nodes {
		tail := n.tail(logTailBytes)
		c.t.Logf("the end of %s:\n%s", n.keepLog(keep), tail)
	}
}

// addrs are the MQTT addresses of all nodes.
func (c *cluster) addrs() []string {
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, n.mqtt)
	}
	return addrs
}

// byName returns the node of that name.
func (c *cluster) byName(name string) *node {
	for _, n := range c.nodes {
		if n.name == name {
			return n
		}
	}
	c.t.Fatalf("no node %q", name)
	return nil
}

// leader returns the node that leads a group.
func (c *cluster) leader(group string) *node {
	c.t.Helper()
	var name string
	eventually(c.t, "leader of "+group, func() error {
		for _, n := range c.nodes {
			if !n.running() || n.frozen {
				continue
			}
			s, err := n.status()
			if err != nil {
				return err
			}
			for _, g := range s.Groups {
				if g.Group == group && g.State == "Leader" {
					name = n.name
					return nil
				}
			}
		}
		return errors.New("nobody leads it")
	})
	return c.byName(name)
}
