package broker

import (
	"math"
	"time"
)

// Defaults of Config.
const (
	// memberScan bounds the members of a Shared Subscription that one message is
	// offered to: some microseconds.
	memberScan = 16
	// defaultLetGoRate: a node that stops sends its clients to the others no
	// faster than these take connections.
	defaultLetGoRate = 1000

	// defaultMaxPacketBytes is what people assume of a broker, and far above
	// what sensors send.
	defaultMaxPacketBytes = 1 << 20
	// defaultMaxInFlight: customary; more only moves the queue to the client.
	defaultMaxInFlight = 32
	// defaultReceiveMaximum lets a publisher keep a commit of some ms busy:
	// 1,024 per 5 ms is 200,000/s.
	defaultReceiveMaximum = 1024
	// defaultTopicAliasMaximum: a publisher with more topics than this gains
	// little from aliases; each costs its topic's bytes.
	defaultTopicAliasMaximum = 64
	// defaultMaxQueue bounds what waits for a slow or stalled transient client.
	defaultMaxQueue = 1000
	// defaultMaxQueueBytes: a thousand messages of 16 KB.
	defaultMaxQueueBytes = 16 << 20
	// defaultMaxOutputBytes bounds what is encoded and not yet written: enough
	// for a burst between two writes, small enough to have it for many clients.
	defaultMaxOutputBytes = 1 << 20
	// defaultMaxUnfinishedBytes bounds the messages of one publisher that wait
	// for their commit: ReceiveMaximum counts, but does not weigh.
	defaultMaxUnfinishedBytes = 8 << 20
	// defaultConnectRate for each processor: a CONNECT costs about 400 µs over all
	// nodes, so a storm takes less than half of them.
	defaultConnectRate = 1000
	// defaultMaxHalfOpen: at the default rate clients that send CONNECT at once
	// are far fewer; one in a TLS handshake takes some 30 KiB.
	defaultMaxHalfOpen = 2048
	// defaultConnectTimeout: a client on a bad line sends CONNECT within two
	// retransmissions; a port scanner never does.
	defaultConnectTimeout = 10 * time.Second
	// admissionTimeout is how long authentication may take: clients give up after
	// some ten seconds.
	admissionTimeout = 10 * time.Second
	// defaultPacketTimeout: the largest packet at 17 KB/s.
	defaultPacketTimeout = time.Minute
	// defaultStallTimeout: within a minute TCP has tried again several times.
	defaultStallTimeout = time.Minute
	// crowdSize bounds the addresses, or clients, that are counted (≈ 200 bytes
	// each).
	crowdSize = 1 << 16
	// maxStreamWrite bounds one write to a connection whose Write waits, so that
	// progress can be seen.
	maxStreamWrite = 32 << 10
	// defaultMaxKeepAlive is all that the field can say: no cap.
	defaultMaxKeepAlive = 65535 * time.Second
)

const (
	// readBytes is the chunk that one read takes. Larger ones gain nothing
	// measurable; buffers are pooled, so only busy connections have one.
	readBytes = 64 << 10
	// streamReadBytes is the first buffer of a connection whose goroutine waits
	// in Read and so keeps its buffer. It grows to readBytes when filled.
	streamReadBytes = 2 << 10
	// outputBytes is the first capacity of an output buffer.
	outputBytes = 4 << 10
	// keptOutputBytes is the largest output buffer that goes back to the pool.
	keptOutputBytes = 256 << 10
	// writeRounds is how often a flush writes one connection before a goroutine
	// of its own goes on: the flusher has others to serve.
	writeRounds = 4
	// flushShare is how many connections one goroutine flushes: a write takes
	// about 5 µs, and a fan-out should use all processors.
	flushShare = 16
	// epollEvents is how many events are taken from the kernel at once.
	epollEvents = 256

	// maxClientIDBytes bounds Client Identifiers. The standard asks for 23;
	// each is kept on every replica of its session's shard.
	maxClientIDBytes = 1024
	// maxSubscriptions bounds the Topic Filters of one transient session
	// (≈ 250 bytes each here, and a route on every node).
	maxSubscriptions = 100_000
	// maxCachedTopics bounds the cache of matches (≈ 200 bytes each). Beyond it
	// the cache starts anew: cheaper than keeping an order of use.
	maxCachedTopics = 1 << 16
	// maxAsked bounds the requests of a connection that are unanswered, by weight:
	// the largest packet by default, or some thousand PUBRELs. askedBytes is what a
	// request, or a filter of it, takes beside its text, here and in the streams.
	maxAsked   = 1 << 20
	askedBytes = 256
	// lingerTime is how long a connection that was told why it ends may take to
	// read that before it is cut.
	lingerTime = 2 * time.Second
	// lineTime is how long what a client sent before its end may wait for earlier
	// packets: a shard without a leader has one in about a second, and a frozen
	// node holds up a SUBACK for 4.5 s.
	lineTime = 6 * time.Second
	// maxLineBytes bounds the packets of a connection that wait for earlier ones; a
	// client with more is not read. A packet is taken whole.
	maxLineBytes = 1 << 20
	// maxExchanges bounds the QoS 2 exchanges that an MQTT 3 client has begun and
	// not completed. A shard keeps no more of one publisher.
	maxExchanges = 1024
	// maxRetaining bounds the retained messages of QoS 0 of one client that are on
	// their way to their registers; a client with more is not read.
	maxRetaining = 512
	// arrivedTime is how long the reader of a connection that waits in Read may take
	// for what has arrived, when the connection is about to end. finalChunks are
	// read of others.
	arrivedTime = 20 * time.Millisecond
	finalChunks = 16
	// keepAliveFactor: one and a half times the Keep Alive ([MQTT-3.1.2-22]).
	keepAliveFactor = 1.5
	// complainEvery is how often the log tells that logins are refused, or cannot be
	// decided: whoever tries passwords must not fill it.
	complainEvery = time.Second
	// proofLook is how often a connection is looked at whose proof of identity will
	// end: the wheel has no room for days.
	proofLook = time.Hour
	// sweepInterval is how exact deadlines are.
	sweepInterval = time.Second
	// maxSentAliases bounds the Topic Aliases given to a client: few topics
	// carry most of what one client gets, and each costs its bytes here.
	maxSentAliases = 32
	// minAliasedTopic: an alias takes three bytes of properties.
	minAliasedTopic = 6
	// replayOutputBytes is how much output may wait while retained messages are
	// sent: enough for full segments, little enough for PINGRESP and live
	// messages behind it.
	replayOutputBytes = 64 << 10
	// maxPrefetchTime is how long SUBACK waits for the first page of a replay.
	maxPrefetchTime = 2 * time.Second
	// maxLiveTopics bounds, twice, the topics noted during a replay (≈ 40 bytes
	// each).
	maxLiveTopics = 1 << 14
	// minReplayBackoff and maxReplayBackoff: a shard without a leader has one in
	// about a second; a cluster without a quorum may take long.
	minReplayBackoff = 100 * time.Millisecond
	maxReplayBackoff = 5 * time.Second
	// maxExpiryMs keeps a Message Expiry Interval, of 32 bits in seconds, within
	// a time.Duration, whatever a message says.
	maxExpiryMs = math.MaxUint32 * 1000
	// minWindow: Outbound wants at least one.
	minWindow = 1
	// acceptBurst is how many seconds' worth of connections may be accepted at
	// once.
	acceptBurst = .25
	// acceptLeast is the least rate: a fleet has to get in at last, and one
	// connection costs less than a ms.
	acceptLeast = 50.0
	// probeTick is how often lateness is probed while connections come, and for
	// probeQuiet after: every few ms, for each costs some µs.
	probeTick  = 10 * time.Millisecond
	probeQuiet = time.Second
	// probeLate is too late: a tenth of the time in which a leader has to be heard.
	// Then fewer are accepted, by probeBackoff each time; else by probeStep of the
	// highest rate more.
	probeLate    = 25 * time.Millisecond
	probeBackoff = .7
	probeStep    = .005
	// acceptPause is the least pause of a listener that has no token: what comes
	// meanwhile is accepted together.
	acceptPause = 2 * time.Millisecond

	// memoryTick is how often memory is looked at (≈ 1 µs); at full speed some
	// ten MiB come between two looks.
	memoryTick = 100 * time.Millisecond
	// memoryPortion is for how many ticks a publisher is not read while memory is
	// short: then it may send readBytes again.
	memoryPortion = 5
	// memoryCollect is how long the garbage collector may be quiet while memory
	// is short.
	memoryCollect = 2 * time.Second
	// memoryShed is the time between two closings, long enough for a collection
	// to show what the last has brought. memoryPatience is for how long clients may
	// be refused before the slowest have to go: longer than a burst.
	memoryShed     = time.Second
	memoryPatience = 10 * time.Second
	// memoryWorth is what a client must hold to be worth closing.
	memoryWorth = 16 << 10
	// memoryBack is how far below its mark a level ends, as part of the limit.
	memoryBack = .04

	// acceptBackoff is the pause after an Accept that failed, as for want of
	// descriptors: closing connections need time to give some back.
	acceptBackoff = 50 * time.Millisecond
)
