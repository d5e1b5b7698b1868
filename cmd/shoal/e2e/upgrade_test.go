package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	formats "github.com/shoalmq/shoal/cluster/stream"
)

// buildNext builds the program as a later version of itself: it serves the next
// cluster version, and writes a format of log entries that this one does not read when
// all nodes do.
func buildNext(t *testing.T) string {
	t.Helper()
	next := filepath.Join(t.TempDir(), "shoal-next")
	out, err := exec.Command("go", "build", "-tags", "shoalnext", "-o", next, "github.com/shoalmq/shoal/cmd/shoal").CombinedOutput()
	if err != nil {
		t.Fatalf("build the next version: %v\n%s", err, out)
	}
	return next
}

// restart stops a node as an operator does and starts it with a program.
func (n *node) restart(with string) {
	n.t.Helper()
	n.process.Process.Signal(syscall.SIGTERM)
	if err := n.wait(); err != nil {
		n.t.Errorf("node %s, stopped by SIGTERM: %v", n.name, err)
	}
	n.program = with
	n.start()
}

// version is the cluster version that a node knows.
func (n *node) version() (uint32, error) {
	s, err := n.status()
	return s.Version, err
}

// TestRollingUpgrade: two builds serve together under load; what only the newer
// one understands is used when the last node has it, and from then on the older
// one is refused with words.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	next := buildNext(t)
	c := startCluster(t, 6)
	r := chaosConfig(t, 0, 0)
	l := startLoad(t, c, r.load())
	awaitAcked(l, 500)
	for i, n := range c.nodes {
		if v, err := c.nodes[0].version(); err != nil || v != formats.LastFormat {
			t.Errorf("cluster version %d with %d nodes of the next build (%v)", v, i, err)
		}
		begin := time.Now()
		n.restart(next)
		c.awaitReady()
		t.Logf("node %s: the next build serves after %v", n.name, time.Since(begin).Round(time.Millisecond))
		awaitAcked(l, l.ackedNow()+500)
	}
	for _, n := range c.nodes {
		eventually(t, "the next cluster version", func() error {
			v, err := n.version()
			if err == nil && v != formats.LastFormat+1 {
				err = fmt.Errorf("node %s: %d", n.name, v)
			}
			return err
		})
	}
	awaitAcked(l, l.ackedNow()+500)

	old := c.nodes[0]
	old.restart(program)
	select {
	case err := <-old.ended:
		old.process = nil
		if err == nil {
			t.Error("the old build ended without an error")
		}
	case <-time.After(patience):
		t.Fatal("the old build goes on in a cluster of the next version")
	}
	tail := old.tail(16 << 10)
	i := strings.LastIndex(tail, "shoal: ")
	if i < 0 || !strings.Contains(tail[i:], "newer build") && !strings.Contains(tail[i:], "cluster version") {
		t.Errorf("the old build does not say why it ended:\n%s", tail)
	} else {
		t.Log(strings.TrimSpace(tail[i:]))
	}
	old.program = next
	old.start()
	c.awaitReady()
	awaitAcked(l, l.ackedNow()+500)
	l.finish()
	c.awaitEqual()
}
