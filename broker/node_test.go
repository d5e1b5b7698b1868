package broker_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/brokertest"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// node is a Broker on a Cluster in memory, listening on TCP and on pipes.
type node struct {
	t       testing.TB
	broker  *broker.Broker
	cluster *brokertest.Cluster
	metrics *prometheus.Registry
	addr    string
	pipes   *pipeListener
	// piped makes dial use pipes.
	piped bool
}

// start runs a node that ends with the test. Then no connection, route or copy
// of a message may be left unaccounted for.
func start(t testing.TB, change ...func(*broker.Config)) *node {
	t.Helper()
	return startOn(t, func(l net.Listener) net.Listener { return l }, change...)
}

// startNarrow is start with sockets that buffer little: what a client of
// connectNarrow does not read stays with the node, whatever the kernel's defaults
// are.
func startNarrow(t testing.TB, change ...func(*broker.Config)) *node {
	t.Helper()
	return startOn(t, func(l net.Listener) net.Listener { return narrowListener{l} }, change...)
}

func startOn(t testing.TB, over func(net.Listener) net.Listener, change ...func(*broker.Config)) *node {
	t.Helper()
	n := newNode(t, change...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.addr = l.Addr().String()
	n.serve(over(l))
	n.serve(n.pipes)
	t.Cleanup(n.stop)
	return n
}

// narrowBytes is the kernel's buffer at each end of a narrow connection. A size
// that is set is not adjusted by the kernel any more.
const narrowBytes = 64 << 10

// narrowListener accepts connections whose ends buffer little.
type narrowListener struct{ net.Listener }

func (l narrowListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return nc, nc.(*net.TCPConn).SetWriteBuffer(narrowBytes)
}

func newNode(t testing.TB, change ...func(*broker.Config)) *node {
	config := broker.Config{
		Log:            slog.New(slog.NewTextHandler(io.Discard, nil)),
		NodeID:         "n1",
		AllowAnonymous: true,
	}
	n := &node{t: t, metrics: prometheus.NewRegistry(), pipes: newPipeListener()}
	config.Metrics = n.metrics
	for _, c := range change {
		c(&config)
	}
	n.broker = broker.New(config)
	n.cluster = brokertest.New(n.broker)
	n.broker.Attach(n.cluster)
	return n
}

func (n *node) serve(l net.Listener) {
	go func() {
		if err := n.broker.Serve(context.Background(), &broker.Listener{Listener: l}); err != nil && !errors.Is(err, broker.ErrClosed) {
			n.t.Errorf("serve: %v", err)
		}
	}()
}

func (n *node) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), mqtttest.Timeout)
	defer cancel()
	n.cluster.ReleaseAll(brokertest.Open) // a Cluster answers each Open
	if err := n.broker.Close(ctx); err != nil {
		n.t.Errorf("close: %v", err)
	}
	if routes, bad := n.cluster.Routes(), n.cluster.BadRoutes(); routes != 0 || bad != 0 {
		n.t.Errorf("%d routes left, %d removed without being added", routes, bad)
	}
	if links := n.cluster.Links(); links != 0 {
		n.t.Errorf("%d links not closed", links)
	}
	if open := n.metric("shoal_connections"); open != 0 {
		n.t.Errorf("%v connections left", open)
	}
	if queued := n.metric("shoal_messages_queued"); queued != 0 {
		n.t.Errorf("%v messages queued without a connection", queued)
	}
	n.checkAccounts()
}

// checkAccounts: what matched was delivered, is queued, or was dropped for a
// reason.
func (n *node) checkAccounts() {
	n.t.Helper()
	matched := n.metric("shoal_messages_matched_total")
	known := n.metric("shoal_messages_delivered_total") + n.metric("shoal_messages_queued") + n.metric("shoal_messages_dropped_total")
	if matched != known {
		n.t.Errorf("%v copies matched, %v are accounted for", matched, known)
	}
}

// metric returns a metric, summed over the values of its labels, or the one with
// the label value given.
func (n *node) metric(name string, label ...string) (sum float64) {
	n.t.Helper()
	families, err := n.metrics.Gather()
	if err != nil {
		n.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if len(label) == 1 && m.GetLabel()[0].GetValue() != label[0] {
				continue
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// await waits until a condition holds.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(mqtttest.Timeout); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not in time", what)
		}
	}
}

// awaitClean waits until the node has finished with all ended connections.
func (n *node) awaitConnections(count int) {
	n.t.Helper()
	await(n.t, "connections to end", func() bool { return n.metric("shoal_connections") == float64(count) })
}

// dial opens a connection without CONNECT.
func (n *node) dial(v packet.Version) *mqtttest.Client {
	n.t.Helper()
	if n.piped {
		return mqtttest.Over(n.t, n.pipes.dial(), v)
	}
	return mqtttest.DialTest(n.t, n.addr, v)
}

// connect opens a connection with CONNECT.
func (n *node) connect(v packet.Version, id string, options ...mqtttest.Option) *mqtttest.Client {
	n.t.Helper()
	c := n.dial(v)
	c.Connect(append([]mqtttest.Option{mqtttest.ID(id)}, options...)...)
	return c
}

// connectNarrow is connect for a client whose end buffers little, too. The node
// is one of startNarrow.
func (n *node) connectNarrow(v packet.Version, id string) *mqtttest.Client {
	n.t.Helper()
	nc, err := net.DialTimeout("tcp", n.addr, mqtttest.Timeout)
	if err == nil {
		err = nc.(*net.TCPConn).SetReadBuffer(narrowBytes)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	c := mqtttest.Over(n.t, nc, v)
	c.Connect(mqtttest.ID(id))
	return c
}

// durable opens a connection to a durable session, in any version.
func (n *node) durable(v packet.Version, id string, options ...mqtttest.Option) (*mqtttest.Client, *packet.Connack) {
	n.t.Helper()
	c := n.dial(v)
	options = append([]mqtttest.Option{mqtttest.ID(id), mqtttest.Resume(), mqtttest.Expiry(100)}, options...)
	return c, c.Connect(options...)
}

// versions runs a test in every protocol version, and over sockets and pipes.
func versions(t *testing.T, test func(t *testing.T, n *node, v packet.Version)) {
	for _, v := range []packet.Version{packet.V31, packet.V311, packet.V5} {
		for _, piped := range []bool{false, true} {
			name := v.String() + "/socket"
			if piped {
				name = v.String() + "/stream"
			}
			t.Run(name, func(t *testing.T) {
				n := start(t)
				n.piped = piped
				test(t, n, v)
			})
		}
	}
}

// pipeListener accepts the far ends of pipes.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
	case <-l.done:
		server.Close()
	}
	return client
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }
