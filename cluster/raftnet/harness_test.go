package raftnet

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
)

// book is the address book that all nodes of a test share.
type book struct {
	mu    sync.Mutex
	addrs map[string]string
}

func (b *book) resolve(node string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a, ok := b.addrs[node]; ok {
		return a, nil
	}
	return "", errors.New("no such node")
}

func (b *book) set(node, addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addrs[node] = addr
}

// links is a Fault: links can be cut, and single messages held.
type links struct {
	mu   sync.Mutex
	cut  map[[2]string]bool
	hold func(Message) <-chan struct{} // nil channel: pass
}

func (l *links) Pass(ctx context.Context, m Message) error {
	l.mu.Lock()
	cut, hold := l.cut[[2]string{m.From, m.To}], l.hold
	l.mu.Unlock()
	if cut {
		return errors.New("link is cut")
	}
	if hold != nil {
		if ch := hold(m); ch != nil {
			select {
			case <-ch:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

func (l *links) isolate(on bool, node string, others ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut == nil {
		l.cut = make(map[[2]string]bool)
	}
	for _, o := range others {
		l.cut[[2]string{node, o}] = on
		l.cut[[2]string{o, node}] = on
	}
}

func (l *links) setHold(f func(Message) <-chan struct{}) {
	l.mu.Lock()
	l.hold = f
	l.mu.Unlock()
}

// fsm keeps what it applied.
type fsm struct {
	mu      sync.Mutex
	applied [][]byte
}

func (f *fsm) Apply(l *raft.Log) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = append(f.applied, bytes.Clone(l.Data))
	return nil
}

func (f *fsm) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.applied)
}

func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &fsmSnapshot{slices.Clone(f.applied)}, nil
}

func (f *fsm) Restore(r io.ReadCloser) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	p := parser{b: b}
	var applied [][]byte
	for len(p.b) > 0 {
		applied = append(applied, p.bytes())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = applied
	return p.done()
}

type fsmSnapshot struct{ applied [][]byte }

func (s *fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	w := newWriter(0, 0)
	for _, b := range s.applied {
		w.bytes(b)
	}
	if _, err := sink.Write(w.buf[1:]); err != nil {
		return err
	}
	return sink.Close()
}

func (s *fsmSnapshot) Release() {}

// member is one process of a test.
type member struct {
	t       testing.TB
	node    string
	self    string
	srv     *grpc.Server
	pool    *Pool
	mux     *Mux
	cluster string
	log     *logRecords

	fsm   *fsm
	logs  *raft.InmemStore
	snaps *raft.InmemSnapshotStore
	raft  *raft.Raft
}

type logRecords struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logRecords) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logRecords) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.buf.Bytes(), []byte(s))
}

type clusterOptions struct {
	tls func(node string) *tls.Config
	// prepare is called before the member serves.
	prepare func(m *member)
}

// startMember starts a server and a mux on a loopback port and notes it in b.
func startMember(t testing.TB, b *book, l *links, node, disk string, o clusterOptions) *member {
	t.Helper()
	m := &member{t: t, node: node, self: node + "/" + disk, cluster: "c1", log: &logRecords{}}
	var cfg *tls.Config
	if o.tls != nil {
		cfg = o.tls(node)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.set(node, lis.Addr().String())
	logger := slog.New(slog.NewTextHandler(m.log, nil))
	pc := PoolConfig{Resolve: b.resolve, TLS: cfg, Log: logger}
	if l != nil {
		pc.Fault = l
	}
	m.pool = NewPool(pc)
	m.srv = grpc.NewServer(ServerOptions(cfg)...)
	m.mux = NewMux(m.self, func() string { return m.cluster }, m.pool, m.srv, logger)
	if o.prepare != nil {
		o.prepare(m)
	}
	go m.srv.Serve(lis)
	t.Cleanup(m.stop)
	return m
}

func (m *member) stop() {
	if m.raft != nil {
		m.raft.Shutdown().Error()
	}
	m.mux.Close()
	m.pool.Close()
	m.srv.Stop()
}

func raftConfig(self string) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(self)
	c.HeartbeatTimeout = 300 * time.Millisecond
	c.ElectionTimeout = 300 * time.Millisecond
	c.LeaderLeaseTimeout = 200 * time.Millisecond
	c.CommitTimeout = 20 * time.Millisecond
	c.Logger = hclog.NewNullLogger()
	return c
}

// startRaft starts group 1 on empty stores.
func (m *member) startRaft(servers []raft.Server) {
	m.t.Helper()
	m.fsm, m.logs, m.snaps = &fsm{}, raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	m.openRaft(servers)
}

// openRaft opens group 1 with the stores that m has; with servers it is born.
func (m *member) openRaft(servers []raft.Server) {
	m.t.Helper()
	c := raftConfig(m.self)
	trans := m.mux.Group(1)
	if servers != nil {
		if err := raft.BootstrapCluster(c, m.logs, m.logs, m.snaps, trans, raft.Configuration{Servers: servers}); err != nil {
			m.t.Fatal(err)
		}
	}
	r, err := raft.NewRaft(c, m.fsm, m.logs, m.logs, m.snaps, trans)
	if err != nil {
		m.t.Fatal(err)
	}
	m.raft = r
}

// cluster of n members, group 1 started on all.
func startCluster(t testing.TB, n int, l *links, o clusterOptions) ([]*member, *book) {
	t.Helper()
	b := &book{addrs: make(map[string]string)}
	var ms []*member
	var servers []raft.Server
	for i := range n {
		m := startMember(t, b, l, string(rune('a'+i)), fmt.Sprintf("d%d", i), o)
		ms = append(ms, m)
		servers = append(servers, raft.Server{ID: raft.ServerID(m.self), Address: raft.ServerAddress(m.self)})
	}
	for _, m := range ms {
		m.startRaft(servers)
	}
	return ms, b
}

// await polls until f is true.
func await(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// leader waits until one of ms leads and all of ms agree.
func leader(t testing.TB, ms []*member) *member {
	t.Helper()
	var found *member
	await(t, "one leader that all know", func() bool {
		found = nil
		for _, m := range ms {
			if m.raft.State() == raft.Leader {
				found = m
			}
		}
		for _, m := range ms {
			if addr, _ := m.raft.LeaderWithID(); found == nil || string(addr) != found.self {
				return false
			}
		}
		return true
	})
	return found
}

func others(ms []*member, not *member) (rest []*member, names []string) {
	for _, m := range ms {
		if m != not {
			rest, names = append(rest, m), append(names, m.self)
		}
	}
	return
}

func apply(t testing.TB, m *member, data string) {
	t.Helper()
	if err := m.raft.Apply([]byte(data), 30*time.Second).Error(); err != nil {
		t.Fatalf("apply on %s: %v", m.self, err)
	}
}
