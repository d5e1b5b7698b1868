package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/storage"
)

// replaced waits until a node's new disk has all replicas that the old one had
// and the old one is named nowhere.
func (c *testCluster) replaced(node, old string) {
	c.t.Helper()
	if c.node(node).disk == old {
		c.t.Fatalf("%s still has disk %s", node, old)
	}
	eventually(c.t, node+" is ready", c.node(node).Ready)
	c.placed(3, min(5, c.size), c.names...)
	eventually(c.t, old+" is forgotten", func() error {
		for _, n := range c.up() {
			for _, g := range n.allGroups() {
				if !n.has(g.id) {
					continue
				}
				for _, s := range g.configured.Load().servers {
					if strings.HasSuffix(string(s.ID), old) {
						return fmt.Errorf("%s: the configuration of %s is %v", n.config.NodeID, g.name, g.configured.Load().servers)
					}
				}
			}
		}
		return nil
	})
}

// TestWipedDiskUnderLoad deletes the data directory of a node: it comes back as a
// new server and gets all its replicas again.
func TestWipedDiskUnderLoad(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 3)
	l := c.load("n1", "n2")
	old := c.node("n3").disk
	c.kill("n3")
	if err := os.RemoveAll(filepath.Join(c.dir, "n3")); err != nil {
		t.Fatal(err)
	}
	c.start("n3")
	c.replaced("n3", old)
	l.end("n2")
}

// TestDamagedDiskIsMovedAside flips one bit of a stopped node's files: scenario
// 35.
func TestDamagedDiskIsMovedAside(t *testing.T) {
	for _, file := range []string{"log.db", "state-1.db", "identity"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			c := newScenario(t, 3, 2)
			sub := c.node("n1").open(t, "sub", true, 3600)
			sub.subscribe("a", 1)
			sub.publish("a", 1, "a row that can be found")
			sub.expect("a row that can be found")
			for _, g := range c.node("n3").allGroups() {
				if err := g.checkpoint(); err != nil {
					t.Fatal(err)
				}
			}
			old := c.node("n3").disk
			c.kill("n3")
			flip(t, filepath.Join(c.dir, "n3", file))
			c.start("n3")
			aside, _ := filepath.Glob(filepath.Join(c.dir, "n3", "aside-*", file))
			if len(aside) != 1 {
				t.Errorf("moved aside: %v", aside)
			}
			c.replaced("n3", old)
		})
	}
}

// flip changes a bit of a row, wherever the file has it, or of a file without
// rows the first byte.
func flip(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	row := []byte("a row that can be found")
	if !bytes.Contains(data, row) {
		data[0] ^= 4
	}
	data = bytes.ReplaceAll(data, row, []byte("a rov that can be found"))
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedDiskThatIsNeededStays: a node alone, or one of two whose other is
// gone, does not start and changes nothing.
func TestDamagedDiskThatIsNeededStays(t *testing.T) {
	c := newScenario(t, 1, 1)
	sub := c.node("n1").open(t, "sub", true, 3600)
	sub.subscribe("a", 1)
	sub.publish("a", 1, "a row that can be found")
	config := c.node("n1").config
	c.kill("n1")
	file := filepath.Join(c.dir, "n1", "log.db")
	flip(t, file)
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n, err := Open(config)
	if err == nil {
		n.Close(context.Background())
	}
	var bad *storage.BadDiskError
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), "shoal cluster recover") {
		t.Errorf("opening says %v", err)
	}
	after, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed, or is gone: %v", err)
	}
	c.names = nil
}

// TestRolledBackDisk starts a node on an old copy of its disk: it is refused, and
// comes back with a new one.
func TestRolledBackDisk(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 2)
	old := c.node("n3").disk
	c.kill("n3")
	dir, copied := filepath.Join(c.dir, "n3"), filepath.Join(c.dir, "copy")
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // boots that the copy does not know
		c.start("n3")
		eventually(t, "n3 is ready", c.node("n3").Ready)
		c.kill("n3")
	}
	c.putBack("n3", copied)
	c.start("n3")
	c.refused("n3")
	c.kill("n3")
	c.startAgain("n3")
	c.replaced("n3", old)
}
