package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/shoalmq/shoal/cluster/directory"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// mayRemove tells why a node must not be removed. What force cannot overrule is
// the loss of a quorum: no replica is removed without one, so a removal that
// would need it never goes on.
func (n *Node) mayRemove(ctx context.Context, g *group, req *shoalpb.OperateRequest) error {
	var node directory.Node
	known, staying := false, 0
	g.read(func(m machine) {
		d := m.(*directoryMachine)
		node, known = d.Node(req.Node)
		for _, x := range d.Nodes() {
			if !x.Leaving && x.Info.Node != req.Node {
				staying++
			}
		}
	})
	switch {
	case !known:
		return fmt.Errorf("there is no node %q", req.Node)
	case staying == 0:
		return errors.New("it is the last node")
	case staying < directory.Replicas && !req.Force:
		return fmt.Errorf("%d nodes would be left, so each shard would have %d replicas: with --force it is removed all the same", staying, staying)
	case node.Up && !node.Drained && !req.Force:
		return errors.New("it is up and serves: drain it first, or use --force")
	case req.Force:
		return nil
	}
	for _, id := range groupsOn(g, req.Node) {
		if err := n.othersHealthy(ctx, id, req.Node); err != nil {
			return fmt.Errorf("%s: %w", groupName(id), err)
		}
	}
	return nil
}

// groupsOn are the groups that have a replica on a node: the directory, and the
// shards whose placement names it.
func groupsOn(g *group, node string) []uint32 {
	groups := []uint32{0}
	g.read(func(m machine) {
		d := m.(*directoryMachine)
		for id := uint32(1); id <= d.Shards(); id++ {
			if slices.ContainsFunc(d.Placed(id).Homes(), func(home string) bool { return nodeOf(home) == node }) {
				groups = append(groups, id)
			}
		}
	})
	return groups
}

// othersHealthy is nil if all replicas of a group but those on node are alive
// and caught up.
func (n *Node) othersHealthy(ctx context.Context, id uint32, node string) error {
	reply, err := n.askReconfigure(ctx, id, shoalpb.ReconfigureRequest_CHANGE_LOOK, "")
	if err != nil {
		return err
	}
	s := standingOf(reply)
	var own []string
	for _, x := range s.replicas {
		if nodeOf(x.server) == node {
			own = append(own, x.server)
		}
	}
	return healthyBut(s, own...)
}
