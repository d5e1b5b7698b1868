// Package mqtttest is an MQTT client for tests: it speaks MQTT 3.1, 3.1.1 and 5,
// says exactly what it is told, also what a decent client would not, and shows
// every packet that comes.
//
// Conn returns errors and fits programs that go on when a broker dies. Client
// wraps it for tests, which it fails. Neither keeps a session: Packet
// Identifiers are the caller's.
package mqtttest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

// ErrTimeout: nothing came in time. The connection can be used further.
var ErrTimeout = errors.New("no packet in time")

// Conn is a connection of one protocol version. One goroutine may receive while
// others send.
type Conn struct {
	// Version is what packets are encoded and decoded in.
	Version packet.Version
	// AutoAck has Receive answer PUBLISH and PUBREL and PUBREC as a client does.
	AutoAck bool

	nc  net.Conn
	mu  sync.Mutex // one write at a time
	buf []byte
	n   int
}

// Dial connects to a TCP address.
func Dial(addr string, v packet.Version, timeout time.Duration) (*Conn, error) {
	nc, err := net.DialTimeout("tcp", addr, timeout)
	if err != nil {
		return nil, err
	}
	return NewConn(nc, v), nil
}

// NewConn is a Conn over nc.
func NewConn(nc net.Conn, v packet.Version) *Conn {
	return &Conn{Version: v, nc: nc, buf: make([]byte, 4096)}
}

// Send writes packets, all with one write.
func (c *Conn) Send(packets ...packet.Packet) error {
	var b []byte
	for _, p := range packets {
		b = p.Append(b, c.Version)
	}
	return c.SendRaw(b)
}

// SendRaw writes bytes.
func (c *Conn) SendRaw(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.nc.Write(b)
	return err
}

// Receive returns the next packet, ErrTimeout if none comes in time, io.EOF at
// the end of the connection. The packet is the caller's.
func (c *Conn) Receive(timeout time.Duration) (packet.Packet, error) {
	c.nc.SetReadDeadline(time.Now().Add(timeout))
	for {
		h, body, n, err := packet.Next(c.buf[:c.n], 0)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			p, err := packet.Decode(h, append([]byte(nil), body...), c.Version)
			c.n = copy(c.buf, c.buf[n:c.n])
			if err == nil && c.AutoAck {
				err = c.acknowledge(p)
			}
			return p, err
		}
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

func (c *Conn) fill() error {
	if c.n == len(c.buf) {
		c.buf = append(c.buf, make([]byte, len(c.buf))...)
	}
	n, err := c.nc.Read(c.buf[c.n:])
	c.n += n
	switch {
	case n > 0:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrTimeout
	case errors.Is(err, io.ErrClosedPipe):
		return io.EOF
	}
	return err
}

// acknowledge answers a packet of the server.
func (c *Conn) acknowledge(p packet.Packet) error {
	switch p := p.(type) {
	case *packet.Publish:
		switch p.QoS {
		case packet.QoS1:
			return c.Send(&packet.Ack{Type: packet.TypePuback, PacketID: p.PacketID})
		case packet.QoS2:
			return c.Send(&packet.Ack{Type: packet.TypePubrec, PacketID: p.PacketID})
		}
	case *packet.Ack:
		switch {
		case p.Type == packet.TypePubrel:
			return c.Send(&packet.Ack{Type: packet.TypePubcomp, PacketID: p.PacketID})
		case p.Type == packet.TypePubrec && !p.Code.Failed():
			return c.Send(&packet.Ack{Type: packet.TypePubrel, PacketID: p.PacketID})
		}
	}
	return nil
}

// Connect sends CONNECT and returns the answer, also if it is a refusal.
func (c *Conn) Connect(p packet.Connect, timeout time.Duration) (*packet.Connack, error) {
	if err := c.Send(&p); err != nil {
		return nil, err
	}
	got, err := c.Receive(timeout)
	if err != nil {
		return nil, err
	}
	ack, ok := got.(*packet.Connack)
	if !ok {
		return nil, fmt.Errorf("%s in place of CONNACK", Describe(got))
	}
	return ack, nil
}

// Close cuts the connection without DISCONNECT.
func (c *Conn) Close() error { return c.nc.Close() }

// LocalAddr is the client's end.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// Describe returns a packet in words for messages.
func Describe(p packet.Packet) string {
	switch p := p.(type) {
	case nil:
		return "nothing"
	case *packet.Publish:
		return fmt.Sprintf("PUBLISH(%s %q qos %d id %d dup %t retain %t)", p.Topic, shorten(p.Payload), p.QoS, p.PacketID, p.Dup, p.Retain)
	case *packet.Ack:
		return fmt.Sprintf("%s(id %d code 0x%02X)", p.Type, p.PacketID, byte(p.Code))
	case *packet.Disconnect:
		return fmt.Sprintf("DISCONNECT(0x%02X %s)", byte(p.Code), p.ReasonString)
	case *packet.Connack:
		return fmt.Sprintf("CONNACK(0x%02X %s)", byte(p.Code), p.ReasonString)
	}
	return fmt.Sprintf("%T%+v", p, p)
}

func shorten(b []byte) []byte {
	const most = 40
	return b[:min(len(b), most)]
}
