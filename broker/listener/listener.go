package listener

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// Config says what a Listener is. It is not changed after Listen.
type Config struct {
	// Name is for logs.
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
	// ReloadEvery is how often files are looked at: 2 s.
	ReloadEvery time.Duration
	Log         *slog.Logger
}

// Listener is a net.Listener whose connections are broker.Accepted if there is
// something to do before MQTT. Its methods may be called from any goroutine.
type Listener struct {
	net.Listener
	config Config
	keys   *keys // nil without TLS

	close sync.Once
	stop  context.CancelFunc
	tasks sync.WaitGroup
}

// Listen opens a Listener. It does not accept before Accept is called, but
// clients can connect.
func Listen(c Config) (*Listener, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	c.Log = c.Log.With("listener", c.Name)
	if c.ReloadEvery == 0 {
		c.ReloadEvery = reloadEvery
	}
	l := &Listener{config: c}
	var err error
	if c.TLS != nil {
		if l.keys, err = readKeys(c.TLS); err != nil {
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
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	if l.keys != nil {
		l.tasks.Go(func() { l.keys.watch(ctx, c.ReloadEvery, c.Log) })
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

// Close stops listening. Connections go on.
func (l *Listener) Close() error {
	err := l.Listener.Close()
	l.close.Do(func() {
		l.stop()
		l.tasks.Wait()
	})
	return err
}

// remote is the address of the client, or that of the socket if, as with Unix
// sockets, clients have none.
func remote(nc net.Conn) net.Addr {
	if _, ok := nc.(*net.UnixConn); ok {
		return nc.LocalAddr()
	}
	return nc.RemoteAddr()
}
