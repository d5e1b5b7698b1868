package directory

const (
	// Slots is the number of slots that keys hash to. It is part of the format:
	// 1024 lets a cluster of 100 shards be balanced within 10 %.
	Slots = 1024

	// MaxShards bounds the shards of a cluster: with more shards than slots some
	// would be empty.
	MaxShards = Slots

	// Replicas is how many replicas a shard has, fewer while the cluster is
	// smaller: with three, any one node may die.
	Replicas = 3

	// MaxReplicas bounds a placement: more than three during moves and by an
	// operator's wish, but each costs a write of everything.
	MaxReplicas = 7

	// refusedDisks is how many former disks of a node are remembered, so that each
	// is told why it is refused. One that is forgotten comes in as a new server,
	// which is safe: raft knows it under no name that counts.
	refusedDisks = 64

	// recoverJump is how far boots and the fence number are raised by a recovery:
	// beyond all that the lost nodes can have reached after this copy was made.
	recoverJump = 1 << 20

	// keyBytes is the longest Topic Filter that is the key of its row; longer ones
	// are found by hash. Keys of a state file may have 16 KiB, and short keys
	// keep its tree flat.
	keyBytes = 1024

	// sweepPage is how many routes of dead processes each entry clears away. It
	// keeps the longest apply at about a millisecond; a dead node with a million
	// routes is cleared away by a thousand entries.
	sweepPage = 1024

	// checkpointPage is how many routes a checkpoint encodes per turn of the
	// lock: about a millisecond for which matching waits.
	checkpointPage = 1024
)
