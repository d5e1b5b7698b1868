package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

const (
	warmUp = 3 * time.Second
	// settling is how long a new cluster moves leaders and writes checkpoints.
	settling    = 25 * time.Second
	measureFor  = 10 * time.Second
	idleFor     = 20 * time.Second
	idleClients = 5000
)

// TestMeasure prints the table of docs/PERFORMANCE.md: what three processes on
// this machine do, beside bare raft in the same minutes.
func TestMeasure(t *testing.T) {
	if os.Getenv("SHOAL_BENCH") == "" {
		t.Skip("measurements are for make bench (SHOAL_BENCH=1)")
	}
	var table strings.Builder
	row := func(format string, args ...any) {
		line := fmt.Sprintf(format, args...)
		t.Log(line)
		table.WriteString(line + "\n")
	}
	row("| QoS 1, 256 B, 60 pairs, durable | acknowledged msg/s | delivered msg/s | CPU-µs per message, 3 nodes | messages an entry | bare raft msg/s | bare raft CPU-µs |")
	row("|---|---|---|---|---|---|---|")
	for _, shards := range []int{3, 6, 12} {
		t.Run(fmt.Sprintf("durable,shards=%d", shards), func(t *testing.T) {
			m := measureDurable(t, shards)
			bare := measureBareRaft(t, shards, m.perEntry)
			row("| %d shards | %.0f | %.0f | %.1f | %.0f | %.0f | %.1f |", shards, m.acked, m.delivered, m.cpu, m.perEntry, bare.acked, bare.cpu)
		})
	}
	t.Run("idle", func(t *testing.T) {
		c := startCluster(t, 6)
		row("idle node of three, 6 shards: %.2f %% of a core", measureIdle(c))
		row("RSS of an idle connection: %d B", measureConnection(t, c.nodes[0]))
	})
	t.Run("QoS0", func(t *testing.T) {
		c := startCluster(t, 6)
		at := []string{c.nodes[0].mqtt}
		m := measure(t, c, generatorConfig{pairs: 20, payload: 64, window: 1 << 15, lag: 200, publishers: at, subscribers: at})
		row("QoS 0, 64 B, 20 pairs on one node: %.0f deliveries/s, %.2f CPU-µs per delivery (of all 3 nodes)", m.delivered, m.cpu)
	})
	fmt.Printf("\n%s\n", table.String())
}

// measured is a rate in messages a second and its price.
type measured struct {
	acked, delivered float64
	cpu              float64 // µs of all processes per delivered message
	total            float64 // messages since the load began
	perEntry         float64 // messages per raft entry of any kind
}

func measureDurable(t *testing.T, shards int) measured {
	c := startCluster(t, shards)
	nodes := c.addrs()
	before := appliedSum(t, c)
	m := measure(t, c, generatorConfig{pairs: 60, qos: packet.QoS1, payload: 256, window: 64, lag: 1000,
		publishers: nodes, subscribers: append(nodes[1:], nodes[0])})
	m.perEntry = m.total / float64(appliedSum(t, c)-before)
	return m
}

// appliedSum counts the entries of all groups.
func appliedSum(t *testing.T, c *cluster) (sum uint64) {
	t.Helper()
	s, err := c.nodes[0].status()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range s.Groups {
		sum += g.Applied
	}
	return sum
}

func measure(t *testing.T, c *cluster, gc generatorConfig) measured {
	t.Helper()
	g, err := startGenerator(gc)
	defer func() {
		if err := g.close(); err != nil {
			t.Error(err)
		}
	}()
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(warmUp)
	acked, delivered := g.totals()
	used, begin := c.cpuTime(), time.Now()
	time.Sleep(measureFor)
	acked2, delivered2 := g.totals()
	took, cost := time.Since(begin).Seconds(), c.cpuTime()-used
	return measured{
		acked: float64(acked2-acked) / took, delivered: float64(delivered2-delivered) / took,
		cpu: float64(cost.Microseconds()) / float64(delivered2-delivered), total: float64(acked2),
	}
}

// measureIdle returns the CPU of one node in percent of a core.
func measureIdle(c *cluster) float64 {
	time.Sleep(settling)
	used, begin := c.cpuTime(), time.Now()
	time.Sleep(idleFor)
	return 100 * float64(c.cpuTime()-used) / float64(time.Since(begin)) / float64(len(c.nodes))
}

// measureConnection returns what each of many idle connections adds to a
// node's memory.
func measureConnection(t *testing.T, n *node) int64 {
	before := rssBytes(t, n.pid())
	for i := range idleClients {
		w, err := connectWire(n.mqtt, fmt.Sprintf("idle-%d", i), true)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		w.in = nil
	}
	time.Sleep(warmUp)
	return (rssBytes(t, n.pid()) - before) / idleClients
}

// measureBareRaft runs bare raft in a process of its own.
func measureBareRaft(t *testing.T, groups int, perEntry float64) (m measured) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(self, bareRaftCommand, t.TempDir(), fmt.Sprint(groups), fmt.Sprintf("%.0f", perEntry)).CombinedOutput()
	if err != nil {
		t.Fatalf("bare raft: %v\n%s", err, out)
	}
	if _, err := fmt.Sscan(string(out), &m.acked, &m.cpu); err != nil {
		t.Fatalf("bare raft: %v\n%s", err, out)
	}
	return m
}
