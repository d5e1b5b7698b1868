package conformance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/cluster"
)

// program builds the program, once.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "shoal")
	out, err := exec.Command("go", "build", "-o", path, "github.com/shoalmq/shoal/cmd/shoal").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build shoal: %w\n%s", err, out)
	}
	return path, nil
})

// serve runs the program until it ends by itself, and returns what it said.
func serve(t *testing.T, dir string, flags ...string) (said string, code int) {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append([]string{"serve", "--node-id=solo", "--data-dir=" + dir, "--shards=2", "--log-level=error",
		"--mqtt-addr=127.0.0.1:0", "--http-addr=off", "--gossip-addr=127.0.0.1:0", "--rpc-addr=127.0.0.1:0"}, flags...)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "SHOAL_") })
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("it did not end by itself; it said\n%s", out)
	}
	if e := (*exec.ExitError)(nil); err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestBadDataDirectory(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
		flags []string
		says  []string
		// except may change: a state file is opened when its group is known. By
		// then the identity counts one more boot, and the directory's group, which
		// names the shards, may have voted.
		except []string
	}{
		{"of another node", nil, []string{"--node-id=other"}, []string{`"solo"`, `"other"`}, nil},
		{"of a newer format", func(t *testing.T, dir string) { rewrite(t, dir, "format", 99) }, nil, []string{"identity", "format 99", "newer version"}, nil},
		{"a flipped bit in the identity", func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, "identity"), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		}, nil, []string{"identity", "bad disk"}, nil},
		{"a flipped bit in the log", func(t *testing.T, dir string) { flip(t, dir, "log.db") }, nil, []string{"log.db", "bad disk"}, nil},
		{"a flipped bit in a shard's state", func(t *testing.T, dir string) { flip(t, dir, "state-1.db") }, nil, []string{"state-1.db", "bad disk"}, []string{"identity", "log.db"}},
		{"a flipped bit in the directory's state", func(t *testing.T, dir string) { flip(t, dir, "state-0.db") }, nil, []string{"state-0.db", "bad disk"}, []string{"identity"}},
		{"without its log", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "log.db")) }, nil, []string{"log.db", "missing"}, nil},
		{"without the identity", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "identity")) }, nil, []string{"identity", "missing"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := lay(t)
			if tc.spoil != nil {
				tc.spoil(t, dir)
			}
			before := fingerprint(t, dir, tc.except...)
			said, code := serve(t, dir, tc.flags...)
			if code != 1 {
				t.Errorf("exit code %d", code)
			}
			for _, word := range append(tc.says, "shoal: ", dir) {
				if !strings.Contains(said, word) {
					t.Errorf("%q is not in\n%s", word, said)
				}
			}
			if after := fingerprint(t, dir, tc.except...); after != before {
				t.Errorf("the directory has changed:\n%s\nwas\n%s", after, before)
			}
		})
	}
}

// What is wrong in the surroundings is told before a data directory is made, or
// changed.
func TestBadSurroundings(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte("this is no key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for _, tc := range []struct {
		name  string
		flags []string
		says  string
	}{
		{"gossip key", []string{"--gossip-key-file=" + garbage}, garbage},
		{"TLS", []string{"--cluster-ca=" + garbage, "--cluster-cert=" + garbage, "--cluster-key=" + garbage}, garbage},
		{"rpc-addr in use", []string{"--rpc-addr=" + busy.Addr().String()}, busy.Addr().String()},
		{"gossip-addr in use", []string{"--gossip-addr=" + busy.Addr().String()}, busy.Addr().String()},
		{"mqtt-addr of nobody", []string{"--mqtt-addr=host.invalid:1883", "--allow-anonymous"}, "host.invalid"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fresh := filepath.Join(t.TempDir(), "data")
			for _, data := range []string{fresh, lay(t)} {
				before := ""
				if data != fresh {
					before = fingerprint(t, data)
				}
				said, code := serve(t, data, tc.flags...)
				if code != 1 || !strings.HasPrefix(said, "shoal: ") || !strings.Contains(said, tc.says) {
					t.Errorf("exit code %d, want 1 and %q; it said\n%s", code, tc.says, said)
				}
				if data == fresh {
					if _, err := os.Stat(fresh); !errors.Is(err, fs.ErrNotExist) {
						t.Error("the data directory was made")
					}
				} else if fingerprint(t, data) != before {
					t.Error("the data directory has changed")
				}
			}
		})
	}
}

// The second process says who has the directory, and the first goes on.
func TestDataDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	n, err := startNode(cluster.Config{NodeID: "solo", DataDir: dir, BootstrapExpect: 1, Shards: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	if err := n.awaitReady(); err != nil {
		t.Fatal(err)
	}
	said, code := serve(t, dir)
	if code != 1 || !strings.Contains(said, fmt.Sprintf("pid %d", os.Getpid())) || !strings.Contains(said, dir) {
		t.Errorf("exit code %d; it said\n%s", code, said)
	}
	if err := n.fill(10); err != nil {
		t.Errorf("the first process: %v", err)
	}
}

// A node of another cluster that finds ours, even with the name of one of our
// nodes, changes nothing here, and serves its own cluster.
func TestDataDirectoryOfAnotherCluster(t *testing.T) {
	dir := t.TempDir()
	start := func(join ...string) *node {
		t.Helper()
		n, err := startNode(cluster.Config{NodeID: "b", DataDir: dir, BootstrapExpect: 1, Shards: 2, Join: join})
		if err != nil {
			t.Fatal(err)
		}
		if err := n.awaitReady(); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if err := start().close(); err != nil {
		t.Fatal(err)
	}
	before := members(nodes[0])
	foreign := start(nodes[0].GossipAddr(), nodes[1].GossipAddr())
	defer foreign.close()
	if foreign.Status().ClusterID == nodes[0].Status().ClusterID {
		t.Fatal("it changed its cluster")
	}
	s := newScene(t, packet.V5, true, overTCP)
	theirs := s.connect(foreign, "theirs")
	theirs.Subscribe(s.topic("#"), 1)
	for _, from := range nodes {
		for _, to := range nodes {
			sub := s.connect(to, "s", clean)
			sub.Subscribe(s.topic("a"), 1)
			s.connect(from, "p").Publish(s.topic("a"), "ours", 1)
			finish(sub, sub.ExpectPublish(s.topic("a"), "ours"))
		}
	}
	s.connect(foreign, "p").Publish(s.topic("b"), "theirs", 1)
	finish(theirs, theirs.ExpectPublish(s.topic("b"), "theirs"))
	theirs.ExpectNothing()
	if after := members(nodes[0]); after != before {
		t.Errorf("the nodes were\n%s, now they are\n%s", before, after)
	}
	if got := len(foreign.Status().Nodes); got != 1 {
		t.Errorf("%d nodes in the cluster of one", got)
	}
}

func members(n *node) string {
	var b strings.Builder
	for _, x := range n.Status().Nodes {
		fmt.Fprintf(&b, "%s/%s %t boot %d at %s\n", x.Node, x.Disk, x.Up, x.Boot, x.RPC)
	}
	return b.String()
}

// Whoever sends garbage in place of a CONNECT costs no entry in any log.
func TestGarbageReachesNoLog(t *testing.T) {
	n, err := startNode(cluster.Config{NodeID: "solo", DataDir: t.TempDir(), BootstrapExpect: 1, Shards: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	if err := n.awaitReady(); err != nil {
		t.Fatal(err)
	}
	if err := n.fill(1); err != nil {
		t.Fatal(err)
	}
	// An election writes entries, and what fill did may write its last ones late:
	// then it is tried again. Garbage that reaches a log does so each time.
	written := 0
	for range 5 {
		before := n.quiet()
		sendGarbage(t, n)
		if written = int(n.quiet() - before); written == 0 {
			return
		}
		t.Logf("%d entries were applied", written)
	}
	t.Errorf("%d entries were applied, each time", written)
}

// quiet waits until nothing is applied any more, and returns how many entries of
// all groups were.
func (n *node) quiet() (applied uint64) {
	for quiet := 0; quiet < 20; quiet++ {
		time.Sleep(10 * time.Millisecond)
		now := uint64(0)
		for _, g := range n.Status().Groups {
			now += g.Applied
		}
		if now != applied {
			applied, quiet = now, 0
		}
	}
	return applied
}

// sendGarbage opens connections that send what is no CONNECT, and closes them.
func sendGarbage(t *testing.T, n *node) {
	s := &scene{TB: t, v: packet.V5, here: n, name: "g"}
	connect := raw(0x10, s.head(2), text("c"))
	for i := range len(connect) - 1 { // cut anywhere, then closed from this side
		c := s.dial(n)
		c.WriteRaw([]byte(connect)[:i]...)
		c.Close()
	}
	for _, b := range []string{"GET / HTTP/1.1\r\n\r\n", raw(0x30, text("a"), "\x00"), raw(0x10, s.head(3), text("c")), raw(0x10, text("MQTT")), "\x10\xFF\xFF\xFF\x7F"} {
		c := s.dial(n)
		c.WriteRaw([]byte(b)...)
		if b[0] == 0x10 {
			c.Receive(mqtttest.Timeout) // a CONNACK, perhaps
		}
		c.Close()
	}
}
