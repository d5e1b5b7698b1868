package birth

import (
	"context"
	"slices"
	"strings"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// freeRound is the round of a disk without promise: join a cluster that is
// there, found one alone, or propose a set.
func (b *Birth) freeRound(ctx context.Context, s seen) error {
	if b.c.Expect == 1 && !b.c.Joining {
		ok, err := b.change(s, promise{members: []string{b.c.Self}})
		if !ok || err != nil {
			return err
		}
		return b.again(ctx)
	}
	var clusters, born, unborn []string
	for _, p := range b.c.Peers.Members() {
		switch {
		case p.Node == b.node:
		case p.ClusterID != "":
			clusters, born = append(clusters, p.ClusterID), append(born, p.Node)
		case p.Expect == 1: // does not take part
		case p.Expect != b.c.Expect || p.Shards != b.c.Shards:
			b.complain("node %s has expect %d, shards %d; this node has expect %d, shards %d: they must be equal",
				p.Node, p.Expect, p.Shards, b.c.Expect, b.c.Shards)
			return nil
		case !slices.Contains(unborn, p.Node):
			unborn = append(unborn, p.Node)
		}
	}
	switch {
	case len(born) > 0:
		return b.join(ctx, s, clusters, born)
	case b.c.Expect == 1:
		b.wait("a cluster to join: this node was told to join, and founds none alone")
		return nil
	}
	return b.propose(ctx, s, unborn)
}

// join makes this node a part of the one cluster that it sees.
func (b *Birth) join(ctx context.Context, s seen, clusters, born []string) error {
	slices.Sort(clusters)
	if clusters = slices.Compact(clusters); len(clusters) > 1 {
		b.complain("nodes of DIFFERENT CLUSTERS are in sight, %s: keep them apart", strings.Join(clusters, ", "))
		return nil
	}
	for _, node := range born {
		reply, err := b.hello(ctx, node, nil)
		if err != nil || reply.ClusterId != clusters[0] {
			continue
		}
		if b.established(ctx, reply) {
			return b.born(s, reply.ClusterId, int(reply.Shards))
		}
	}
	b.wait("an answer of most founders of cluster %s, or of one that joined it", clusters[0])
	return nil
}

// established says that a node's cluster has had a majority: the node joined
// it, or most of its founders are born. Before that a wiped founder can still
// make the birth impossible, and those that had joined would carry on the id of
// a cluster that never lived.
func (b *Birth) established(ctx context.Context, of *shoalpb.HelloReply) bool {
	if of.Promise == nil || of.Promise.Void {
		return true
	}
	born := 0
	for _, name := range of.Promise.Members {
		node, disk := split(name)
		reply := of
		if node != of.Node {
			var err error
			if reply, err = b.hello(ctx, node, nil); err != nil {
				continue
			}
		}
		if reply.Disk == disk && reply.ClusterId == of.ClusterId {
			born++
		}
	}
	return born > len(of.Promise.Members)/2
}

// propose promises this node to the lowest nodes in sight and itself, if they
// are enough, all of them are free, and it is the lowest.
func (b *Birth) propose(ctx context.Context, s seen, unborn []string) error {
	nodes := append(unborn, b.node)
	slices.Sort(nodes)
	if len(nodes) < b.c.Expect {
		b.wait("%d nodes, sees %s", b.c.Expect, strings.Join(nodes, ", "))
		return nil
	}
	nodes = nodes[:b.c.Expect]
	if nodes[0] != b.node {
		b.wait("node %s to found a cluster of %s", nodes[0], strings.Join(nodes, ", "))
		return nil
	}
	members := []string{b.c.Self}
	var bound []promise
	for _, node := range nodes[1:] {
		reply, err := b.hello(ctx, node, nil)
		switch {
		case err != nil:
			b.wait("an answer of node %s: %v", node, err)
			return nil
		case reply.ClusterId != "":
			b.wait("gossip to see that node %s is of cluster %s", node, reply.ClusterId)
			return nil
		case int(reply.Expect) != b.c.Expect || int(reply.Shards) != b.c.Shards:
			b.complain("node %s has expect %d, shards %d; this node has expect %d, shards %d: they must be equal",
				node, reply.Expect, reply.Shards, b.c.Expect, b.c.Shards)
			return nil
		}
		members = append(members, node+"/"+reply.Disk)
		if reply.Promise != nil {
			bound = append(bound, promise{reply.Promise.Members, reply.Promise.Void})
		}
	}
	slices.Sort(members)
	for _, p := range bound {
		if p.void || !p.to(members) {
			b.wait("nodes that are bound to %q (void: %v)", p.members, p.void)
			return nil
		}
	}
	ok, err := b.change(s, promise{members: members})
	if !ok || err != nil {
		return err
	}
	return b.again(ctx)
}

// again goes on as a promised member at once.
func (b *Birth) again(ctx context.Context) error {
	_, _, err := b.round(ctx)
	return err
}
