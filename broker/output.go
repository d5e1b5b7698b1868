package broker

import (
	"errors"
	"sync"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

// buffer is pooled output.
type buffer struct{ b []byte }

var buffers = sync.Pool{New: func() any { return &buffer{make([]byte, 0, outputBytes)} }}

func (b *buffer) free() {
	if cap(b.b) <= keptOutputBytes {
		b.b = b.b[:0]
		buffers.Put(b)
	}
}

// append puts a packet into the output, unless write finds it too large for the
// client. mu is held.
func (c *conn) append(t packet.Type, write func(dst []byte) []byte) {
	if c.phase.Load() >= closing || c.mute {
		return
	}
	out := c.output()
	before := len(out.b)
	out.b = write(out.b)
	switch n := len(out.b) - before; {
	case n > 0:
		c.appended(t, n)
	case t == packet.TypeSuback || t == packet.TypeUnsuback:
		// The client takes no packet of this size ([MQTT-3.1.2-24]), and would wait
		// for it.
		c.endLocked(ending{code: packet.CodePacketTooLarge, farewell: true, why: t.String() + " is above the client's maximum packet size"})
	}
}

// output is the buffer to append to. mu is held.
func (c *conn) output() *buffer {
	if c.out == nil {
		c.out = buffers.Get().(*buffer)
	}
	return c.out
}

// appended accounts for n bytes put into the output. mu is held.
func (c *conn) appended(t packet.Type, n int) {
	c.pending += n
	c.broker.metrics.packetsSent[t].Add(1)
	c.touch()
}

// touch has the output written by whoever leaves next (wake). mu is held.
func (c *conn) touch() {
	if !c.dirty {
		c.dirty = true
		c.broker.wake.add(c)
	}
}

// flush writes the output, or sees to it that somebody does.
func (c *conn) flush() {
	c.mu.Lock()
	c.dirty = false
	if c.writing || c.blocked || c.phase.Load() == closed {
		c.unlock()
		return
	}
	c.writing = true
	if c.wire.blocks() {
		c.spawn(c.write)
		c.unlock()
		return
	}
	c.holds++
	c.unlock()
	c.write()
	c.drop()
}

// write writes until nothing is left or the wire takes no more. It is called
// with writing set.
func (c *conn) write() {
	for round := 0; ; round++ {
		buf, rest, ok := c.nextOutput(round)
		if !ok {
			return
		}
		n, err := c.writeSome(rest)
		c.broker.metrics.bytesSent.Add(uint64(n))
		if err == nil {
			if buf != nil {
				buf.free()
			}
			c.written(n, nil)
			continue
		}
		c.written(n, rest[n:])
		if !errors.Is(err, errNotReady) {
			c.unwritable(err)
		}
	}
}

// unwritable ends the connection. A client that reads nothing more may have said
// its last all the same.
func (c *conn) unwritable(err error) {
	c.mu.Lock()
	defer c.unlock()
	e := ending{why: "write: " + err.Error()}
	if c.phase.Load() != serving || c.mute {
		c.abortLocked(e.why)
		return
	}
	c.out, c.unsent, c.pending = nil, nil, 0
	c.blocked, c.mute = false, true
	c.finishLocked(e)
}

// writeSome is Write, and notes since when there is no progress.
func (c *conn) writeSome(b []byte) (n int, err error) {
	if !c.wire.blocks() {
		n, err = c.wire.Write(b)
		switch {
		case err == nil:
			c.stuck.Store(0)
		case n > 0 || c.stuck.Load() == 0:
			c.stuck.Store(time.Now().UnixNano())
		}
		return n, err
	}
	for n < len(b) && err == nil {
		var m int
		c.stuck.Store(time.Now().UnixNano())
		m, err = c.wire.Write(b[n:min(n+maxStreamWrite, len(b))])
		n += m
	}
	c.stuck.Store(0)
	return n, err
}

// nextOutput takes what is to be written next: what a write has left, or the
// output. Without any it ends the writer.
func (c *conn) nextOutput(round int) (buf *buffer, rest []byte, ok bool) {
	c.mu.Lock()
	switch {
	case c.phase.Load() == closed:
		c.writing = false
	case c.mute:
		c.writing = false
		c.out, c.pending = nil, 0
	case c.blocked:
		c.writing = false
		c.rearm()
	case len(c.unsent) > 0:
		rest, c.unsent = c.unsent, nil
	case c.out != nil && len(c.out.b) > 0:
		buf, c.out = c.out, nil
		rest = buf.b
	default:
		c.drained()
		return nil, nil, false
	}
	if rest != nil && round >= writeRounds && !c.wire.blocks() {
		// Others wait for this goroutine: one of its own goes on.
		c.unsent = rest
		c.spawn(c.write)
		rest = nil
	}
	c.unlock()
	return buf, rest, rest != nil
}

// written accounts for n bytes written and unsent left. mu is not held.
func (c *conn) written(n int, unsent []byte) {
	c.mu.Lock()
	defer c.unlock()
	if c.phase.Load() == closed {
		return
	}
	c.pending -= n
	if len(unsent) > 0 {
		c.unsent, c.blocked = unsent, true
		return
	}
	c.pump()
}

// drained ends the writer when all is written. It is called with mu held and
// releases it.
func (c *conn) drained() {
	c.writing = false
	if c.paused&pauseOutput != 0 {
		c.resume(pauseOutput)
	}
	last := c.phase.Load() == closing
	gone := c.eof
	c.unlock()
	if last && (gone || !c.wire.closeWrite()) {
		c.abort("all is written")
	}
}
