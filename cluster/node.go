package cluster

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	"github.com/shoalmq/shoal/cluster/birth"
	"github.com/shoalmq/shoal/cluster/directory"
	"github.com/shoalmq/shoal/cluster/gossip"
	"github.com/shoalmq/shoal/cluster/raftnet"
	shoalpb "github.com/shoalmq/shoal/proto"
	"github.com/shoalmq/shoal/storage"
)

// Local is this node's transient subscribers: the one callback of this package.
type Local interface {
	// Deliver hands a message to the subscribers that match. It enqueues, or
	// drops and counts, and never waits for a client. For QoS 0 m is valid only
	// during the call. picks are the Shared Subscriptions of which one member
	// here gets a copy.
	Deliver(m *shoalpb.Message, picks []*shoalpb.Pick)
}

// Node is the replicated side of one node. It is safe for concurrent use.
type Node struct {
	config  Config
	log     *slog.Logger
	metrics *metrics
	tasks   *tasks
	local   atomic.Pointer[Local]
	fatalC  chan error
	failed  atomic.Pointer[error] // the first fatal error

	dir     *storage.Dir
	logs    *storage.Log
	disk    string
	self    raft.ServerID
	rpcName string
	boot    uint64 // first one of this run
	// states are the state files that were opened with the disk and that no
	// group has taken yet; by mu.
	states   map[uint32]*storage.StateFile
	diskOpen atomic.Bool
	bootNow  atomic.Uint64 // of the latest process, fsynced
	// bootTold is the highest boot that others may know of this disk.
	bootTold   atomic.Uint64
	suspicions suspicions

	tls       *tls.Config
	gossipKey []byte
	listener  net.Listener
	server    *grpc.Server
	pool      *raftnet.Pool
	mux       *raftnet.Mux
	book      *gossip.Book
	gossip    *gossip.Gossip
	birth     *birth.Birth
	met       signal // gossip has changed

	watch   *diskWatch
	lease   *leaseClient
	leases  atomic.Pointer[leaseServer]
	routes  *routeCache
	visible *visibility
	// settlings are the waits for retained publishes under way.
	settlings settlings
	proc      atomic.Pointer[process]
	guesses   *guesses
	reach     reach
	// elsewhere counts the questions for another node.
	elsewhere atomic.Uint64

	// fences and directoryChanged wake on applies of the own directory copy.
	fences           *broadcast
	directoryChanged *broadcast
	// fence is the fence number of the own copy; seen the highest that any
	// answer has shown.
	fence, seen atomic.Uint64
	// version is the cluster version of the own directory copy, 0 if unread.
	version atomic.Uint32
	// passing is held for reading while a run of forwards is checked and
	// delivered.
	passing sync.RWMutex

	// rebalance wakes the reconciler for an operator; waiting is what it waits for.
	rebalance signal
	waiting   atomic.Pointer[string]

	// settled and behind belong to runLeaders.
	settled map[string]seenUp
	behind  int // rounds for which this node should not lead
	once    sync.Once
	closed  error

	mu       sync.RWMutex // guards what follows
	groups   map[uint32]*group
	leads    map[uint32]*shardLead
	born     string // cluster id
	phase    string // what is being waited for before clients can be served
	draining bool
}

// Open opens the data directory and starts the node; it serves when Ready says
// so. Attach must follow before clients come.
func Open(c Config) (*Node, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("start node: %w", err)
	}
	if c.QueueMemory == 0 {
		c.QueueMemory = defaultQueueMemory
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{
		config: c, log: c.Log.With("component", "cluster", "node", c.NodeID), metrics: newMetrics(c.Metrics), suspicions: suspicions{wake: newSignal()},
		tasks: newTasks(context.Background()), fatalC: make(chan error, 1), met: newSignal(), rebalance: newSignal(),
		guesses: newGuesses(), fences: newBroadcast(), directoryChanged: newBroadcast(),
		groups: make(map[uint32]*group), leads: make(map[uint32]*shardLead), phase: "starting",
	}
	n.watch = &diskWatch{n: n, stood: newSignal()}
	n.lease, n.routes, n.visible = newLeaseClient(n), newRouteCache(n), newVisibility(n)
	if err := n.open(); err != nil {
		n.shut()
		return nil, err
	}
	n.metrics.observe(n)
	n.tasks.run(n.live)
	return n, nil
}

// Attach sets the transient subscribers' side, before clients come.
func (n *Node) Attach(local Local) { n.local.Store(&local) }

// deliver hands m to this node's transient subscribers.
func (n *Node) deliver(m *shoalpb.Message, picks []*shoalpb.Pick) {
	if local := n.local.Load(); local != nil {
		(*local).Deliver(m, picks)
	}
}

// open begins with what can be refused without having touched the disk: files
// of keys, addresses in use.
func (n *Node) open() (err error) {
	if n.tls, err = loadTLS(n.config); err != nil {
		return err
	}
	if n.config.GossipKeyFile != "" {
		if n.gossipKey, err = gossip.LoadKey(n.config.GossipKeyFile); err != nil {
			return err
		}
	}
	if n.listener, err = net.Listen("tcp", n.config.RPCAddr); err != nil {
		return fmt.Errorf("listen for other nodes (rpc-addr): %w", err)
	}
	if err = tryListen(n.config.GossipAddr); err != nil {
		return fmt.Errorf("listen for gossip (gossip-addr): %w", err)
	}
	if err = n.openDisk(); err != nil {
		return err
	}
	id := n.dir.Identity()
	n.disk, n.born = id.DiskID, id.ClusterID
	n.self = raft.ServerID(n.config.NodeID + "/" + n.disk)
	return n.openNetwork()
}

// tryListen tells whether an address can be listened on.
func tryListen(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// openNetwork serves peers and starts gossip.
func (n *Node) openNetwork() (err error) {
	_, port, _ := net.SplitHostPort(n.listener.Addr().String())
	n.rpcName = net.JoinHostPort(n.config.advertised(n.config.RPCAddr), port)
	n.book = gossip.NewBook(n.knownAddress)
	pc := raftnet.PoolConfig{Resolve: n.book.Resolve, TLS: n.tls, Log: n.log}
	if h := n.config.Net; h != nil {
		pc.Fault, pc.Dial = h.Fault, h.Dial
	}
	n.pool = raftnet.NewPool(pc)
	n.server = grpc.NewServer(raftnet.ServerOptions(n.tls)...)
	n.mux = raftnet.NewMux(string(n.self), n.clusterID, n.pool, n.server, n.log)
	n.mux.CheckBoots(raftnet.Boots{Own: n.bootNow.Load, Told: n.bootTold.Load, Known: n.knownBoot, RolledBack: n.rolledBack})
	n.mux.CheckEnds(n.raftEnds())
	n.birth = birth.New(n.birthConfig())
	shoalpb.RegisterPeerServer(n.server, &peerServer{n: n})
	if err := n.startGossip(); err != nil {
		return err
	}
	n.tasks.run(n.watch.run)
	n.tasks.run(n.runSuspicions)
	n.tasks.run(func(context.Context) {
		if err := n.server.Serve(n.listener); err != nil {
			n.log.Error("serve other nodes", "err", err)
		}
	})
	return nil
}

// live brings the node from start to service: birth, the directory, the shards
// it has a replica of, and one process after the other.
func (n *Node) live(ctx context.Context) {
	founders, err := n.beBorn(ctx)
	if err == nil {
		err = n.openDirectory(founders)
	}
	if err == nil {
		n.tasks.run(n.lease.run)
		n.tasks.run(n.runShards)
		n.tasks.run(n.maintain)
		n.tasks.run(n.settleBirth)
		n.tasks.run(n.visible.run)
		n.tasks.run(func(ctx context.Context) { every(ctx, time.Second, func() { n.visible.expire(time.Now()) }) })
		n.tasks.run(n.runLeaders)
		err = n.runProcesses(ctx)
	}
	if err != nil && ctx.Err() == nil {
		n.fatal(err)
	}
}

// GossipAddr is where this node listens for gossip.
func (n *Node) GossipAddr() string { return n.gossip.Addr() }

func (n *Node) setPhase(s string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.phase = s
}

// openDirectory opens this node's copy of the directory.
func (n *Node) openDirectory(founders []string) error {
	n.setPhase("opening the directory")
	fresh := func(scan scanFunc) (machine, error) {
		return (&directoryMachine{tell: n.directoryMoved, gen: &n.routes.gen, seen: n.lease.entry}).fresh(scan)
	}
	return n.openGroup(0, servers(founders), nil, fresh, n.leadDirectory)
}

func (n *Node) openGroup(id uint32, founders []raft.Server, clock *shardClock, fresh func(scanFunc) (machine, error), lead func(*group) func(context.Context, uint64) func()) error {
	state, err := n.openState(id)
	if err != nil {
		return err
	}
	g := &group{
		id: id, name: groupName(id), log: n.log.With("group", groupName(id)), fatal: n.fatal,
		logs: n.logs.Group(id), state: state, mux: n.mux, self: n.self, election: cmp.Or(n.config.ElectionTimeout, electionTimeout), tasks: newTasks(n.tasks.ctx), progress: newSignal(), leaderMoved: newBroadcast(), muted: newBroadcast(),
	}
	g.clock = clock
	g.format = n.entryFormat
	commits := n.metrics.commits.WithLabelValues(groupKind(id))
	g.took = func(d time.Duration) { commits.Observe(d.Seconds()) }
	g.lead = lead(g)
	g.setBack = func() {
		if id == 0 {
			n.lease.setBack() // it was granted for a copy that knew more
		}
	}
	if err := openGroup(g, founders, fresh); err != nil {
		return err
	}
	n.mu.Lock()
	n.groups[id] = g
	n.mu.Unlock()
	n.directoryChanged.broadcast()
	return nil
}

// leadDirectory is what the directory's leader does.
func (n *Node) leadDirectory(g *group) func(context.Context, uint64) func() {
	return func(ctx context.Context, term uint64) func() {
		t := newTasks(ctx)
		t.run(func(ctx context.Context) { n.giveBirth(ctx, g) })
		s := newLeaseServer(n, g, term)
		n.leases.Store(s)
		s.nodesChanged()
		t.run(s.run)
		t.run(s.watch)
		t.run(func(ctx context.Context) { g.spread(ctx) })
		t.run(newReconciler(n, g).run)
		return func() {
			n.leases.CompareAndSwap(s, nil)
			close(s.over)
			t.wait()
		}
	}
}

// leadShard is what a shard's leader does.
func (n *Node) leadShard(g *group) func(context.Context, uint64) func() {
	return func(ctx context.Context, term uint64) func() {
		l := newShardLead(ctx, n, g, term)
		l.beginClock()
		n.mu.Lock()
		n.leads[g.id] = l
		n.mu.Unlock()
		l.start()
		return func() {
			n.mu.Lock()
			if n.leads[g.id] == l {
				delete(n.leads, g.id)
			}
			n.mu.Unlock()
			l.tasks.wait()
			l.end()
		}
	}
}

// runProcesses is this node's life as others see it: one boot after the other,
// each until it is fenced.
func (n *Node) runProcesses(ctx context.Context) error {
	for next := n.boot; ; {
		n.setPhase("announcing this process to the directory")
		boot, err := n.announce(ctx, next)
		if err != nil {
			return err
		}
		var shards uint32
		n.readDirectory(func(d *directoryMachine) { shards = d.Shards() })
		p := newProcess(n, boot, int(shards))
		n.lease.begin(boot)
		n.proc.Store(p)
		n.lease.report() // asks for a lease at once
		n.setPhase("")
		p.start()
		p.tasks.run(func(ctx context.Context) { n.reachShards(ctx, int(shards)) })
		n.log.Info("announced", "boot", boot)
		n.untilFenced(ctx, p)
		n.proc.Store(nil)
		n.lease.begin(0)
		n.setPhase("fenced: closing connections")
		if ctx.Err() != nil {
			p.stop(errStopping)
			return ctx.Err()
		}
		p.stop(errFenced)
		n.metrics.fenced.Inc()
		n.log.Warn("this process was fenced: its connections are closed and it takes the next boot", "boot", boot)
		if next, err = n.dir.NextBoot(); err != nil {
			return err
		}
		n.bootNow.Store(next)
	}
}

var errStopping = errors.New("this node is stopping")

var errFenced = errors.New("the cluster has taken this node for dead and goes on without its connections")

// untilFenced waits for the end of p, and closes its clients while the lease
// has been gone for too long.
func (n *Node) untilFenced(ctx context.Context, p *process) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	lost := false
	for {
		changed := n.fences.next()
		if n.isFenced(processID{n.config.NodeID, p.boot}) {
			return
		}
		select {
		case <-p.fenced:
			return
		case <-changed:
		case <-tick.C:
			gone := n.lease.closeClients()
			if gone && !lost {
				n.log.Warn("no lease for too long: closing clients", "reason", n.lease.why())
				p.loseClients(errNoLease)
			}
			lost = gone
		case <-ctx.Done():
			return
		}
	}
}

var errNoLease = errors.New("this node has lost contact with the cluster's majority")

// maintain writes checkpoints, one group after the other, and keeps messages
// within their budget of memory.
func (n *Node) maintain(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for _, g := range n.allGroups() {
			if !g.checkpointDue(time.Now(), n.dirtyLimit()) {
				continue
			}
			if err := g.checkpoint(); err != nil && ctx.Err() == nil {
				g.log.Warn("checkpoint", "err", err)
			}
			n.relieve()
		}
		n.relieve()
	}
}

// directoryMoved hands on what applies of the own directory copy caused.
func (n *Node) directoryMoved(eff *directory.Effects, fence uint64) {
	fenced := fence > n.fence.Load()
	if fenced {
		n.passing.Lock() // what came before the fence is delivered before it counts
		n.fence.Store(fence)
		n.passing.Unlock()
	}
	if eff.Nodes {
		n.readDirectory(func(d *directoryMachine) { n.version.Store(d.Version()) })
	}
	n.visible.moved(eff.Routed)
	n.lease.report()
	if s := n.leases.Load(); s != nil && (eff.Nodes || eff.Fences) {
		s.nodesChanged()
	}
	if fenced {
		n.fences.broadcast()
		for _, l := range n.allLeads() {
			l.fenceGrew.set()
		}
	}
	n.directoryChanged.broadcast()
}

func (n *Node) group(id uint32) *group {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.groups[id]
}

// allGroups are this node's replicas in the order of groups.
func (n *Node) allGroups() []*group {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return slices.SortedFunc(maps.Values(n.groups), func(a, b *group) int { return cmp.Compare(a.id, b.id) })
}

func (n *Node) allLeads() []*shardLead {
	n.mu.RLock()
	defer n.mu.RUnlock()
	list := make([]*shardLead, 0, len(n.leads))
	for _, l := range n.leads {
		list = append(list, l)
	}
	return list
}

// leadNow is this node's lead of a shard, also before it is ready to serve.
func (n *Node) leadNow(id uint32) *shardLead {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.leads[id]
}

// leadOf is this node's lead of a shard if it serves.
func (n *Node) leadOf(id uint32) *shardLead {
	if g := n.group(id); g == nil || !g.leads() {
		return nil
	}
	return n.leadNow(id)
}

// readDirectory calls f with the own directory copy held still; not at all
// before there is one.
func (n *Node) readDirectory(f func(d *directoryMachine)) {
	if g := n.group(0); g != nil {
		g.read(func(m machine) { f(m.(*directoryMachine)) })
	}
}

func (n *Node) directoryIndex() (index uint64) {
	n.readDirectory(func(d *directoryMachine) { index = d.Machine.Applied() })
	return index
}

// fenceNumber is the fence number of the own directory copy.
func (n *Node) fenceNumber() uint64 { return n.fence.Load() }

// knownFence is the highest fence number this node has met. It goes into the
// header of what is sent: a target that lacks one of these fences must get it
// first, else a dead process's late batch could follow ours.
func (n *Node) knownFence() uint64 { return max(n.fence.Load(), n.seen.Load()) }

func (n *Node) metFence(number uint64) {
	for {
		old := n.seen.Load()
		if number <= old || n.seen.CompareAndSwap(old, number) {
			return
		}
	}
}

// isFenced tells whether the own directory copy has fenced a process.
func (n *Node) isFenced(p processID) (fenced bool) {
	n.readDirectory(func(d *directoryMachine) { fenced = d.MinBoot(p.node) > p.boot })
	return fenced
}

func (n *Node) shardOf(client string) (id uint32) {
	n.readDirectory(func(d *directoryMachine) { id = d.ShardOf(client) })
	return id
}

// clusterID is the cluster this node belongs to, "" before birth.
func (n *Node) clusterID() string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.born
}

// fatal ends the node for good: the first cause is kept for Fatal.
func (n *Node) fatal(err error) {
	n.log.Error("the node cannot go on", "err", err)
	if n.failed.CompareAndSwap(nil, &err) {
		var bad *storage.BadDiskError
		if errors.As(err, &bad) {
			_ = n.dir.Condemn(bad.Reason) // the next start finds it out at once
		}
		n.fatalC <- err
	}
}

// Fatal gives the error that ends the node, for example the first failed write.
// The process must exit without acknowledging anything more.
func (n *Node) Fatal() <-chan error { return n.fatalC }

// Live is nil as long as the process makes sense.
func (n *Node) Live() error {
	if err := n.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// Ready returns nil if clients can be served, else why not.
func (n *Node) Ready() error {
	n.mu.RLock()
	phase, draining := n.phase, n.draining
	n.mu.RUnlock()
	switch {
	case draining:
		return errors.New("draining: about to stop")
	case phase != "":
		return errors.New(phase)
	case n.watch.trouble() != nil:
		return n.watch.trouble()
	case !n.lease.valid():
		return fmt.Errorf("no lease from the directory's leader: %s", n.lease.why())
	}
	return n.reach.why()
}

// Drain makes the node unready and gives its leaderships away.
func (n *Node) Drain(ctx context.Context) {
	n.mu.Lock()
	n.draining = true
	n.mu.Unlock()
	n.gossip.SetMeta(n.meta())
	n.leave()
}

// Close stops everything: groups, then the network, then the disk. Connections
// that are still open are told that they are lost.
func (n *Node) Close(ctx context.Context) error {
	n.mu.Lock()
	n.draining = true
	n.mu.Unlock()
	n.passOn(ctx)
	done := make(chan error, 1)
	go func() { done <- n.shut() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("stop node: %w", ctx.Err())
	}
}

// shut stops everything, once.
func (n *Node) shut() error {
	n.once.Do(func() { n.closed = n.stopAll() })
	return n.closed
}

func (n *Node) stopAll() error {
	n.tasks.stop()
	var errs []error
	for _, g := range n.allGroups() {
		errs = append(errs, g.close())
	}
	if n.gossip != nil {
		errs = append(errs, n.gossip.Close(context.Background()))
	}
	if n.mux != nil {
		errs = append(errs, n.mux.Close())
	}
	if n.server != nil {
		n.server.Stop()
	}
	if n.listener != nil {
		n.listener.Close() // again, if the server had it; else it was never served
	}
	if n.pool != nil {
		errs = append(errs, n.pool.Close())
	}
	n.tasks.wait()
	for _, g := range n.allGroups() { // one may have been opened meanwhile
		errs = append(errs, g.close())
	}
	if n.logs != nil {
		errs = append(errs, n.logs.Close())
	}
	if n.dir != nil {
		errs = append(errs, n.dir.Close())
	}
	return errors.Join(errs...)
}
