package broker

import (
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// reader is what a goroutine needs to read a connection. It is pooled: only
// connections that are being read have one.
type reader struct {
	buf []byte
	n   int // bytes in buf
	// What follows is reused: a PUBLISH of QoS 0 and an acknowledgement allocate
	// nothing.
	publish packet.Publish
	message shoalpb.Message
	ack     packet.Ack
}

// verdict says how reading goes on.
type verdict int

const (
	goOn   verdict = iota
	wait           // for the wire
	onHold         // until conn.resume
	over
)

// read reads and handles until there is nothing to read, or reading pauses or
// ends.
func (c *conn) read() {
	r := c.takeReader()
	v := c.handleChunk(r)
	for n := 1; v == goOn; n++ {
		v = c.readChunk(r)
		if n%finalChunks == 0 && c.mustFinish() {
			break
		}
	}
	c.giveReader(r)
	c.stopReading(v)
}

// readChunk takes one chunk from the wire and handles it.
func (c *conn) readChunk(r *reader) verdict {
	n, err := c.wire.Read(r.buf[r.n:])
	switch {
	case errors.Is(err, errNotReady):
		return wait
	case n == 0 && err != nil:
		c.lost(err)
		return over
	}
	drained := r.n+n < len(r.buf) && !c.wire.blocks()
	r.n += n
	c.seen.Store(time.Now().UnixNano())
	c.broker.metrics.bytesReceived.Add(uint64(n))
	if v := c.handleChunk(r); v != goOn {
		return v
	}
	if drained {
		return wait
	}
	return goOn
}

// handleChunk handles the whole packets in the buffer, and then writes all that
// came of it.
func (c *conn) handleChunk(r *reader) verdict {
	if r.n == 0 {
		return goOn
	}
	c.broker.wake.enter()
	defer c.broker.wake.leave()
	off, v := 0, goOn
	for v == goOn {
		if c.phase.Load() >= closing {
			r.n = 0
			return goOn
		}
		if c.phase.Load() == awaiting {
			if what := stranger(r.buf[off:r.n]); what != "" {
				c.refuseStranger(what)
				r.n = 0
				return goOn
			}
		}
		h, body, n, err := packet.Next(r.buf[off:r.n], c.bounds.MaxPacketBytes)
		if err != nil {
			c.countTooLarge(err)
			c.refuse(err)
			r.n = 0
			return goOn
		}
		if n == 0 {
			break
		}
		off += n
		v = c.handle(r, h, body)
	}
	r.n = copy(r.buf, r.buf[off:r.n])
	switch {
	case r.n == 0:
		c.begun.Store(0)
	case off > 0 || c.begun.Load() == 0:
		c.begun.Store(c.seen.Load())
	}
	if v == goOn {
		r.grow()
	}
	return c.pauseForOutput(v)
}

// stranger says what a client speaks that does not speak MQTT, empty if it may.
func stranger(b []byte) string {
	begins := func(s string) bool { return len(b) >= len(s) && string(b[:len(s)]) == s }
	switch {
	case begins("\x16\x03"):
		return "TLS"
	case begins("PROXY "), begins("\r\n\r\n\x00\r\nQUIT\n"):
		return "a PROXY header, from an address that is not trusted to send it,"
	case begins("GET "), begins("POST "), begins("HEAD "), begins("PUT "), begins("OPTIONS "), begins("PRI * HTTP"):
		return "HTTP"
	}
	return ""
}

// refuseStranger ends the connection of a client that has come to the wrong door,
// and says so to whoever looks after it.
func (c *conn) refuseStranger(what string) {
	c.logStranger(slog.LevelInfo, "a client speaks something else than MQTT", "looks_like", what)
	c.refuseConnect(packet.CodeMalformedPacket, "this looks like "+what+" on a listener for MQTT")
}

// grow makes room for a packet larger than the buffer: doubling, so that memory
// follows what has come and not what was announced.
func (r *reader) grow() {
	if r.n < len(r.buf) {
		return
	}
	size := max(min(packet.Needed(r.buf[:r.n]), 2*len(r.buf)), min(2*len(r.buf), readBytes))
	buf := make([]byte, size)
	copy(buf, r.buf)
	r.buf = buf
}

// pauseForOutput stops reading a client that does not read: its acks would
// become memory here.
func (c *conn) pauseForOutput(v verdict) verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending > c.broker.config.MaxOutputBytes && c.phase.Load() == serving {
		c.paused |= pauseOutput
	}
	if v == goOn && c.paused != 0 {
		return onHold
	}
	return v
}

// takeReader gets buffers for a chunk, beginning with what is left of the last.
func (c *conn) takeReader() *reader {
	rest := c.rest
	c.rest = nil
	if c.wire.blocks() {
		r := &reader{buf: make([]byte, max(streamReadBytes, len(rest)))}
		r.n = copy(r.buf, rest)
		return r
	}
	r, _ := c.broker.readers.Get().(*reader)
	if r == nil {
		r = &reader{}
	}
	switch {
	case cap(rest) >= readBytes:
		r.buf, r.n = rest[:cap(rest)], len(rest)
		return r
	case r.buf == nil:
		r.buf = make([]byte, readBytes)
	}
	r.n = copy(r.buf, rest)
	return r
}

// giveReader keeps what is left in a buffer of its size, or, if it is most of
// the buffer, in that.
func (c *conn) giveReader(r *reader) {
	if r.n > readBytes/2 {
		c.rest, r.buf = r.buf[:r.n], nil
	} else if r.n > 0 {
		c.rest = append([]byte(nil), r.buf[:r.n]...)
	}
	if len(r.buf) > readBytes {
		r.buf = nil
	}
	r.n = 0
	if !c.wire.blocks() {
		c.broker.readers.Put(r)
	}
}

// stopReading ends the goroutine's part as the reader. If a pause was lifted
// meanwhile another one goes on.
func (c *conn) stopReading(v verdict) {
	c.mu.Lock()
	defer c.unlock()
	c.reading = false
	if c.final != nil {
		c.endLocked(*c.final)
	}
	switch {
	case v == wait && c.paused == 0:
		c.rearm()
	case v == onHold:
		c.resume(0)
	}
}

// lost handles the end of what the client sends.
func (c *conn) lost(err error) {
	c.mu.Lock()
	defer c.unlock()
	if c.phase.Load() == closing && c.pending > 0 && errors.Is(err, io.EOF) { // write closes when all is written
		c.eof = true
		return
	}
	c.abortLocked("connection lost: " + err.Error())
}
