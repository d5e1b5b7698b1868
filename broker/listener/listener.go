package listener

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/shoalmq/shoal/broker/watch"
)

// Config says what a Listener is. It is not changed after Listen.
type Config struct {
	// Name is for logs and errors.
	Name string
	// Network is tcp or unix, Addr host:port or a path.
	Network, Addr string
	// Mode is who may connect to a Unix socket: 0660.
	Mode os.FileMode
	// ProxyFrom are the addresses whose connections begin with a PROXY header.
	// From others a header is not taken, and so is no MQTT.
	ProxyFrom []netip.Prefix
	// TLS is nil for none.
	TLS *TLS
	// WebSocket is nil for MQTT without it.
	WebSocket *WebSocket
	// Watch has the files of TLS read again when they change; nil: never.
	Watch *watch.Watcher
}

// Listener is a net.Listener whose connections are broker.Accepted if there is
// something to do before MQTT. Its methods may be called from any goroutine.
type Listener struct {
	net.Listener
	config Config
	keys   *keys // nil without TLS
}

// Listen opens a Listener. It does not accept before Accept is called, but
// clients can connect.
func Listen(c Config) (*Listener, error) {
	l := &Listener{config: c}
	var err error
	if c.TLS != nil {
		if l.keys, err = readKeys(c.TLS, c.Name, c.Watch); err != nil {
			return nil, fmt.Errorf("listener %s: %w", c.Name, err)
		}
	}
	if c.Network == "unix" {
		l.Listener, err = listenUnix(c.Addr, c.Mode)
	} else {
		l.Listener, err = listenTCP(c.Addr)
	}
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", c.Name, err)
	}
	return l, nil
}

func listenTCP(addr string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount,
	}}
	return lc.Listen(context.Background(), "tcp", addr)
}

// Accept returns the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	proxied := l.proxied(nc.RemoteAddr())
	if !proxied && l.keys == nil && l.config.WebSocket == nil {
		return nc, nil
	}
	return &conn{Conn: nc, raw: nc, listener: l, proxied: proxied, remote: remote(nc)}, nil
}

// remote is the address of the client, or that of the socket if, as with Unix
// sockets, clients have none.
func remote(nc net.Conn) net.Addr {
	if _, ok := nc.(*net.UnixConn); ok {
		return nc.LocalAddr()
	}
	return nc.RemoteAddr()
}
