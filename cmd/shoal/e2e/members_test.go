package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// operate runs shoal cluster against a node as an operator does.
func (n *node) operate(args ...string) (string, error) {
	cmd := exec.Command(program, append(append([]string{"cluster"}, args...), "--http-addr="+n.http)...)
	cmd.Env = environment()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("shoal cluster %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// grow adds a node to the cluster that was born without it.
func (c *cluster) grow(name, dir string) *node {
	c.t.Helper()
	n := &node{t: c.t, name: name, dir: filepath.Join(dir, name), surface: httpClient, flags: c.nodes[0].flags}
	for _, addr := range []*string{&n.mqtt, &n.http, &n.gossip, &n.rpc} {
		*addr = loopback(freePort(c.t))
	}
	var err error
	if n.log, err = os.Create(filepath.Join(c.t.TempDir(), name+".log")); err != nil {
		c.t.Fatal(err)
	}
	c.nodes = append(c.nodes, n)
	n.start()
	return n
}

// shrink takes a stopped node out of what the test looks after.
func (c *cluster) shrink(n *node) {
	n.log.Close()
	c.nodes = slices.DeleteFunc(c.nodes, func(x *node) bool { return x == n })
}

// awaitPlaces waits until every shard has want replicas, none of them on the
// nodes to be avoided, at least one on each of the nodes to be used, and
// nothing moves.
func (c *cluster) awaitPlaces(want int, used, avoided []string) {
	c.t.Helper()
	within(c.t, 5*patience, "replicas in their places", func() error {
		c.failIfEnded()
		s, err := c.nodes[0].status()
		if err != nil {
			return err
		}
		disks := map[string]string{}
		for _, n := range s.Nodes {
			disks[n.Node] = n.Node + "/" + n.Disk
		}
		count := map[string]int{}
		for _, p := range s.Placement {
			if len(p.Replicas) != want || p.Joining != "" || p.Leaving != "" {
				return fmt.Errorf("%s: replicas %v, joining %q, leaving %q", p.Group, p.Replicas, p.Joining, p.Leaving)
			}
			for _, r := range p.Replicas {
				name, _, _ := strings.Cut(r, "/")
				if r != disks[name] {
					return fmt.Errorf("%s: a replica on %s, but the node has %s", p.Group, r, disks[name])
				}
				count[name]++
			}
		}
		for _, name := range used {
			if count[name] == 0 {
				return fmt.Errorf("no replica on node %s", name)
			}
		}
		for _, name := range avoided {
			if count[name] > 0 {
				return fmt.Errorf("%d replicas on node %s", count[name], name)
			}
		}
		return nil
	})
}

// TestGrowAndShrink: three nodes become five and three again under load of QoS 1
// and 2, and nothing acknowledged is lost.
func TestGrowAndShrink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := newCluster(t, 6, dir)
	c.start()
	c.awaitReady()
	r := chaosConfig(t, 0, 0)
	l := startLoad(t, c, r.load())
	begin := time.Now()
	added := []*node{c.grow("d", dir), c.grow("e", dir)}
	c.awaitReady()
	c.awaitPlaces(3, []string{"a", "b", "c", "d", "e"}, nil)
	t.Logf("five nodes have replicas after %v, with %d messages acknowledged meanwhile", time.Since(begin).Round(time.Millisecond), l.ackedNow())

	begin = time.Now()
	for _, n := range added {
		if _, err := c.nodes[0].operate("drain", n.name); err != nil {
			t.Fatal(err)
		}
	}
	c.awaitPlaces(3, []string{"a", "b", "c"}, []string{"d", "e"})
	for _, n := range added {
		if out, err := c.nodes[0].operate("remove", n.name, "--wait"); err != nil {
			t.Fatal(err)
		} else {
			t.Log(strings.TrimSpace(out))
		}
		n.process.Process.Kill()
		n.wait()
		c.shrink(n)
	}
	t.Logf("three nodes again after %v", time.Since(begin).Round(time.Millisecond))
	awaitAcked(l, l.ackedNow()+500)
	l.finish()
	c.awaitEqual()
}

// replaceDisk runs a load while one node dies, harm comes to its data
// directory, and it starts again.
func replaceDisk(t *testing.T, harm func(t *testing.T, n *node)) *cluster {
	c := startCluster(t, 6)
	r := chaosConfig(t, 0, 0)
	l := startLoad(t, c, r.load())
	awaitAcked(l, 1000)
	n := c.nodes[2]
	n.kill()
	harm(t, n)
	begin := time.Now()
	n.start()
	c.awaitReady()
	ready := time.Since(begin)
	c.awaitPlaces(3, []string{"a", "b", "c"}, nil)
	t.Logf("serves after %v, has its replicas after %v", ready.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
	awaitAcked(l, l.ackedNow()+500)
	// The others may die now: what the new disk has counts.
	c.nodes[0].kill()
	awaitAcked(l, l.ackedNow()+500)
	c.heal()
	l.finish()
	c.awaitEqual()
	return c
}

// TestDataDirectoryDeleted: a node whose disk was wiped is a new server that
// gets its replicas from the others.
func TestDataDirectoryDeleted(t *testing.T) {
	t.Parallel()
	replaceDisk(t, func(t *testing.T, n *node) {
		if err := os.RemoveAll(n.dir); err != nil {
			t.Fatal(err)
		}
	})
}

// TestLogRowFlipped: a node that finds a flipped bit in its log puts its files
// aside and comes back as a new server; nothing is erased.
func TestLogRowFlipped(t *testing.T) {
	t.Parallel()
	var dir string
	c := replaceDisk(t, func(t *testing.T, n *node) {
		dir = n.dir
		flipRow(t, filepath.Join(n.dir, "log.db"))
	})
	log := c.nodes[2].tail(1 << 20)
	for line := range strings.Lines(log) {
		if strings.Contains(line, "aside") {
			t.Log(strings.TrimSpace(line))
		}
	}
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	inside, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(append(entries, inside...), func(e os.DirEntry) bool {
		return strings.Contains(e.Name(), "bad") || strings.Contains(e.Name(), "aside")
	}) {
		t.Errorf("no files were put aside: %v, %v", entries, inside)
	}
}

// TestSnapshotPutBack is scenario 54 with processes: the data directory of a node
// is copied at one instant while it serves, as a snapshot of the volume is, and
// put back after a thousand more messages. The node finds that its disk was rolled
// back, ends, and comes back as a new server.
func TestSnapshotPutBack(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 6)
	r := chaosConfig(t, 0, 0)
	l := startLoad(t, c, r.load())
	awaitAcked(l, 500)
	n := c.nodes[2]
	before, err := c.nodes[0].status()
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	n.freeze()
	err = os.CopyFS(copied, os.DirFS(n.dir))
	n.thaw()
	if err != nil {
		t.Fatal(err)
	}
	awaitAcked(l, l.ackedNow()+1000)
	n.kill()
	if err := os.RemoveAll(n.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(copied, n.dir); err != nil {
		t.Fatal(err)
	}
	n.start()
	if err := n.wait(); err == nil || !strings.Contains(n.tail(logTailBytes), "rolled back") {
		t.Errorf("the process on the copy ends with %v, its log with\n%s", err, n.tail(logTailBytes))
	}
	n.start()
	c.awaitReady()
	c.awaitPlaces(3, []string{"a", "b", "c"}, nil)
	after, err := c.nodes[0].status()
	if err != nil {
		t.Fatal(err)
	}
	if before.Nodes[2].Disk == after.Nodes[2].Disk {
		t.Errorf("node %s still has disk %s", n.name, after.Nodes[2].Disk)
	}
	awaitAcked(l, l.ackedNow()+500)
	// The others may die now: what the new disk has counts.
	c.nodes[0].kill()
	awaitAcked(l, l.ackedNow()+500)
	c.heal()
	l.finish()
	c.awaitEqual()
}

// flipRow flips one bit of each message in a file. All of them: a page that is
// free keeps what it had, and what lies there is no row that anyone reads.
func flipRow(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	flipped := 0
	for i := 0; ; flipped++ {
		next := bytes.Index(b[i:], []byte("publisher-1 1 "))
		if next < 0 {
			break
		}
		i += next
		if _, err := f.WriteAt([]byte{b[i] ^ 1}, int64(i)); err != nil {
			t.Fatal(err)
		}
		i++
	}
	if flipped == 0 {
		t.Fatal("no message found in the log")
	}
	t.Logf("flipped a bit of %d messages", flipped)
}

// TestNodeReplacedForGood: a node is gone for ever, removed, and another takes
// its place.
func TestNodeReplacedForGood(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := newCluster(t, 6, dir)
	c.start()
	c.awaitReady()
	r := chaosConfig(t, 0, 0)
	l := startLoad(t, c, r.load())
	awaitAcked(l, 1000)
	gone := c.nodes[2]
	gone.kill()
	fresh := c.grow("d", dir)
	eventually(t, "the new node", fresh.ready)
	begin := time.Now()
	eventually(t, "removal", func() error {
		_, err := c.nodes[0].operate("remove", gone.name)
		return err
	})
	c.shrink(gone)
	c.awaitPlaces(3, []string{"a", "b", "d"}, []string{"c"})
	t.Logf("replaced after %v", time.Since(begin).Round(time.Millisecond))
	awaitAcked(l, l.ackedNow()+500)
	for _, x := range l.all() {
		x.mu.Lock()
		x.config.nodes = c.addrs()
		x.mu.Unlock()
	}
	l.finish()
	c.awaitEqual()
}
