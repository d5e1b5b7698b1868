// Package lease implements the leases of nodes and the visible index: why a
// subscription that was acknowledged anywhere is seen everywhere, and how a dead
// node is told from a slow one. Table is the side of the directory's leader,
// Holder that of every node, the leader's own included.
//
// Both are pure: time is an argument, a duration since an origin that each node
// chooses for itself, on a clock that goes on while the machine is suspended
// (CLOCK_BOOTTIME). No clock is compared with another one; they only have to run
// equally fast within 5 %. Neither type is safe for concurrent use.
//
// # Rules
//
// A node asks for a renewal every Renew. The lease it is granted runs for
// Duration from when it *sent* the request. The leader counts it from when it
// grants it, which is later, for 5 % more. So (A) whenever a lease is valid, the
// leader that granted it counts it.
//
// A leader grants only if its leadership was confirmed by a question asked after
// the request came in: no later leader was elected before the request was sent.
// A new leader counts all processes as leased from when it begins. So (B) a
// lease granted by an earlier leader is counted by every later one.
//
// The visible index of a leader is the lowest index of the directory that the
// processes it counts have applied. It grants only to a process that has applied
// every visible index it ever told, and the first index of its own term; what
// earlier leaders told is lower than that. (For this a node must not use what a
// leader tells of entries of later terms than its own: Holder.Applied.)
//
// # Why a publish sees every acknowledged subscription
//
// SUBACK is sent when the visible index has reached the index i at which the
// directory holds the route. A publishing node first loads the expiry E of its
// lease, then matches with the copy it has, then reads the clock and goes on only
// if now < E; else it matches again after a renewal. Say SUBACK left before the
// publish was sent. Some leader D told a visible index ≥ i at a moment τ before
// that.
//
//   - D counted the publisher's node at τ. Then the node had reported an applied
//     index ≥ i, and it matched after that.
//   - Else the lease E was not valid at τ if D or an earlier leader granted it (A,
//     B), and now < E shows that it is valid later: it was granted after τ. If by
//     D, then to a node that had applied what D told, hence i. If by a later
//     leader, then to a node that had applied the first index of that leader's
//     term, which is above i.
//
// Either way the copy had i before E was there to be loaded, hence before the
// match. This is why E is loaded first: a lease granted between match and check
// would prove nothing about the match.
//
// A copy that an install sets back has forgotten entries. From then on the lease
// that it had is void, and so is an E that was loaded before; the check looks for
// that, too. Copies are numbered (Holder.Copy), and every report names the copy
// that it is about: what a process reported of an earlier copy says nothing of the
// one for which it is granted the next lease, however late the report arrives.
//
// # Death
//
// A process is declared dead (NodeDown) DeadAfter later than the leader's count
// lapsed, and from then on is granted nothing; with (A) and (B) its lease is not
// valid then. It has let its clients go by itself before that.
package lease
