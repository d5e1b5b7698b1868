package cluster

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// memoryOf is what stored messages take in a node's memory, and what they would
// take if all were there.
func memoryOf(n *testNode) (memory, all int) {
	for _, g := range n.allGroups() {
		g.read(func(m machine) {
			if s, ok := m.(*shardMachine); ok {
				st := s.Stats()
				memory += st.MemoryBytes
				all += st.BodyBytes
			}
		})
	}
	return memory, all
}

// within waits until a node keeps its budget.
func within(t *testing.T, n *testNode, budget int) {
	t.Helper()
	eventually(t, n.config.NodeID+" keeps its budget", func() error {
		if memory, all := memoryOf(n); memory > budget {
			return fmt.Errorf("%d of %d bytes in memory, not %d", memory, all, budget)
		}
		return nil
	})
}

// flood publishes n messages of size bytes to topic with many on the way, and
// returns when all are acknowledged. Message i begins with "i ".
func (c *client) flood(topic string, n, size int) {
	c.t.Helper()
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	slots := make(chan struct{}, 256)
	for i := range n {
		slots <- struct{}{}
		wg.Add(1)
		payload := fmt.Appendf(nil, "%d ", i)
		payload = append(payload, strings.Repeat("x", size-len(payload))...)
		c.link.Publish(&shoalpb.Message{Topic: topic, Qos: 1, Payload: payload}, func(err error) {
			if err != nil {
				failed.Store(&err)
			}
			<-slots
			wg.Done()
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		c.t.Fatal(*err)
	}
}

// away opens a session that subscribes filter, and closes its connection.
func (c *testCluster) away(node, id, filter string) {
	c.t.Helper()
	x := c.node(node).open(c.t, id, false, 3600)
	x.subscribe(filter, 1)
	x.link.Close(session.CloseRequest{})
}

// TestQueuesBeyondMemory stores ten times what may be in memory, for sessions
// in two shards that share the messages and one of its own, restarts all nodes
// at once, and gets everything back, in order.
func TestQueuesBeyondMemory(t *testing.T) {
	const budget, n, size = 512 << 10, 4000, 1200
	c := startCluster(t, 3, 2, nil, func(c *Config) { c.QueueMemory = budget })
	ids := []string{c.clientIn(1, "a"), c.clientIn(1, "b"), c.clientIn(2, "c")}
	for i, id := range ids {
		c.away(c.names[i], id, "t")
	}
	p := c.node("n1").open(t, "publisher", true, 0)
	p.flood("t", n, size)
	for _, x := range c.up() {
		within(t, x, budget)
		if _, all := memoryOf(x); all < 10*budget {
			t.Fatalf("%s has only %d bytes of messages", x.config.NodeID, all)
		}
	}
	c.settled() // equal, whatever each has in memory
	c.restartAll()
	for _, x := range c.up() {
		if memory, all := memoryOf(x); memory > budget+2*c.parts*(minDirty+size) {
			t.Fatalf("%s restored %d of %d bytes", x.config.NodeID, memory, all)
		}
	}
	var clients []*client
	for i, id := range ids {
		clients = append(clients, c.node(c.names[(i+1)%3]).open(t, id, false, 3600))
	}
	for _, x := range clients {
		eventually(t, "drain", func() error {
			if got := len(x.in.payloads()); got < n {
				return fmt.Errorf("got %d of %d", got, n)
			}
			return nil
		})
		for i, payload := range x.in.payloads() {
			if want := fmt.Sprintf("%d ", i); !strings.HasPrefix(payload, want) {
				t.Fatalf("message %d is %.10q", i, payload)
			}
		}
	}
	if n := c.loaded(); n < 2*4000 {
		t.Errorf("only %d messages were read back", n)
	}
	eventually(t, "the queues are empty", func() error {
		for _, x := range c.up() {
			if _, all := memoryOf(x); all > 0 {
				return fmt.Errorf("%s has %d bytes of messages", x.config.NodeID, all)
			}
		}
		return nil
	})
}

// restartAll stops all nodes and starts them on what they left.
func (c *testCluster) restartAll() {
	c.t.Helper()
	var wg sync.WaitGroup
	for _, n := range c.up() {
		c.mu.Lock()
		delete(c.nodes, n.config.NodeID)
		c.mu.Unlock()
		wg.Go(func() {
			if err := n.Close(context.Background()); err != nil {
				c.t.Errorf("close %s: %v", n.config.NodeID, err)
			}
		})
	}
	wg.Wait()
	for _, name := range c.names {
		c.start(name)
	}
	c.ready()
}

// TestQueueFigures stores a million messages on one node and drains them, for the
// figures in docs/PERFORMANCE.md.
func TestQueueFigures(t *testing.T) {
	if os.Getenv("SHOAL_FIGURES") == "" {
		t.Skip("takes long: SHOAL_FIGURES=1")
	}
	const sessions, each, size = 10, 100_000, 256
	c := startCluster(t, 1, 6, nil, func(c *Config) { c.QueueMemory = 64 << 20 })
	for i := range sessions {
		c.away("n1", fmt.Sprintf("s%d", i), fmt.Sprintf("t/%d", i))
	}
	before := heap()
	start := time.Now()
	var wg sync.WaitGroup
	for i := range sessions {
		p := c.node("n1").open(t, fmt.Sprintf("p%d", i), true, 0)
		wg.Go(func() { p.flood(fmt.Sprintf("t/%d", i), each, size) })
	}
	wg.Wait()
	stored := time.Since(start)
	within(t, c.node("n1"), 64<<20)
	memory, all := memoryOf(c.node("n1"))
	t.Logf("%d messages of %d bytes stored in %v; heap %d MB more, %d of %d MB of messages in memory; resident: %s",
		sessions*each, size, stored, (heap()-before)>>20, memory>>20, all>>20, resident())
	start = time.Now()
	c.restartAll()
	eventually(t, "the queues are restored", func() error {
		if _, now := memoryOf(c.node("n1")); now != all {
			return fmt.Errorf("%d bytes of %d", now, all)
		}
		return nil
	})
	t.Logf("restarted in %v, heap %d MB; resident: %s", time.Since(start), heap()>>20, resident())
	start = time.Now()
	for i := range sessions {
		c.node("n1").open(t, fmt.Sprintf("s%d", i), false, 3600)
	}
	deadline := time.Now().Add(10 * time.Minute)
	left := 1
	for left > 0 && time.Now().Before(deadline) {
		pause(context.Background(), 10*time.Millisecond)
		_, left = memoryOf(c.node("n1"))
	}
	t.Logf("drained in %v, %d bytes left", time.Since(start), left)
}

func heap() int {
	var s runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&s)
	return int(s.HeapAlloc)
}

// resident is the process's memory by kind, where the system tells.
func resident() string {
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "unknown"
	}
	var kinds []string
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "Rss") {
			kinds = append(kinds, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(kinds, ", ")
}

// loaded is how many messages the nodes that run have read back.
func (c *testCluster) loaded() (n uint64) {
	for _, x := range c.up() {
		for _, g := range x.allGroups() {
			n += g.loaded.Load()
		}
	}
	return n
}

// churnPace of tests that all run out of memory: each checkpoint is an fsync.
const churnPace = 300 * time.Millisecond

// churn has all nodes write checkpoints and let messages leave memory all the
// time, every pace, until the returned function is called.
func (c *testCluster) churn(pace time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var over sync.WaitGroup
	over.Go(func() {
		for ctx.Err() == nil {
			for _, n := range c.up() {
				for _, g := range n.allGroups() {
					_ = g.checkpoint() // fails while raft is being restarted
				}
				n.relieve()
			}
			pause(ctx, pace)
		}
	})
	return func() { cancel(); over.Wait() }
}

// TestScenarioOutOfMemory is TestScenarioQoS2 with every message out of memory as
// soon as it can be: queues, outboxes and takeovers read the state files.
func TestScenarioOutOfMemory(t *testing.T) {
	t.Run("3 nodes", func(t *testing.T) {
		testScenarioOutOfMemory(t, 3, []string{"n3"}, []string{"n1"}, []string{"n2"}, []string{"n1", "n2", "n3"})
	})
	t.Run("5 nodes", func(t *testing.T) { testScenarioOutOfMemory(t, 5, []string{"n3", "n5"}) })
}

func testScenarioOutOfMemory(t *testing.T, size int, kills ...[]string) {
	c := startCluster(t, 3, 2, newNetwork(), func(c *Config) { c.QueueMemory = 1 }).widened(size)
	defer c.churn(20 * time.Millisecond)()
	for round, names := range kills {
		c.lead(1, "n3")
		c.lead(2, "n1")
		c.interrupt(round, 1, 2, names)
	}
	if n := c.loaded(); n == 0 {
		t.Error("no message was read back")
	}
}

// TestDrainThroughTrouble drains a queue that is out of memory while leaders die,
// and while a replica that missed all of it gets it by an install.
func TestDrainThroughTrouble(t *testing.T) {
	const n, size = 6000, 200
	c := startCluster(t, 3, 1, newNetwork(), func(c *Config) { c.QueueMemory = 1 })
	c.away("n1", "s", "t")
	c.lead(1, "n2")
	c.kill("n3")
	p := c.node("n1").open(t, "publisher", true, 0)
	p.flood("t", n, size)
	stop := c.churn(20 * time.Millisecond)
	for _, x := range c.up() {
		within(t, x, 1)
	}
	c.start("n3")
	x := c.node("n1").open(t, "s", false, 3600)
	drained := func(part int) {
		t.Helper()
		eventually(t, "drain", func() error {
			if got := len(x.in.payloads()); got < part {
				return fmt.Errorf("got %d of %d", got, part)
			}
			return nil
		})
	}
	drained(n / 4)
	c.kill("n2")
	drained(n / 2)
	c.start("n2")
	drained(n)
	for i, payload := range x.in.payloads() {
		if want := fmt.Sprintf("%d ", i); !strings.HasPrefix(payload, want) {
			t.Fatalf("message %d is %.10q", i, payload)
		}
	}
	stop()
	c.ready()
	if n := c.loaded(); n == 0 {
		t.Error("no message was read back")
	}
}
