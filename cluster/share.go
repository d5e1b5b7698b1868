package cluster

import (
	"math/rand/v2"
	"slices"

	"github.com/shoalmq/shoal/cluster/directory"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// The publishing node picks, for each Shared Subscription that matches, the
// target of a message: a shard with durable members or a node with transient
// ones. The target picks the member. Targets take turns, one for each of their
// members, unless the strategy says otherwise.

// ShareStrategies are the values of Config.SharedStrategy, the default first.
var ShareStrategies = []string{"round-robin", "random", "sticky", "hash", "local"}

// hashOf is the same on all nodes: FNV-1a.
func hashOf(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// mix makes another number of one, so that the choices of a target and of its
// member do not depend on each other (SplitMix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// pick chooses the target of m among those of a Shared Subscription, nil if it
// has none, and the hint for it, 0 to let the members take turns.
func (n *Node) pick(s *directory.ShareTargets, m *shoalpb.Message) (c *directory.ShareCandidate, hint uint64) {
	qos := uint8(m.Qos)
	var member uint64
	switch n.config.SharedStrategy {
	case "random":
		c, _ = s.Pick(qos, rand.Uint64())
		return c, someHint(rand.Uint64())
	case "sticky":
		return pickBy(s, qos, m.Publisher)
	case "hash":
		return pickBy(s, qos, m.Topic)
	case "local":
		c, member = s.PickLocal(qos, n.isLocal)
	default:
		c, member = s.PickNext(qos)
	}
	if c != nil && c.Node == "" && min(qos, c.QoS) == 0 {
		// A shard takes turns in its log only, which this message does not go through.
		hint = member + uint64(c.Attached)
	}
	return c, hint
}

// pickBy picks the target and the member that belong to key.
func pickBy(s *directory.ShareTargets, qos uint8, key string) (*directory.ShareCandidate, uint64) {
	number := mix(hashOf(key))
	c, _ := s.Pick(qos, number)
	return c, someHint(mix(number))
}

// someHint is a hint made of any number: 0 is none.
func someHint(number uint64) uint64 { return max(number, 1) }

// isLocal tells whether a target is on this node: its own members, and shards
// that it leads.
func (n *Node) isLocal(c *directory.ShareCandidate) bool {
	if c.Node != "" {
		return c.Node == n.config.NodeID
	}
	g := n.group(c.Group)
	return g != nil && g.leads()
}

// picked is t with the picks of m: the same one if no Shared Subscription
// matches. Targets that have nothing but a pick are added, with the QoS of their
// members.
func (n *Node) picked(t *directory.Targets, m *shoalpb.Message) *directory.Targets {
	if len(t.Shares) == 0 {
		return t
	}
	t = &directory.Targets{Shards: slices.Clone(t.Shards), Nodes: slices.Clone(t.Nodes), Shares: t.Shares}
	for i := range t.Shares {
		s := &t.Shares[i]
		c, hint := n.pick(s, m)
		if c == nil {
			n.metrics.dropped.WithLabelValues("no_member").Inc()
			continue
		}
		addPick(t, c, &shoalpb.Pick{Share: s.Share, Hint: hint})
	}
	return t
}

func addPick(t *directory.Targets, c *directory.ShareCandidate, p *shoalpb.Pick) {
	if c.Node == "" {
		i := slices.IndexFunc(t.Shards, func(s directory.ShardTarget) bool { return s.Group == c.Group })
		if i < 0 {
			i = len(t.Shards)
			t.Shards = append(t.Shards, directory.ShardTarget{Group: c.Group})
		}
		s := &t.Shards[i]
		s.QoS, s.Picks = max(s.QoS, c.QoS), append(s.Picks, p)
		return
	}
	i := slices.IndexFunc(t.Nodes, func(n directory.NodeTarget) bool { return n.Node == c.Node && n.Boot == c.Boot })
	if i < 0 {
		i = len(t.Nodes)
		t.Nodes = append(t.Nodes, directory.NodeTarget{Node: c.Node, Boot: c.Boot})
	}
	node := &t.Nodes[i]
	node.QoS, node.Picks = max(node.QoS, c.QoS), append(node.Picks, p)
}

// targetPicks are all picks of t, each with its target.
func targetPicks(t *directory.Targets) (picks []*shoalpb.TargetPick) {
	for _, s := range t.Shards {
		for _, p := range s.Picks {
			picks = append(picks, &shoalpb.TargetPick{Target: &shoalpb.Target{Group: s.Group}, Pick: p})
		}
	}
	for _, n := range t.Nodes {
		for _, p := range n.Picks {
			picks = append(picks, &shoalpb.TargetPick{Target: &shoalpb.Target{Node: n.Node, Boot: n.Boot}, Pick: p})
		}
	}
	return picks
}

// share returns where a Shared Subscription has members.
func (n *Node) share(name string) (s directory.ShareTargets) {
	n.readDirectory(func(d *directoryMachine) { s = d.Share(name) })
	return s
}

// picksOf are picks for the messages of a list, in its order.
type picksOf []*shoalpb.MessagePick

// at returns the picks for the message at a place; places ascend over calls.
func (all *picksOf) at(index int) (picks []*shoalpb.Pick) {
	for len(*all) > 0 && int((*all)[0].Index) <= index {
		if p := (*all)[0]; int(p.Index) == index && p.Pick != nil {
			picks = append(picks, p.Pick)
		}
		*all = (*all)[1:]
	}
	return picks
}

// appendPicks adds the picks of the message at a place in a list.
func appendPicks(all []*shoalpb.MessagePick, index int, picks []*shoalpb.Pick) []*shoalpb.MessagePick {
	for _, p := range picks {
		all = append(all, &shoalpb.MessagePick{Index: uint32(index), Pick: p})
	}
	return all
}

func qosOf(t *directory.Targets, group uint32) uint8 {
	for _, s := range t.Shards {
		if s.Group == group {
			return s.QoS
		}
	}
	return 0
}
