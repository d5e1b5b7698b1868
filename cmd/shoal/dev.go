package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

const (
	devNodes = 3
	// maxBasePort: the HTTP ports of all nodes must exist, too.
	maxBasePort = 65535 - httpOffset - devNodes
	// Distances from a base port of 1883 to the customary other ports.
	httpOffset   = 18083 - 1883
	gossipOffset = 7946 - 1883
	// readyEvery is how often a starting node is asked whether it is ready.
	readyEvery = 100 * time.Millisecond
)

func devCommand() *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a cluster of three nodes on loopback, for a first look",
		Long: `Run a cluster of three nodes on loopback, for a first look.

Each node is a process of its own. Kill one (kill -9 PID) and watch the other
two go on; it is started again after a while. Ctrl-C stops all three.`,
	}
	cmd.Flags().Uint16Var(&o.basePort, "base-port", 1883, "MQTT port of the first node, the others' follow; 0 takes free ports")
	cmd.Flags().StringVar(&o.dataDir, "data-dir", "", "keep the nodes' data here (default: a temporary directory, removed at the end)")
	cmd.Flags().StringVar(&o.shards, "shards", "6", "raft groups that share the sessions")
	cmd.Flags().StringVar(&o.logLevel, "log-level", "warn", "least level of the nodes' logs to show")
	cmd.Flags().DurationVar(&o.restartAfter, "restart-after", 5*time.Second, "start a killed node again after this time")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.basePort > maxBasePort {
			return usage(fmt.Errorf("--base-port %d: want at most %d, for the other ports are counted from it", o.basePort, maxBasePort))
		}
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		o.program = self
		return dev(cmd.Context(), o, cmd.OutOrStdout())
	}
	return cmd
}

type devOptions struct {
	program      string
	basePort     uint16
	dataDir      string
	shards       string
	logLevel     string
	restartAfter time.Duration
}

// dev runs the nodes until ctx ends or one of them gives up.
func dev(ctx context.Context, o devOptions, out io.Writer) error {
	if o.dataDir == "" {
		dir, err := os.MkdirTemp("", "shoal-dev-")
		if err != nil {
			return fmt.Errorf("make data directory: %w", err)
		}
		defer os.RemoveAll(dir)
		o.dataDir = dir
	}
	nodes, err := planNodes(o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	say := &lines{w: out}
	results := make(chan error, len(nodes))
	for _, n := range nodes {
		go func() {
			results <- n.keepRunning(ctx, o, say)
			cancel() // one that gave up takes the others with it
		}()
	}
	say.printf("%s", introduction(nodes))
	var errs []error
	for range nodes {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}

// devNode is one node of the plan.
type devNode struct {
	name        string
	mqtt, http  string // addresses
	gossip, rpc string
	dir         string
	join        string
}

// planNodes gives every node its name, directory and addresses.
func planNodes(o devOptions) ([]*devNode, error) {
	ports, err := devPorts(int(o.basePort))
	if err != nil {
		return nil, err
	}
	var nodes []*devNode
	for i := range devNodes {
		name := string(rune('a' + i))
		n := &devNode{name: name, dir: filepath.Join(o.dataDir, name)}
		for k, addr := range []*string{&n.mqtt, &n.http, &n.gossip, &n.rpc} {
			*addr = "127.0.0.1:" + strconv.Itoa(ports[i][k])
		}
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		var others []string
		for _, m := range nodes {
			if m != n {
				others = append(others, m.gossip)
			}
		}
		n.join = strings.Join(others, ",")
	}
	return nodes, nil
}

// devPorts returns the MQTT, HTTP, gossip and RPC port of every node.
func devPorts(base int) (ports [devNodes][4]int, err error) {
	if base == 0 {
		return freePorts()
	}
	for i := range ports {
		ports[i] = [4]int{base + i, base + httpOffset + i, base + gossipOffset + 2*i, base + gossipOffset + 2*i + 1}
	}
	return ports, nil
}

func (n *devNode) args(o devOptions) []string {
	return []string{
		"serve", "--node-id=" + n.name, "--data-dir=" + n.dir,
		"--mqtt-addr=" + n.mqtt, "--http-addr=" + n.http, "--gossip-addr=" + n.gossip, "--rpc-addr=" + n.rpc,
		"--join=" + n.join, "--bootstrap-expect=" + strconv.Itoa(devNodes),
		"--shards=" + o.shards, "--log-level=" + o.logLevel, "--log-format=text",
	}
}

// keepRunning starts the node again whenever a signal of somebody else's ends
// it. It returns nil when ctx ends, and an error when the node ends by itself.
func (n *devNode) keepRunning(ctx context.Context, o devOptions, say *lines) error {
	for {
		child, err := startChild(o.program, n.args(o), say.prefixed("node "+n.name+" | "))
		if err != nil {
			return fmt.Errorf("start node %s: %w", n.name, err)
		}
		watch, stop := context.WithCancel(ctx)
		var watching sync.WaitGroup
		watching.Go(func() { n.announceReady(watch, child.pid(), say) })
		killed, err := child.wait(ctx)
		stop()
		watching.Wait()
		if ctx.Err() != nil {
			return nil
		}
		if !killed {
			return fmt.Errorf("node %s ended by itself: %w", n.name, err)
		}
		say.printf("node %s  pid %d  %v; starting it again in %v\n", n.name, child.pid(), err, o.restartAfter)
		select {
		case <-time.After(o.restartAfter):
		case <-ctx.Done():
			return nil
		}
	}
}

// announceReady prints how to reach the node once it serves.
func (n *devNode) announceReady(ctx context.Context, pid int, say *lines) {
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if isReady(ctx, n.http) {
			say.printf("node %s  mqtt %s  http http://%s  pid %d\n", n.name, n.mqtt, n.http, pid)
			return
		}
	}
}

func isReady(ctx context.Context, addr string) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func introduction(nodes []*devNode) string {
	port := func(i int) string { return nodes[i].mqtt[strings.LastIndex(nodes[i].mqtt, ":")+1:] }
	return fmt.Sprintf(`starting %d nodes; Ctrl-C stops them. When they are ready, try

    shoal sub -p %s -q 1 -t 'hello/#' -v
    shoal pub -p %s -q 1 -t hello/world -m 'from another node'
    shoal cluster status --http-addr %s

`, len(nodes), port(1), port(0), nodes[0].http)
}

// lines lets several writers share one output, a whole line at a time.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.w, format, args...) // nobody to tell when the terminal is gone
}

// prefixed returns a writer that puts prefix before each line.
func (l *lines) prefixed(prefix string) io.Writer { return &prefixedLines{lines: l, prefix: prefix} }

type prefixedLines struct {
	lines  *lines
	prefix string
	part   []byte // of a line whose end is to come
}

// maxPartBytes: a longer line is printed in parts.
const maxPartBytes = 64 << 10

func (p *prefixedLines) Write(b []byte) (int, error) {
	p.part = append(p.part, b...)
	for {
		end := slices.Index(p.part, '\n')
		if end < 0 && len(p.part) < maxPartBytes {
			return len(b), nil
		}
		if end < 0 {
			end = len(p.part) - 1
		}
		p.lines.printf("%s%s\n", p.prefix, strings.TrimSuffix(string(p.part[:end+1]), "\n"))
		p.part = p.part[end+1:]
	}
}
