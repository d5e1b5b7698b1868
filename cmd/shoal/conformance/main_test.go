package conformance

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/cluster"
	"github.com/shoalmq/shoal/storage/storagetest"
)

// patience bounds every wait for something that must happen: far longer than it
// takes, so that no test depends on speed.
const patience = 3 * time.Minute

// testElection is twice the default: the race detector makes nodes of one process
// several times slower than those in production.
const testElection = time.Second

// nodes is the cluster that all rules share.
var nodes []*node

// scratch is a directory that goes with this process.
var scratch string

// shards of the cluster.
const shards = 6

// node is one node of the cluster, as package main joins its two halves.
type node struct {
	*cluster.Node
	broker *broker.Broker
	served chan error
	addrs  [transports]string
}

func TestMain(m *testing.M) {
	flag.Parse()
	storagetest.InMemory()
	if flag.Lookup("test.parallel").Value.String() == flag.Lookup("test.parallel").DefValue {
		// Rules mostly wait for commits: these share fsyncs, not processors.
		flag.Set("test.parallel", "16")
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if scratch, err = os.MkdirTemp("", "shoal-conformance-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(scratch)
	if nodes, err = startCluster(scratch, "a", "b", "c"); err != nil {
		fmt.Fprintln(os.Stderr, "start cluster:", err)
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	go watchLapses(ctx)
	code := m.Run()
	cancel()
	for _, n := range nodes {
		if err := n.close(); err != nil {
			fmt.Fprintln(os.Stderr, "close:", err)
			code = 1
		}
	}
	return code
}

// startCluster gives birth to a cluster and waits until all its nodes serve.
func startCluster(dir string, names ...string) (started []*node, err error) {
	var join []string
	for _, name := range names {
		n, err := startNode(cluster.Config{
			NodeID: name, DataDir: filepath.Join(dir, name), Join: join, BootstrapExpect: len(names), Shards: shards,
		})
		if err != nil {
			return nil, err
		}
		started = append(started, n)
		join = append(join, n.GossipAddr())
	}
	for _, n := range started {
		if err := n.awaitReady(); err != nil {
			return nil, err
		}
	}
	return started, started[0].awaitSettled()
}

// awaitSettled waits until each shard is led by its preferred replica, the first
// one: to a durable session QoS 0 goes by the leader's memory, so what is on the
// way when leaders move may be lost, and most rules want it to come.
func (n *node) awaitSettled() error {
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		settled := true
		for _, g := range n.Status().Groups {
			settled = settled && (g.Group == "directory" || len(g.Replicas) > 0 && strings.HasPrefix(g.Replicas[0], g.Leader+" "))
		}
		if settled {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("leaders are not where they belong: %+v", n.Status().Groups)
		}
	}
}

// startNode opens a node and serves on a free port.
func startNode(c cluster.Config) (*node, error) {
	var out io.Writer = io.Discard
	if os.Getenv("SHOAL_TEST_LOG") != "" {
		out = os.Stderr
	}
	c.GossipAddr, c.RPCAddr, c.Build, c.ElectionTimeout = "127.0.0.1:0", "127.0.0.1:0", "test", testElection
	c.Log = slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	n := &node{served: make(chan error, transports)}
	var err error
	if n.Node, err = cluster.Open(c); err != nil {
		return nil, err
	}
	n.broker = broker.New(broker.Config{Log: c.Log.With("component", "broker", "node", c.NodeID), NodeID: c.NodeID, AllowAnonymous: true})
	n.broker.Attach(n.Node)
	n.Attach(n.broker)
	return n, n.listen()
}

func (n *node) awaitReady() error {
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := n.Ready()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// close ends the node in order: clients first.
func (n *node) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := n.broker.Close(ctx); err != nil {
		return err
	}
	for range n.addrs {
		if err := <-n.served; err != nil {
			return err
		}
	}
	return n.Node.Close(ctx)
}
