package raftnet

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/grpc/mem"
)

// The wire format. Every stream starts with a hello frame. A frame is one
// gRPC message: a byte that says what it is, then fields. Integers are
// uvarints, byte strings have their length before them.

const (
	// wireVersion is the first field of a hello: a receiver refuses others.
	wireVersion = 1
	// tagHello, tagChunk and a Kind are the first byte of what the asking side
	// sends; answers carry the request's Kind with tagAnswer set.
	tagHello  = 0x40
	tagChunk  = 0x41
	tagAnswer = 0x80
)

var errTruncated = errors.New("frame is truncated")

// writer builds a frame: small fields are copied, long data is referenced.
type writer struct {
	pieces mem.BufferSlice
	buf    []byte
}

func newWriter(tag byte, sizeHint int) *writer {
	return &writer{buf: append(make([]byte, 0, sizeHint+1), tag)}
}

func (w *writer) uint(v uint64) { w.buf = binary.AppendUvarint(w.buf, v) }

func (w *writer) bytes(b []byte) {
	w.uint(uint64(len(b)))
	w.buf = append(w.buf, b...)
}

func (w *writer) string(s string) {
	w.uint(uint64(len(s)))
	w.buf = append(w.buf, s...)
}

func (w *writer) bool(b bool) {
	if b {
		w.buf = append(w.buf, 1)
	} else {
		w.buf = append(w.buf, 0)
	}
}

// data is bytes for what never changes: if long it is not copied.
func (w *writer) data(b []byte) {
	if len(b) < referenceBytes {
		w.bytes(b)
		return
	}
	w.uint(uint64(len(b)))
	w.pieces = append(w.pieces, mem.SliceBuffer(w.buf), mem.SliceBuffer(b))
	w.buf = w.buf[len(w.buf):] // what follows goes behind, in the same array
}

func (w *writer) frame() *frame {
	if len(w.buf) > 0 {
		w.pieces = append(w.pieces, mem.SliceBuffer(w.buf))
	}
	return &frame{w.pieces}
}

// parser reads a frame. After the first error all reads return zero; results
// alias the frame.
type parser struct {
	b   []byte
	err error
}

func (p *parser) fail(err error) {
	if p.err == nil {
		p.err = err
	}
	p.b = nil
}

func (p *parser) uint() uint64 {
	v, n := binary.Uvarint(p.b)
	if n <= 0 {
		p.fail(errTruncated)
		return 0
	}
	p.b = p.b[n:]
	return v
}

func (p *parser) byte() byte {
	if len(p.b) == 0 {
		p.fail(errTruncated)
		return 0
	}
	v := p.b[0]
	p.b = p.b[1:]
	return v
}

func (p *parser) bool() bool {
	v := p.byte()
	if v > 1 {
		p.fail(fmt.Errorf("boolean is %d", v))
	}
	return v == 1
}

// bytes returns nil for an empty string.
func (p *parser) bytes() []byte {
	n := p.uint()
	if n > uint64(len(p.b)) {
		p.fail(errTruncated)
		return nil
	}
	if n == 0 {
		return nil
	}
	v := p.b[:n:n]
	p.b = p.b[n:]
	return v
}

func (p *parser) string() string { return string(p.bytes()) }

// done returns the first error; bytes left over are one.
func (p *parser) done() error {
	if p.err == nil && len(p.b) > 0 {
		return fmt.Errorf("frame has %d bytes too many", len(p.b))
	}
	return p.err
}

// hello opens a stream: who asks whom, in which cluster, about which group.
type hello struct {
	cluster, from, to string
	group             uint32
	// boot is that of the asking process, known the highest one that it knows of
	// to; 0 if it does not say.
	boot, known uint64
}

func (h hello) encode() *frame {
	w := newWriter(tagHello, 16+len(h.cluster)+len(h.from)+len(h.to))
	w.uint(wireVersion)
	w.string(h.cluster)
	w.string(h.from)
	w.string(h.to)
	w.uint(uint64(h.group))
	w.uint(h.boot)
	w.uint(h.known)
	return w.frame()
}

func parseHello(b []byte) (hello, error) {
	p := parser{b: b}
	if tag := p.byte(); p.err == nil && tag != tagHello {
		return hello{}, fmt.Errorf("stream starts with frame %#x, not with a hello", tag)
	}
	if v := p.uint(); p.err == nil && v != wireVersion {
		return hello{}, fmt.Errorf("wire version %d is not %d", v, wireVersion)
	}
	h := hello{cluster: p.string(), from: p.string(), to: p.string()}
	group := p.uint()
	if group > 1<<32-1 {
		p.fail(fmt.Errorf("group %d", group))
	}
	h.group = uint32(group)
	h.boot, h.known = p.uint(), p.uint()
	if err := p.done(); err != nil {
		return hello{}, fmt.Errorf("hello: %w", err)
	}
	return h, nil
}
