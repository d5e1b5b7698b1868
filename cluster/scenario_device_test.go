package cluster

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// device is an MQTT client with a durable session and a memory of its own: it
// sends again what was not acknowledged and completes QoS 2 exchanges over any
// number of connections, as the standard asks of clients. All methods may be
// called by any goroutine.
type device struct {
	c  *testCluster
	id string

	sending sync.Mutex // held over calls that must keep the order of publishes

	mu     sync.Mutex
	conn   *deviceConn     // nil while it has none
	opened bool            // a session was acknowledged: it must be present from then on
	out    []*outgoing     // unfinished, in the order of publishing
	nextID uint16          // last Packet Identifier used
	begun  map[uint16]bool // QoS 2 identifiers received and not completed
	has    map[string]bool // of got, with QoS 0 and 1
	got    []string        // payloads handed to the application
	faults []string        // what the broker must not do
	wake   *broadcast      // something above has changed
	// stop is the step before which the device does nothing more until it is
	// told to go on; stopped is what it then does.
	stop    string
	stopped []func()
	// tell, if not nil, is told what happens, for those who ask why later.
	tell func(format string, args ...any)
}

func (d *device) note(format string, args ...any) {
	if d.tell != nil {
		d.tell(format, args...)
	}
}

// outgoing is a message of a device until it is acknowledged for good.
type outgoing struct {
	id       uint16
	qos      uint32
	topic    string
	payload  string
	received bool // PUBREC came
	sent     bool // at least once
	acked    chan struct{}
}

// deviceConn is one connection of a device.
type deviceConn struct {
	d    *device
	n    *testNode
	link session.Link
	seen uint64 // by mu of the device
	over bool   // by mu of the device
	left bool   // by mu of the device: gone is closed
	gone chan struct{}
}

func newDevice(c *testCluster, id string) *device {
	return &device{c: c, id: id, begun: make(map[uint16]bool), has: make(map[string]bool), wake: newBroadcast()}
}

// connect opens a connection at a node. One that it has is abandoned: a
// takeover.
func (d *device) connect(node string) error {
	n := d.c.node(node)
	if n == nil {
		return errors.New("connection refused")
	}
	d.abandon()
	x := &deviceConn{d: d, n: n, gone: make(chan struct{})}
	type answer struct {
		l   session.Link
		o   session.Opened
		err error
	}
	done := make(chan answer, 1)
	n.Open(session.OpenRequest{Client: d.id, ExpirySeconds: 3600, Window: 32}, x,
		func(l session.Link, o session.Opened, err error) { done <- answer{l, o, err} })
	var a answer
	select {
	case a = <-done:
	case <-time.After(patience):
		return d.fault("CONNECT is not answered")
	}
	if a.err != nil {
		d.note("CONNECT at %s: %v", node, a.err)
		return a.err
	}
	d.note("connected at %s, %#x, present %v, sent up to %d", node, a.l.(*link).conn, a.o.Present, a.o.SentHi)
	if n.dead.Load() {
		return errors.New("connection reset")
	}
	return d.begin(x, a.l, a.o)
}

// begin starts to use a connection: what is unfinished is sent again first.
func (d *device) begin(x *deviceConn, l session.Link, o session.Opened) error {
	d.sending.Lock()
	defer d.sending.Unlock()
	d.mu.Lock()
	if d.opened && !o.Present {
		d.mu.Unlock()
		return d.fault("the session is gone")
	}
	x.link, d.conn, d.opened = l, x, true
	again := append([]*outgoing(nil), d.out...)
	over := x.over // Superseded or Lost came before
	d.mu.Unlock()
	if over {
		d.drop(x)
		return session.ErrNotOwner
	}
	l.Fetch()
	for _, m := range again {
		d.send(x, m)
	}
	return nil
}

// stay connects at one of the nodes named, in turn, until it succeeds.
func (d *device) stay(nodes ...string) error {
	var err error
	for i, end := 0, time.Now().Add(patience); time.Now().Before(end); i++ {
		if err = d.connect(nodes[i%len(nodes)]); err == nil {
			return nil
		}
		time.Sleep(retryDelay)
	}
	return fmt.Errorf("%s cannot connect: %w", d.id, err)
}

// hangUp closes the connection, if there is one, without DISCONNECT.
func (d *device) hangUp() {
	if x := d.abandon(); x != nil {
		d.drop(x)
	}
}

// abandon forgets the connection, which the broker still takes for open.
func (d *device) abandon() *deviceConn {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.conn
	d.conn, d.stopped = nil, nil
	if x != nil {
		x.leave()
	}
	return x
}

// drop ends a connection.
func (d *device) drop(x *deviceConn) {
	d.mu.Lock()
	if d.conn == x {
		d.conn, d.stopped = nil, nil
	}
	x.over = true
	x.leave()
	d.note("drops its connection at %s", x.n.config.NodeID)
	l := x.link
	d.mu.Unlock()
	d.wake.broadcast()
	if l != nil {
		l.Close(session.CloseRequest{})
	}
}

// leave tells those who wait for answers. Called with mu held.
func (x *deviceConn) leave() {
	if !x.left {
		x.left = true
		close(x.gone)
	}
}

// Superseded implements session.Sink.
func (x *deviceConn) Superseded() { x.end() }

// Lost implements session.Sink.
func (x *deviceConn) Lost(error) { x.end() }

func (x *deviceConn) end() {
	x.d.mu.Lock()
	x.over = true
	x.d.mu.Unlock()
	go x.d.drop(x)
}

// alive tells whether what comes over x reaches the device.
func (x *deviceConn) alive() bool { return x.d.conn == x && !x.over && !x.n.dead.Load() }

// reply takes the answer to something sent over x: then is called with the
// device's lock held if it is a success that reaches the device.
func (x *deviceConn) reply(err error, then func() (next func())) {
	d := x.d
	d.mu.Lock()
	if !x.alive() {
		d.mu.Unlock()
		return
	}
	if err != nil {
		x.over = true
		d.mu.Unlock()
		if errors.Is(err, session.ErrIDInUse) || errors.Is(err, session.ErrQuota) {
			d.fault(err.Error())
		}
		go d.drop(x)
		return
	}
	next := then()
	d.mu.Unlock()
	d.wake.broadcast()
	if next != nil {
		next()
	}
}

// stopAt makes the device stop before a step.
func (d *device) stopAt(step string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stop = step
}

// at calls next, or keeps it if the device is to stop before step.
func (d *device) at(step string, next func()) {
	d.mu.Lock()
	if d.stop == step {
		d.stopped = append(d.stopped, next)
		d.mu.Unlock()
		d.wake.broadcast()
		return
	}
	d.mu.Unlock()
	next()
}

// goOn ends a stop.
func (d *device) goOn() {
	d.mu.Lock()
	d.stop = ""
	list := d.stopped
	d.stopped = nil
	d.mu.Unlock()
	for _, next := range list {
		next()
	}
}

// hasStopped tells whether the device is at the step where it was to stop.
func (d *device) hasStopped() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.stopped) > 0
}

// publish sends a message, now or with the next connection.
func (d *device) publish(topic string, qos uint32, payload string) *outgoing {
	m := &outgoing{qos: qos, topic: topic, payload: payload, acked: make(chan struct{})}
	d.sending.Lock()
	defer d.sending.Unlock()
	d.mu.Lock()
	for used := true; used; {
		d.nextID = d.nextID%100 + 1 // few: identifiers come again soon
		used = false
		for _, o := range d.out {
			used = used || o.id == d.nextID
		}
	}
	m.id = d.nextID
	d.out = append(d.out, m)
	x := d.conn
	d.mu.Unlock()
	if x != nil {
		d.send(x, m)
	}
	return m
}

// send sends what m needs next. Called with sending held.
func (d *device) send(x *deviceConn, m *outgoing) {
	d.mu.Lock()
	dup, released := m.sent, m.received
	m.sent = true
	d.mu.Unlock()
	d.note("sends %s: id %d, again %v, released %v", m.payload, m.id, dup, released)
	msg := &shoalpb.Message{Topic: m.topic, Qos: m.qos, Payload: []byte(m.payload)}
	switch {
	case released:
		d.pubrel(x, m)
	case m.qos == 2:
		x.link.Received(m.id, dup, msg, func(err error) {
			d.note("PUBREC for %s: %v", m.payload, err)
			d.at("PUBREC arrives", func() {
				x.reply(err, func() func() {
					m.received = true
					return func() { d.at("PUBREL", func() { d.pubrel(x, m) }) }
				})
			})
		})
	default:
		x.link.Publish(msg, func(err error) {
			d.note("PUBACK for %s: %v", m.payload, err)
			x.reply(err, func() func() { return d.finish(m) })
		})
	}
}

func (d *device) pubrel(x *deviceConn, m *outgoing) {
	x.link.Released(m.id, func(known bool, err error) {
		d.note("PUBCOMP for %s: known %v, %v", m.payload, known, err)
		d.at("PUBCOMP arrives", func() {
			x.reply(err, func() func() { return d.finish(m) })
		})
	})
}

// finish takes m out of what is unfinished. Called with mu held.
func (d *device) finish(m *outgoing) func() {
	for i, o := range d.out {
		if o == m {
			d.out = append(d.out[:i:i], d.out[i+1:]...)
			close(m.acked)
			break
		}
	}
	return nil
}

// Deliver implements session.Sink.
func (x *deviceConn) Deliver(entries []session.Delivery) {
	for _, e := range entries {
		x.d.at("PUBLISH arrives", func() { x.deliver(e) })
	}
}

func (x *deviceConn) deliver(e session.Delivery) {
	d := x.d
	var next func()
	d.mu.Lock()
	d.note("entry %d, seen %d, alive %v, released %v: %s", e.Seq, x.seen, x.alive(), e.Released, e.Message.GetPayload())
	if !x.alive() || (e.Seq != 0 && e.Seq <= x.seen) {
		d.mu.Unlock()
		return
	}
	x.seen = max(x.seen, e.Seq)
	switch id := session.PacketID(max(e.Seq, 1)); {
	case e.Released:
		delete(d.begun, id)
		next = func() { x.link.Ack(e.Seq) }
	case e.QoS == 2:
		if !d.begun[id] {
			d.begun[id] = true
			d.got = append(d.got, string(e.Message.Payload))
		}
		next = func() { d.at("PUBREC", func() { x.pubrec(e.Seq, id) }) }
	default: // copies are allowed, so the first counts; payloads differ
		if payload := string(e.Message.Payload); !d.has[payload] {
			d.has[payload] = true
			d.got = append(d.got, payload)
		}
		if e.QoS == 1 {
			next = func() { x.link.Ack(e.Seq) }
		}
	}
	d.mu.Unlock()
	d.wake.broadcast()
	if next != nil {
		next()
	}
}

func (x *deviceConn) pubrec(seq uint64, id uint16) {
	d := x.d
	x.link.Release(seq, func(err error) {
		d.at("PUBREL arrives", func() {
			x.reply(err, func() func() {
				delete(d.begun, id)
				return func() { d.at("PUBCOMP", func() { x.link.Ack(seq) }) }
			})
		})
	})
}

// subscribe returns when SUBACK has come.
func (d *device) subscribe(filter string, qos uint32) error {
	return d.ask(func(x *deviceConn, done func(error)) {
		x.link.Subscribe([]*shoalpb.Subscription{{Filter: filter, Qos: qos}}, func(_ []bool, err error) { done(err) })
	})
}

// unsubscribe returns when UNSUBACK has come.
func (d *device) unsubscribe(filter string) error {
	return d.ask(func(x *deviceConn, done func(error)) {
		x.link.Unsubscribe([]string{filter}, func(_ []bool, err error) { done(err) })
	})
}

// ask sends something that is answered over the present connection, or never.
func (d *device) ask(send func(x *deviceConn, done func(error))) error {
	d.mu.Lock()
	x := d.conn
	d.mu.Unlock()
	if x == nil {
		return errors.New("not connected")
	}
	answered := make(chan error, 1)
	send(x, func(err error) {
		d.mu.Lock()
		lost := x.n.dead.Load()
		d.mu.Unlock()
		if !lost {
			answered <- err
		}
	})
	select {
	case err := <-answered:
		if err != nil {
			d.drop(x)
		}
		return err
	case <-x.gone:
		return session.ErrClosed
	case <-time.After(patience):
		return d.fault("no answer")
	}
}

// fault notes something that must not happen.
func (d *device) fault(what string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = append(d.faults, what)
	return errors.New(d.id + ": " + what)
}

// payloads is what the application got; faults what must not happen.
func (d *device) payloads() (got, faults []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.got...), d.faults
}

// unfinished counts the messages that are not acknowledged for good.
func (d *device) unfinished() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.out)
}

// connected tells whether the device has a connection.
func (d *device) connected() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conn != nil && d.conn.alive()
}

// expect waits until the application has got exactly these payloads, in this
// order, and everything the device sent is acknowledged.
func (d *device) expect(payloads ...string) {
	d.c.t.Helper()
	eventually(d.c.t, d.id, func() error {
		got, faults := d.payloads()
		switch left := d.unfinished(); {
		case len(faults) > 0:
			return fmt.Errorf("faults %q", faults)
		case fmt.Sprint(got) != fmt.Sprint(payloads):
			return fmt.Errorf("got %.200q, want %.200q", got, payloads)
		case left > 0:
			return fmt.Errorf("%d messages are not acknowledged", left)
		}
		return nil
	})
}

var _ session.Sink = (*deviceConn)(nil)
