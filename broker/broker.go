package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

// Broker is the front end of one node. Its methods may be called from any
// goroutine.
type Broker struct {
	config  Config
	log     *slog.Logger
	cluster Cluster
	metrics metrics
	wake    *wake
	wheel   *wheel
	gate    *gate
	memory  *memory
	subs    *subscriptions
	users   *users
	// Who comes too often; nil for nobody.
	addresses, logins, flapping *crowd
	// What the log tells once in a while only.
	complaints, refusals complaints
	readers              sync.Pool // *reader

	mu        sync.Mutex
	started   bool
	closing   bool
	poller    *poller
	listeners map[*Listener]struct{}
	conns     map[*conn]struct{}
	// tasks are the sweeper, flusher and poller; open counts connections and
	// calls of Serve.
	tasks sync.WaitGroup
	open  sync.WaitGroup
	done  chan struct{}
	// ctx ends with the broker; it is for the Authenticator.
	ctx    context.Context
	cancel context.CancelFunc
}

// ErrClosed is what Serve returns when Close was called before.
var ErrClosed = errors.New("serve MQTT: broker is closed")

var _ Local = (*Broker)(nil)

// New makes a Broker. It does nothing until Serve.
func New(config Config) *Broker {
	b := &Broker{
		config:    config.withDefaults(),
		wake:      newWake(),
		subs:      newSubscriptions(),
		listeners: make(map[*Listener]struct{}),
		conns:     make(map[*conn]struct{}),
		done:      make(chan struct{}),
	}
	b.log = b.config.Log
	b.gate, b.memory = newGate(&b.config), newMemory(b)
	b.users = newUsers(&b.config)
	b.addresses, b.logins, b.flapping = newCrowd(b.config.Addresses), newCrowd(b.config.FailedLogins), newCrowd(b.config.Flapping)
	b.metrics.broker = b
	b.ctx, b.cancel = context.WithCancel(context.Background())
	if b.config.Metrics != nil {
		b.config.Metrics.MustRegister(&b.metrics)
	}
	return b
}

// Attach joins the replicated side. It is called once, before Serve.
func (b *Broker) Attach(c Cluster) { b.cluster = c }

// Serve accepts connections from l until ctx or the Broker is done, and then
// closes l and returns nil. It can be called for several listeners.
// Connections outlive it: Close ends them.
func (b *Broker) Serve(ctx context.Context, l *Listener) error {
	l = b.config.listener(l)
	l.counts = b.metrics.doors.of(l.Name)
	if err := b.enter(l); err != nil {
		l.Close()
		return err
	}
	defer b.open.Done()
	defer b.leave(l)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		if !b.gate.wait(ctx, b.ctx.Done()) || l.gate != nil && !l.gate.wait(ctx, b.ctx.Done()) {
			return nil
		}
		nc, err := l.Accept()
		if err == nil {
			if b.gate.accepted() {
				b.tasks.Go(func() { b.gate.probe(b.done) })
			}
			b.take(l, nc)
			continue
		}
		if ctx.Err() != nil || b.isClosing() {
			return nil
		}
		if !isTemporary(err) {
			return fmt.Errorf("accept MQTT connection: %w", err)
		}
		b.log.Warn("accept MQTT connection", "error", err)
		select {
		case <-time.After(acceptBackoff):
		case <-ctx.Done():
		case <-b.done:
		}
	}
}

// enter registers a listener and starts the broker with the first one.
func (b *Broker) enter(l *Listener) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		return ErrClosed
	}
	if !b.started {
		b.started = true
		b.wheel = newWheel(time.Now())
		b.tasks.Go(func() { b.wake.run(b.done) })
		b.tasks.Go(b.sweep)
		if b.memory.limit > 0 {
			b.tasks.Go(func() { b.memory.run(b.done) })
		}
	}
	b.listeners[l] = struct{}{}
	b.open.Add(1)
	return nil
}

func (b *Broker) leave(l *Listener) {
	b.mu.Lock()
	delete(b.listeners, l)
	b.mu.Unlock()
	l.Close()
}

func (b *Broker) isClosing() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closing
}

// take makes a connection of what a listener accepted.
func (b *Broker) take(l *Listener, nc net.Conn) {
	if !b.admit() {
		nc.Close()
		return
	}
	c := newConn(b, l)
	l.counts.connections.Add(1)
	w, err := b.wire(c, nc)
	if err != nil {
		b.log.Warn("accept MQTT connection", "error", err)
		nc.Close()
		b.disown(c)
		return
	}
	c.wire = w
	b.mu.Lock()
	b.conns[c] = struct{}{}
	closing := b.closing
	b.mu.Unlock()
	if oldest := b.gate.enter(c); oldest != nil {
		b.metrics.halfOpenClosed.Add(1)
		oldest.abort("too many connections have not sent CONNECT, or are not through with AUTH, and this one for longest")
	}
	a, _ := nc.(Accepted)
	c.start(a)
	if closing { // Close has not seen it
		c.abort("server is shutting down")
	}
}

// wire makes a connection of the kernel's a socket, where there are sockets.
func (b *Broker) wire(c *conn, nc net.Conn) (wire, error) {
	var raw syscall.Conn
	switch nc := nc.(type) {
	case *net.TCPConn:
		raw = nc
	case *net.UnixConn:
		raw = nc
	}
	if raw == nil || !haveSockets {
		return stream{nc}, nil
	}
	p, err := b.startPoller()
	if err != nil {
		return nil, err
	}
	return p.adopt(c, nc, raw)
}

// startPoller starts the poller with the first socket.
func (b *Broker) startPoller() (*poller, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.poller == nil {
		p, err := newPoller()
		if err != nil {
			return nil, err
		}
		b.poller = p
		b.tasks.Go(p.run)
	}
	return b.poller, nil
}

// admit counts a connection, unless there are too many.
func (b *Broker) admit() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	limit := int64(b.config.MaxConnections)
	if b.closing || limit > 0 && b.metrics.connections.Load() >= limit {
		b.metrics.refused.Add(1)
		return false
	}
	b.open.Add(1)
	b.metrics.connections.Add(1)
	return true
}

// forget is called when the last goroutine of a connection has ended.
func (b *Broker) forget(c *conn) {
	b.wheel.cancel(c)
	c.wire.Close()
	c.rest, c.aliases, c.incoming = nil, nil, nil // a cached match may still name the connection
	b.disown(c)
}

func (b *Broker) disown(c *conn) {
	c.leaveCrowd()
	b.mu.Lock()
	delete(b.conns, c)
	b.mu.Unlock()
	c.listener.counts.connections.Add(-1)
	b.metrics.connections.Add(-1)
	b.open.Done()
}

// sweep enforces deadlines.
func (b *Broker) sweep() {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			for _, c := range b.wheel.advance(now) {
				if again := c.check(now); !again.IsZero() {
					b.wheel.schedule(c, again)
				}
			}
		case <-b.done:
			return
		}
	}
}

// Close stops accepting, lets the clients go one after the other, so that they do
// not all come to the other nodes at once, and waits for their connections to
// end. MQTT 5 clients are told where to go (DISCONNECT 0x9C), if anywhere (0x8B). When ctx is done it cuts those that are
// left and returns ctx's error.
func (b *Broker) Close(ctx context.Context) error {
	conns, first := b.beginClose()
	if !first {
		<-b.done
		return nil
	}
	b.letGo(ctx, conns)
	ended := make(chan struct{})
	go func() {
		b.open.Wait()
		close(ended)
	}()
	var err error
	select {
	case <-ended:
	case <-ctx.Done():
		err = fmt.Errorf("close MQTT connections: %w", ctx.Err())
		for _, c := range conns {
			c.abort("server is shutting down")
			c.dropLine()
		}
		<-ended
	}
	close(b.done)
	if b.poller != nil {
		b.poller.close()
	}
	b.tasks.Wait()
	return err
}

// letGo says goodbye to clients at a pace, which is higher if there is not enough
// time.
func (b *Broker) letGo(ctx context.Context, conns []*conn) {
	const every = 10 * time.Millisecond
	pace := b.config.LetGoRate
	if end, ok := ctx.Deadline(); ok {
		left := max(time.Until(end)/2, every)
		pace = max(pace, int(float64(len(conns))/left.Seconds()))
	}
	each := max(pace/int(time.Second/every), 1)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for len(conns) > 0 {
		n := min(each, len(conns))
		for _, c := range conns[:n] {
			c.end(b.farewell(c.listener))
		}
		if conns = conns[n:]; len(conns) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// farewell is the end of a connection of l that is let go.
func (b *Broker) farewell(l *Listener) ending {
	e := ending{code: packet.CodeServerShuttingDown, farewell: true, why: "server is shutting down"}
	if b.config.Elsewhere != nil && !l.Unannounced {
		if e.reference = b.config.Elsewhere(); e.reference != "" {
			e.code = packet.CodeUseAnotherServer
		}
	}
	return e
}

func (b *Broker) beginClose() (conns []*conn, first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		return nil, false
	}
	b.closing = true
	b.cancel()
	for l := range b.listeners {
		l.Close()
	}
	for c := range b.conns {
		conns = append(conns, c)
	}
	return conns, true
}

// isTemporary tells a want of descriptors, or a client that gave up, from a
// listener that is gone.
func isTemporary(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
