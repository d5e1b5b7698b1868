// Package directory is the replicated directory: what every node of a cluster
// has to know of it. It owns the cluster's id and version, the nodes and which of
// their processes are alive, where the replicas of each shard are, which shard a
// Client Identifier or a Topic Name belongs to, and the routes: for each Topic
// Filter the shards that have durable subscribers of it and the processes that
// have transient ones.
//
// Machine is that state. It is pure: a function of the entries applied, without
// clock, randomness, goroutine or lock. It is the same on every replica after
// the same index, which Digest shows.
//
// Invariants:
//
//   - A node has at most one process that is up. Boots of a node only rise, and
//     nothing of a boot below MinBoot is taken or matched ever again.
//   - The fence number counts each NodeUp and NodeDown that changed something.
//     FencesSince tells anyone who knows fewer what they missed.
//   - A route of a source is what the highest RouteChange consumed from it says:
//     changes come on numbered streams (package stream), so none is lost,
//     doubled or overtaken.
//   - Match never shows a route of a fenced process, from the very entry that
//     fenced it on; its memory is given back in pages by the entries after it.
//
// Concurrency: Match and the methods that only read may run at the same time as
// each other; Apply, Freeze, Restore and (*Checkpoint).Done want the machine for
// themselves. (*Checkpoint).Write runs beside all of them and asks for the
// machine, in short turns, through the lock function that it is given. The
// machine's owner holds the lock.
package directory
