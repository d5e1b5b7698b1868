package listener

import (
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
	r, err := Reserve(c)
	if err != nil {
		return nil, err
	}
	return r.Listen()
}

// Reserved is the address of a Listener that is not open yet. Clients that connect
// are refused, and nobody else can listen there. It is not safe for concurrent use.
type Reserved struct {
	config Config
	keys   *keys // nil without TLS
	addr   net.Addr
	tcp    *reservedTCP // nil for Unix sockets, and after Listen and Close
}

// Reserve takes the address of a Listener and reads its files. A Unix socket is
// only made by Listen: its path can not be taken otherwise.
func Reserve(c Config) (*Reserved, error) {
	r := &Reserved{config: c}
	var err error
	if c.TLS != nil {
		if r.keys, err = readKeys(c.TLS, c.Name, c.Watch); err != nil {
			return nil, fmt.Errorf("listener %s: %w", c.Name, err)
		}
	}
	if c.Network == "unix" {
		r.addr = &net.UnixAddr{Name: c.Addr, Net: "unix"}
		err = removeStale(c.Addr)
	} else if r.tcp, err = reserveTCP(c.Addr); err == nil {
		r.addr = r.tcp.addr
	}
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", c.Name, err)
	}
	return r, nil
}

// Addr is the address, with the port that was taken if any would do.
func (r *Reserved) Addr() net.Addr { return r.addr }

// Listen opens the Listener, once.
func (r *Reserved) Listen() (*Listener, error) {
	l := &Listener{config: r.config, keys: r.keys}
	var err error
	if r.config.Network == "unix" {
		l.Listener, err = listenUnix(r.config.Addr, r.config.Mode)
	} else {
		l.Listener, err = r.tcp.listen()
		r.tcp = nil
	}
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", r.config.Name, err)
	}
	return l, nil
}

// Close gives the address back, unless Listen has been called.
func (r *Reserved) Close() {
	if r.tcp != nil {
		r.tcp.close()
		r.tcp = nil
	}
}

// keepAlive finds out that a client's machine is gone.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount}

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
