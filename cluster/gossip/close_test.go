package gossip

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// closes ends n and says whether that took less than limit, which is far above
// what it needs and below what waiting for others would take.
func closes(t *testing.T, n *node, limit time.Duration) {
	t.Helper()
	g, start := n.Gossip, time.Now()
	n.Gossip = nil
	for range 2 { // the second does nothing
		if err := g.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(start); took > limit {
		t.Errorf("Close took %v", took)
	}
}

// TestCloseSilentTargets: join targets that take connections and say nothing
// hold nobody up.
func TestCloseSilentTargets(t *testing.T) {
	var targets []string
	taken := make(chan struct{}, 1)
	for range 4 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		targets = append(targets, l.Addr().String())
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				select {
				case taken <- struct{}{}:
				default:
				}
			}
		}()
	}
	n := begin(t, Meta{Node: "a"}, nil, targets...)
	<-taken
	closes(t, n, tcpTimeout*3/4)
}

// TestCloseAfterSetMeta: metadata that has not been told yet does not delay
// leaving, and the others hear that this node has left.
func TestCloseAfterSetMeta(t *testing.T) {
	a := begin(t, Meta{Node: "a"}, nil)
	b := begin(t, Meta{Node: "b"}, nil, a.Addr())
	await(t, "both see both", func() bool { return a.names() == "a b" && b.names() == "a b" })
	b.SetMeta(Meta{Node: "b", Boot: 2})
	closes(t, b, leaveTimeout*7/4)
	await(t, "a hears it", func() bool { return a.names() == "a" })
	if a.log.count("level=WARN") != 0 {
		t.Error("leaving is noisy")
	}
}

// TestCloseDone: with a context that is done nobody is told.
func TestCloseDone(t *testing.T) {
	a := begin(t, Meta{Node: "a"}, nil)
	b := begin(t, Meta{Node: "b"}, nil, a.Addr())
	await(t, "both see both", func() bool { return a.names() == "a b" && b.names() == "a b" })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	g := b.Gossip
	b.Gossip = nil
	if err := g.Close(ctx); err != nil {
		t.Error(err)
	}
	if a.names() != "a b" {
		t.Error("b left politely")
	}
}

// TestNoChangeAfterClose: memberlist's timers go on, OnChange does not.
func TestNoChangeAfterClose(t *testing.T) {
	var calls atomic.Int64
	n := begin(t, Meta{Node: "a"}, func(c *Config) { c.OnChange = func() { calls.Add(1) } })
	g := n.Gossip
	closes(t, n, time.Minute)
	before := calls.Load()
	if before == 0 {
		t.Error("OnChange was not called for this node itself")
	}
	g.changed()
	if calls.Load() != before {
		t.Error("OnChange is called after Close")
	}
}

// TestUnspecified: a node that listens on every address advertises a real one.
func TestUnspecified(t *testing.T) {
	g, err := Start(Config{BindAddr: "[::]:0", Meta: Meta{Node: "a"}})
	if err != nil {
		if strings.Contains(err.Error(), "advertised host") || strings.Contains(err.Error(), "listen") {
			t.Skip("this machine has no address to advertise, or no IPv6: ", err)
		}
		t.Fatal(err)
	}
	defer g.Close(context.Background())
	for addr := range g.liveAddrs() {
		host, _, err := net.SplitHostPort(addr)
		if ip := net.ParseIP(host); err != nil || ip == nil || ip.IsUnspecified() {
			t.Errorf("advertises %s, %v", addr, err)
		}
	}
}

func TestBridge(t *testing.T) {
	var r records
	l := bridge(slog.New(slog.NewTextHandler(&r, &slog.HandlerOptions{Level: slog.LevelDebug})))
	for _, line := range []string{
		"[DEBUG] memberlist: everyday",
		"[INFO] memberlist: Suspect x has failed",
		"[ERR] memberlist: Push/Pull with x failed: refused",
		"[ERR] memberlist: failed to receive: not encrypted from=127.0.0.1:4001",
		"[ERR] memberlist: failed to receive: not encrypted from=127.0.0.1:4002",
		"[ERROR] memberlist: Failed to encrypt local state: x",
		"no level",
	} {
		l.Print(line)
	}
	if n := r.count("level=DEBUG"); n != 5 {
		t.Errorf("%d lines for debugging", n)
	}
	for _, want := range []string{
		`level=WARN msg="failed to receive: not encrypted from=127.0.0.1:4001"`,
		`level=DEBUG msg="failed to receive: not encrypted from=127.0.0.1:4002"`,
		`level=WARN msg="Failed to encrypt local state: x"`,
	} {
		if r.count(want) != 1 {
			t.Errorf("missing: %s", want)
		}
	}
}
