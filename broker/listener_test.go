package broker_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/mqtttest"
)

// slowDoor accepts pipes that are opening until they are closed.
type slowDoor struct {
	*pipeListener
	opening, early atomic.Int64
}

func (l *slowDoor) Accept() (net.Conn, error) {
	nc, err := l.pipeListener.Accept()
	if err != nil {
		return nil, err
	}
	return &slowConn{Conn: nc, door: l, closed: make(chan struct{})}, nil
}

type slowConn struct {
	net.Conn
	door   *slowDoor
	once   atomic.Bool
	closed chan struct{}
}

func (c *slowConn) Open() (*broker.Peer, error) {
	c.door.opening.Add(1)
	<-c.closed
	c.door.opening.Add(-1)
	return nil, net.ErrClosed
}

func (c *slowConn) Read(p []byte) (int, error) {
	c.door.early.Add(1)
	return c.Conn.Read(p)
}

func (c *slowConn) Write(p []byte) (int, error) {
	c.door.early.Add(1)
	return c.Conn.Write(p)
}

func (c *slowConn) Close() error {
	if c.once.CompareAndSwap(false, true) {
		close(c.closed)
	}
	return c.Conn.Close()
}

// TestCloseWhileOpening: a connection that is opening is closed with the broker,
// and nothing of MQTT happens on it before.
func TestCloseWhileOpening(t *testing.T) {
	n := newNode(t)
	door := &slowDoor{pipeListener: newPipeListener()}
	n.serve(door)
	nc := door.dial()
	defer nc.Close()
	go nc.Write([]byte{0xC0, 0}) // what would be read
	await(t, "Open", func() bool { return door.opening.Load() == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), mqtttest.Timeout)
	defer cancel()
	if err := n.broker.Close(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if door.opening.Load() != 0 || door.early.Load() != 0 {
		t.Errorf("%d are opening, %d reads and writes", door.opening.Load(), door.early.Load())
	}
}
