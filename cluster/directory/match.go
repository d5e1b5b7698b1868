package directory

import (
	"slices"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// Targets is where one publish goes. Reuse it: once grown, Match does not
// allocate but for Shares.
type Targets struct {
	// Shards have durable subscribers, Nodes are processes with transient
	// ones; each comes once, in no particular order.
	Shards []ShardTarget
	Nodes  []NodeTarget
	// Shares are the Shared Subscriptions that match, each for one copy. Their
	// members are not among Shards and Nodes.
	Shares []ShareTargets
	sum    []planes
}

// ShardTarget is a shard and the highest QoS of its subscribers that match.
type ShardTarget struct {
	Group uint32
	QoS   uint8
	// Picks are for whoever picks; Match gives none.
	Picks []*shoalpb.Pick
}

// NodeTarget is a process and the highest QoS of its subscribers that match.
type NodeTarget struct {
	Node string
	Boot uint64
	QoS  uint8
	// Picks are as in ShardTarget.
	Picks []*shoalpb.Pick
}

// Match fills t with all that a publish to the Topic Name goes to.
func (m *Machine) Match(topic string, t *Targets) {
	r := &m.routes
	t.Shards, t.Nodes = t.Shards[:0], t.Nodes[:0]
	r.matchShares(topic, t)
	t.sum = slices.Grow(t.sum[:0], len(r.alive))[:len(r.alive)]
	clear(t.sum)
	r.trie.Match(topic, func(s *targetSet) bool {
		s.merge(t.sum)
		return true
	})
	for i := range t.sum {
		t.sum[i].each(r.alive[i], func(bit int, qos uint8) {
			if o := r.owner[64*i+bit]; o.Node == "" {
				t.Shards = append(t.Shards, ShardTarget{Group: o.Group, QoS: qos})
			} else {
				t.Nodes = append(t.Nodes, NodeTarget{Node: o.Node, Boot: o.Boot, QoS: qos})
			}
		})
	}
}

// Generation changes whenever Match may answer otherwise than before.
func (m *Machine) Generation() uint64 { return m.routes.generation }
