package shard

// Limits of a shard, each with its reason. Those that a Config can change must
// be the same on all replicas: apply decides by them.
const (
	// defaultQueueEntries bounds the unfinished entries of one session: a
	// client that is away for a day and gets one message a second.
	// defaultQueueBytes bounds the contents of them, 2.6 KB each.
	defaultQueueEntries = 100_000
	defaultQueueBytes   = 256 << 20

	// maxLimit is as good as none, and fits an int of 32 bits.
	maxLimit = 1<<31 - 1

	// sharedLimits bounds how many different limits sessions share: they come
	// from the configuration of nodes, which is all but equal.
	sharedLimits = 64

	// minHoles is how many numbers of dropped messages are left alone before
	// unsent entries are numbered anew.
	minHoles = 64

	// pickScan bounds the members of a Shared Subscription that one message is
	// compared for, from the next in turn on: about a microsecond.
	pickScan = 64

	// evictStep and evictStepBytes bound the messages that leave memory in one step
	// of the lock: about 0.2 ms, mostly for their checksums. minDead is how many
	// dead ones are left in the list of those that may.
	evictStep      = 512
	evictStepBytes = 1 << 20
	minDead        = 1024

	// messageOverhead is about what Go adds to a message's contents.
	messageOverhead = 200

	// defaultSubscriptions bounds the subscriptions of one session, so that one
	// row stays below a megabyte.
	defaultSubscriptions = 10_000

	// defaultOutboxEntries and defaultOutboxBytes are where an outbox is called
	// full, so that nodes stop reading publishers that need its target. It is
	// no hard bound: what already has a number is taken.
	defaultOutboxEntries = 64 << 10
	defaultOutboxBytes   = 64 << 20

	// defaultRestoreBytes is all that a small shard has.
	defaultRestoreBytes = 64 << 20

	// maxReceived bounds the unfinished QoS 2 exchanges of one publisher. The
	// front end does not read beyond the Receive Maximum, which is far lower.
	maxReceived = 1024

	// deadlinePage and deadlineRefs bound what time alone does in one entry:
	// sessions, and queue entries that go with them. A few milliseconds of
	// apply; the leader proposes a Tick for the next page.
	deadlinePage = 1000
	deadlineRefs = 100_000

	// segmentRefs is how many entries of a queue have a row together: about two
	// hundred bytes. sessionRowRefs is how many of the youngest are in the session's
	// row, which each message writes anyway, before they go into that of a segment
	// at once. Together they make a message to a long queue cost at most twice of
	// one to an empty queue. maxSegmentRefs is what a row may span that another
	// build wrote.
	segmentRefs    = 64
	sessionRowRefs = 16
	maxSegmentRefs = 64 << 10

	// sweepPage bounds the sessions, and the outbox entries, that one entry sweeps
	// after a fence: a few milliseconds of apply. The leader proposes Ticks for the
	// next pages, so 100,000 sessions take some fifty commits.
	sweepPage = 2000

	// minGone is how many connections that have gone are left among those of a
	// process before the others close up.
	minGone = 64

	// defaultRetained bounds the retained messages of one shard: what is beyond
	// is answered with 0x97.
	defaultRetained = 1_000_000

	// retainedScan bounds the levels of topics that one read of retained messages
	// looks at in vain, as apply waits meanwhile: about a millisecond.
	retainedScan = 4096

	// replayQueue is up to how many unfinished entries a replay of retained
	// messages fills a queue; it goes on when half of them are gone.
	replayQueue = 512

	// maxReplayLive bounds the topics that a replay remembers to leave out, in
	// each of two generations: of more, some may come once more.
	maxReplayLive = 32 << 10

	// minSendable is the least number of unfinished entries that may be sent
	// ahead of what a client with a small window takes: enough to keep the
	// connection busy while an acknowledgement is being committed.
	minSendable = 64

	// identifierSpan is how far the highest sendable seq may be above the
	// lowest unfinished one: with 65,535 identifiers, the next one would be
	// the same as that of the unfinished entry.
	identifierSpan = 65_534

	// maxCommands bounds the commands of one entry: a connection's number has
	// positionBits for its place. Leaders make entries of up to 512.
	positionBits = 20
	maxCommands  = 1<<positionBits - 1

	// spareQueues and spareQueueEntries bound the emptied queues that are kept
	// for the next session that gets a message.
	spareQueues       = 1024
	spareQueueEntries = 64

	// maxNameKey is the longest name that is its own key in the state file: a
	// page of the B+tree should hold several.
	maxNameKey = 512

	// writeRows and writeBytes bound what a checkpoint encodes in one step of
	// the lock: about 0.2 ms.
	writeRows  = 128
	writeBytes = 64 << 10
)
