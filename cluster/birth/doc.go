// Package birth lets empty nodes found exactly one cluster, or wait for one.
//
// # The rule
//
// A set is N = --bootstrap-expect members "node/disk". A disk fsyncs a promise
// to one exact set at a time. A member that sees every member of its set
// promised to it is born: it fsyncs the cluster id, the hash of the set and of
// the nonce of its lowest member, so all compute the same. A member that sees
// another one born with its set is born with that id. Then each bootstraps
// raft with the set as configuration, so a cluster lives only where a majority
// of its set's disks is born with it.
//
// States of a disk, all of them durable, each change one fsync:
//
//	free ──► promised(S) ──► born(S)
//	 ▲            │             ▲
//	 └── void(S) ◄┘ ────────────┘ (only on seeing another one born(S))
//
// # Giving up
//
// A set can become impossible: a member has come back with another disk, is
// born elsewhere, or is promised to a set that sorts lower (of two sets that
// compete for a member the lower one wins). A member that sees this fsyncs
// void(S): from then on it is not counted for a birth. Members that see a void
// do the same, so it spreads without a message of its own. A void member is
// free again only when, in one round of questions, every other member of S was
// seen neither promised(S) nor born(S). A member that cannot be reached is
// waited for, since it may be born: else it could be left behind alone with
// the id of a cluster that never gets a majority.
//
// # Why there are not two clusters
//
// Let x be a member of S that became free after void(S), and suppose some disk
// is born(S) and still there when x's round ends. The first one born saw all
// promised in one round, x too, so before x was void. When x asked it, it was
// either born already, and x would have seen that; or it was not promised(S),
// and being born later takes a new promise and a new round, which sees x void;
// or it was void and was born later because it saw another one born, for which
// the same holds, back to one that x saw. So no such disk exists: whoever
// leaves S leaves no cluster behind. Two things make "later" hold in the
// presence of slow answers: what a round has found counts only if this disk's
// state has not changed since the round began, and for a void disk, if it has
// not told anyone since that it is void. State is looked at and changed under
// one lock, disk write included.
//
// So a disk belongs to one cluster, and two clusters need two sets without a
// common disk. That cannot be refused by promises: N must be more than half of
// all nodes that are started together.
//
// # Joining
//
// A free disk that sees a cluster takes its id, without being a founder, once
// the cluster is established: most founders are born, or someone has joined.
// So the id of a birth that is still given up reaches no one else. When the
// cluster knows of every founder that it is born, or that its disk will never be,
// each of them calls Settle, which marks the cluster as established whoever
// leaves it later.
//
// # What is assumed
//
// A disk that was replaced does not come back; a node answers with one disk at
// a time (while gossip shows the old disk alive the node counts as
// unreachable); no born disk is wiped in the moment between two answers of one
// round. A node that is gone for ever after its promise must be replaced by
// one of its name; that is logged as what a node waits for.
//
// # Crashes
//
// Before promise: nothing has happened. After a promise, a void or a birth the
// disk says so, and Run goes on from there: collecting answers has no state of
// its own. After birth and before bootstrap: Run returns at once with the set,
// which the promise keeps, and the caller bootstraps raft, as it does at every
// start as long as the raft log is empty.
//
// # Goroutines and locks
//
// Run works on its caller's goroutine; Answer is called by the RPC server at
// any time, also before and after Run. Birth.mu guards state and disk, and is
// not held during a Hello.
package birth
