package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

const (
	// connackTimeout: a client that gets no CONNACK goes elsewhere.
	connackTimeout = 5 * time.Second
	// pingEvery is how long a connection is idle before it is probed.
	pingEvery = time.Second
	// abandonedFor is longer than a takeover takes.
	abandonedFor              = 15 * time.Second
	backoffLeast, backoffMost = 20 * time.Millisecond, time.Second
)

// client is one durable session that goes on whatever happens to its nodes: it
// connects to any of them, and again when a connection dies or falls silent.
// One goroutine reads, others publish.
type client struct {
	config clientConfig
	h      *history
	rng    *rand.Rand // of run

	mu sync.Mutex // guards what follows, held while writing to the wire
	*session
	wire    *wire // nil while there is no connection
	known   bool  // a CONNACK with success came: the broker has a session
	left    bool  // wire is to be left open, for another
	changed *sync.Cond
	ended   bool
}

type clientConfig struct {
	name    string
	version packet.Version
	nodes   []string // MQTT addresses; the first is tried first
	seed    uint64
	// window bounds the client's exchanges towards the broker.
	window int
	// receiveMaximum of MQTT 5; 0 is not given.
	receiveMaximum uint16
	// lowest: take the lowest free Packet Identifier, as some libraries do.
	lowest bool
	// silence is how long a connection may say nothing before the client goes
	// elsewhere; 0 is for ever.
	silence time.Duration
	// filter and qos of its subscription, if it has one.
	filter string
	qos    packet.QoS
}

func newClient(h *history, c clientConfig) *client {
	x := &client{config: c, h: h, rng: rand.New(rand.NewPCG(c.seed, 0)), session: newSession(c.name, h)}
	x.changed = sync.NewCond(&x.mu)
	x.lowest = c.lowest
	if c.filter != "" {
		x.subscription = h.subscribe(c.name, c.filter, c.qos)
	}
	return x
}

// run keeps the session connected until ctx ends.
func (c *client) run(ctx context.Context) {
	defer context.AfterFunc(ctx, c.end)()
	backoff := backoffLeast
	for i := 0; ctx.Err() == nil; i++ {
		to := 0
		if i > 0 {
			to = c.rng.IntN(len(c.config.nodes))
		}
		served := c.connection(ctx, c.config.nodes[to])
		if served {
			backoff = backoffLeast
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff/2 + time.Duration(c.rng.Int64N(int64(backoff)))):
		}
		backoff = min(2*backoff, backoffMost)
	}
}

// end wakes publishers for good and cuts the connection.
func (c *client) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.wire != nil {
		c.wire.Close()
	}
	c.changed.Broadcast()
}

// connection is the life of one; served tells whether there was a CONNACK.
func (c *client) connection(ctx context.Context, addr string) (served bool) {
	w, err := dialWire(addr, c.config.version)
	if err != nil {
		return false
	}
	stop := context.AfterFunc(ctx, func() { w.Close() })
	leave := false
	defer func() {
		if leave {
			go abandon(w)
		} else {
			stop()
			w.Close()
		}
	}()
	ack, err := c.handshake(w)
	if err != nil {
		c.h.note("no CONNACK")
		return false
	}
	if ack.Code.Failed() {
		c.refused(ack)
		return false
	}
	if err := c.attach(w, ack); err == nil {
		c.read(w)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	leave, c.left, c.wire = c.left, false, nil
	return true
}

// abandon keeps a connection for which its client has no use any more: the
// broker has to close it when it learns of the next one.
func abandon(w *wire) {
	defer w.Close()
	w.SetReadDeadline(time.Now().Add(abandonedFor))
	io.Copy(io.Discard, w)
}

func (c *client) handshake(w *wire) (*packet.Connack, error) {
	w.append(&packet.Connect{
		ClientID: c.config.name, HasSessionExpiry: true, SessionExpiry: 24 * 60 * 60,
		ReceiveMaximum: c.config.receiveMaximum, RequestProblemInfo: true,
	})
	if err := w.flush(); err != nil {
		return nil, err
	}
	p, err := w.next(time.Now().Add(connackTimeout))
	if err != nil {
		return nil, err
	}
	ack, ok := p.(*packet.Connack)
	if !ok {
		c.h.violate("%s: %T in place of CONNACK", c.config.name, p)
		return nil, errors.New("no CONNACK")
	}
	return ack, nil
}

func (c *client) refused(ack *packet.Connack) {
	switch ack.Code {
	case packet.CodeServerUnavailable, packet.CodeServerBusy, packet.CodeServerShuttingDown,
		packet.CodeUseAnotherServer, packet.CodeServerMoved, packet.CodeConnectionRateExceeded:
		c.h.note("CONNACK: " + ack.Code.String())
	default:
		c.h.violate("%s: CONNACK: %s (%s)", c.config.name, ack.Code, ack.ReasonString)
	}
}

// attach resumes the session on a connection.
func (c *client) attach(w *wire, ack *packet.Connack) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known && !ack.SessionPresent {
		c.violate("the broker has lost the session")
	}
	c.known = true
	for _, p := range c.resume(ack.SessionPresent) {
		w.append(p)
	}
	if s := c.subscribe(); s != nil {
		w.append(s)
	}
	c.wire = w
	c.changed.Broadcast()
	return w.flush()
}

// read takes what comes until the connection dies or is silent for too long.
func (c *client) read(w *wire) {
	heard := time.Now()
	for {
		err := w.fill(time.Now().Add(pingEvery))
		switch {
		case c.leaves():
			return
		case err == nil:
			heard = time.Now()
			err = c.receiveAll(w)
		case errors.Is(err, os.ErrDeadlineExceeded):
			if c.config.silence > 0 && time.Since(heard) > c.config.silence {
				c.h.note("left a silent connection")
				return
			}
			err = c.send(w, &packet.Pingreq{})
		}
		if err != nil {
			return
		}
	}
}

// receiveAll takes all packets that have been read and sends the answers with
// one write.
func (c *client) receiveAll(w *wire) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.changed.Broadcast()
	for {
		p, err := w.take()
		if err != nil {
			c.violate("cannot read a packet: %v", err)
			return err
		}
		if p == nil {
			return w.flush()
		}
		answer, err := c.receive(p)
		if err != nil {
			return err
		}
		if limit := int(c.config.receiveMaximum); limit > 0 && len(c.received) > limit {
			c.violate("%d QoS 2 messages in flight: Receive Maximum is %d", len(c.received), limit)
		}
		if answer != nil {
			w.append(answer)
		}
	}
}

func (c *client) send(w *wire, p packet.Packet) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.append(p)
	return w.flush()
}

// publish sends the next message of a stream as soon as the window has room and
// there is a connection. It reports false at the client's end.
func (c *client) publish(stream int32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.ended && (c.wire == nil || c.unfinished() >= c.config.window) {
		c.changed.Wait()
	}
	if c.ended {
		return false
	}
	m := c.h.next(stream)
	c.wire.append(c.session.publish(m, c.h.stream(stream)))
	if c.wire.flush() != nil {
		c.wire.Close() // the reader sees it; the message goes with the next one
	}
	return true
}

// settled is nil if nothing is under way towards the broker and nothing that it
// sent waits to be released.
func (c *client) settled() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.taken) > 0 || len(c.received) > 0 || c.subscribeID > 0 {
		return fmt.Errorf("%s: %d PUBLISH and %d PUBREL unanswered, %d received QoS 2 messages not released, connected: %t",
			c.config.name, len(c.unacked), len(c.released), len(c.received), c.wire != nil)
	}
	return nil
}

// subscribed is nil if the client has nothing to subscribe.
func (c *client) subscribed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session.subscribe() != nil {
		return fmt.Errorf("%s has no SUBACK", c.config.name)
	}
	return nil
}

// move cuts the connection; the client connects somewhere.
func (c *client) move() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wire != nil {
		c.wire.Close()
	}
}

// leave has the client connect somewhere while its connection stays open.
func (c *client) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wire != nil {
		c.left = true
		c.wire.SetReadDeadline(time.Now()) // wakes the reader, within pingEvery at most
	}
}

func (c *client) leaves() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left
}
