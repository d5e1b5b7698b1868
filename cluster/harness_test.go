package cluster

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/broker/topic"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// patience is how long a test waits for what must come; nothing takes nearly
// as long on a machine that is not overloaded.
const patience = 60 * time.Second

// testCluster is a cluster in one process, made by the production constructor.
type testCluster struct {
	t     *testing.T
	dir   string
	names []string
	nodes map[string]*testNode
	size  int
	parts int
	log   *slog.Logger
}

// testNode is a node with a front end that keeps what it is given.
type testNode struct {
	*Node
	mu   sync.Mutex
	subs map[string][]*inboxOf // transient subscriptions by filter
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

func (i *inboxOf) payloads() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	var out []string
	for _, m := range i.got {
		out = append(out, string(m.Payload))
	}
	return out
}

// Deliver implements Local.
func (n *testNode) Deliver(m *shoalpb.Message) {
	m = cloneMessage(m)
	n.mu.Lock()
	defer n.mu.Unlock()
	for filter, list := range n.subs {
		if topic.MatchOne(filter, m.Topic) {
			for _, in := range list {
				in.add(m)
			}
		}
	}
}

// newCluster starts size nodes with parts shards and waits until all serve.
func newCluster(t *testing.T, size, parts int) *testCluster {
	var out io.Writer = io.Discard
	if os.Getenv("SHOAL_TEST_LOG") != "" {
		out = os.Stderr
	}
	dir, err := os.MkdirTemp("", "shoal")
	if err != nil {
		t.Fatal(err)
	}
	c := &testCluster{
		t: t, dir: dir, nodes: make(map[string]*testNode), size: size, parts: parts,
		log: slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for i := range size {
		c.start(fmt.Sprintf("n%d", i+1))
	}
	if t.Name() != "" {
		t.Cleanup(c.close)
	}
	c.ready()
	return c
}

func (c *testCluster) start(name string) *testNode {
	c.t.Helper()
	var join []string
	for _, n := range c.nodes {
		join = append(join, n.GossipAddr())
	}
	n := &testNode{subs: make(map[string][]*inboxOf)}
	node, err := Open(Config{
		NodeID: name, DataDir: filepath.Join(c.dir, name), GossipAddr: "127.0.0.1:0", RPCAddr: "127.0.0.1:0",
		Join: join, BootstrapExpect: c.size, Shards: c.parts, Log: c.log, Build: "test",
	})
	if err != nil {
		panic(err)
	}
	n.Node = node
	node.Attach(n)
	c.nodes[name] = n
	c.names = append(c.names, name)
	return n
}

func (c *testCluster) close() {
	for _, n := range c.nodes {
		if err := n.Close(context.Background()); err != nil {
			c.t.Errorf("close: %v", err)
		}
	}
	os.RemoveAll(c.dir)
}

func (c *testCluster) ready() {
	c.t.Helper()
	for name, n := range c.nodes {
		eventually(c.t, name+" is ready", func() error { return n.Ready() })
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
	superseded chan struct{}
	lost       chan struct{}
}

func (c *testNode) open(t *testing.T, id string, clean bool, expiry uint32) *client {
	t.Helper()
	x := &client{t: t, n: c, in: newInbox(), superseded: make(chan struct{}, 16), lost: make(chan struct{}, 16)}
	done := make(chan error, 1)
	c.Open(session.OpenRequest{Client: id, CleanStart: clean, ExpirySeconds: expiry, Window: 32}, x,
		func(l session.Link, o session.Opened, err error) {
			x.mu.Lock()
			x.link, x.opened = l, o
			x.mu.Unlock()
			done <- err
		})
	if err := wait(t, "open "+id, done); err != nil {
		t.Fatalf("open %s: %v", id, err)
	}
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
	select {
	case c.lost <- struct{}{}:
	default:
	}
	go c.link.Close(session.CloseRequest{})
}

func (c *client) subscribe(filter string, qos uint32) {
	c.t.Helper()
	done := make(chan error, 1)
	if c.opened.Durable {
		c.link.Subscribe([]*shoalpb.Subscription{{Filter: filter, Qos: qos}}, func(_ []bool, err error) { done <- err })
	} else {
		c.n.mu.Lock()
		c.n.subs[filter] = append(c.n.subs[filter], c.in)
		c.n.mu.Unlock()
		c.n.AddRoute(filter, uint8(qos), func(err error) { done <- err })
	}
	if err := wait(c.t, "subscribe "+filter, done); err != nil {
		c.t.Fatalf("subscribe %s: %v", filter, err)
	}
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
