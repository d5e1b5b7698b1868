package cluster

import (
	"sync"
	"time"

	"github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// registers is one connection's way to the registers of retained messages. A
// message reaches its topic's shard by this process's stream, or, published with
// QoS 2 by a durable session, by the outbox of the publisher's shard. The two
// are not ordered, so of one topic one waits for the other.
type registers struct {
	mu sync.Mutex
	// busy are the topics with messages under way, nil if there are none.
	busy map[string]*registerPath
	// lazy are the messages of QoS 0 that wait for a batch, by topic: the last
	// one counts. waiting counts all that are under way.
	lazy    map[string]*lazyRetain
	waiting int
	// recording are the QoS 2 messages whose PUBREC waits for their register, by
	// Packet Identifier, from asking on.
	recording map[uint16]*recording
	closed    bool
}

// registerPath is how many messages of a topic are under way, and whether by the
// outbox.
type registerPath struct {
	outbox bool
	count  int
}

type lazyRetain struct{ m *shoalpb.Message }

// recording is a Received of a retained message. The notice that it is in its
// register may overtake the answer that it is not.
type recording struct {
	done     func(error)
	command  []byte
	asked    time.Time
	answered bool // pending, said the shard
	complete bool // said a notice
}

// claim reports whether a message may take a path to topic's register now.
// release gives it back.
func (r *registers) claim(topic string, outbox bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.busy[topic]
	switch {
	case p == nil:
		if r.busy == nil {
			r.busy = make(map[string]*registerPath)
		}
		r.busy[topic] = &registerPath{outbox, 1}
	case p.outbox != outbox:
		return false
	default:
		p.count++
	}
	delete(r.lazy, topic) // what comes later must not go in an earlier one's place
	return true
}

func (r *registers) release(topic string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.busy[topic]; p != nil {
		if p.count--; p.count == 0 {
			delete(r.busy, topic)
		}
	}
}

// postpone puts a message of QoS 0 in the place of one that waits, if one does, or
// claims a place for it. first tells that a command has to be queued; ok is false
// if too many wait, or the topic's other path is in use.
func (r *registers) postpone(m *shoalpb.Message) (x *lazyRetain, first, ok bool) {
	r.mu.Lock()
	if x := r.lazy[m.Topic]; x != nil {
		x.m = m
		r.mu.Unlock()
		return x, false, true
	}
	full := r.waiting >= lazyRetains
	r.mu.Unlock()
	if full || !r.claim(m.Topic, false) {
		return nil, false, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	x = &lazyRetain{m}
	if r.lazy == nil {
		r.lazy = make(map[string]*lazyRetain)
	}
	r.lazy[m.Topic] = x
	r.waiting++
	return x, true, true
}

// take encodes what x holds when a batch takes it.
func (r *registers) take(x *lazyRetain) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lazy[x.m.Topic] == x {
		delete(r.lazy, x.m.Topic)
	}
	return encodeCommand(&shoalpb.Command{Retain: &shoalpb.Retain{Message: x.m}})
}

// taken ends what x holds.
func (r *registers) taken(x *lazyRetain, topic string) {
	r.release(topic)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lazy[topic] == x {
		delete(r.lazy, topic)
	}
	r.waiting--
}

// Retain implements session.Link.
func (l *link) Retain(m *shoalpb.Message, done func()) {
	l.mu.Lock()
	full := len(l.waiting) >= lazyRetains
	l.mu.Unlock()
	if full {
		l.p.n.metrics.dropped.WithLabelValues("retain_full").Inc()
		done()
		return
	}
	settled := l.p.underway.begin(l.p.n.shardOf(m.Topic))
	over := func(err error) {
		if err != nil { // not taken at all: the disk is low, or the process has ended
			l.p.n.metrics.dropped.WithLabelValues("retain_lost").Inc()
		}
		settled()
		done()
	}
	l.submit(&publish{m: m, done: over, lazy: true, settled: settled})
}

// routeLazy queues a retained message of QoS 0 for its register. It reports
// false if the topic's other path is in use.
func (l *link) routeLazy(p *publish) bool {
	x, first, ok := l.registers.postpone(p.m)
	if !ok {
		l.registers.mu.Lock()
		full := l.registers.waiting >= lazyRetains
		l.registers.mu.Unlock()
		if !full {
			return false
		}
		l.p.n.metrics.dropped.WithLabelValues("retain_full").Inc()
	}
	if !first { // dropped, or in the place of one that is under way
		p.settled()
		l.settle(p.done, nil)
		return true
	}
	group := l.p.n.shardOf(p.m.Topic)
	l.mu.Lock()
	q := l.queue(group)
	l.mu.Unlock()
	l.p.sources[group].enqueue(q, &command{
		data: encodeCommand(&shoalpb.Command{Retain: &shoalpb.Retain{Message: p.m}}), owner: l, keep: true, late: l.lose,
		encode: func() []byte { return l.registers.take(x) },
		done:   func(_ uint64, a *shoalpb.Answer, err error) { l.retained(p, x, a, err) },
	})
	return true
}

// retained ends a message of QoS 0, answered or given up. Only now is it settled:
// a connection has drained when all it sent is answered. What is given up was
// the oldest of a queue that takes no more; the connection ends with it.
func (l *link) retained(p *publish, x *lazyRetain, a *shoalpb.Answer, err error) {
	l.registers.taken(x, p.m.Topic)
	p.settled()
	if err != nil || a != nil {
		l.p.n.metrics.dropped.WithLabelValues("retain_lost").Inc()
	}
	if err != nil && !l.isClosed() {
		l.sink.Lost(session.ErrUnavailable)
	}
	l.settle(p.done, nil)
}

// record remembers a Received before it is sent.
func (l *link) record(id uint16, command []byte, done func(error)) *recording {
	x := &recording{done: done, command: command, asked: time.Now()}
	r := &l.registers
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.recording == nil {
		r.recording = make(map[uint16]*recording)
	}
	r.recording[id] = x
	return x
}

// recordAnswered takes the answer of the publisher's shard: pending, or the end.
func (l *link) recordAnswered(id uint16, x *recording, a *shoalpb.Answer, err error) {
	r := &l.registers
	r.mu.Lock()
	pending := err == nil && a.GetCode() == shoalpb.Code_CODE_PENDING
	x.answered = pending
	if pending && !x.complete && !r.closed {
		r.mu.Unlock()
		return
	}
	if r.recording[id] == x {
		delete(r.recording, id)
	}
	r.mu.Unlock()
	if err == nil {
		err = answerError(a)
	}
	x.done(err)
}

// recorded takes a notice: the retained copy of id is in its register.
func (l *link) recorded(id uint16) {
	r := &l.registers
	r.mu.Lock()
	x := r.recording[id]
	if x == nil || !x.answered {
		if x != nil {
			x.complete = true
		}
		r.mu.Unlock()
		return
	}
	delete(r.recording, id)
	r.mu.Unlock()
	x.done(nil)
}

// recordAgain asks for what notices may have lost, by saying the same once more:
// the shard knows it. Of a connection that has lost its session nothing more can be
// known. It asks under the lock, so that PUBREC cannot have left,
// and the identifier be free, before the question has its place in the stream.
func (l *link) recordAgain(limit time.Time) {
	r := &l.registers
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, x := range r.recording {
		if !x.answered || !x.asked.Before(limit) {
			continue
		}
		x.asked = time.Now()
		l.p.sources[l.shard].enqueueControl(&command{data: x.command, owner: l, done: func(_ uint64, a *shoalpb.Answer, err error) {
			switch {
			case err != nil:
			case a == nil, a.Code == shoalpb.Code_CODE_KNOWN, a.Code == shoalpb.Code_CODE_NOT_OWNER: // nobody will tell
				l.recordedIf(id, x)
			}
		}})
	}
}

// recordedIf is recorded for one exchange, if it still is that of id.
func (l *link) recordedIf(id uint16, x *recording) {
	r := &l.registers
	r.mu.Lock()
	same := r.recording[id] == x
	if same {
		delete(r.recording, id)
	}
	r.mu.Unlock()
	if same {
		x.done(nil)
	}
}

// waits tells whether a notice may be missing.
func (r *registers) waits() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.recording) > 0
}

// close ends the waits of a connection that closed long ago: what its shard has
// recorded goes its way without it.
func (r *registers) close() {
	r.mu.Lock()
	r.closed = true
	var over []*recording
	for id, x := range r.recording {
		if x.answered {
			over = append(over, x)
			delete(r.recording, id)
		}
	}
	r.mu.Unlock()
	for _, x := range over {
		x.done(session.ErrClosed)
	}
}
