package cluster

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalmq/shoal/cluster/shard"
)

// metrics of the replicated side. Labels are few and bounded.
type metrics struct {
	registry prometheus.Registerer
	dropped  *prometheus.CounterVec
	fenced   prometheus.Counter
	delays
	diskHangs prometheus.Counter
	// opensRefused counts CONNECTs that admission refused.
	opensRefused prometheus.Counter
	// takeoverAsked counts calls to other nodes about connections that are taken
	// over.
	takeoverAsked prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		registry: r, delays: newDelays(),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_cluster_messages_dropped_total",
			Help: "QoS 0 messages dropped between nodes, by reason.",
		}, []string{"reason"}),
		fenced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_cluster_fenced_total",
			Help: "How often the cluster took this node for dead.",
		}),
	}
	m.diskHangs = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "shoal_disk_hangs_total",
		Help: "How often the disk did not answer and this node fell silent.",
	})
	m.takeoverAsked = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "shoal_takeover_calls_total",
		Help: "Calls to other nodes about connections that are taken over.",
	})
	m.opensRefused = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "shoal_opens_refused_total",
		Help: "CONNECTs refused because too many were under way to their shard.",
	})
	if r != nil {
		r.MustRegister(m.dropped, m.fenced, m.diskHangs, m.opensRefused, m.takeoverAsked)
		r.MustRegister(m.delays.collectors()...)
	}
	return m
}

// leaderMoved counts QoS 0 deliveries to durable sessions that were lost because
// a shard's leader changed.
func (m *metrics) leaderMoved(n int) {
	if n > 0 {
		m.dropped.WithLabelValues("leader_moved").Add(float64(n))
	}
}

// observe registers what is read from the node when metrics are asked for.
func (m *metrics) observe(n *Node) {
	if m.registry == nil {
		return
	}
	m.registry.MustRegister(&collector{n: n})
}

// collector reads gauges from the groups.
type collector struct{ n *Node }

var (
	descLease    = prometheus.NewDesc("shoal_cluster_lease_valid", "1 while this node holds a lease of the directory's leader.", nil, nil)
	descReady    = prometheus.NewDesc("shoal_cluster_ready", "1 while this node can serve clients.", nil, nil)
	descLeads    = prometheus.NewDesc("shoal_raft_leader", "1 if this node leads the group.", []string{"group"}, nil)
	descTerm     = prometheus.NewDesc("shoal_raft_term", "Current term of the group.", []string{"group"}, nil)
	descApplied  = prometheus.NewDesc("shoal_raft_applied_index", "Last applied index of the group.", []string{"group"}, nil)
	descFence    = prometheus.NewDesc("shoal_cluster_fence_number", "Fence number of this node's copy of the directory.", nil, nil)
	descSessions = prometheus.NewDesc("shoal_shard_sessions", "Sessions in this replica, by class.", []string{"group", "class"}, nil)
	descQueued   = prometheus.NewDesc("shoal_shard_queued_messages", "Unfinished queue entries in this replica.", []string{"group"}, nil)
	descBytes    = prometheus.NewDesc("shoal_shard_body_bytes", "Stored messages in this replica: all of them, and what of them is in memory.", []string{"group", "where"}, nil)
	descOutbox   = prometheus.NewDesc("shoal_shard_outbox_entries", "Unanswered outbox entries in this replica.", []string{"group"}, nil)
	descRetained = prometheus.NewDesc("shoal_shard_retained_messages", "Retained messages of the topics in this replica.", []string{"group"}, nil)
	descRegister = prometheus.NewDesc("shoal_shard_retained_bytes", "What they take in memory.", []string{"group"}, nil)
	descReplays  = prometheus.NewDesc("shoal_shard_replaying_sessions", "Durable sessions in this replica that are owed retained messages.", []string{"group"}, nil)
	descLoaded   = prometheus.NewDesc("shoal_shard_messages_loaded_total", "Messages that had left memory and were read back to be sent.", []string{"group"}, nil)
	descDue      = prometheus.NewDesc("shoal_shard_due_messages", "Wills and re-dispatched messages in this replica that wait to be matched.", []string{"group"}, nil)
	descWills    = prometheus.NewDesc("shoal_shard_wills_total", "Wills that became due, from replicated state; told by the shard's leader alone.", []string{"group"}, nil)
	descEnqueued = prometheus.NewDesc("shoal_shard_messages_enqueued_total", "Copies put into queues of durable sessions, from replicated state; told by the shard's leader alone.", []string{"group"}, nil)
	descAcked    = prometheus.NewDesc("shoal_shard_messages_acked_total", "Copies out of queues of durable sessions that their clients acknowledged; told by the shard's leader alone.", []string{"group"}, nil)
	descPassed   = prometheus.NewDesc("shoal_shard_messages_redispatched_total", "Copies that went from a member of a Shared Subscription to another; told by the shard's leader alone.", []string{"group"}, nil)
	descLost     = prometheus.NewDesc("shoal_shard_messages_dropped_total", "Copies for durable sessions, and messages in outboxes, that were not delivered, from replicated state; told by the shard's leader alone.", []string{"group", "reason"}, nil)
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descLease, descReady, descLeads, descTerm, descApplied, descFence,
		descSessions, descQueued, descBytes, descOutbox, descRetained, descRegister, descReplays, descDue, descWills, descLoaded, descEnqueued, descAcked, descPassed, descLost} {
		ch <- d
	}
	for _, d := range delayDescs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(descLease, truth(c.n.lease.valid()))
	gauge(descReady, truth(c.n.Ready() == nil))
	gauge(descFence, float64(c.n.fenceNumber()))
	c.n.collectDelays(gauge)
	for _, g := range c.n.allGroups() {
		gauge(descLeads, truth(g.leads()), g.name)
		gauge(descTerm, float64(g.raftNow.Load().CurrentTerm()), g.name)
		gauge(descApplied, float64(g.applied()), g.name)
		if g.id == 0 {
			continue
		}
		var s shard.Stats
		g.read(func(m machine) { s = m.(*shardMachine).Stats() })
		gauge(descSessions, float64(s.Durable), g.name, "durable")
		gauge(descSessions, float64(s.Sessions-s.Durable), g.name, "transient")
		gauge(descQueued, float64(s.Queued), g.name)
		gauge(descBytes, float64(s.BodyBytes), g.name, "all")
		gauge(descBytes, float64(s.MemoryBytes), g.name, "memory")
		gauge(descOutbox, float64(s.OutboxEntries), g.name)
		ch <- prometheus.MustNewConstMetric(descLoaded, prometheus.CounterValue, float64(g.loaded.Load()), g.name)
		gauge(descRetained, float64(s.Retained), g.name)
		gauge(descRegister, float64(s.RetainedBytes), g.name)
		gauge(descReplays, float64(s.Replays), g.name)
		gauge(descDue, float64(s.Due), g.name)
		if g.leads() {
			c.account(ch, g.name, &s)
		}
	}
}

// account tells what became of copies for durable sessions. The counters are
// replicated: the leader alone tells them, so that sums over nodes are right.
func (c *collector) account(ch chan<- prometheus.Metric, group string, s *shard.Stats) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), append([]string{group}, labels...)...)
	}
	counter(descWills, s.Wills)
	counter(descEnqueued, s.Enqueued)
	counter(descAcked, s.Acked)
	counter(descPassed, s.Redispatched)
	for reason, v := range map[string]uint64{
		"queue_full": s.QueueFull, "dropped_oldest": s.DroppedOldest, "rejected": s.Rejected,
		"session_ended": s.SessionEnded, "no_member": s.NoMember, "expired": s.Expired,
		"subscriber_node_dead": s.OutboxFenced, "refused_by_target": s.OutboxRefused,
	} {
		counter(descLost, v, reason)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
