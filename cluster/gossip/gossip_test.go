package gossip

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// await polls until f is true.
func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

type records struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (r *records) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(b)
}

func (r *records) count(s string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Count(r.b.String(), s)
}

type node struct {
	*Gossip
	log     *records
	changes chan struct{}
}

// begin starts gossip of a process on a loopback port.
func begin(t *testing.T, m Meta, change func(*Config), join ...string) *node {
	t.Helper()
	n := &node{log: &records{}, changes: make(chan struct{}, 1)}
	if m.RPCAddr == "" {
		m.RPCAddr = m.Node + ".example:7947"
	}
	c := Config{
		BindAddr: "127.0.0.1:0", Join: join, Meta: m, Log: slog.New(slog.NewTextHandler(n.log, nil)),
		OnChange: func() {
			select {
			case n.changes <- struct{}{}:
			default:
			}
		},
	}
	if change != nil {
		change(&c)
	}
	var err error
	if n.Gossip, err = Start(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.end() })
	return n
}

func (n *node) end() {
	if n.Gossip != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		n.Gossip.Close(ctx)
		n.Gossip = nil
	}
}

// die stops without a word.
func (n *node) die() {
	n.Gossip.cancel()
	n.Gossip.list.Shutdown()
	n.Gossip.wg.Wait()
	n.Gossip = nil
}

func (n *node) names() string {
	var s []string
	for _, m := range n.Members() {
		s = append(s, m.Node)
	}
	return strings.Join(s, " ")
}

func TestThree(t *testing.T) {
	a := begin(t, Meta{Node: "a", Disk: "1", Boot: 1, Expect: 3, Shards: 6}, nil)
	b := begin(t, Meta{Node: "b", Disk: "2", Boot: 1, Expect: 3, Shards: 6}, nil, a.Addr())
	c := begin(t, Meta{Node: "c", Disk: "3", Boot: 1, Expect: 3, Shards: 6}, nil, a.Addr())
	for _, n := range []*node{a, b, c} {
		await(t, "all see all", func() bool { return n.names() == "a b c" })
	}
	<-c.changes
	if m := c.Members()[1]; m.Disk != "2" || m.Expect != 3 || m.Shards != 6 {
		t.Errorf("b as c sees it: %+v", m)
	}

	b.SetMeta(Meta{Node: "b", Disk: "2", Boot: 1, ClusterID: "x", RPCAddr: "moved:1"})
	for _, n := range []*node{a, b, c} {
		await(t, "new metadata", func() bool { return n.Members()[1].ClusterID == "x" })
	}

	if err := b.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	b.Gossip = nil
	for _, n := range []*node{a, c} {
		await(t, "b has left", func() bool { return n.names() == "a c" })
	}
}

// TestRestart: a process that died without a word comes back under another
// random name, on the same disk: at once it is the node.
func TestRestart(t *testing.T) {
	a := begin(t, Meta{Node: "a", Disk: "1", Boot: 1}, nil)
	b := begin(t, Meta{Node: "b", Disk: "2", Boot: 1}, nil, a.Addr())
	await(t, "a sees b", func() bool { return a.names() == "a b" })
	b.die()
	b2 := begin(t, Meta{Node: "b", Disk: "2", Boot: 2, RPCAddr: "b2:1"}, nil, a.Addr())
	book := NewBook(nil)
	book.Use(a.Gossip)
	await(t, "a sees the new process, and it alone", func() bool {
		m := a.Members()
		return len(m) == 2 && m[1].Boot == 2
	})
	if addr, err := book.Resolve("b"); err != nil || addr != "b2:1" {
		t.Errorf("b is at %s, %v", addr, err)
	}
	await(t, "b sees a", func() bool { return b2.names() == "a b" })
}

// TestTwoDisks: a node that came back with another disk is there twice until
// the old process is known to be dead; the book has the new one.
func TestTwoDisks(t *testing.T) {
	t.Parallel()
	a := begin(t, Meta{Node: "a", Disk: "1", Boot: 1}, nil)
	b := begin(t, Meta{Node: "b", Disk: "2", Boot: 9}, nil, a.Addr())
	await(t, "a sees b", func() bool { return a.names() == "a b" })
	b.die()
	begin(t, Meta{Node: "b", Disk: "3", Boot: 1, RPCAddr: "b3:1"}, nil, a.Addr())
	book := NewBook(nil)
	book.Use(a.Gossip)
	await(t, "the book has the new process", func() bool {
		addr, _ := book.Resolve("b")
		return addr == "b3:1"
	})
	await(t, "the old disk is gone", func() bool {
		m := a.Members()
		return len(m) == 2 && m[1].Disk == "3"
	})
}

// TestJoinLater: the target does not listen yet, and comes back after both
// have been alone.
func TestJoinLater(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	b := begin(t, Meta{Node: "b", Disk: "2", Boot: 1}, nil, addr)
	await(t, "b has tried in vain", func() bool { return b.log.count("trying on") > 0 })
	at := func(c *Config) { c.BindAddr = addr }
	a := begin(t, Meta{Node: "a", Disk: "1", Boot: 1}, at)
	await(t, "b found a", func() bool { return b.names() == "a b" && a.names() == "a b" })
	a.die()
	await(t, "b is alone", func() bool { return b.names() == "b" })
	a2 := begin(t, Meta{Node: "a", Disk: "1", Boot: 2}, at)
	await(t, "b found a again", func() bool { return b.names() == "a b" && a2.names() == "a b" })
}

func TestKeys(t *testing.T) {
	one, two := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	key := func(k []byte) func(*Config) { return func(c *Config) { c.Key = k } }
	a := begin(t, Meta{Node: "a"}, key(one))
	b := begin(t, Meta{Node: "b"}, key(one), a.Addr())
	x := begin(t, Meta{Node: "x"}, key(two), a.Addr())
	y := begin(t, Meta{Node: "y"}, nil, a.Addr())
	await(t, "equal keys", func() bool { return a.names() == "a b" && b.names() == "a b" })
	await(t, "wrong keys are refused", func() bool {
		return x.log.count("trying on") > 0 && y.log.count("trying on") > 0 && a.log.count("level=WARN") > 0
	})
	if a.names() != "a b" || x.names() != "x" || y.names() != "y" {
		t.Errorf("a sees %s, x sees %s, y sees %s", a.names(), x.names(), y.names())
	}
	if _, err := Start(Config{BindAddr: "127.0.0.1:0", Key: []byte("short"), Meta: Meta{Node: "a"}}); err == nil {
		t.Error("a key of 5 bytes is taken")
	}
}

func TestOtherCluster(t *testing.T) {
	a := begin(t, Meta{Node: "a", ClusterID: "one"}, nil)
	b := begin(t, Meta{Node: "b", ClusterID: "two", Boot: 1}, nil, a.Addr())
	c := begin(t, Meta{Node: "c"}, nil, a.Addr())
	await(t, "c, of no cluster, sees both", func() bool { return c.names() == "a b c" })
	await(t, "a sees c", func() bool { return a.names() == "a c" })
	await(t, "b sees c", func() bool { return b.names() == "b c" })
	b.SetMeta(Meta{Node: "b", ClusterID: "two", Boot: 2})
	await(t, "c sees the change", func() bool { return c.Members()[1].Boot == 2 })
	if n := a.log.count("ANOTHER CLUSTER"); n != 1 {
		t.Errorf("logged %d times", n)
	}
	c.SetMeta(Meta{Node: "c", ClusterID: "one"})
	if n := c.log.count("ANOTHER CLUSTER"); n != 1 || c.names() != "a c" {
		t.Errorf("c, born now, sees %s and logged %d times", c.names(), n)
	}
	book := NewBook(nil)
	book.Use(a.Gossip)
	if addr, err := book.Resolve("b"); err == nil {
		t.Errorf("a foreign node is at %s", addr)
	}
}

func TestBook(t *testing.T) {
	b := NewBook(func(node string) (string, bool) { return "table:1", node == "known" || node == "a" })
	if addr, err := b.Resolve("known"); err != nil || addr != "table:1" {
		t.Errorf("without gossip: %s, %v", addr, err)
	}
	g := begin(t, Meta{Node: "a", RPCAddr: "live:1"}, nil)
	b.Use(g.Gossip)
	if addr, err := b.Resolve("a"); err != nil || addr != "live:1" {
		t.Errorf("live: %s, %v", addr, err)
	}
	if addr, err := b.Resolve("known"); err != nil || addr != "table:1" {
		t.Errorf("known: %s, %v", addr, err)
	}
	if _, err := b.Resolve("nobody"); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("unknown: %v", err)
	}
	if _, err := NewBook(nil).Resolve("a"); err == nil {
		t.Error("an empty book knows a")
	}
}

func TestStartErrors(t *testing.T) {
	for _, c := range []Config{
		{BindAddr: "nonsense", Meta: Meta{Node: "a"}},
		{BindAddr: "127.0.0.1:port", Meta: Meta{Node: "a"}},
		{BindAddr: "127.0.0.1:0"},
		{BindAddr: "127.0.0.1:0", Meta: Meta{Node: "a/b"}},
		{BindAddr: "127.0.0.1:0", Meta: Meta{Node: strings.Repeat("n", 500)}},
	} {
		c.Log = slog.New(slog.DiscardHandler)
		if g, err := Start(c); err == nil {
			g.Close(context.Background())
			t.Errorf("%+v starts", c)
		}
	}
	g := begin(t, Meta{Node: "a"}, func(c *Config) { c.AdvertiseHost = "127.0.0.1" })
	g.SetMeta(Meta{Node: strings.Repeat("n", 500)})
	if g.log.count("level=ERROR") != 1 || g.names() != "a" {
		t.Error("too long metadata is taken")
	}
}

func TestMeta(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, 20, 30)
		m := Meta{
			Node: "n" + strings.ReplaceAll(text.Draw(t, "node"), "/", ""), Disk: text.Draw(t, "disk"), ClusterID: text.Draw(t, "cluster"),
			RPCAddr: text.Draw(t, "addr"), Boot: rapid.Uint64().Draw(t, "boot"), Expect: rapid.IntRange(0, 15).Draw(t, "expect"),
			Shards: rapid.IntRange(0, 1024).Draw(t, "shards"), Format: rapid.IntRange(0, 9).Draw(t, "format"),
		}
		b, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decodeMeta(append(b, 1, 2)); err != nil || got != m { // a later program adds fields
			t.Fatalf("got %+v, %v, want %+v", got, err, m)
		}
		if _, err := decodeMeta(b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")]); err == nil {
			t.Fatal("cut metadata is read")
		}
	})
	if _, err := decodeMeta([]byte{9}); err == nil {
		t.Error("another version is read")
	}
}

func TestLoadKey(t *testing.T) {
	dir := t.TempDir()
	key := bytes.Repeat([]byte{0xfe}, 32)
	for text, want := range map[string][]byte{
		base64.StdEncoding.EncodeToString(key) + "\n": key,
		hex.EncodeToString(key[:16]):                  key[:16],
		string(key[:24]):                              key[:24],
		"":                                            nil,
		"c2hvcnQ=":                                    nil,
		"!":                                           nil,
	} {
		path := filepath.Join(dir, "key")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := LoadKey(path); !bytes.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: %x, %v", text, got, err)
		}
	}
	if _, err := LoadKey(filepath.Join(dir, "absent")); err == nil {
		t.Error("an absent file has a key")
	}
}
