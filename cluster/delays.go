package cluster

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalmq/shoal/cluster/lease"
)

// delays are the metrics that say who waits for whom: how long commits, the
// disk and the visible index take here, and which node, disk or leader it is
// that others wait for. What is a state and no event is read when metrics are
// asked for (collectDelays).
type delays struct {
	// commits: from an entry's proposal until it is applied here, by kind of
	// group: quorum, fsyncs and apply.
	commits *prometheus.HistogramVec
	// disk: commits of the raft log, fsync included.
	disk prometheus.Histogram
	// visible: what SUBACK waits for after its commit.
	visible prometheus.Histogram
	// late: renewals of leases that came late, by the node that is late.
	late *prometheus.CounterVec
}

// delayBuckets are the bounds of histograms of delays, in seconds: from a fast
// disk's fsync to where clients give up.
var delayBuckets = []float64{.0005, .001, .002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

func newDelays() delays {
	return delays{
		commits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "shoal_commit_seconds", Help: "From the proposal of a raft entry until it was applied, on leaders.", Buckets: delayBuckets,
		}, []string{"kind"}),
		disk: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shoal_disk_commit_seconds", Help: "How long commits of the raft log took, fsync included.", Buckets: delayBuckets,
		}),
		visible: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shoal_visible_seconds", Help: "How long committed changes of routes took to be known everywhere.", Buckets: delayBuckets,
		}),
		late: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_lease_renewals_late_total", Help: "Requests for a lease that came late, as the directory's leader saw it.",
		}, []string{"node"}),
	}
}

func (d *delays) collectors() []prometheus.Collector {
	return []prometheus.Collector{d.commits, d.disk, d.visible, d.late}
}

// groupKind is the label of a group: the directory or a shard.
func groupKind(id uint32) string {
	if id == 0 {
		return "directory"
	}
	return "shard"
}

var (
	descDiskBusy    = prometheus.NewDesc("shoal_disk_busy_seconds", "For how long the commit of the raft log that is under way has been.", nil, nil)
	descDiskSlow    = prometheus.NewDesc("shoal_disk_slow", "1 if a commit of the raft log has taken more than half a second lately.", nil, nil)
	descDiskFree    = prometheus.NewDesc("shoal_disk_free_bytes", "Free space of the data directory's file system.", nil, nil)
	descVisibleWait = prometheus.NewDesc("shoal_visible_wait_seconds", "For how long a node's copy of the directory has lacked an entry that its leader has, on the leader.", []string{"node"}, nil)
	descLag         = prometheus.NewDesc("shoal_raft_follower_lag_entries", "Entries that a replica is not known to have, on the group's leader.", []string{"group", "node"}, nil)
	descSilent      = prometheus.NewDesc("shoal_raft_follower_silent_seconds", "How long ago the latest request that a replica has answered was sent, on the group's leader.", []string{"group", "node"}, nil)
	descProposals   = prometheus.NewDesc("shoal_raft_proposals_waiting", "Batches that wait for a raft entry, on the group's leader.", []string{"group"}, nil)
	descStreamWait  = prometheus.NewDesc("shoal_stream_wait_seconds", "For how long the oldest batch of this node has waited for a group's answer.", []string{"group", "leader"}, nil)
	descStreamQueue = prometheus.NewDesc("shoal_stream_commands_waiting", "Commands of this node that wait to be sent to a group.", []string{"group"}, nil)
	descOpenBound   = prometheus.NewDesc("shoal_opens_bound", "How many CONNECTs of this node may be under way to a group.", []string{"group"}, nil)
)

var delayDescs = []*prometheus.Desc{
	descDiskBusy, descDiskSlow, descDiskFree, descVisibleWait, descLag, descSilent, descProposals,
	descStreamWait, descStreamQueue, descOpenBound,
}

type emit = func(d *prometheus.Desc, v float64, labels ...string)

// collectDelays reads who delays whom at this moment.
func (n *Node) collectDelays(gauge emit) {
	gauge(descDiskBusy, n.logs.Busy().Seconds())
	gauge(descDiskSlow, truth(n.watch.isSlow()))
	if free, err := n.watch.freeBytes(); err == nil {
		gauge(descDiskFree, float64(free))
	}
	if s := n.leases.Load(); s != nil {
		for node, behind := range s.behind() {
			gauge(descVisibleWait, behind.Seconds(), node)
		}
	}
	for _, g := range n.allGroups() {
		if g.leads() {
			gauge(descProposals, float64(len(g.batcher.in)), g.name)
			g.followers(func(node string, lag uint64, silent time.Duration) {
				gauge(descLag, float64(lag), g.name, node)
				seconds := silent.Seconds()
				if silent == math.MaxInt64 {
					seconds = math.Inf(1)
				}
				gauge(descSilent, seconds, g.name, node)
			})
		}
	}
	p := n.proc.Load()
	if p == nil {
		return
	}
	for id, s := range p.sources {
		oldest, waiting := s.delay()
		leader := ""
		if g := n.group(uint32(id)); g != nil {
			leader = g.leader()
		}
		gauge(descStreamWait, oldest.Seconds(), s.name, leader)
		gauge(descStreamQueue, float64(waiting), s.name)
		if id > 0 {
			gauge(descOpenBound, float64(p.admits[id].bound()), s.name)
		}
	}
}

// followers visits the other replicas as this leader knows them.
func (g *group) followers(f func(node string, lag uint64, silent time.Duration)) {
	r, term := g.raftNow.Load(), g.term.Load()
	c := r.GetConfiguration()
	if term == 0 || c.Error() != nil {
		return
	}
	last := r.LastIndex()
	for _, s := range c.Configuration().Servers {
		if s.ID == g.self {
			continue
		}
		index, silent := g.trans.Load().Progress(term, raft.ServerAddress(s.ID))
		f(nodeOf(string(s.ID)), last-min(index, last), silent)
	}
}

// behind tells for how long each process has lacked an entry of the directory.
func (s *leaseServer) behind() map[string]time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table.Behind(bootTime())
}

// renewed counts renewals that come late. Called with mu held.
func (s *leaseServer) renewed(node string, now time.Duration) {
	if last, ok := s.renewals[node]; ok && now-last > 2*lease.Renew {
		s.n.metrics.late.WithLabelValues(node).Inc()
	}
	s.renewals[node] = now
}

// delay is how long the oldest unanswered batch has waited, and how many
// commands wait to be sent.
func (s *source) delay() (oldest time.Duration, waiting int) {
	s.mu.Lock()
	waiting = s.waiting
	s.mu.Unlock()
	if at := s.oldest.Load(); at != 0 {
		oldest = bootTime() - time.Duration(at)
	}
	return oldest, waiting
}

// slow names, in words, what has kept others waiting for longer than sayDelay,
// as this node sees it: its disk, leaders that owe it an answer, and on leaders
// the replicas and nodes they wait for.
func (n *Node) slow() (list []string) {
	say := func(d time.Duration, format string, args ...any) {
		if d > sayDelay {
			list = append(list, fmt.Sprintf(format, append(args, d.Round(100*time.Millisecond))...))
		}
	}
	say(n.logs.Busy(), "the disk of %s has been writing the log for %v", n.config.NodeID)
	if n.logs.Busy() <= sayDelay && n.watch.isSlow() {
		list = append(list, "the disk of "+n.config.NodeID+" is slow")
	}
	if s := n.leases.Load(); s != nil {
		for node, behind := range s.behind() {
			say(behind, "subscriptions wait for %s, whose copy of the directory has been behind for %v", node)
		}
	}
	for _, g := range n.allGroups() {
		if !g.leads() {
			continue
		}
		g.followers(func(node string, lag uint64, silent time.Duration) {
			switch {
			case silent == math.MaxInt64:
				list = append(list, fmt.Sprintf("%s: nothing has been heard of %s", g.name, node))
			default:
				say(silent, "%s: nothing has been heard of %s for %v", g.name, node)
			}
		})
	}
	if p := n.proc.Load(); p != nil {
		for id, s := range p.sources {
			if g := n.group(uint32(id)); g != nil {
				oldest, _ := s.delay()
				say(oldest, "%s: its leader %s has owed an answer for %v", s.name, cmp.Or(g.leader(), "(none)"))
			}
		}
	}
	slices.Sort(list)
	return list
}
