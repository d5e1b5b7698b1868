package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/watch"
	"github.com/shoalmq/shoal/cluster"
	"github.com/shoalmq/shoal/cmd/shoal/admin"
	"github.com/shoalmq/shoal/cmd/shoal/config"
	shoalpb "github.com/shoalmq/shoal/proto"
)

const (
	// drainTimeout bounds giving leaderships away; closeTimeout each of the
	// closes after it. Together they stay below a pod's grace period of 60 s.
	drainTimeout = 15 * time.Second
	closeTimeout = 10 * time.Second
	// readyWatchEvery is how soon the log tells that readiness changed, and
	// firstReadyEvery how soon clients are let in.
	readyWatchEvery = 250 * time.Millisecond
	firstReadyEvery = 10 * time.Millisecond
)

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a node",
		Long: `Run a node.

Every flag is also a key of the YAML file given by --config, and an environment
variable: --node-id is node-id: and SHOAL_NODE_ID. Flags win over the
environment, the environment over the file, the file over defaults.`,
	}
	config.AddFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(cmd.Flags(), os.Environ())
		if err != nil {
			return usage(err)
		}
		return serve(cmd.Context(), c, cmd.ErrOrStderr())
	}
	return cmd
}

// serve runs a node until ctx ends, which stops it in order, or something
// fails for good, which ends it at once: after a failed write nothing must be
// acknowledged any more.
func serve(ctx context.Context, c *config.Config, stderr io.Writer) error {
	d := &daemon{config: c, log: newLogger(c, stderr), failed: make(chan error, 2+len(c.AllListeners))}
	token, err := readToken(c.HTTPTokenFile)
	if err != nil {
		return err
	}
	d.surface = admin.New(token)
	if err := d.open(); err != nil {
		return errors.Join(err, d.close())
	}
	watch, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { d.watchReady(watch) })
	watching.Go(func() { d.watcher.Run(watch) })
	stop := func() {
		cancel()
		watching.Wait() // no listener opens any more
	}
	defer cancel()
	select {
	case err := <-d.node.Fatal():
		return err
	case err := <-d.failed:
		stop()
		return errors.Join(err, d.close())
	case <-ctx.Done():
		stop()
	}
	d.log.Info("stopping: giving leaderships away")
	d.surface.Draining()
	drain, over := context.WithTimeout(context.Background(), drainTimeout)
	defer over()
	d.node.Drain(drain)
	err = d.close()
	d.log.Info("stopped")
	return err
}

func newLogger(c *config.Config, w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// daemon is the parts of a running node, in the order in which they open.
type daemon struct {
	config  *config.Config
	log     *slog.Logger
	doors   doors
	http    net.Listener
	surface *admin.Server
	node    *cluster.Node
	guards  *guards
	broker  *broker.Broker
	watcher *watch.Watcher // of all files that are read again when they change
	// listening: clients have been let in.
	listening atomic.Bool

	tasks  sync.WaitGroup // serving goroutines
	failed chan error     // of listeners and of opening them, buffered for each
}

// open takes the client's addresses first, so that one in use is told before
// anything on disk is touched, and answers probes while the node opens. Clients
// are refused until watchReady lets them in.
func (d *daemon) open() (err error) {
	d.watcher = watch.New(d.log.With("component", "files", "node", d.config.NodeID))
	if err := d.reserveDoors(); err != nil {
		return err
	}
	if d.config.HTTPAddr != "" {
		if d.http, err = net.Listen("tcp", d.config.HTTPAddr); err != nil {
			return fmt.Errorf("open HTTP listener (http-addr): %w", err)
		}
		d.tasks.Go(func() { d.fail(d.surface.Serve(d.http)) })
	}
	memory := limitMemory(d.config.MemoryLimit)
	b := d.brokerConfig(memory)
	if d.guards, err = openGuards(d.config, b.Log, d.watcher, &b); err != nil {
		return err
	}
	if d.node, err = cluster.Open(d.clusterConfig(memory)); err != nil {
		return err
	}
	b.Elsewhere = d.node.Elsewhere
	d.broker = broker.New(b)
	d.broker.Attach(d.node)
	d.node.Attach(d.broker)
	d.surface.Opened(admin.Node{
		Ready: d.ready, Live: d.node.Live, Status: func() any { return d.node.Status() },
		Digest:   func() any { return d.node.Digests() },
		Overview: func(ctx context.Context) any { return d.node.Overview(ctx) },
		Operate:  d.node.Operate,
	})
	return nil
}

func (d *daemon) brokerConfig(memory int64) broker.Config {
	b := broker.Config{
		Log: d.log.With("component", "broker", "node", d.config.NodeID), Metrics: d.surface.Registry(),
		NodeID: d.config.NodeID, AllowAnonymous: d.config.AllowAnonymous,
		DisconnectDenied: d.config.DeniedPublish == "disconnect",
		ConnectRate:      d.config.ConnectRate, MemoryLimit: memory, Queue: queueLimits(d.config),
	}
	bound(&b, d.config)
	return b
}

func (d *daemon) clusterConfig(memory int64) cluster.Config {
	c := d.config
	return cluster.Config{
		NodeID: c.NodeID, DataDir: c.DataDir,
		GossipAddr: c.GossipAddr, RPCAddr: c.RPCAddr, AdvertiseHost: c.AdvertiseHost,
		HTTPAddr: d.announced(d.httpAddr()), MQTTAddr: d.announced(d.doors.announced()),
		Join: c.Join, BootstrapExpect: c.BootstrapExpect, Shards: c.Shards,
		CAFile: c.ClusterCA, CertFile: c.ClusterCert, KeyFile: c.ClusterKey, GossipKeyFile: c.GossipKeyFile,
		SharedStrategy: c.SharedStrategy,
		MinFreeBytes:   uint64(c.MinFreeBytes), QueueMemory: queueMemory(c.QueueMemory, memory),
		Build: build(), Log: d.log, Metrics: d.surface.Registry(),
	}
}

// queueLimits are what is configured for persistent sessions, nil if nothing is:
// sessions then need no memory for limits of their own.
func queueLimits(c *config.Config) *shoalpb.QueueLimits {
	if c.Origin("max-queued-messages") == "default" && c.Origin("max-queued-bytes") == "default" && c.Origin("queue-overflow") == "default" {
		return nil
	}
	l := &shoalpb.QueueLimits{Messages: uint64(c.MaxQueuedMessages), Bytes: uint64(c.MaxQueuedBytes)}
	switch c.QueueOverflow {
	case "drop-new":
		l.Policy = shoalpb.QueuePolicy_QUEUE_POLICY_DROP_NEW
	case "reject":
		l.Policy = shoalpb.QueuePolicy_QUEUE_POLICY_REJECT
	}
	return l
}

// queueMemory is what stored messages may take in memory: what is configured, or
// 512 MiB, or a quarter of what the process may use if that is less.
func queueMemory(configured, memory int64) int {
	const usual = 512 << 20
	if configured > 0 {
		return int(configured)
	}
	if quarter := memory / 4; memory > 0 && quarter < usual {
		return int(quarter)
	}
	return usual
}

// httpAddr is the address of the HTTP listener, nil if there is none.
func (d *daemon) httpAddr() net.Addr {
	if d.http == nil {
		return nil
	}
	return d.http.Addr()
}

// announced is an address as others may use it.
func (d *daemon) announced(a net.Addr) string {
	if a == nil {
		return ""
	}
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = d.config.AdvertiseHost
	}
	return net.JoinHostPort(host, port)
}

func (d *daemon) fail(err error) {
	if err != nil {
		d.failed <- err
	}
}

// errNotOpen is why a node is not ready that could be.
var errNotOpen = errors.New("opening the listeners for clients")

// ready returns nil if clients can come and are served, else why not.
func (d *daemon) ready() error {
	err := d.node.Ready()
	if err == nil && !d.listening.Load() {
		return errNotOpen
	}
	return err
}

// watchReady lets clients in when the node is ready for the first time, and logs
// each change of readiness: what it waits for, and, when it has come, every
// address. Listeners stay open after that, whatever becomes of the node: whoever
// connects is told that it cannot be served.
func (d *daemon) watchReady(ctx context.Context) {
	tick := time.NewTicker(firstReadyEvery)
	defer tick.Stop()
	last := errors.New("starting")
	for {
		err := d.node.Ready()
		if err == nil && !d.listening.Load() {
			if err := d.openDoors(); err != nil {
				d.fail(err)
				return
			}
			d.listening.Store(true)
			tick.Reset(readyWatchEvery)
		}
		switch {
		case err == nil && last != nil:
			d.log.Info("ready", "node", d.config.NodeID, "mqtt", d.announced(d.doors.announced()), "http", d.announced(d.httpAddr()),
				"gossip", d.config.GossipAddr, "rpc", d.config.RPCAddr, "data", d.config.DataDir)
			last = nil
		case err != nil && (last == nil || err.Error() != last.Error()):
			d.log.Info("not ready", "node", d.config.NodeID, "reason", err)
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// close ends what is open: clients first, for their last acknowledgements need
// the node; the node; and HTTP last, which answers probes until then.
func (d *daemon) close() error {
	var errs []error
	step := func(close func(context.Context) error) {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		errs = append(errs, close(ctx))
	}
	if d.broker != nil {
		step(d.broker.Close)
	}
	d.doors.close()
	if d.node != nil {
		step(d.node.Close)
	}
	if d.guards != nil {
		d.guards.close()
	}
	step(d.surface.Close)
	d.tasks.Wait()
	return errors.Join(errs...)
}
