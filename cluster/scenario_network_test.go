package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/shoalmq/shoal/cluster/raftnet"
)

// network is what lies between the nodes of a testCluster. Links can be cut
// (connections break, dials are refused) and held (nothing passes, nothing
// breaks, and all of it comes when the hold ends: what the others see of a
// frozen node). Its methods are safe for concurrent use.
type network struct {
	mu    sync.Mutex
	links map[nodePair]linkState
	conns map[*faultConn]struct{}
	moved *broadcast
	// raft decides about single raft messages: it returns what to wait for and
	// whether to drop the message after that. nil lets all pass.
	raft func(raftnet.Message) (wait <-chan struct{}, drop bool)
	// step is NetHooks.Step of all nodes; nil for nothing.
	step func(ctx context.Context, node, what string)
}

type linkState int

const (
	linkUp linkState = iota
	linkHeld
	linkCut
)

// nodePair is a link, its nodes in order of their names.
type nodePair [2]string

func pairOf(a, b string) nodePair { return nodePair{min(a, b), max(a, b)} }

func newNetwork() *network {
	return &network{links: make(map[nodePair]linkState), conns: make(map[*faultConn]struct{}), moved: newBroadcast()}
}

func (w *network) cut(a, b string)  { w.set(pairOf(a, b), linkCut) }
func (w *network) hold(a, b string) { w.set(pairOf(a, b), linkHeld) }
func (w *network) join(a, b string) { w.set(pairOf(a, b), linkUp) }

// isolate cuts a node off from all others, freeze holds all that goes to and
// from it, rejoin ends both.
func (w *network) isolate(name string) { w.setAll(name, linkCut) }
func (w *network) freeze(name string)  { w.setAll(name, linkHeld) }
func (w *network) rejoin(name string)  { w.setAll(name, linkUp) }

func (w *network) setAll(name string, s linkState) {
	for i := range 9 {
		if other := fmt.Sprintf("n%d", i+1); other != name {
			w.set(pairOf(name, other), s)
		}
	}
}

// heal ends all that a test has done to the network.
func (w *network) heal() {
	w.mu.Lock()
	clear(w.links)
	w.raft, w.step = nil, nil
	w.mu.Unlock()
	w.moved.broadcast()
}

// filter sets what decides about raft messages.
func (w *network) filter(f func(raftnet.Message) (wait <-chan struct{}, drop bool)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.raft = f
}

func (w *network) set(p nodePair, s linkState) {
	var broken []*faultConn
	w.mu.Lock()
	w.links[p] = s
	if s == linkCut {
		for c := range w.conns {
			if c.link == p {
				broken = append(broken, c)
			}
		}
	}
	w.mu.Unlock()
	for _, c := range broken {
		c.Close()
	}
	w.moved.broadcast()
}

var errCut = errors.New("the link is cut")

// pass waits until the link is not held; it fails if the link is cut, or when
// over is closed.
func (w *network) pass(p nodePair, over <-chan struct{}) error {
	for {
		moved := w.moved.next()
		w.mu.Lock()
		s := w.links[p]
		w.mu.Unlock()
		switch s {
		case linkUp:
			return nil
		case linkCut:
			return errCut
		}
		select {
		case <-moved:
		case <-over:
			return errCut
		}
	}
}

// Pass implements raftnet.Fault.
func (w *network) Pass(ctx context.Context, m raftnet.Message) error {
	w.mu.Lock()
	f := w.raft
	w.mu.Unlock()
	if f == nil {
		return nil
	}
	wait, drop := f(m)
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if drop {
		return errCut
	}
	return nil
}

// hooks are the network as a node sees it.
func (w *network) hooks(from string) *NetHooks {
	step := func(ctx context.Context, what string) {
		w.mu.Lock()
		f := w.step
		w.mu.Unlock()
		if f != nil {
			f(ctx, from, what)
		}
	}
	return &NetHooks{Fault: w, Step: step, Dial: func(ctx context.Context, to string, _ raftnet.Class, hostport string) (net.Conn, error) {
		link := pairOf(from, to)
		if err := w.pass(link, ctx.Done()); err != nil {
			return nil, err
		}
		inner, err := (&net.Dialer{}).DialContext(ctx, "tcp", hostport)
		if err != nil {
			return nil, err
		}
		c := &faultConn{Conn: inner, w: w, link: link, closed: make(chan struct{})}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.links[link] == linkCut {
			inner.Close()
			return nil, errCut
		}
		w.conns[c] = struct{}{}
		return c, nil
	}}
}

// faultConn is the dialling side of a connection; both directions go through
// it.
type faultConn struct {
	net.Conn
	w      *network
	link   nodePair
	once   sync.Once
	closed chan struct{}
}

func (c *faultConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if passed := c.w.pass(c.link, c.closed); passed != nil {
		return 0, passed
	}
	return n, err
}

func (c *faultConn) Write(p []byte) (int, error) {
	if err := c.w.pass(c.link, c.closed); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *faultConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.w.mu.Lock()
		delete(c.w.conns, c)
		c.w.mu.Unlock()
	})
	return c.Conn.Close()
}
