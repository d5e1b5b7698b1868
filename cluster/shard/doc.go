// Package shard is the replicated state of one shard: the registry of sessions
// and, for durable ones, everything that must survive. Subscriptions, queues,
// QoS 2 exchanges, and the outbox of what the shard makes others do.
//
// Machine is pure. Apply is a function of the state, one log entry and its
// index: it reads no clock, draws nothing at random, never depends on the order
// of a map, does no I/O. So replicas that applied the same entries are equal,
// which Digest shows.
//
// Machine has no locks and starts no goroutines. Its owner calls Apply, Freeze,
// Done and Restore exclusively; the methods that only read may run at the same
// time as each other. Checkpoint.Write runs beside all of them and takes the
// owner's lock in short steps.
//
// # Sessions
//
// A row exists for each Client Identifier that has an owner (an open
// connection), a durable session, or former owners. A connection is named by
// the place of its Open in the log: no number comes twice, so a command that
// names another connection than the owner is a late one and is answered "not
// the owner" without any change. A connection that lost the session stays in
// the row as a former owner until its node says that nothing of it is on the
// way any more (Drained) or its process is fenced.
//
// # Queues
//
// A matched message is stored once, as a body, with one reference for each
// session. References are numbered by seq from 1 in each incarnation of a
// session. The Packet Identifier is a function of seq, so a seq may be sent
// only while no unfinished one has the same identifier: sentHi, the highest seq
// that may have been sent, moves only here, in apply, and never back.
//
// # Time and Wills
//
// The clock is part of the state: every entry carries what its leader took for
// the time, and the clock is the highest so far. When an entry has moved it, what
// is due by it is done before the entry's proposals, a page for each entry;
// sessions with a deadline are in a heap. What needs the routes, which are not
// here (a Will that is due), waits in a list until the leader has matched it and
// proposes a Dispatch.
//
// # Checkpoints
//
// The state file lags behind memory. Freeze fixes the state at one index in
// little time: it takes the list of changed rows and starts a new generation.
// Write encodes the rows of the list later; an Apply that is about to change
// one of them before that encodes it first. Bodies are found through the rows
// that refer to them, so a message that was consumed before a checkpoint never
// reaches the file.
package shard
