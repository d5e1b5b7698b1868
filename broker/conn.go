package broker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/broker/session"
)

// conn is one connection, from Accept until its last goroutine has ended. It is
// the session.Sink of its Link (sink.go).
type conn struct {
	broker   *Broker
	listener *Listener
	bounds   *bounds
	wire     wire
	timer    wheelEntry
	// seen is when the client was last heard, in nanoseconds since 1970.
	seen atomic.Int64
	// begun is when a packet began to come that is not whole yet, 0 for none; stuck
	// is since when the client has taken nothing of what is to be written, 0 if there
	// is nothing. Nanoseconds since 1970.
	begun, stuck atomic.Int64
	// phase changes under mu and only grows.
	phase atomic.Int32

	// Set by CONNECT. Until the phase is serving they belong to the goroutine that
	// decides about CONNECT, and nobody else reads them, whoever ends the connection.
	client    string
	keepAlive time.Duration // with its factor; 0 for none
	// may is nil for a client that may do everything.
	may       atomic.Pointer[Permissions]
	maxPacket uint32 // the client's Maximum Packet Size, 0 for none
	expiry    uint32 // seconds, the Session Expiry Interval granted
	window    uint16
	version   packet.Version
	// problems is Request Problem Information ([MQTT-3.1.2-29]).
	problems bool
	// bridge says that the client is a broker that forwards (packet.Connect).
	bridge  bool
	durable bool
	resumed bool
	// method is the Authentication Method, empty for none.
	method string
	// peer is nil until somebody asks; who is nil for an anonymous client.
	peer *Peer
	// user is nil for one without limits of its own; arrived tells that the listener
	// counts the connection.
	user    *user
	arrived bool
	pacing  *pacing // nil for no rates
	who     *Identity

	// The reader's own: read and not handled.
	rest []byte
	// The handler's own (line.go).
	topic   string   // the last Topic Name, so that its repeats do not allocate
	aliases []string // Topic Aliases of the client, from 1
	// waits counts the SUBSCRIBE and UNSUBSCRIBE packets under way, and one more
	// while there is a line: without any a PUBLISH is handled at once.
	waits atomic.Int32

	// subs belongs to subscriptions and is guarded by its lock.
	subs subscriberState

	mu      sync.Mutex
	paused  pause
	reading bool // a goroutine is in read
	writing bool // a goroutine is in write
	blocked bool // unsent waits for the wire to take more
	dirty   bool // on the wake list
	eof     bool // the client will send nothing more
	mute    bool // the wire takes nothing more
	cut     bool // unlock is to interrupt the wire
	freed   bool
	// holds counts the connection itself until it is closed, its goroutines,
	// and the done of Open. The last one frees it.
	holds    int
	deadline int64   // nanoseconds since 1970, while awaiting or closing
	out      *buffer // packets to write, nil for none
	unsent   []byte  // what a write left, before out
	asked    int     // weight of requests that are unanswered
	pending  int     // bytes in out, in unsent and in a write that is under way
	link     session.Link
	// stopAdmission ends the context of an admission, or of a step of the exchange,
	// that is under way.
	stopAdmission context.CancelFunc
	exchange      *exchange // nil while there is none
	request       session.CloseRequest
	incoming      *incoming // nil until the first QoS 1 or 2 packet
	outgoing      *outgoing // nil until the first QoS 1 or 2 delivery
	// sentAliases is set by CONNECT, nil for none.
	sentAliases *sentAliases
	replays     *replays // nil when no subscription is owed retained messages
	// For unlock to do: finished deliveries, and a page of retained messages to
	// ask for.
	acks   []finishing
	ask    *replay
	sentHi uint64
	// subscribing and unsubscribing count the SUBSCRIBE and UNSUBSCRIBE packets that
	// have not been answered, retaining the messages of QoS 0 that are on their way
	// to their registers.
	subscribing, unsubscribing, retaining int
	// line holds the packets that wait for earlier ones (line.go). lined: there is a
	// line; lineWorked: a goroutine works it off; lineOver, if not nil, is closed
	// with its end.
	line       []held
	lineBytes  int
	lined      bool
	lineWorked bool
	lineOver   chan struct{}
	// final, if not nil, is how the connection ends when what has arrived is
	// handled.
	final *ending
}

// The phases of a connection.
const (
	awaiting int32 = iota // CONNECT has not come
	proving               // it has, and AUTH decides who the client is (enhanced.go)
	opening               // CONNECT has come; Authenticator and Cluster decide
	serving               // CONNACK is in the output
	closing               // says goodbye: what is left is written, what comes discarded
	closed
)

// pause is a set of reasons not to read.
type pause uint16

const (
	pauseOpening pause = 1 << iota // before CONNACK
	pausePublish                   // too much is unanswered
	pauseOutput                    // the client does not read what it is sent
	pauseMemory                    // it publishes, and memory is short
	pauseRate                      // it has exceeded a rate
	pauseAsked                     // it has asked for too much that is unanswered
	pauseBefore                    // Accepted.Open is under way
	pauseLine                      // too much waits in its line

	// pauseWork are the reasons not to handle what waits in the line.
	pauseWork = pausePublish | pauseMemory | pauseRate | pauseAsked
)

func newConn(b *Broker, l *Listener) *conn {
	return &conn{broker: b, listener: l, bounds: l.bounds, holds: 1, deadline: time.Now().Add(b.config.ConnectTimeout).UnixNano()}
}

// start begins to read, after a's Open if it is not nil.
func (c *conn) start(a Accepted) {
	c.broker.wheel.schedule(c, time.Unix(0, c.deadline))
	c.mu.Lock()
	defer c.unlock()
	if a != nil && c.phase.Load() == awaiting {
		c.paused |= pauseBefore
		c.spawn(func() { c.before(a) })
		return
	}
	c.resume(0)
}

// before does what comes before MQTT.
func (c *conn) before(a Accepted) {
	peer, err := a.Open()
	if err != nil {
		c.notOpened(err)
		return
	}
	peer.Listener = c.listener.Name
	var bare wire
	var read []byte
	if b, ok := a.(Bare); ok {
		var tcp *net.TCPConn
		if tcp, read = b.Bare(); tcp != nil {
			if bare, err = c.broker.wire(c, tcp); err != nil {
				c.abort(err.Error())
				return
			}
		}
	}
	c.mu.Lock()
	defer c.unlock()
	if c.phase.Load() != awaiting {
		if bare != nil {
			bare.Close()
		}
		return
	}
	if bare != nil {
		c.wire = bare
	}
	c.peer, c.rest = peer, read
	c.resume(pauseBefore)
}

// notOpened ends a connection whose Open has failed. The client's address is the
// nearest that is known.
func (c *conn) notOpened(err error) {
	c.mu.Lock()
	late := time.Now().UnixNano() >= c.deadline
	c.mu.Unlock()
	kind := OpenLost
	var e *OpenError
	switch {
	case late:
		kind = OpenLate
	case errors.As(err, &e):
		kind = e.Kind
	}
	c.listener.counts.openFailed(kind)
	level := slog.LevelInfo
	if kind == OpenLost || kind == OpenLate { // scanners and impatient clients
		level = slog.LevelDebug
	}
	c.logStranger(level, "connection did not come to MQTT", "reason", kind, "error", err)
	c.abort(err.Error())
}

// spawn runs f as a goroutine of the connection. mu is held.
func (c *conn) spawn(f func()) {
	c.holds++
	go func() {
		f()
		c.drop()
	}()
}

// drop gives a hold back.
func (c *conn) drop() {
	c.mu.Lock()
	c.holds--
	c.unlock()
}

// unlock releases mu, and then does what must not be done under it.
func (c *conn) unlock() {
	acks, ask, cut := c.acks, c.ask, c.cut
	c.acks, c.ask, c.cut = nil, nil, false
	free := c.holds == 0 && !c.freed
	c.freed = c.freed || free
	if cut && !free {
		c.holds++ // or the descriptor could be another connection's by then
	}
	link, wire := c.link, c.wire
	c.mu.Unlock()
	for _, a := range acks {
		if a.expired {
			link.Expired(a.seq)
		} else {
			link.Ack(a.seq)
		}
	}
	if ask != nil {
		c.askRetained(ask)
	}
	if cut {
		wire.interrupt()
	}
	if cut && !free {
		c.drop()
	}
	if free {
		c.broker.forget(c)
	}
}

// resume takes reasons off the pause and reads again if none is left. mu is
// held.
func (c *conn) resume(off pause) {
	c.paused &^= off
	c.workLine()
	if off != 0 && c.begun.Load() != 0 { // what was begun could not come
		c.begun.Store(time.Now().UnixNano())
	}
	switch {
	case c.reading || c.paused != 0 || c.phase.Load() == closed || c.eof:
	case c.wire.blocks() || len(c.rest) > 0:
		c.reading = true
		c.spawn(c.read)
	default:
		c.rearm()
	}
}

// rearm asks a wire that does not block for what there is to wait for. mu is
// held.
func (c *conn) rearm() {
	read := !c.reading && c.paused == 0 && !c.eof && c.phase.Load() != closed
	if read || c.blocked {
		c.wire.arm(read, c.blocked)
	}
}

// ready is called by the poller.
func (c *conn) ready(read, write bool) {
	c.mu.Lock()
	defer c.unlock()
	if c.phase.Load() == closed {
		return
	}
	if write && c.blocked {
		c.blocked, c.writing = false, true
		c.spawn(c.write)
	}
	if read && !c.reading && c.paused == 0 && !c.eof {
		c.reading = true
		c.spawn(c.read)
	}
	c.rearm()
}

// logStranger logs what somebody did who may be anybody: only once a second for
// each listener above Debug, or the log would be theirs to fill.
func (c *conn) logStranger(level slog.Level, text string, args ...any) {
	if level > slog.LevelDebug {
		last, now := c.listener.counts.logged.Load(), time.Now().Unix()
		if last == now || !c.listener.counts.logged.CompareAndSwap(last, now) {
			level = slog.LevelDebug
		}
	}
	args = append(args, "listener", c.listener.Name, "remote", c.from().Remote)
	c.broker.log.Log(c.broker.ctx, level, text, args...)
}

// ending says how a connection ends.
type ending struct {
	// code is for DISCONNECT, which is sent if farewell is set.
	code     packet.Code
	farewell bool
	// why is for the log, and the Reason String; reference is the Server
	// Reference, empty for none.
	why       string
	reference string
	// request is for Link.Close.
	request session.CloseRequest
}

// end ends the connection, unless something else has.
func (c *conn) end(e ending) {
	c.mu.Lock()
	c.endLocked(e)
	c.unlock()
}

// goodbye ends the connection with DISCONNECT, or, before MQTT 5, by closing.
func (c *conn) goodbye(code packet.Code, why string) {
	c.end(ending{code: code, farewell: true, why: why})
}

// endLocked is end with mu held. With a farewell, or a CONNACK that the caller
// has put into the output, the client gets time to read it.
func (c *conn) endLocked(e ending) {
	phase := c.phase.Load()
	if phase >= closing {
		return
	}
	if phase <= proving {
		c.broker.gate.leave()
	}
	c.exchange = nil
	if phase == serving && e.farewell && c.version == packet.V5 {
		c.appendDisconnect(e)
	}
	c.phase.Store(closing)
	c.request = e.request
	c.workLine()
	if c.stopAdmission != nil {
		c.stopAdmission()
	}
	client := ""
	if phase >= serving { // before, it belongs to whoever decides about CONNECT
		client = c.client
	}
	c.broker.log.Debug("connection ends", "client", client, "reason", e.why, "code", e.code)
	c.spawn(c.cleanup)
	if !e.farewell && c.pending == 0 || c.mute || c.paused&pauseBefore != 0 {
		c.closeLocked()
		return
	}
	c.deadline = time.Now().Add(lingerTime).UnixNano()
	c.broker.wheel.schedule(c, time.Unix(0, c.deadline))
	c.touch()
	c.resume(c.paused)
}

// leave ends the connection for a client that has sent DISCONNECT. It may have
// waited in the line while the network connection ended.
func (c *conn) leave(e ending) {
	c.mu.Lock()
	defer c.unlock()
	if c.phase.Load() >= closing {
		c.request = e.request
		return
	}
	c.endLocked(e)
}

// finishLocked ends the connection when what has arrived from the client, but was
// not read yet, is handled: it may end with DISCONNECT. What comes later is not
// waited for. mu is held.
func (c *conn) finishLocked(e ending) {
	switch {
	case c.phase.Load() != serving || c.final != nil || c.paused != 0 || c.eof:
		c.endLocked(e)
	case c.wire.blocks(): // its reader takes what has arrived at once
		c.final = &e
		c.spawn(func() {
			time.Sleep(arrivedTime)
			c.end(e)
		})
	default:
		c.final = &e
		if !c.reading {
			c.reading = true
			c.spawn(c.read)
		}
	}
}

// mustFinish reports whether the connection ends with what has been read so far.
func (c *conn) mustFinish() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.final != nil
}

// appendDisconnect puts DISCONNECT into the output.
func (c *conn) appendDisconnect(e ending) {
	p := packet.Disconnect{Code: e.code, ServerReference: e.reference}
	if c.problems {
		p.ReasonString = e.why
	}
	c.append(packet.TypeDisconnect, func(dst []byte) []byte { return p.AppendLimit(dst, c.version, c.maxPacket) })
}

// abort ends the connection at once: the client is gone, or has had its time.
func (c *conn) abort(why string) {
	c.mu.Lock()
	c.abortLocked(why)
	c.unlock()
}

func (c *conn) abortLocked(why string) {
	c.endLocked(ending{why: why})
	c.closeLocked()
}

// closeLocked makes the goroutines of the connection end, and with the last of
// them the connection.
func (c *conn) closeLocked() {
	if c.phase.Load() == closed {
		return
	}
	c.phase.Store(closed)
	c.stopPacing()
	c.out, c.unsent, c.pending = nil, nil, 0
	c.blocked, c.cut = false, true
	c.holds--
}

// cleanup takes the connection out of what it was part of.
func (c *conn) cleanup() {
	c.broker.subs.removeAll(c)
	c.mu.Lock()
	left := c.dropQueue()
	c.mu.Unlock()
	for _, o := range left {
		c.broker.cluster.Redispatch(o.share, o.message)
	}
	c.settleLine()
	c.mu.Lock()
	link, request := c.link, c.request
	c.mu.Unlock()
	if link != nil {
		link.Close(request)
	}
}

// check is called by the sweeper. It returns when to look again, zero for
// never.
func (c *conn) check(now time.Time) (again time.Time) {
	c.mu.Lock()
	defer c.unlock()
	switch c.phase.Load() {
	case awaiting, proving, closing:
		if at := time.Unix(0, c.deadline); now.Before(at) {
			return at
		}
		c.abortLocked("its time was up")
	case opening:
		return now.Add(sweepInterval)
	case serving:
		return c.checkServing(now)
	}
	return time.Time{}
}

// checkProgress ends a connection whose client sends the bytes of a packet one by
// one, or takes none of its own: both hold memory, whatever else they do. A client
// that is not read for our sake is not at fault. mu is held.
func (c *conn) checkProgress(now time.Time) (again time.Time) {
	config := &c.broker.config
	again = now.Add(min(config.PacketTimeout, config.StallTimeout))
	if c.phase.Load() != serving {
		return again
	}
	if begun := c.begun.Load(); begun != 0 && c.paused == 0 {
		at := time.Unix(0, begun).Add(config.PacketTimeout)
		if !now.Before(at) {
			c.broker.metrics.limits[limitPacketTime].Add(1)
			c.endLocked(ending{code: packet.CodeUnspecifiedError, farewell: true, why: "a packet that was begun took too long"})
			return time.Unix(0, c.deadline)
		}
		again = at
	}
	if stuck := c.stuck.Load(); stuck != 0 {
		at := time.Unix(0, stuck).Add(config.StallTimeout)
		if !now.Before(at) {
			c.broker.metrics.limits[limitStalled].Add(1)
			c.broker.log.Info("connection ends: the client takes nothing of what is sent to it", "client", c.client, "waiting", c.pending)
			c.abortLocked("the client takes nothing of what is sent to it")
			return again
		}
		if at.Before(again) {
			again = at
		}
	}
	return again
}

// checkServing is check for a connection that is served. mu is held.
func (c *conn) checkServing(now time.Time) (again time.Time) {
	again = sooner(sooner(c.checkKeepAlive(now), c.checkProgress(now)), c.checkExchange(now))
	if c.who == nil || c.who.Expires.IsZero() || c.phase.Load() != serving {
		return again
	}
	if !now.Before(c.who.Expires) {
		c.broker.metrics.proofEnded.Add(1)
		c.endLocked(ending{code: packet.CodeNotAuthorized, farewell: true, why: "what proved who the client is has expired"})
		return time.Unix(0, c.deadline)
	}
	return sooner(again, now.Add(min(c.who.Expires.Sub(now), proofLook)))
}

// sooner is the earlier of two times, of which zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// checkKeepAlive enforces [MQTT-3.1.2-22]. A client that is not read because
// its publishes or requests wait for us is not at fault.
func (c *conn) checkKeepAlive(now time.Time) (again time.Time) {
	if c.keepAlive == 0 {
		return time.Time{}
	}
	if c.paused&(pauseWork|pauseLine) != 0 {
		return now.Add(c.keepAlive)
	}
	if at := time.Unix(0, c.seen.Load()).Add(c.keepAlive); now.Before(at) {
		return at
	}
	c.broker.metrics.keepAliveEnded.Add(1)
	c.endLocked(ending{code: packet.CodeKeepAliveTimeout, farewell: true, why: "nothing came within one and a half times the keep alive"})
	return time.Unix(0, c.deadline)
}
