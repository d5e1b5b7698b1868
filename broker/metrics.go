package broker

import (
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalmq/shoal/broker/packet"
)

// drop is why a copy of a message did not reach its client. Every copy that
// matched is delivered, queued, expired, or dropped for one of these.
type drop int

const (
	// dropOutputFull: QoS 0, and the connection's output was full.
	dropOutputFull drop = iota
	// dropQueueFull: QoS 1 or 2, and the transient session's queue was full and
	// took no newer ones.
	dropQueueFull
	// dropTooLarge: larger than the client's Maximum Packet Size
	// ([MQTT-3.1.2-25]).
	dropTooLarge
	// dropClosed: the connection of the transient session ended.
	dropClosed
	// dropExpired: Message Expiry Interval.
	dropExpired
	// dropMemory: QoS 0, the server is short of memory and the connection's
	// output was not empty.
	dropMemory
	// dropOldest: QoS 1 or 2, made room for a newer one in a full queue.
	dropOldest
	// dropNoMember: QoS 0, and the Shared Subscription's members had gone.
	dropNoMember
	// dropPassedOn: the connection ended before the message was sent, and another
	// member of the Shared Subscription gets it.
	dropPassedOn
	// dropNotAuthorized: the client may not receive it (Permissions.Receive).
	dropNotAuthorized
	drops
)

var dropNames = [drops]string{"output_full", "queue_full", "packet_too_large", "connection_closed", "expired", "memory", "dropped_oldest", "no_member", "passed_on", "not_authorized"}

// refusal is why a PUBLISH became no message.
type refusal int

const (
	// refusedNotAuthorized: Permissions.Publish.
	refusedNotAuthorized refusal = iota
	// refusedEnded: the connection ended while the packet waited for earlier ones.
	refusedEnded
	refusals
)

var refusalNames = [refusals]string{"not_authorized", "connection_ended"}

// metrics are plain counters; collecting turns them into Prometheus' own.
type metrics struct {
	connections    atomic.Int64
	connects       atomic.Uint64 // accepted CONNECTs
	refused        atomic.Uint64 // refused CONNECTs
	bytesReceived  atomic.Uint64
	bytesSent      atomic.Uint64
	packets        [16]atomic.Uint64 // received, by type
	packetsSent    [16]atomic.Uint64
	received       [3]atomic.Uint64 // messages, by QoS
	delivered      [3]atomic.Uint64
	publishRefused [refusals]atomic.Uint64
	matched        atomic.Uint64
	redelivered    atomic.Uint64
	queued         atomic.Int64
	dropped        [drops]atomic.Uint64
	subscriptions  atomic.Int64
	keepAliveEnded atomic.Uint64
	proofEnded     atomic.Uint64
	limits         [limits]atomic.Uint64
	logins         [logins]atomic.Uint64
	halfOpenClosed atomic.Uint64
	memoryPaused   atomic.Uint64
	memoryClosed   atomic.Uint64
	broker         *Broker
	doors          doors
	ackDelays      [2]delays // by QoS, 1 and 2
}

// description names one metric and how to read it.
type description struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(*metrics, func(value float64, labels ...string))
}

func describe(name, help string, kind prometheus.ValueType, labels []string, read func(*metrics, func(float64, ...string))) description {
	return description{prometheus.NewDesc("shoal_"+name, help, labels, nil), kind, read}
}

func single(name, help string, kind prometheus.ValueType, value func(*metrics) float64) description {
	return describe(name, help, kind, nil, func(m *metrics, emit func(float64, ...string)) { emit(value(m)) })
}

func total(name, help string, counter func(*metrics) *atomic.Uint64) description {
	return single(name, help, prometheus.CounterValue, func(m *metrics) float64 { return float64(counter(m).Load()) })
}

func gauge(name, help string, value func(*metrics) *atomic.Int64) description {
	return single(name, help, prometheus.GaugeValue, func(m *metrics) float64 { return float64(value(m).Load()) })
}

// vector emits one value for each named counter of a slice.
func vector(name, help, label string, names []string, counters func(*metrics) []atomic.Uint64) description {
	return describe(name, help, prometheus.CounterValue, []string{label}, func(m *metrics, emit func(float64, ...string)) {
		cs := counters(m)
		for i := range cs {
			if names[i] != "" {
				emit(float64(cs[i].Load()), names[i])
			}
		}
	})
}

// byListener emits a value for each listener.
func byListener(name, help string, kind prometheus.ValueType, value func(*doorCounts) float64) description {
	return describe(name, help, kind, []string{"listener"}, func(m *metrics, emit func(float64, ...string)) {
		m.doors.each(func(name string, d *doorCounts) { emit(value(d), name) })
	})
}

func typeNames() []string {
	names := make([]string, 16)
	for t := packet.TypeConnect; t <= packet.TypeAuth; t++ {
		names[t] = strings.ToLower(t.String())
	}
	return names
}

func qosNames() []string {
	return []string{strconv.Itoa(0), strconv.Itoa(1), strconv.Itoa(2)}
}

var descriptions = []description{
	gauge("connections", "Connections that are open.", func(m *metrics) *atomic.Int64 { return &m.connections }),
	gauge("subscriptions_transient", "Subscriptions of transient sessions.", func(m *metrics) *atomic.Int64 { return &m.subscriptions }),
	gauge("messages_queued", "QoS 1 and 2 messages that wait for the window of a transient client.", func(m *metrics) *atomic.Int64 { return &m.queued }),
	total("connects_accepted_total", "CONNECT packets answered with success.", func(m *metrics) *atomic.Uint64 { return &m.connects }),
	total("connects_refused_total", "CONNECT packets refused.", func(m *metrics) *atomic.Uint64 { return &m.refused }),
	total("received_bytes_total", "Bytes read from clients.", func(m *metrics) *atomic.Uint64 { return &m.bytesReceived }),
	total("sent_bytes_total", "Bytes written to clients.", func(m *metrics) *atomic.Uint64 { return &m.bytesSent }),
	total("messages_matched_total", "Copies of messages for subscribers here; each is delivered, queued or dropped.", func(m *metrics) *atomic.Uint64 { return &m.matched }),
	total("messages_redelivered_total", "Messages sent again on a new connection (DUP).", func(m *metrics) *atomic.Uint64 { return &m.redelivered }),
	total("keep_alive_timeouts_total", "Connections closed for want of packets.", func(m *metrics) *atomic.Uint64 { return &m.keepAliveEnded }),
	total("identities_expired_total", "Connections closed because what proved who the client is had expired.", func(m *metrics) *atomic.Uint64 { return &m.proofEnded }),
	total("half_open_closed_total", "Connections closed because too many had sent no CONNECT, or were not through with AUTH.", func(m *metrics) *atomic.Uint64 { return &m.halfOpenClosed }),
	single("connections_half_open", "Connections that have not sent CONNECT, or are not through with AUTH.", prometheus.GaugeValue, func(m *metrics) float64 { return float64(m.broker.gate.count()) }),
	single("connect_rate", "Connections that are accepted per second at most, now; 0 for no bound.", prometheus.GaugeValue, func(m *metrics) float64 { return m.broker.gate.now() }),
	single("memory_limit_bytes", "Memory that the process may use, 0 for no limit.", prometheus.GaugeValue, func(m *metrics) float64 { return float64(m.broker.memory.limit) }),
	single("memory_used_bytes", "Memory in use when last looked at: alive at the last garbage collection, and all that is not heap.", prometheus.GaugeValue, func(m *metrics) float64 { return float64(m.broker.memory.last.Load()) }),
	single("memory_level", "0 enough memory, 1 CONNECT is refused, 2 publishers are paused, 3 QoS 0 is dropped, 4 the slowest clients are closed.", prometheus.GaugeValue, func(m *metrics) float64 { return float64(m.broker.memory.level.Load()) }),
	total("memory_publishers_paused_total", "Pauses of clients that published while memory was short.", func(m *metrics) *atomic.Uint64 { return &m.memoryPaused }),
	total("memory_clients_closed_total", "Clients closed because memory was short and they held most.", func(m *metrics) *atomic.Uint64 { return &m.memoryClosed }),
	vector("authentications_total", "Clients that an authenticator was asked about; unavailable are those it could not find out about, which are refused.", "result", loginNames[:], func(m *metrics) []atomic.Uint64 { return m.logins[:] }),
	vector("limits_hit_total", "Limits that clients came up against; each time a rate was exceeded, and each packet, subscription or connection that was refused or ended.", "limit", limitNames[:], func(m *metrics) []atomic.Uint64 { return m.limits[:] }),
	byListener("listener_connections", "Connections that are open, by listener.", prometheus.GaugeValue, func(d *doorCounts) float64 { return float64(d.connections.Load()) }),
	byListener("listener_connects_accepted_total", "CONNECT packets answered with success, by listener.", prometheus.CounterValue, func(d *doorCounts) float64 { return float64(d.connects.Load()) }),
	byListener("listener_connects_refused_total", "CONNECT packets refused, by listener.", prometheus.CounterValue, func(d *doorCounts) float64 { return float64(d.refused.Load()) }),
	describe("listener_handshakes_failed_total", "Connections that failed before MQTT began: PROXY header, TLS, WebSocket.", prometheus.CounterValue, []string{"listener", "reason"}, func(m *metrics, emit func(float64, ...string)) {
		m.doors.each(func(name string, d *doorCounts) {
			for i := range d.failed {
				emit(float64(d.failed[i].Load()), name, openFailures[i])
			}
		})
	}),
	vector("packets_received_total", "Control Packets received.", "type", typeNames(), func(m *metrics) []atomic.Uint64 { return m.packets[:] }),
	vector("packets_sent_total", "Control Packets put into a connection's output.", "type", typeNames(), func(m *metrics) []atomic.Uint64 { return m.packetsSent[:] }),
	vector("messages_received_total", "Messages published by clients.", "qos", qosNames(), func(m *metrics) []atomic.Uint64 { return m.received[:] }),
	vector("publishes_refused_total", "PUBLISH packets that became no message.", "reason", refusalNames[:], func(m *metrics) []atomic.Uint64 { return m.publishRefused[:] }),
	vector("messages_delivered_total", "Messages put into a client's output.", "qos", qosNames(), func(m *metrics) []atomic.Uint64 { return m.delivered[:] }),
	vector("messages_dropped_total", "Copies of messages that did not reach their client.", "reason", dropNames[:], func(m *metrics) []atomic.Uint64 { return m.dropped[:] }),
}

// delays is a histogram that costs two atomic adds.
type delays struct {
	buckets [len(delayBounds) + 1]atomic.Uint64
	sum     atomic.Int64 // nanoseconds
}

// delayBounds are the buckets' upper bounds: from a fast commit to where clients
// give up.
var delayBounds = [...]time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

func (d *delays) observe(took time.Duration) {
	i := 0
	for i < len(delayBounds) && took > delayBounds[i] {
		i++
	}
	d.buckets[i].Add(1)
	d.sum.Add(int64(took))
}

var descAckDelays = prometheus.NewDesc("shoal_publish_ack_seconds",
	"From PUBLISH to its PUBACK or PUBREC: commit by a quorum, and those of earlier messages.", []string{"qos"}, nil)

func (d *delays) collect(ch chan<- prometheus.Metric, qos string) {
	bounds := make(map[float64]uint64, len(delayBounds))
	var count uint64
	for i, bound := range delayBounds {
		count += d.buckets[i].Load()
		bounds[bound.Seconds()] = count
	}
	count += d.buckets[len(delayBounds)].Load()
	ch <- prometheus.MustNewConstHistogram(descAckDelays, count, time.Duration(d.sum.Load()).Seconds(), bounds, qos)
}

// Describe is part of prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descriptions {
		ch <- d.desc
	}
	ch <- descAckDelays
}

// Collect is part of prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, d := range descriptions {
		d.read(m, func(value float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d.desc, d.kind, value, labels...)
		})
	}
	m.ackDelays[0].collect(ch, "1")
	m.ackDelays[1].collect(ch, "2")
}
