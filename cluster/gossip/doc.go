// Package gossip discovers nodes with hashicorp/memberlist: who is there, on
// which disk, at which address. It gives hints and nothing that must be true:
// leases decide who is down, and raft's configuration changes by commands only.
//
// A process appears under the name "node@<random>", so that a node that comes
// back with another address is not taken for its dead predecessor. What others
// need to know of it is its Meta. Of several living members that claim to be
// the same node, the one with the highest boot is the node.
//
// Gossip owns one goroutine that joins, again and again while it is alone or a
// target does not answer, and memberlist's own. Callbacks run on those: they
// must not block. All methods are safe for concurrent use.
package gossip
