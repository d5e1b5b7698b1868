package raftnet

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// dialer dials one node for one class, looking its address up each time.
type dialer struct {
	pool  *Pool
	node  string
	class Class
	last  atomic.Pointer[string]
}

// dialled returns the address last dialled, or "".
func (d *dialer) dialled() string {
	if s := d.last.Load(); s != nil {
		return *s
	}
	return ""
}

func (d *dialer) dial(ctx context.Context, _ string) (net.Conn, error) {
	hostport, err := d.pool.cfg.Resolve(d.node)
	if err != nil {
		return nil, fmt.Errorf("resolve node %s: %w", d.node, err)
	}
	d.last.Store(&hostport)
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, fmt.Errorf("address of node %s: %w", d.node, err)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var c net.Conn
	if d.pool.cfg.Dial != nil {
		c, err = d.pool.cfg.Dial(ctx, d.node, d.class, hostport)
	} else {
		c, err = tcpDialer.DialContext(ctx, "tcp", hostport)
	}
	if err != nil {
		return nil, fmt.Errorf("dial node %s at %s: %w", d.node, hostport, err)
	}
	return &dialledConn{c, host}, nil
}

// tcpDialer finds dead peers of silent connections with TCP keep-alives, and
// of others by their unacknowledged bytes.
var tcpDialer = &net.Dialer{
	Control: setDeadAfter,
	KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: time.Second, Interval: time.Second, Count: int(deadAfter / time.Second),
	},
}

// dialledConn remembers the host, which a peer's certificate must name.
type dialledConn struct {
	net.Conn
	host string
}

// hostTLS is client TLS that expects the name of the host dialled, since gRPC
// knows only the node's name; or the configured name, if there is one.
type hostTLS struct {
	credentials.TransportCredentials
	name string
}

func newHostTLS(cfg *tls.Config) *hostTLS {
	cfg = cfg.Clone()
	cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS13)
	return &hostTLS{credentials.NewTLS(cfg), cfg.ServerName}
}

// ClientHandshake implements credentials.TransportCredentials.
func (h *hostTLS) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	name := h.name
	if c, ok := raw.(*dialledConn); ok && name == "" {
		name = c.host
	}
	return h.TransportCredentials.ClientHandshake(ctx, name, raw)
}

// Clone implements credentials.TransportCredentials.
func (h *hostTLS) Clone() credentials.TransportCredentials {
	return &hostTLS{h.TransportCredentials.Clone(), h.name}
}

// dial makes the connection object; gRPC dials on its own goroutine.
func (p *Pool) dial(node string, class Class) (*peerConn, error) {
	d := &dialer{pool: p, node: node, class: class}
	creds, authority := insecure.NewCredentials(), "shoal" // node names need not be valid host names
	if p.cfg.TLS != nil {
		creds = newHostTLS(p.cfg.TLS)
		authority = cmp.Or(p.cfg.TLS.ServerName, authority) // gRPC wants them equal
	}
	cc, err := grpc.NewClient("passthrough:///"+node,
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(d.dial),
		grpc.WithAuthority(authority),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
		grpc.WithInitialWindowSize(streamWindowBytes),
		grpc.WithInitialConnWindowSize(connWindowBytes),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: reconnectMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax},
			MinConnectTimeout: dialTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingTimeout, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(Codec),
			grpc.MaxCallRecvMsgSize(maxMessageBytes),
			grpc.MaxCallSendMsgSize(maxMessageBytes),
		),
	)
	if err != nil {
		return nil, err
	}
	return &peerConn{cc, d}, nil
}
