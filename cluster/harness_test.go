package cluster

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/broker/topic"
	shoalpb "github.com/shoalmq/shoal/proto"
	"github.com/shoalmq/shoal/storage/storagetest"
)

// patience is how long a test waits for what must come: far longer than it takes,
// also on a machine that gives this process a twentieth of a processor.
const patience = 10 * time.Minute

const testMinFree = 100 << 20

// testElection is twice the default, for the race detector and many nodes in one
// process make each step several times slower than in production: replicas must
// not take a leader for dead that waits for a processor.
const testElection = time.Second

// TestMain lets more tests run side by side than there are cores: they mostly
// wait, for elections and for leases to end.
func TestMain(m *testing.M) {
	flag.Parse()
	storagetest.InMemory()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		flag.Set("test.parallel", "4")
	}
	os.Exit(m.Run())
}

// clusters counts the clusters that run in this process.
type clusters struct {
	starting sync.Mutex // held by enter, until the cluster serves
	mu       sync.Mutex
	running  int
}

var crowd clusters

// enter waits until another cluster may start, and returns what to call when it
// serves, or never will, and when it has ended. On a machine that runs this process
// too late there is one at a time: the nodes of several would take each other's
// leaders for dead. So that this shows, they start one after the other.
func (c *clusters) enter() (serves, leave func()) {
	c.starting.Lock()
	const tooLate = 30 * time.Millisecond
	for end := time.Now().Add(patience / 2); !c.take(lateness() < tooLate || time.Now().After(end)); {
		pause(context.Background(), 100*time.Millisecond)
	}
	return sync.OnceFunc(c.starting.Unlock), func() {
		c.mu.Lock()
		c.running--
		c.mu.Unlock()
	}
}

// take counts one more cluster, if it is the only one or any may run.
func (c *clusters) take(any bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running > 0 && !any {
		return false
	}
	c.running++
	return true
}

// lateness is by how much this process runs too late at present.
func lateness() (worst time.Duration) {
	const tick = 5 * time.Millisecond
	for range 20 {
		begin := bootTime()
		pause(context.Background(), tick)
		worst = max(worst, bootTime()-begin-tick)
	}
	return worst
}

// testCluster is a cluster in one process, made by the production constructor.
// Its methods are called by the test's goroutine, those that say so by any.
type testCluster struct {
	t      *testing.T
	dir    string
	names  []string
	size   int
	parts  int
	log    *slog.Logger
	net    *network          // nil if nothing comes between the nodes
	time   *testTime         // nil if the shards' clocks are the real ones
	fronts map[string]string // where the clients are; nil: where the scenario says
	// changes to the nodes' configuration.
	changes []func(*Config)

	mu    sync.Mutex
	nodes map[string]*testNode // that run
	disks map[string]*testDisk
}

// testNode is a node with a front end that keeps what it is given.
type testNode struct {
	*Node
	dead atomic.Bool // killed: nothing of it reaches a client any more
	mu   sync.Mutex
	subs map[string][]*inboxOf // transient subscriptions by filter
	turn int                   // of members of Shared Subscriptions
}

// inboxOf collects messages.
type inboxOf struct {
	mu   sync.Mutex
	got  []*shoalpb.Message
	wake broadcast
}

func newInbox() *inboxOf { return &inboxOf{wake: *newBroadcast()} }

func (i *inboxOf) add(m *shoalpb.Message) {
	i.mu.Lock()
	i.got = append(i.got, m)
	i.mu.Unlock()
	i.wake.broadcast()
}

func (i *inboxOf) payloads() []string { return i.payloadsOf("#") }

// payloadsOf are those of the messages whose topics match a filter.
func (i *inboxOf) payloadsOf(filter string) []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	var out []string
	for _, m := range i.got {
		if topic.MatchOne(filter, m.Topic) {
			out = append(out, string(m.Payload))
		}
	}
	return out
}

func message(name string, qos uint32, payload string) *shoalpb.Message {
	return &shoalpb.Message{Topic: name, Qos: qos, Payload: []byte(payload)}
}

// Deliver implements Local.
func (n *testNode) Deliver(m *shoalpb.Message, picks []*shoalpb.Pick) {
	m = cloneMessage(m)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range picks {
		if list := n.subs[p.Share]; len(list) > 0 {
			n.turn++
			list[n.turn%len(list)].add(m)
		} else if m.Qos > 0 {
			n.Redispatch(p.Share, m)
		}
	}
	if len(picks) > 0 && picks[0].Only {
		return
	}
	for filter, list := range n.subs {
		if topic.MatchOne(filter, m.Topic) {
			for _, in := range list {
				in.add(m)
			}
		}
	}
}

// listen adds a transient subscription.
func (n *testNode) listen(filter string, in *inboxOf) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.subs[filter] = append(n.subs[filter], in)
}

// leave takes a transient subscription away; what it got is not acknowledged if
// the client says so.
func (c *client) leave(filter string) {
	c.n.mu.Lock()
	c.n.subs[filter] = slices.DeleteFunc(c.n.subs[filter], func(in *inboxOf) bool { return in == c.in })
	c.n.mu.Unlock()
	c.n.RemoveRoute(filter, 1)
}

// newCluster starts size nodes with parts shards and waits until all serve.
func newCluster(t *testing.T, size, parts int) *testCluster { return startCluster(t, size, parts, nil) }

// newScenario is a cluster whose network can be cut and held.
func newScenario(t *testing.T, size, parts int) *testCluster {
	return startCluster(t, size, parts, newNetwork())
}

func startCluster(t *testing.T, size, parts int, net *network, changes ...func(*Config)) *testCluster {
	return startTimed(t, size, parts, net, nil, changes...)
}

func startTimed(t *testing.T, size, parts int, net *network, time *testTime, changes ...func(*Config)) *testCluster {
	var out io.Writer = io.Discard
	if os.Getenv("SHOAL_TEST_LOG") != "" {
		out = os.Stderr
	}
	dir, err := os.MkdirTemp("", "shoal")
	if err != nil {
		t.Fatal(err)
	}
	serves := func() {}
	if t.Name() != "" {
		var leave func()
		serves, leave = crowd.enter()
		t.Cleanup(leave)
		t.Cleanup(serves)
	}
	c := &testCluster{
		t: t, dir: dir, nodes: make(map[string]*testNode), size: size, parts: parts, net: net, time: time, changes: changes,
		log: slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if os.Getenv("SHOAL_TEST_CHURN") != "" { // every test out of memory, see docs/TESTING.md
		c.changes = append([]func(*Config){func(c *Config) { c.QueueMemory = 1 }}, c.changes...)
	}
	for i := range size {
		c.names = append(c.names, fmt.Sprintf("n%d", i+1))
		c.start(c.names[i])
	}
	if t.Name() != "" {
		t.Cleanup(c.close)
	}
	c.ready()
	serves()
	if os.Getenv("SHOAL_TEST_CHURN") != "" {
		t.Cleanup(c.churn(churnPace))
	}
	return c
}

// start opens a node, for the first time or on what it has left on its disk.
func (c *testCluster) start(name string) *testNode {
	c.t.Helper()
	n, err := c.open(name)
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// open is start for a node that may not open.
func (c *testCluster) open(name string) (*testNode, error) {
	var join []string
	for _, n := range c.up() {
		join = append(join, n.GossipAddr())
	}
	config := Config{
		NodeID: name, DataDir: filepath.Join(c.dir, name), GossipAddr: "127.0.0.1:0", RPCAddr: "127.0.0.1:0",
		Join: join, BootstrapExpect: c.size, Shards: c.parts, Log: c.log, Build: "test", ElectionTimeout: testElection,
		Disk: c.disk(name).hooks(), MinFreeBytes: testMinFree,
	}
	if c.net != nil {
		config.Net = c.net.hooks(name)
	}
	if c.time != nil {
		config.Clocks = c.time.hooks(name)
	}
	for _, change := range c.changes {
		change(&config)
	}
	node, err := Open(config)
	if err != nil {
		return nil, err
	}
	n := &testNode{Node: node, subs: make(map[string][]*inboxOf)}
	node.Attach(n)
	c.mu.Lock()
	c.nodes[name] = n
	c.mu.Unlock()
	return n, nil
}

// kill stops a node without a word to the others: it is cut off before it
// closes anything.
func (c *testCluster) kill(name string) {
	c.t.Helper()
	n := c.node(name)
	c.mu.Lock()
	delete(c.nodes, name)
	c.mu.Unlock()
	n.dead.Store(true)
	c.net.isolate(name)
	if err := n.Close(context.Background()); err != nil {
		c.t.Errorf("close %s: %v", name, err)
	}
	c.net.rejoin(name)
}

// node is a running node, nil if it does not run. Called by any goroutine.
func (c *testCluster) node(name string) *testNode {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[name]
}

// up are the running nodes, by name. Called by any goroutine.
func (c *testCluster) up() (list []*testNode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range c.names {
		if n := c.nodes[name]; n != nil {
			list = append(list, n)
		}
	}
	return list
}

func (c *testCluster) close() {
	if c.net != nil {
		c.net.heal()
	}
	if !c.t.Failed() && c.t.Name() != "" && len(c.up()) > c.size/2 {
		c.settled()
	}
	var wg sync.WaitGroup
	for _, n := range c.up() {
		wg.Go(func() {
			if err := n.Close(context.Background()); err != nil {
				c.t.Errorf("close: %v", err)
			}
		})
	}
	wg.Wait()
	os.RemoveAll(c.dir)
}

func (c *testCluster) ready() {
	c.t.Helper()
	for _, n := range c.up() {
		eventually(c.t, n.config.NodeID+" is ready", n.Ready)
	}
}

// settled waits until the cluster is quiet: all outboxes are empty and all
// replicas of each group have applied the same entries. Then they must be
// equal.
func (c *testCluster) settled() {
	c.t.Helper()
	for id := range uint32(c.parts + 1) {
		eventually(c.t, groupName(id)+" is quiet", func() error { return c.same(id) })
	}
}

// same compares the replicas of a group, if they have the same index.
func (c *testCluster) same(id uint32) error {
	var index uint64
	var digest [32]byte
	left := 0
	i := -1
	for _, n := range c.up() {
		g := n.group(id)
		if should := n.has(id); should != (g != nil) {
			return fmt.Errorf("%s has a replica: %v, should have one: %v", n.config.NodeID, g != nil, should)
		}
		if g == nil {
			continue
		}
		i++
		var at uint64
		var sum [32]byte
		g.read(func(m machine) {
			at, sum = m.applied(), m.digest()
			if s, ok := m.(*shardMachine); ok {
				st := s.Stats()
				left = st.OutboxEntries
				if err := st.Account(); err != nil {
					c.t.Errorf("%s: %v", groupName(id), err)
				}
			}
		})
		switch {
		case left > 0:
			return fmt.Errorf("%d entries in the outbox", left)
		case i == 0:
			index, digest = at, sum
		case at != index:
			return fmt.Errorf("applied %d and %d", at, index)
		case sum != digest:
			c.t.Fatalf("replicas of %s differ at index %d", groupName(id), at)
		}
	}
	return nil
}

// has tells whether a node should have a replica of a group.
func (n *testNode) has(id uint32) (has bool) {
	n.readDirectory(func(d *directoryMachine) {
		has = id == 0 || slices.Contains(d.Placed(id).Homes(), string(n.self))
	})
	return has
}

// leader is the node that leads a group and serves.
func (c *testCluster) leader(id uint32) (name string) {
	c.t.Helper()
	eventually(c.t, groupName(id)+" has a leader", func() error {
		for _, n := range c.up() {
			if g := n.group(id); g != nil && g.leads() {
				name = n.config.NodeID
				return nil
			}
		}
		return errNoLeader
	})
	return name
}

// lead makes a node the leader of a group, and returns when all know it.
func (c *testCluster) lead(id uint32, name string) {
	c.t.Helper()
	to := c.node(name).self
	eventually(c.t, name+" leads "+groupName(id), func() error {
		if now := c.leader(id); now != name {
			return c.node(now).group(id).raftNow.Load().LeadershipTransferToServer(to, raft.ServerAddress(to)).Error()
		}
		for _, n := range c.up() {
			if g := n.group(id); g == nil {
				continue
			} else if now := g.leader(); now != name {
				return fmt.Errorf("%s takes %q for the leader", n.config.NodeID, now)
			}
		}
		return nil
	})
}

// client is a Client Identifier whose session is in a shard.
func (c *testCluster) clientIn(shard uint32, prefix string) string {
	for i := 0; ; i++ {
		id := fmt.Sprintf("%s-%d", prefix, i)
		if c.up()[0].shardOf(id) == shard {
			return id
		}
	}
}

// eventually polls f until it returns nil.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		pause(context.Background(), 2*time.Millisecond)
	}
}

// client is an open connection that acknowledges what it gets.
type client struct {
	t      *testing.T
	n      *testNode
	link   session.Link
	opened session.Opened
	in     *inboxOf

	mu         sync.Mutex
	seen       uint64
	count      *atomic.Int64 // if set, deliveries are counted, not kept
	take       func(session.Delivery)
	superseded chan struct{}
	lost       chan struct{}
	lapse      atomic.Int64 // for how long the node had no lease when lost
}

func (c *testNode) open(t *testing.T, id string, clean bool, expiry uint32) *client {
	return c.openWith(t, session.OpenRequest{Client: id, CleanStart: clean, ExpirySeconds: expiry}, nil)
}

// openWith opens a connection that asks for r; with take it does not acknowledge
// what it gets, but hands it over.
func (c *testNode) openWith(t *testing.T, r session.OpenRequest, take func(session.Delivery)) *client {
	t.Helper()
	r.Window = 32
	x := &client{t: t, n: c, in: newInbox(), take: take, superseded: make(chan struct{}, 16), lost: make(chan struct{}, 16)}
	eventually(t, "open "+r.Client, func() error { // a busy machine may refuse it
		done := make(chan error, 1)
		c.Open(r, x,
			func(l session.Link, o session.Opened, err error) {
				x.mu.Lock()
				x.link, x.opened = l, o
				x.mu.Unlock()
				done <- err
			})
		return wait(t, "open "+r.Client, done)
	})
	if x.opened.Durable {
		x.link.Fetch()
	}
	return x
}

func wait[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: no answer", what)
		panic("unreachable")
	}
}

// Deliver implements session.Sink.
func (c *client) Deliver(entries []session.Delivery) {
	c.mu.Lock()
	l := c.link
	var fresh []session.Delivery
	for _, e := range entries {
		if e.Seq == 0 || e.Seq > c.seen {
			c.seen = max(c.seen, e.Seq)
			fresh = append(fresh, e)
		}
	}
	c.mu.Unlock()
	for _, e := range fresh {
		switch {
		case c.take != nil:
			c.take(e)
			continue
		case e.Released:
			l.Ack(e.Seq)
			continue
		case e.QoS == 1:
			l.Ack(e.Seq)
		case e.QoS == 2:
			l.Release(e.Seq, func(err error) {
				if err == nil {
					l.Ack(e.Seq)
				}
			})
		}
		if c.count != nil {
			c.count.Add(1)
			continue
		}
		c.in.add(e.Message)
	}
}

// Superseded implements session.Sink.
func (c *client) Superseded() {
	select {
	case c.superseded <- struct{}{}:
	default:
	}
	go c.link.Close(session.CloseRequest{})
}

// Lost implements session.Sink.
func (c *client) Lost(error) {
	c.lapse.Store(int64(bootTime() - c.n.lease.expiry()))
	select {
	case c.lost <- struct{}{}:
	default:
	}
	go c.link.Close(session.CloseRequest{})
}

// subscribe subscribes, as often as a busy machine makes the cluster refuse it.
func (c *client) subscribe(filter string, qos uint32) {
	c.t.Helper()
	if !c.opened.Durable {
		c.n.listen(filter, c.in)
	}
	eventually(c.t, "subscribe "+filter, func() error {
		done := make(chan error, 1)
		if c.opened.Durable {
			c.link.Subscribe([]*shoalpb.Subscription{{Filter: filter, Qos: qos}}, func(_ []bool, err error) { done <- err })
		} else {
			c.n.AddRoute(filter, uint8(qos), func(err error) { done <- err })
		}
		err := wait(c.t, "subscribe "+filter, done)
		if err != nil && !errors.Is(err, session.ErrUnavailable) {
			c.t.Fatalf("subscribe %s: %v", filter, err)
		}
		return err
	})
}

func (c *client) publishing(name string, qos uint32, payload string) <-chan error {
	done := make(chan error, 1)
	c.link.Publish(&shoalpb.Message{Topic: name, Qos: qos, Payload: []byte(payload)}, func(err error) { done <- err })
	return done
}

func (c *client) publish(name string, qos uint32, payload string) {
	c.t.Helper()
	if err := wait(c.t, "publish", c.publishing(name, qos, payload)); err != nil {
		c.t.Fatalf("publish %s to %s: %v", payload, name, err)
	}
}

// expect waits until exactly these payloads have come, in this order.
func (c *client) expect(payloads ...string) {
	c.t.Helper()
	eventually(c.t, "deliveries", func() error {
		got := c.in.payloads()
		if fmt.Sprint(got) != fmt.Sprint(payloads) {
			return fmt.Errorf("got %.200q, want %.200q", got, payloads)
		}
		return nil
	})
}
