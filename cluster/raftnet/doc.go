// Package raftnet carries hashicorp/raft between nodes: one raft.Transport for
// each group, all of them over gRPC streams of one port, one mutual TLS.
//
// # What it owns
//
//   - Pool: the gRPC connections to other nodes, one for each (node, Class).
//     Addresses are asked for and resolved anew at each dial; no IP is kept.
//   - Codec: the gRPC codec that passes encoded bytes unchanged.
//   - Mux: the gRPC service that receives for all groups of this node, and the
//     check of who is spoken to.
//   - Transport: one group's raft.Transport, with pre-vote and pipelining.
//
// # Who is spoken to
//
// A server's ID and its address are both "node/disk". The node part is looked
// up at each dial; the disk part is checked by the receiver: the first frame of
// every stream names cluster, target, sender and group, and another disk or
// another cluster refuses. So a wiped disk is never taken for the server that
// once voted under the same node name.
//
// # Streams
//
// A request and its answer travel on a stream of one group, one at a time;
// concurrent calls take different streams (an idle one is reused). A pipeline
// has a stream of its own, as has a snapshot. A receiver that is slow in one
// group therefore holds up only that group's streams: gRPC gives connection
// credit back when bytes arrive, whether or not a stream reads them, and a
// stream has at most pipelineDepth requests unanswered, so its window is not
// exhausted by anything but a single huge entry.
//
// Heartbeats, votes, pre-votes and TimeoutNow use the Control connection,
// entries and snapshots the Append connection, and the callers' own services
// the Data connection: a full window of one never delays another.
//
// # The heartbeat fast path
//
// raft answers heartbeats on the transport's goroutine, beside its main loop,
// although what it runs there may set the term. Two goroutines setting the term
// can move it backwards, and a server whose term went back could acknowledge
// entries of a leader after it has voted for the next one. So a heartbeat takes
// the fast path only when it cannot change anything: raft's main loop has
// already answered a request of the same term, and this server has not become
// a candidate since. The first heartbeat of a term goes through the main loop.
//
// # Confirmation of leadership
//
// raft.VerifyLeader counts any answer, also one to a heartbeat that was sent
// long before the question and was held by the network or by a frozen process.
// The transport therefore remembers, for each peer and term, when the latest
// answered request was *sent*. Confirm waits until a quorum of voters has
// answered, in this term, requests that were sent after the question.
//
// Why that suffices: a peer that answers with the request's term had no higher
// term at some moment after the request was sent. A leader of a higher term
// needs votes of a quorum, each of which raises the voter's term first. Both
// quorums share a server, which raised its term after the question; so when the
// question was asked no later leader existed, and all that was committed before
// it is in this leader's log once the first entry of its term is applied.
// Times are of the boot-time clock, which goes on while the machine is
// suspended, and are compared on one machine only.
//
// # Locks and goroutines
//
// Pool.mu, Mux.mu and Transport.mu protect their maps and are never held over
// a dial, a send or a callback; confirmations has its own lock. Calls run on
// the caller's goroutine; a pipeline has one goroutine that reads answers and
// ends with Close; served streams are gRPC's goroutines and end with their
// connection or the server. Close of a Transport cancels what it has sent and
// fails what it is serving.
package raftnet
