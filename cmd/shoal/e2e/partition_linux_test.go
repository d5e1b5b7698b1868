package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// inHub tells a test that it runs in the network namespace of the clients: it
// names the prefix of all namespaces of the test.
const inHub = "SHOAL_TEST_HUB"

// island is a cluster whose nodes have a network namespace each, on one bridge
// in a namespace of the clients', who always reach all nodes.
type island struct {
	*cluster
	prefix string
}

// inNamespaces runs a test in the clients' namespace: this process makes it and
// runs itself in it.
func inNamespaces(t *testing.T, test func(t *testing.T)) {
	if os.Getenv(inHub) != "" {
		test(t)
		return
	}
	if _, err := exec.LookPath("ip"); err != nil || os.Getuid() != 0 {
		if os.Getenv("CI") != "" || os.Getenv("SHOAL_E2E") == "all" {
			t.Fatalf("needs root and the ip command: %v", err)
		}
		t.Skip("needs root and the ip command")
	}
	prefix := fmt.Sprintf("shoal%d", os.Getpid())
	hub := prefix + "-hub"
	makeIsland(t, prefix)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", hub, self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=30m")
	cmd.Env = append(os.Environ(), inHub+"="+prefix, "SHOAL_BINARY="+program)
	cmd.SysProcAttr = endWithParent()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "_test.go:") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// makeIsland makes the namespaces; they go with the test.
func makeIsland(t *testing.T, prefix string) {
	t.Helper()
	hub := prefix + "-hub"
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	t.Cleanup(func() {
		for _, name := range []string{"hub", "a", "b", "c"} {
			exec.Command("ip", "netns", "del", prefix+"-"+name).Run()
		}
	})
	ip("netns", "add", hub)
	ip("-n", hub, "link", "set", "lo", "up")
	ip("-n", hub, "link", "add", "bridge", "type", "bridge")
	ip("-n", hub, "addr", "add", islandAddr(0)+"/24", "dev", "bridge")
	ip("-n", hub, "link", "set", "bridge", "up")
	for i, name := range []string{"a", "b", "c"} {
		ns := prefix + "-" + name
		ip("netns", "add", ns)
		ip("-n", ns, "link", "set", "lo", "up")
		ip("-n", hub, "link", "add", "name", "to-"+name, "type", "veth", "peer", "name", "eth0", "netns", ns)
		ip("-n", hub, "link", "set", "dev", "to-"+name, "master", "bridge", "up")
		ip("-n", ns, "addr", "add", islandAddr(i+1)+"/24", "dev", "eth0")
		ip("-n", ns, "link", "set", "eth0", "up")
	}
}

// islandAddr is the address of the clients (0) or of the i-th node.
func islandAddr(i int) string { return fmt.Sprintf("10.83.0.%d", i+1) }

// startIsland starts three nodes in their namespaces.
func startIsland(t *testing.T, shards int) *island {
	t.Helper()
	c := newCluster(t, shards, t.TempDir())
	i := &island{cluster: c, prefix: os.Getenv(inHub)}
	var join []string
	for k, n := range c.nodes {
		n.under = []string{"ip", "netns", "exec", i.prefix + "-" + n.name}
		host := islandAddr(k + 1)
		n.mqtt, n.gossip, n.rpc, n.http = host+":1883", host+":7946", host+":7947", "127.0.0.1:18083"
		n.surface = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
			DialContext: dialIn(filepath.Join("/run/netns", i.prefix+"-"+n.name))}}
		join = append(join, n.gossip)
	}
	for _, n := range c.nodes {
		n.flags = []string{"--join=" + strings.Join(join, ","), "--bootstrap-expect=3", fmt.Sprintf("--shards=%d", shards), "--allow-anonymous"}
	}
	c.start()
	c.awaitReady()
	return i
}

// dialIn dials from inside a network namespace. The thread that was there is
// not used for anything else.
func dialIn(namespace string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (c net.Conn, err error) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // and never unlocked: the thread ends
			var f *os.File
			if f, err = os.Open(namespace); err != nil {
				return
			}
			defer f.Close()
			if err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
				return
			}
			c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		}()
		<-done
		return c, err
	}
}

// cut drops what one node sends to another, without a word: the frames go to
// nobody.
func (i *island) cut(from, to *node) {
	i.neighbour(from, "replace", to, "lladdr", "02:00:00:00:00:fe", "nud", "permanent")
}

// mend ends what cut began.
func (i *island) mend(from, to *node) { i.neighbour(from, "del", to) }

func (i *island) neighbour(from *node, verb string, to *node, more ...string) {
	i.t.Helper()
	host, _, _ := net.SplitHostPort(to.mqtt)
	args := append([]string{"-n", i.prefix + "-" + from.name, "neigh", verb, host, "dev", "eth0"}, more...)
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		i.t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// partition is a set of one-way cuts.
type partition struct {
	name string
	cuts [][2]*node
	// minority is the node that cannot be served any more, nil if a majority
	// holds for everyone in some way.
	minority *node
}

// partitions are the kinds of trouble that three nodes can have.
func (i *island) partitions() []partition {
	a, b, c := i.nodes[0], i.nodes[1], i.nodes[2]
	return []partition{
		{"isolated node " + a.name, [][2]*node{{a, b}, {b, a}, {a, c}, {c, a}}, a},
		{"one way " + b.name + " to " + c.name, [][2]*node{{b, c}}, nil},
		{"split pair " + b.name + " " + c.name, [][2]*node{{b, c}, {c, b}}, nil},
		{"isolated node " + c.name, [][2]*node{{c, a}, {a, c}, {c, b}, {b, c}}, c},
		{"deaf node " + b.name, [][2]*node{{a, b}, {c, b}}, b},
		{"dumb node " + c.name, [][2]*node{{c, a}, {c, b}}, c},
	}
}

// TestPartitions: with the network between nodes cut in every way and clients on
// all sides, a minority stops acknowledging within its lease and comes back by
// itself, and nothing is lost, doubled or out of order.
func TestPartitions(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		run := chaosConfig(t, 2, 0)
		i := startIsland(t, 6)
		l := startLoad(t, i.cluster, run.load())
		rng := rand.New(rand.NewPCG(run.seed, 13))
		begin := time.Now()
		all := i.partitions()
		rounds := 0
		for ; rounds < run.faults || time.Since(begin) < run.least; rounds++ {
			p := all[rng.IntN(len(all))]
			if rounds == 0 { // the most important one always
				p = all[0]
			}
			i.suffer(p, rng)
			if t.Failed() {
				break
			}
		}
		i.heal()
		l.finish()
		i.awaitEqual()
		t.Logf("%d partitions", rounds)
	})
}

// suffer makes a partition, looks at the minority, and ends it.
func (i *island) suffer(p partition, rng *rand.Rand) {
	i.t.Helper()
	pids := map[*node]int{}
	for _, n := range i.nodes {
		pids[n] = n.pid()
	}
	for _, c := range p.cuts {
		i.cut(c[0], c[1])
	}
	begin := time.Now()
	if p.minority != nil {
		eventually(i.t, p.name+": unready", func() error { return unready(p.minority) })
		unreadyAfter := time.Since(begin)
		refusals(i.t, p.minority, packet.V5)
		i.acknowledgesNothing(p.minority)
		i.t.Logf("%s: unready after %v", p.name, unreadyAfter.Round(10*time.Millisecond))
	} else {
		i.t.Log(p.name)
	}
	pause(rng, time.Second, 10*time.Second)
	for _, c := range p.cuts {
		i.mend(c[0], c[1])
	}
	healed := time.Now()
	i.awaitReady()
	i.t.Logf("%s: all ready %v after its end", p.name, time.Since(healed).Round(10*time.Millisecond))
	for _, n := range i.nodes {
		if n.pid() != pids[n] {
			i.t.Errorf("node %s was restarted", n.name)
		}
	}
}

// acknowledgesNothing checks that no client gets in.
func (i *island) acknowledgesNothing(n *node) {
	c, err := mqtttest.Dial(n.mqtt, packet.V5, dialTimeout)
	if err != nil {
		return
	}
	defer c.Close()
	ack, err := c.Connect(packet.Connect{ClientID: "minority", CleanStart: true}, connackTimeout)
	if err == nil && ack.Code == packet.CodeSuccess {
		i.t.Errorf("node %s is cut off and takes a client", n.name)
	}
}
