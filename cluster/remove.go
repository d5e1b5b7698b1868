package cluster

import (
	"context"
	"errors"
	"fmt"

	"github.com/shoalmq/shoal/cluster/directory"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// mayRemove tells why a node must not be removed. What force cannot overrule is
// the loss of a quorum: no replica is removed without one, so a removal that
// would need it never goes on.
func (n *Node) mayRemove(_ context.Context, g *group, req *shoalpb.OperateRequest) error {
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
	}
	return nil
}
