package gossip

import "time"

const (
	// metaBytes is what memberlist allows for a member's metadata.
	metaBytes = 512
	// clusterIDBytes is room kept for the cluster id, which an unborn node
	// does not know yet.
	clusterIDBytes = 32

	// joinFirst and joinMost bound the pause between attempts to join, which
	// doubles from one to the next.
	joinFirst = 200 * time.Millisecond
	joinMost  = 5 * time.Second
	// lookupTimeout bounds one resolution of a join target.
	lookupTimeout = 3 * time.Second
	// updateTimeout bounds the wait for new metadata to be sent. Nothing waits
	// for that; memberlist takes 0 for no limit.
	updateTimeout = time.Millisecond
	// leaveTimeout bounds the wait until it is told that this node leaves.
	// memberlist ends it after 4 datagrams (8 from 10 nodes on), of which it sends
	// up to 3 every 0.2 s: with a single peer that is 0.8 s.
	leaveTimeout = time.Second
	// bindTries: a free TCP port may be taken for UDP.
	bindTries = 10

	// warnEvery is how often a kind of warning of memberlist is repeated, and
	// warnKinds how many kinds are remembered.
	warnEvery = time.Minute
	warnKinds = 100

	// tcpTimeout of memberlist's connections: nodes are near each other.
	tcpTimeout = 2 * time.Second
	// reclaimAfter is when a dead member's name may be used from another address.
	reclaimAfter = time.Second
	// pushPull is how often full state is exchanged with one member. Clusters
	// are small: this costs nothing and heals lost updates soon.
	pushPull = 10 * time.Second
)
