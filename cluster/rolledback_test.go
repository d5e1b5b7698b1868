package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/storage"
)

// copyDisk copies the data directory of a node that runs, as a snapshot of the
// volume does: at a moment at which nothing is written.
func (c *testCluster) copyDisk(name string) (copied string) {
	c.t.Helper()
	dir := filepath.Join(c.dir, name)
	state := func() (all string) {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err == nil {
				all += fmt.Sprintln(path, info.Size(), info.ModTime().UnixNano())
			}
			return err
		})
		if err != nil {
			all = err.Error() // a file that came or went
		}
		return all
	}
	n := 0
	eventually(c.t, "a copy of "+name+"'s disk", func() error {
		n++
		copied = filepath.Join(c.dir, fmt.Sprintf("copy%d-%s", n, name))
		before := state()
		err := os.CopyFS(copied, os.DirFS(dir))
		if after := state(); err == nil && before != after {
			err = errors.New("something was written meanwhile")
		}
		return err
	})
	return copied
}

// putBack replaces the data directory of a node that does not run.
func (c *testCluster) putBack(name, copied string) {
	c.t.Helper()
	dir := filepath.Join(c.dir, name)
	if err := os.RemoveAll(dir); err != nil {
		c.t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(copied)); err != nil {
		c.t.Fatal(err)
	}
}

// startAgain opens a node with a bad disk, again and again as whoever looks after
// processes does, until the others can do without the disk.
func (c *testCluster) startAgain(name string) {
	c.t.Helper()
	eventually(c.t, name+" opens", func() error {
		_, err := c.open(name)
		var bad *storage.BadDiskError
		if err != nil && !errors.As(err, &bad) {
			c.t.Fatal(err)
		}
		return err
	})
}

// refused waits until a node finds that its disk was rolled back.
func (c *testCluster) refused(name string) {
	c.t.Helper()
	eventually(c.t, name+" is told", func() error {
		if err := c.node(name).Live(); err == nil || !strings.Contains(err.Error(), "rolled back") {
			return errors.Join(errors.New("it lives"), err)
		}
		return nil
	})
}

// TestPutBackOfLatestBoot is scenario 54: a disk is copied while the node runs its
// latest boot, messages are acknowledged, the node dies and gets the copy. It is
// refused, comes back as a new server, and nothing is lost.
func TestPutBackOfLatestBoot(t *testing.T) {
	t.Parallel()
	for _, size := range []int{3, 5} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			c := newScenario(t, size, 2)
			sub, pub := newDevice(c, "sub"), newDevice(c, "pub")
			sub.subscribes("a/#", 1, "n1", "n2")
			pub.publishes("a/0", 1, "before", "n2", "n1")
			copied, old := c.copyDisk("n3"), c.node("n3").disk
			want := []string{"before"}
			for i := range 1000 {
				want = append(want, fmt.Sprint(i))
				pub.publishes("a/1", 1, want[i+1], "n2", "n1")
			}
			c.kill("n3")
			c.putBack("n3", copied)
			c.start("n3")
			c.refused("n3")
			c.kill("n3")
			c.startAgain("n3")
			c.replaced("n3", old)
			sub.gets("n1", want...)
		})
	}
}

// TestPutBackTakesABootTwice: the node was started once more after the copy, so
// that the process on the copy takes the very boot that was announced already.
func TestPutBackTakesABootTwice(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 1)
	copied, old := c.copyDisk("n3"), c.node("n3").disk
	c.kill("n3")
	c.start("n3")
	eventually(t, "n3 is ready", c.node("n3").Ready)
	c.kill("n3")
	c.putBack("n3", copied)
	c.start("n3")
	c.refused("n3")
	c.kill("n3")
	c.startAgain("n3")
	c.replaced("n3", old)
}

// TestReplicaComesBack: a replica that was thrown away and is placed on the same
// disk again has less than others knew the disk to have, in good order.
func TestReplicaComesBack(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 2)
	c.grow("n4")
	c.ready()
	pub := newDevice(c, "pub")
	disks := map[string]string{}
	for _, n := range c.up() {
		disks[n.config.NodeID] = n.disk
	}
	for round := range 2 {
		for i := range 100 {
			pub.publishes("a", 1, fmt.Sprint(round, i), "n1", "n2")
		}
		c.operate("drain", "n3", false)
		c.placed(3, 3, "n1", "n2", "n4")
		eventually(t, "its replicas are thrown away", func() error {
			if have := c.node("n3").dir.Groups(); len(have) > 1 {
				return fmt.Errorf("it has %v", have)
			}
			return nil
		})
		c.operate("undrain", "n3", false)
		c.operate("drain", "n4", false)
		c.placed(3, 3, "n1", "n2", "n3")
		c.operate("undrain", "n4", false)
	}
	for _, name := range []string{"n3", "n1"} { // restarted, it still has all that it had
		c.kill(name)
		c.start(name)
		c.ready()
	}
	for _, n := range c.up() {
		if n.disk != disks[n.config.NodeID] {
			t.Errorf("%s has disk %s in place of %s", n.config.NodeID, n.disk, disks[n.config.NodeID])
		}
	}
}

// TestAllRestartTogether: what nobody remembers locks nobody out: all disks, the
// one that was put back too, start again.
func TestAllRestartTogether(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 2)
	pub := newDevice(c, "pub")
	pub.publishes("a", 1, "before", "n1")
	copied := c.copyDisk("n3")
	for i := range 100 {
		pub.publishes("a", 1, fmt.Sprint(i), "n1", "n2")
	}
	disk := c.node("n3").disk
	for _, name := range c.names {
		c.kill(name)
	}
	c.putBack("n3", copied)
	for _, name := range c.names {
		c.start(name)
	}
	c.ready()
	if now := c.node("n3").disk; now != disk {
		t.Errorf("n3 has disk %s in place of %s", now, disk)
	}
}

// TestUncommittedTailMayBeLost: a disk that has lost entries that were never
// committed is as good as before.
func TestUncommittedTailMayBeLost(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 1)
	ends := func(n *testNode) (ends []uint64) {
		for _, g := range n.allGroups() {
			last, err := g.logs.LastIndex()
			if err != nil {
				t.Fatal(err)
			}
			ends = append(ends, last)
		}
		return ends
	}
	var name, copied string
	eventually(t, "a tail that nobody else has", func() error {
		c.net.heal()
		c.ready()
		l := c.node(c.leader(1))
		name = l.config.NodeID
		copied = c.copyDisk(name)
		before := ends(l)
		c.net.isolate(name)
		g := l.group(1)
		committed := g.raftNow.Load().CommitIndex()
		for range 10 {
			g.raftNow.Load().Barrier(0) // an entry like any other
		}
		eventually(t, "it has stepped down", func() error {
			if g.leads() {
				return errors.New("it leads")
			}
			return nil
		})
		after := ends(l)
		if g.raftNow.Load().CommitIndex() != committed || before[1] != committed || before[0] != after[0] || after[1] <= before[1] {
			return fmt.Errorf("the disk ended at %v, then at %v, %d are committed", before, after, committed)
		}
		return nil
	})
	n := c.node(name)
	disk := n.disk
	c.mu.Lock()
	delete(c.nodes, name)
	c.mu.Unlock()
	if err := n.Close(context.Background()); err != nil {
		t.Error(err)
	}
	c.putBack(name, copied)
	c.net.heal()
	c.start(name)
	c.ready()
	if now := c.node(name).disk; now != disk {
		t.Errorf("%s has disk %s in place of %s", name, now, disk)
	}
}
