package gossip

import "time"

const (
	// metaBytes is what memberlist allows for a member's metadata.
	metaBytes = 512
	// clusterIDBytes is room kept for the cluster id, which an unborn node
	// does not know yet.
	clusterIDBytes = 32

	// joinFirst and joinMost bound the pause between attempts to join, which
	// doubles while nobody is found.
	joinFirst = 100 * time.Millisecond
	joinMost  = 5 * time.Second
	// lookupTimeout bounds one resolution of a join target.
	lookupTimeout = 3 * time.Second
	// updateTimeout bounds the wait until new metadata has been told to one
	// member; it spreads further by itself.
	updateTimeout = 2 * time.Second
	// leaveTimeout bounds the wait until someone has heard that this node leaves.
	leaveTimeout = 2 * time.Second

	// tcpTimeout of memberlist's connections: nodes are near each other.
	tcpTimeout = 2 * time.Second
	// reclaimAfter is when a dead member's name may be used from another address.
	reclaimAfter = time.Second
	// pushPull is how often full state is exchanged with one member. Clusters
	// are small: this costs nothing and heals lost updates soon.
	pushPull = 10 * time.Second
)
