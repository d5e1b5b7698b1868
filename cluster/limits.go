package cluster

import "time"

// Limits of the replicated side, each with its reason.
const (
	// batchCommands and batchBytes bound one batch of a stream: large enough
	// to pay a commit's fixed cost (≈ 1.3 ms of CPU over three nodes) once for
	// many commands, small enough not to delay raft's heartbeats.
	batchCommands = 256
	batchBytes    = 256 << 10

	// entryBytes bounds one raft entry: hashicorp/raft suggests at most 512 KiB.
	// A larger message travels alone.
	entryBytes = 512 << 10

	// entriesInFlight is how many entries of a group are proposed and not yet
	// applied. Two keep the disk busy while the next batch fills; more only make
	// batches smaller.
	entriesInFlight = 2

	// batchesInFlight is the same for the batches of one stream.
	batchesInFlight = 2

	// proposeQueue bounds the proposals that wait for a group's batcher; beyond
	// it the sender of a stream waits, whose own queues are bounded by what
	// connections may have unfinished.
	proposeQueue = 256

	// openTimeout is how long a CONNECT may wait for its shard (P9: it is
	// answered within 2 s).
	openTimeout = 1800 * time.Millisecond

	// awayTimeout is how long a shard may be away before those who wait for it
	// are closed: longer than an election, a lapse and a fence together.
	awayTimeout = 15 * time.Second

	// settleTimeout is how long a session counts as connected after its connection has
	// closed, while what that handed over is not settled: a shard without a leader has
	// one in about a second, and a frozen node holds up a publish for 4.5 s.
	settleTimeout = 5 * time.Second

	// closeTimeout bounds the wait for connections of a fenced process to let
	// go; they have nothing to wait for themselves.
	closeTimeout = 10 * time.Second

	// fullTime is how long an outbox counts as full after its shard said so;
	// then a publish goes through and asks again.
	fullTime = 200 * time.Millisecond

	// retainedPage and retainedPageBytes bound one page of retained messages: a
	// commit's fixed cost is shared by many, and no connection waits for long.
	retainedPage      = 256
	retainedPageBytes = 256 << 10

	// replaysAtOnce bounds the sessions for which a shard's leader reads pages
	// at the same time; the others have their turn after them.
	replaysAtOnce = 16

	// lazyRetains bounds the retained messages of QoS 0 of one connection that
	// wait for their shards; what is beyond is dropped and counted.
	lazyRetains = 1024

	// takeoverAsk is how long a newcomer waits for a process that has its session,
	// and how long a call to it, or a shard's leader, may take: a dead node must not
	// hold up the newcomer. takeoverMost is how long it waits if that process has
	// answered, and is about to end what it has.
	takeoverAsk  = 500 * time.Millisecond
	takeoverMost = time.Second

	// takeoverPage bounds the connections in one such call. awaitBurst and awaitEvery
	// bound the calls of a process to a shard's leader that bring nothing: three
	// nodes stay below ten a second together.
	takeoverPage = 1024
	awaitBurst   = 4
	awaitEvery   = 500 * time.Millisecond

	// settleTime is how long a process must have been up before leaderships are
	// given to it: longer than it takes to catch up after a restart.
	settleTime = 10 * time.Second

	// silentTimeout is how long a leader may owe word on a stream before the sender
	// looks for another: longer than an election. A feed's leader says something
	// each feedBeat, so that it takes three late ones to lose it.
	silentTimeout = 3 * time.Second
	feedBeat      = time.Second

	// askTimeout bounds one question to a node that may lead a group, longer than
	// a commit there takes under load. operateTimeout bounds an operator's
	// command: longer than an election of the directory's leader.
	askTimeout     = 3 * time.Second
	operateTimeout = 15 * time.Second

	// transferElections bounds the wait for a leadership transfer, in election
	// timeouts: raft gives up after one.
	transferElections = 4

	// openStart is how many Opens of a process to a shard may be under way before
	// anything is known of it: a burst, some batches long. openMost and openLeast
	// bound what is learned: the first in memory, the second so that there is
	// always something to learn from.
	openStart = 1024
	openMost  = 16384
	openLeast = 16

	// openGoal is how long an Open should take: a fraction of openTimeout, many
	// commits. Above it the bound shrinks by openBackoff, below it grows by
	// openStep with each bound's worth of answers.
	openGoal    = 250 * time.Millisecond
	openBackoff = 0.7
	openStep    = 16.0

	// hangTime is how long a commit of the raft log may take before the disk
	// counts as hanging. It is two fsyncs, three when the file grows: a disk with
	// fsyncs of a second is slow, not dead. It must end well before awayTimeout,
	// with the election and the fence that follow.
	hangTime = 4 * time.Second
	hangTick = 250 * time.Millisecond

	// pulseTick is how often a process feels its own pulse. A tick that comes late
	// by more than standTime is a stand: half of what a leader's followers bear,
	// and more than a process waits that has one of fifteen turns on its processors.
	// standLimit of standWindow is
	// more than clients and raft bear without notice; a single stand counts for
	// standMost at most, since one pause, however long, says nothing of the next
	// second.
	pulseTick   = 100 * time.Millisecond
	standTime   = electionTimeout / 2
	standWindow = 5 * time.Second
	standMost   = time.Second
	standLimit  = 1500 * time.Millisecond

	// calmTime is how long after that a process wants no leaderships: longer than
	// standWindow, so that it does not come and go.
	calmTime = 2 * standWindow

	// spaceTick: a second of writing at full speed is a tenth of the default
	// min-free-bytes.
	spaceTick = time.Second

	// sayDelay is when somebody who keeps others waiting is named in the status:
	// an idle leader is heard twice in that time.
	sayDelay = time.Second

	// slowTime: a commit that takes longer names the disk as slow, in the log
	// and the metrics, for slowMemory.
	slowTime   = 500 * time.Millisecond
	slowMemory = 10 * time.Second

	// replaceTimeout is how long a node with a bad disk asks whether the others can
	// do without it, before it gives up and is started again: longer than gossip
	// takes to come together and a directory leader to be elected.
	replaceTimeout = 30 * time.Second

	// aliveTimeout is how long a replica may keep silent and still count as alive
	// when a group's configuration is changed: longer than a heartbeat on a busy
	// machine, shorter than a lease.
	aliveTimeout = 2 * time.Second

	// caughtUpEntries is how far a replica may be behind its leader and count as
	// caught up: with batches of up to 512 messages it is then some tens of
	// milliseconds of a full load behind, less than an election takes.
	caughtUpEntries = 64

	// reconcileEvery is how often the directory's leader looks whether replicas
	// are where they should be, moveEvery how often it looks at a move, waitEvery
	// at one that has to wait.
	reconcileEvery = time.Second
	moveEvery      = 50 * time.Millisecond
	waitEvery      = 200 * time.Millisecond

	// retryDelay paces what is tried again while a leader is unknown. Streams dial
	// up to retryMax apart while nobody takes what they have: a fraction of an
	// election.
	retryDelay = 20 * time.Millisecond
	retryMax   = 4 * retryDelay

	// dispatchPage is how many due messages are matched and proposed at once:
	// the Wills of a dead node's clients fill a few entries each.
	dispatchPage = 256

	// anchorInterval is how often a leader notes the wall time: what a shard may
	// lose of its time when all nodes restart, if their clocks do not agree then.
	anchorInterval = time.Minute

	// anchorRetry is after how long it asks again, at first, if the clocks did
	// not agree: other nodes may be about to start.
	anchorRetry = time.Second

	// wallTolerance is by how much two wall clocks may differ and agree still;
	// wallTimeout bounds the question.
	wallTolerance = 5 * time.Second
	wallTimeout   = 2 * time.Second

	// volatileBytes bounds QoS 0 messages waiting for one node, or for one
	// shard's leader: some hundred milliseconds of a busy link. What does not
	// fit is dropped and counted.
	volatileBytes = 8 << 20

	// holdTime is how long a shard's leader keeps a QoS 0 delivery for a session
	// whose node has not asked for it: feeds reach a new leader within some
	// retryDelays of its election.
	holdTime = 500 * time.Millisecond

	// feedLinger is how long a leader that leads no more may take to say what of
	// a feed's QoS 0 messages it has taken, and to send what it has.
	feedLinger = 300 * time.Millisecond

	// redispatchBytes bounds the messages of Shared Subscriptions that closed
	// connections left and that wait for another member.
	redispatchBytes = 64 << 20

	// passOnTimeout bounds how long a node that stops waits until other members
	// have what its connections left: two commits, and some more.
	passOnTimeout = 2 * time.Second

	// relieveInterval is how often a shard's leader looks whether messages wait
	// for members who are away while others are connected; relievePage bounds what
	// it looks at. It passes on relieveLimit messages of a Shared Subscription each
	// relievePace: what is passed on must not fill the queues of those who take
	// it.
	relieveInterval = 250 * time.Millisecond
	relievePage     = 1024
	relieveLimit    = 64
	relievePace     = 100 * time.Millisecond

	// feedSessionEntries is how many entries of one session go into one reply;
	// a session holds at most max(2 × window, 64) anyway.
	feedSessionEntries = 256

	// feedReplyBytes bounds one reply.
	feedReplyBytes = 256 << 10

	// outboxBatchBytes bounds one batch out of an outbox.
	outboxBatchBytes = 256 << 10

	// A checkpoint of a group is due when this much has changed since the last,
	// or when it has been quiet for a while: 64 k references a flush cost 2.5 µs
	// a message, 4 k cost 17.
	checkpointRefs    = 64 << 10
	checkpointBytes   = 32 << 20
	checkpointEntries = 16 << 10
	// checkpointLog makes one due by what the log has since the last, also of
	// messages that nobody gets.
	checkpointLog  = 64 << 20
	checkpointIdle = 10 * time.Second

	// defaultQueueMemory is what messages may take in memory, of all shards that
	// a node has a replica of. minDirty is the least that is worth a checkpoint.
	defaultQueueMemory = 512 << 20
	minDirty           = 256 << 10

	// trailingEntries of the log stay after a checkpoint for followers that are
	// a little behind, and for as long as an install takes: one that outlasts
	// them has to be done again.
	trailingEntries = 4096
	// trailingBytes bounds the same entries, of each group: they may have 512 KiB
	// and more.
	trailingBytes = 64 << 20

	// logCacheBytes bounds the tail cache of each group's log.
	logCacheBytes = 8 << 20
)

const (
	// electionTimeout is the default of Config.ElectionTimeout: a failover takes
	// about one second, and eight spinning processes on two cores cause no false
	// election (at 300 ms they caused 24).
	electionTimeout = 500 * time.Millisecond
	// commitTimeout is how often an idle leader tells its followers the commit
	// index; with raft's default of 50 ms two thirds of an idle cluster's calls
	// are these.
	commitTimeout = 500 * time.Millisecond
)
