//go:build !linux

package listener

import (
	"context"
	"net"
)

// reservedTCP is an address on which nobody listened a moment ago.
type reservedTCP struct{ addr net.Addr }

func reserveTCP(addr string) (*reservedTCP, error) {
	l, err := listenTCP(addr)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return &reservedTCP{l.Addr()}, nil
}

func (r *reservedTCP) listen() (net.Listener, error) { return listenTCP(r.addr.String()) }

func (r *reservedTCP) close() {}

func listenTCP(addr string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive}
	return lc.Listen(context.Background(), "tcp", addr)
}
