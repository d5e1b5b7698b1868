package raftnet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"google.golang.org/grpc"
)

// Class says what a connection is for, so that one kind of traffic never waits
// behind another.
type Class int

const (
	// Control carries heartbeats, votes, pre-votes and TimeoutNow.
	Control Class = iota
	// Append carries AppendEntries and snapshots.
	Append
	// Data carries the callers' own services.
	Data
)

func (c Class) String() string {
	switch c {
	case Control:
		return "control"
	case Append:
		return "append"
	case Data:
		return "data"
	}
	return fmt.Sprintf("class %d", int(c))
}

// ErrClosed is returned by what has been closed.
var ErrClosed = errors.New("closed")

// PoolConfig says how a Pool reaches nodes.
type PoolConfig struct {
	// Resolve returns the "host:port" of a node; the host may be a DNS name,
	// which is resolved at each dial. It is called at each dial and each Conn,
	// must be quick and safe for concurrent use.
	Resolve func(node string) (hostport string, err error)
	// TLS, if not nil, holds this node's certificate and the cluster's CA
	// (RootCAs). Without ServerName a peer's certificate must name the host
	// that was dialled.
	TLS *tls.Config
	Log *slog.Logger
	// Dial, if not nil, replaces the TCP dial: tests cut and slow links of all
	// classes with it.
	Dial func(ctx context.Context, node string, class Class, hostport string) (net.Conn, error)
	// Fault, if not nil, sees every raft message: tests drop, delay and hold
	// them with it.
	Fault Fault
}

// Pool holds one gRPC connection for each (node, Class). It is safe for
// concurrent use.
type Pool struct {
	cfg    PoolConfig
	mu     sync.Mutex
	conns  map[connKey]*peerConn
	closed bool
}

type connKey struct {
	node  string
	class Class
}

type peerConn struct {
	*grpc.ClientConn
	dialer *dialer
}

// NewPool returns an empty pool; nothing is dialled before Conn.
func NewPool(c PoolConfig) *Pool {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Pool{cfg: c, conns: make(map[connKey]*peerConn)}
}

// Conn returns the connection to node for class. It does not wait for it to be
// up: calls on it do, or fail fast while the node cannot be reached. When
// Resolve names another address than the one last dialled the connection is
// replaced and calls on the old one fail. The pool closes the connection.
func (p *Pool) Conn(node string, class Class) (*grpc.ClientConn, error) {
	hostport, err := p.cfg.Resolve(node)
	cc, stale, err := p.conn(connKey{node, class}, hostport, err)
	if stale != nil {
		stale.Close() // not under mu: it waits for gRPC's goroutines
	}
	return cc, err
}

// conn returns the connection for key, and the one that it replaces.
func (p *Pool) conn(key connKey, hostport string, resolveErr error) (cc *grpc.ClientConn, stale *peerConn, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, ErrClosed
	}
	if old := p.conns[key]; old != nil {
		dialled := old.dialer.dialled()
		if resolveErr != nil || dialled == "" || dialled == hostport {
			return old.ClientConn, nil, nil
		}
		p.cfg.Log.Info("node has moved", "peer", key.node, "class", key.class, "from", dialled, "to", hostport)
		delete(p.conns, key)
		stale = old
	}
	if resolveErr != nil {
		return nil, stale, fmt.Errorf("resolve node %s: %w", key.node, resolveErr)
	}
	c, err := p.dial(key.node, key.class)
	if err != nil {
		return nil, stale, fmt.Errorf("connect to node %s: %w", key.node, err)
	}
	p.conns[key] = c
	return c.ClientConn, stale, nil
}

// Forget closes the connections to node; calls on them fail.
func (p *Pool) Forget(node string) {
	var old []*peerConn
	p.mu.Lock()
	for k, c := range p.conns {
		if k.node == node {
			old = append(old, c)
			delete(p.conns, k)
		}
	}
	p.mu.Unlock()
	for _, c := range old {
		c.Close()
	}
}

// Close closes all connections; Conn fails from then on.
func (p *Pool) Close() error {
	p.mu.Lock()
	old := p.conns
	p.conns, p.closed = nil, true
	p.mu.Unlock()
	var errs []error
	for _, c := range old {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
