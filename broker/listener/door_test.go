package listener_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/brokertest"
	"github.com/shoalmq/shoal/broker/listener"
	"github.com/shoalmq/shoal/broker/mqtttest"
)

// node is a broker that serves the listeners under test.
type node struct {
	t       testing.TB
	broker  *broker.Broker
	metrics *prometheus.Registry
	log     *logText
	peers   *peers
}

// start runs a node that ends with the test, when nothing may be left.
func start(t testing.TB, change ...func(*broker.Config)) *node {
	t.Helper()
	n := &node{t: t, metrics: prometheus.NewRegistry(), log: &logText{}, peers: &peers{}}
	c := broker.Config{
		Log: slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Metrics: n.metrics,
		NodeID: "n1", AllowAnonymous: true, Authorizer: n.peers,
	}
	for _, f := range change {
		f(&c)
	}
	n.broker = broker.New(c)
	n.broker.Attach(brokertest.New(n.broker))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), mqtttest.Timeout)
		defer cancel()
		if err := n.broker.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		if left := n.metric("shoal_connections"); left != 0 {
			t.Errorf("%v connections left", left)
		}
	})
	return n
}

// listen opens a listener on a port of loopback, and returns its address.
func (n *node) listen(c listener.Config) string {
	n.t.Helper()
	if c.Network == "" {
		c.Network, c.Addr = "tcp", "127.0.0.1:0"
	}
	if c.Name == "" {
		c.Name = "door"
	}
	l, err := listener.Listen(c)
	if err != nil {
		n.t.Fatal(err)
	}
	go func() {
		if err := n.broker.Serve(context.Background(), &broker.Listener{Listener: l, Name: c.Name}); err != nil && !errors.Is(err, broker.ErrClosed) {
			n.t.Errorf("serve: %v", err)
		}
	}()
	return l.Addr().String()
}

// metric returns a metric, summed over the labels that are not given.
func (n *node) metric(name string, labels ...string) (sum float64) {
	n.t.Helper()
	families, err := n.metrics.Gather()
	if err != nil {
		n.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	next:
		for _, m := range f.GetMetric() {
			for i, l := range m.GetLabel() {
				if i < len(labels) && l.GetValue() != labels[i] {
					continue next
				}
			}
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return sum
}

// logText keeps what is logged.
type logText struct {
	mu sync.Mutex
	b  []byte
}

var _ io.Writer = (*logText)(nil)

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p...)
	return len(p), nil
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}

// peers is an Authorizer that allows all and remembers who came.
type peers struct {
	mu   sync.Mutex
	seen map[string]*broker.Peer
}

func (p *peers) Permissions(c *broker.Client) (broker.Permissions, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen == nil {
		p.seen = make(map[string]*broker.Peer)
	}
	p.seen[c.ID] = c.Peer
	return nil, nil
}

// of is the peer of a client that has connected.
func (p *peers) of(id string) *broker.Peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[id]
}

func dial(t testing.TB, network, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return nc
}
