// Package cluster is the replicated side of a node: what must survive a node's
// death, and how it reaches the other nodes.
//
// # Parts
//
//   - group: one raft group (the directory, or one shard): its raft instance,
//     the state machine behind a lock, the batcher through which everything is
//     proposed, and what runs only while this node leads it.
//   - process: one boot of this node as the others see it. It owns everything
//     numbered: the sources (streams of this node to groups), the forwarders
//     (streams to other nodes), the links (open connections' doors) and the
//     routes of transient subscribers. A fenced process is dropped whole and a
//     new one takes the next boot; the operating system's process goes on.
//   - lease client and lease server: whether this node may act on its copy of
//     the directory, and up to which index all such copies are current.
//   - shardLead: what the leader of a shard does besides committing: feeding
//     entries to the nodes that hold connections, emptying the outbox, handing
//     on fences.
//
// # Acknowledgements
//
// Nothing in this package calls a done function with a nil error before a
// quorum has fsynced what it stands for; every path ends in group.propose,
// whose completion comes from raft after commit and apply.
//
// # Locks
//
// Each lock guards memory only; none is held over a write to a connection, an
// RPC, a proposal or a done function. An arrow means "may be taken while the
// other is held":
//
//	link.mu → source.mu             ownRoutes.mu → source.mu
//	process.mu → link.mu            process.mu → group.mu
//	shardLead.mu → feedSeat.mu → group.mu
//	leaseServer.mu, visibility.mu → group.mu → Node.mu, leaseClient.mu
//	Node.passing, inbox.mu → the front end's Deliver, which never waits: the
//	order of a stream is the order of its deliveries
//
// The apply goroutine of a group holds group.mu for writing while it applies,
// and hands on effects after it has let go.
//
// # Goroutines
//
// Each is started through tasks.run of its owner (node, process, group or lead)
// and its owner's stop waits for it.
package cluster
