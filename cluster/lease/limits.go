package lease

import "time"

const (
	// Renew is how often a node asks: ten times in a lease, so that some
	// lost or late answers do no harm.
	Renew = 300 * time.Millisecond

	// Duration is how long a lease runs from when its holder asked for it. It
	// outlasts an election of the directory's leader (≈ 1 s), during which
	// nothing is granted.
	Duration = 3 * time.Second

	// Count is how long a leader counts a lease: 5 % longer, as the holder's
	// clock may run slower than the leader's.
	Count = Duration + Duration/20

	// LagLimit is how long a process may lack an entry that the leader's copy
	// has, before its lease is not renewed. Longer than an election of the
	// directory's leader, after which a copy may have to wait for commits.
	LagLimit = 2 * time.Second

	// CloseAfter is how long after its lease a node keeps its clients: it may
	// still be renewed.
	CloseAfter = 800 * time.Millisecond

	// DeadAfter is how long after the leader's count lapsed a node is declared
	// dead: later than a node that only lost its lease has closed its clients,
	// also by a slow clock, so that they do not meet themselves.
	DeadAfter = 1150 * time.Millisecond

	// newcomerPatience is how long a process that was never granted a lease may
	// keep silent before it is declared dead. It counts for nothing until then.
	newcomerPatience = Count + DeadAfter

	// repeatDead is how long a NodeDown may take before it is proposed again.
	repeatDead = time.Second

	// stall is the longest time between two calls of a process that runs: nodes
	// ask every 300 ms, the leader's own among them. After a longer one the
	// process itself was suspended, and what it did not hear says nothing.
	stall = 2 * Renew
)

// Never is later than every time.
const Never = time.Duration(1<<63 - 1)
