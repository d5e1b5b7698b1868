// Package gossip finds the other nodes: who is there, at what address, with
// which disk and boot. It is memberlist and an address book.
//
// Nothing that must be true depends on it. Gossip may show nodes that are gone,
// miss nodes that are there, and show one twice; leases say who is down, raft
// configurations say who counts.
//
// # Names
//
// A process's memberlist name is "node@<random>": a node that comes back is a
// new member, and no old message about its former process is mistaken for one
// about the new. A member is hidden when another one of the same node and disk
// has a higher boot. Two disks of one node are both shown, since only the
// operator knows which is meant; the address book takes the one seen last.
//
// # Joining
//
// Join targets are resolved and tried for ever, every few seconds, whenever one
// of their addresses is not among the live members. So a node that was alone,
// two halves of a cluster, and nodes whose names get new addresses find each
// other again without anyone's doing.
//
// # Other clusters
//
// A member of another cluster (both ids known and different) is logged loudly
// once, and is neither a member nor in the address book.
//
// # Goroutines and locks
//
// Two goroutines, one that joins and one that announces new metadata, end with
// Close, which cuts the connections they wait on; memberlist has its own, and
// its timers outlive it. memberlist calls the event handlers under its locks:
// they touch the table under Gossip.mu, log, and call OnChange, nothing else.
package gossip
