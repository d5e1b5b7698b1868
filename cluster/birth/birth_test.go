package birth

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	shoalpb "github.com/shoalmq/shoal/proto"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		f.Value.Set("5000") // half a second
	}
	os.Exit(m.Run())
}

// memDisk is a Disk in memory.
type memDisk struct {
	mu      sync.Mutex
	promise []string
	cluster string
	shards  int
	fail    error
}

func (d *memDisk) Promise() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.promise)
}

func (d *memDisk) ClusterID() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cluster
}

func (d *memDisk) SetPromise(members []string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	d.promise = slices.Clone(members)
	return nil
}

func (d *memDisk) SetBirth(id string, shards int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	d.cluster, d.shards = id, shards
	return nil
}

// fakePeers is scripted.
type fakePeers struct {
	members []Peer
	hello   func(node string, req *shoalpb.HelloRequest) (*shoalpb.HelloReply, error)
}

func (p *fakePeers) Members() []Peer { return p.members }

func (p *fakePeers) Hello(_ context.Context, node string, req *shoalpb.HelloRequest) (*shoalpb.HelloReply, error) {
	if p.hello == nil {
		return nil, errors.New("nobody is there")
	}
	return p.hello(node, req)
}

type fixture struct {
	*Birth
	disk  *memDisk
	peers *fakePeers
	log   *bytes.Buffer
}

func newFixture(self string, expect int) *fixture {
	f := &fixture{disk: &memDisk{}, peers: &fakePeers{}, log: &bytes.Buffer{}}
	f.Birth = New(Config{
		Self: self, Nonce: "n", Expect: expect, Shards: 6, Joining: expect > 1, Disk: f.disk, Peers: f.peers,
		Log: slog.New(slog.NewTextHandler(f.log, nil)),
	})
	return f
}

func (f *fixture) mustRound(t *testing.T) (Result, bool) {
	t.Helper()
	r, done, err := f.round(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return r, done
}

func TestAlone(t *testing.T) {
	f := newFixture("a/1", 1)
	r, err := f.Run(context.Background())
	if err != nil || !r.Founder || !slices.Equal(r.Members, []string{"a/1"}) || r.ClusterID == "" || r.Shards != 6 {
		t.Fatalf("%+v, %v", r, err)
	}
	again, err := f.Run(context.Background())
	if err != nil || again.ClusterID != r.ClusterID || !again.Founder {
		t.Fatalf("second start: %+v, %v", again, err)
	}
	g := newFixture("a/1", 1)
	g.c.Nonce = "other"
	if other, _ := g.Run(context.Background()); other.ClusterID == r.ClusterID {
		t.Fatal("two data directories give the same cluster id")
	}
}

// TestJoiningAloneWaits: --join with expect 1 founds nothing, answers no
// proposal, and joins what it sees.
func TestJoiningAloneWaits(t *testing.T) {
	f := newFixture("d/1", 1)
	f.c.Joining = true
	f.peers.members = []Peer{{Node: "e", Disk: "1", Expect: 1, Shards: 6}}
	for range 3 {
		if _, done := f.mustRound(t); done {
			t.Fatal("born")
		}
	}
	if n := strings.Count(f.log.String(), "a cluster to join"); n != 1 {
		t.Errorf("logged %d times: %s", n, f.log)
	}
	reply := f.Answer(&shoalpb.HelloRequest{Promise: &shoalpb.Promise{Members: []string{"d/1"}}})
	if reply.Promised || reply.Error == "" {
		t.Errorf("answered %v", reply)
	}
	f.peers.members = append(f.peers.members, Peer{Node: "a", Disk: "1", ClusterID: "c", Expect: 3, Shards: 9})
	f.peers.hello = func(node string, _ *shoalpb.HelloRequest) (*shoalpb.HelloReply, error) {
		return &shoalpb.HelloReply{Node: node, Disk: "1", ClusterId: "c", Shards: 9}, nil
	}
	r, done := f.mustRound(t)
	if !done || r.ClusterID != "c" || r.Founder || r.Members != nil || r.Shards != 9 {
		t.Fatalf("%+v, %v", r, done)
	}
}

// TestJoinOnlyEstablished: one born founder of three may still be given up.
func TestJoinOnlyEstablished(t *testing.T) {
	f := newFixture("d/1", 3)
	set := []string{"a/1", "b/1", "c/1"}
	f.peers.members = []Peer{{Node: "a", Disk: "1", ClusterID: "x", Expect: 3, Shards: 6}}
	born := map[string]bool{"a": true}
	f.peers.hello = func(node string, _ *shoalpb.HelloRequest) (*shoalpb.HelloReply, error) {
		r := &shoalpb.HelloReply{Node: node, Disk: "1", Promise: &shoalpb.Promise{Members: set}}
		if born[node] {
			r.ClusterId = "x"
		}
		return r, nil
	}
	if _, done := f.mustRound(t); done {
		t.Fatal("joined a cluster that only one of three founders is born with")
	}
	born["c"] = true
	if r, done := f.mustRound(t); !done || r.Founder {
		t.Fatalf("%+v, %v", r, done)
	}
}

func TestTwoClustersInSight(t *testing.T) {
	f := newFixture("d/1", 3)
	f.peers.members = []Peer{{Node: "a", ClusterID: "x"}, {Node: "b", ClusterID: "y"}}
	if _, done := f.mustRound(t); done || !strings.Contains(f.log.String(), "DIFFERENT CLUSTERS") {
		t.Fatalf("done %v, log %s", done, f.log)
	}
}

func TestUnequalNodes(t *testing.T) {
	f := newFixture("a/1", 2)
	f.peers.members = []Peer{{Node: "b", Disk: "1", Expect: 2, Shards: 12}}
	for range 3 {
		if _, done := f.mustRound(t); done || f.disk.promise != nil {
			t.Fatal("goes on with unequal shards")
		}
	}
	if n := strings.Count(f.log.String(), "level=ERROR"); n != 1 {
		t.Errorf("%d errors logged: %s", n, f.log)
	}
}

func TestRefusals(t *testing.T) {
	propose := func(f *fixture, members ...string) *shoalpb.HelloReply {
		return f.Answer(&shoalpb.HelloRequest{Promise: &shoalpb.Promise{Members: members}})
	}
	for _, members := range [][]string{
		{"a/1", "b/1"}, {"a/1", "c/1", "d/1"}, {"b/1", "a/1", "c/1"}, {"a/1", "a/2", "b/1"}, {"a/1", "b/1", "c"}, {"/1", "b/1", "c/1"}, {"a/1", "b/2", "c/1"},
	} {
		f := newFixture("b/1", 3)
		if r := propose(f, members...); r.Promised || r.Error == "" || f.disk.promise != nil {
			t.Errorf("%q: %v", members, r)
		}
	}
	f := newFixture("b/1", 3)
	if r := propose(f, "a/1", "b/1", "c/1"); !r.Promised || r.Error != "" || len(f.disk.promise) != 3 {
		t.Fatalf("promise: %v", r)
	}
	if r := propose(f, "a/1", "b/1", "c/1"); !r.Promised {
		t.Fatalf("the same again: %v", r)
	}
	if r := propose(f, "b/1", "c/1", "d/1"); r.Promised || r.Promise.Members[0] != "a/1" {
		t.Fatalf("another set: %v", r)
	}
	f = newFixture("b/1", 3)
	f.peers.members = []Peer{{Node: "x", ClusterID: "c"}}
	if r := propose(f, "a/1", "b/1", "c/1"); r.Promised {
		t.Fatal("promises although it sees a cluster")
	}
	f.disk.cluster = "c"
	if r := f.Answer(&shoalpb.HelloRequest{ClusterId: "other"}); !strings.Contains(r.Error, "another cluster") {
		t.Fatalf("other cluster: %v", r)
	}
}

func TestCopiedDisk(t *testing.T) {
	f := newFixture("b/1", 3)
	f.disk.promise = []string{"a/1", "c/1", "d/1"}
	if _, err := f.Run(context.Background()); err == nil {
		t.Fatal("runs with another disk's promise")
	}
}

func TestDiskFails(t *testing.T) {
	f := newFixture("b/1", 3)
	f.disk.fail = errors.New("no space")
	if r := f.Answer(&shoalpb.HelloRequest{Promise: &shoalpb.Promise{Members: []string{"a/1", "b/1", "c/1"}}}); r.Promised {
		t.Fatal("promised without a disk")
	}
	f.disk.fail = nil
	if _, err := f.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "no space") {
		t.Fatalf("Run after a failed write: %v", err)
	}
}

// TestPromiseDuringRound: a promise that Answer makes while a round asks others
// stands; what the round wanted does not happen.
func TestPromiseDuringRound(t *testing.T) {
	other := []string{"b/1", "c/1", "d/1"}
	for name, reply := range map[string]*shoalpb.HelloReply{
		"proposing": {Disk: "1", Expect: 3, Shards: 6},
		"joining":   {Disk: "1", ClusterId: "x"},
	} {
		f := newFixture("c/1", 3)
		for _, n := range []string{"d", "e"} {
			f.peers.members = append(f.peers.members, Peer{Node: n, Disk: "1", ClusterID: reply.ClusterId, Expect: 3, Shards: 6})
		}
		f.peers.hello = func(node string, _ *shoalpb.HelloRequest) (*shoalpb.HelloReply, error) {
			f.peers.members = nil
			if r := f.Answer(&shoalpb.HelloRequest{Promise: &shoalpb.Promise{Members: other}}); !r.Promised {
				t.Fatal(r.Error)
			}
			return &shoalpb.HelloReply{Node: node, Disk: reply.Disk, ClusterId: reply.ClusterId, Expect: 3, Shards: 6}, nil
		}
		if _, done := f.mustRound(t); done || !slices.Equal(f.disk.promise, other) {
			t.Errorf("%s: promise %q, done %v", name, f.disk.promise, done)
		}
	}
}

// TestVoidTold: a void disk does not take its promise up again on an answer
// that is older than its own word that it is void.
func TestVoidTold(t *testing.T) {
	set := []string{"a/1", "b/1", "c/1"}
	f := newFixture("b/1", 3)
	f.disk.promise = append([]string{voidMark}, set...)
	tell := true
	f.peers.hello = func(node string, _ *shoalpb.HelloRequest) (*shoalpb.HelloReply, error) {
		r := &shoalpb.HelloReply{Node: node, Disk: "1", ClusterId: "x", Shards: 6, Promise: &shoalpb.Promise{Members: set}}
		if tell {
			if a := f.Answer(&shoalpb.HelloRequest{}); !a.Promise.Void {
				t.Fatal("not void")
			}
		}
		return r, nil
	}
	if _, done := f.mustRound(t); done {
		t.Fatal("born on an old answer")
	}
	tell = false
	if r, done := f.mustRound(t); !done || !r.Founder || r.ClusterID != "x" {
		t.Fatalf("%+v, %v", r, done)
	}
}

// TestSameNodeTwice: while gossip sees a member's disk alive, another disk that
// answers for its node does not make the set impossible.
func TestSameNodeTwice(t *testing.T) {
	f := newFixture("a/1", 2)
	f.disk.promise = []string{"a/1", "b/1"}
	f.peers.members = []Peer{{Node: "b", Disk: "1", Expect: 2, Shards: 6}, {Node: "b", Disk: "2", Expect: 2, Shards: 6}}
	f.peers.hello = func(node string, _ *shoalpb.HelloRequest) (*shoalpb.HelloReply, error) {
		return &shoalpb.HelloReply{Node: node, Disk: "2"}, nil
	}
	f.mustRound(t)
	if f.disk.promise[0] == voidMark {
		t.Fatal("void")
	}
	f.peers.members = f.peers.members[1:]
	f.mustRound(t)
	if f.disk.promise[0] != voidMark {
		t.Fatal("not void although the disk was replaced")
	}
}

// network joins Births that run for real.
type network struct {
	mu     sync.Mutex
	births map[string]*Birth
	hidden map[[2]string]bool
}

func (n *network) peersOf(node string) Peers { return &realPeers{n, node} }

type realPeers struct {
	n    *network
	self string
}

func (p *realPeers) Members() (all []Peer) {
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	for _, b := range p.n.births {
		if !p.n.hidden[[2]string{p.self, b.node}] {
			all = append(all, Peer{b.node, b.disk, b.c.Disk.ClusterID(), b.c.Expect, b.c.Shards})
		}
	}
	return all
}

func (p *realPeers) Hello(_ context.Context, node string, req *shoalpb.HelloRequest) (*shoalpb.HelloReply, error) {
	p.n.mu.Lock()
	b := p.n.births[node]
	p.n.mu.Unlock()
	if b == nil {
		return nil, errors.New("down")
	}
	return b.Answer(req), nil
}

// TestRunTogether: scenarios of starting nodes, with goroutines.
func TestRunTogether(t *testing.T) {
	for _, c := range []struct {
		name     string
		nodes    string
		expect   int
		hidden   string // pairs that do not see each other
		founders string
	}{
		{"three", "ABC", 3, "", "ABC"},
		{"five", "ABCDE", 5, "", "ABCDE"},
		{"three of five", "ABCDE", 3, "", ""},
		{"ABC and CDE at once", "ABCDE", 3, "AD AE BD BE", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := &network{births: make(map[string]*Birth), hidden: make(map[[2]string]bool)}
			for _, pair := range strings.Fields(c.hidden) {
				n.hidden[[2]string{pair[:1], pair[1:]}] = true
				n.hidden[[2]string{pair[1:], pair[:1]}] = true
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			var wg sync.WaitGroup
			results := make([]Result, len(c.nodes))
			for i, r := range c.nodes {
				node := string(r)
				b := New(Config{
					Self: node + "/" + fmt.Sprint(i), Nonce: node, Expect: c.expect, Shards: 6, Joining: true,
					Disk: &memDisk{}, Peers: n.peersOf(node), Log: slog.New(slog.DiscardHandler),
				})
				n.mu.Lock()
				n.births[node] = b
				n.mu.Unlock()
				wg.Go(func() {
					var err error
					if results[i], err = b.Run(ctx); err != nil {
						t.Errorf("%s: %v", node, err)
					}
				})
			}
			wg.Wait()
			founders := ""
			for i, r := range results {
				if r.ClusterID != results[0].ClusterID {
					t.Errorf("cluster ids differ: %+v", results)
				}
				if r.Founder {
					founders += c.nodes[i : i+1]
				}
			}
			if len(founders) != c.expect || c.founders != "" && founders != c.founders {
				t.Errorf("founders are %s", founders)
			}
		})
	}
}
