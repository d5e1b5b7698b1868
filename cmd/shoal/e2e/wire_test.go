package e2e

import (
	"io"
	"net"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

const (
	dialTimeout  = 2 * time.Second
	writeTimeout = 5 * time.Second
	// wireBytes is the size of a wire's first read buffer.
	wireBytes = 16 << 10
)

// wire is a connection that gathers what is sent until flush. One goroutine
// reads; append and flush want a lock of the caller's.
type wire struct {
	net.Conn
	version    packet.Version
	in         []byte
	start, end int // of what has been read and not taken
	out        []byte
}

func dialWire(addr string, v packet.Version) (*wire, error) {
	c, err := net.DialTimeout("tcp", addr, dialTimeout)
	if err != nil {
		return nil, err
	}
	return &wire{Conn: c, version: v, in: make([]byte, wireBytes)}, nil
}

// append encodes a packet for the next flush.
func (w *wire) append(p packet.Packet) { w.out = p.Append(w.out, w.version) }

// flush writes what was appended.
func (w *wire) flush() error {
	if len(w.out) == 0 {
		return nil
	}
	w.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := w.Write(w.out)
	w.out = w.out[:0]
	return err
}

// take returns a packet that has been read already, nil if there is none. Its
// slices are valid until the next fill.
func (w *wire) take() (packet.Packet, error) {
	h, body, n, err := packet.Next(w.in[w.start:w.end], 0)
	if err != nil || n == 0 {
		return nil, err
	}
	w.start += n
	return packet.Decode(h, body, w.version)
}

// fill reads more, waiting for it until the deadline.
func (w *wire) fill(deadline time.Time) error {
	w.end = copy(w.in, w.in[w.start:w.end])
	w.start = 0
	if w.end == len(w.in) {
		w.in = append(w.in, make([]byte, len(w.in))...)
	}
	w.SetReadDeadline(deadline)
	n, err := w.Read(w.in[w.end:])
	w.end += n
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// next takes a packet, waiting until the deadline.
func (w *wire) next(deadline time.Time) (packet.Packet, error) {
	for {
		if p, err := w.take(); p != nil || err != nil {
			return p, err
		}
		if err := w.fill(deadline); err != nil {
			return nil, err
		}
	}
}
