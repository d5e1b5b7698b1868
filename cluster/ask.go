package cluster

import (
	"context"
	"errors"
	"slices"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// Questions to the leader of a group, from nodes with a replica and without.

// leaderReply is a reply of who may not lead.
type leaderReply interface {
	GetNotLeader() bool
	GetLeader() string
}

// askLeader asks the nodes that may lead group until one answers that does: the
// one this node takes for the leader, those that others name, all that may have
// a replica. It asks each once; the caller asks again later. This node itself is
// not asked.
func askLeader[R leaderReply](ctx context.Context, n *Node, group uint32, call func(context.Context, shoalpb.PeerClient) (R, error)) (reply R, err error) {
	err = errNoLeader
	asked := []string{n.config.NodeID, ""}
	for next := n.mayLead(group); len(next) > 0; next = next[1:] {
		if slices.Contains(asked, next[0]) {
			continue
		}
		asked = append(asked, next[0])
		var peer shoalpb.PeerClient
		if peer, err = n.peer(next[0]); err != nil {
			continue
		}
		inner, cancel := context.WithTimeout(ctx, askTimeout)
		reply, err = call(inner, peer)
		cancel()
		switch {
		case ctx.Err() != nil:
			return reply, ctx.Err()
		case err != nil:
		case !reply.GetNotLeader():
			return reply, nil
		default:
			err = errNoLeader
			next = append([]string{"", reply.GetLeader()}, next[1:]...)
		}
	}
	return reply, err
}

// mayLead are the nodes that may lead a group, the likely one first.
func (n *Node) mayLead(group uint32) []string {
	var nodes []string
	if g := n.group(group); g != nil {
		nodes = append(nodes, g.leader())
	}
	if group == 0 {
		for _, m := range n.gossip.Members() {
			if m.ClusterID == n.clusterID() {
				nodes = append(nodes, m.Node)
			}
		}
	}
	n.readDirectory(func(d *directoryMachine) {
		for _, home := range d.Placed(group).Homes() {
			nodes = append(nodes, nodeOf(home))
		}
	})
	return nodes
}

// commit proposes p to a group that this node leads and waits for the outcome:
// refused says why the machine did not take it.
func (g *group) commit(ctx context.Context, p *shoalpb.Proposal) (refused string, err error) {
	type outcome struct {
		r   result
		err error
	}
	done := make(chan outcome, 1)
	if !g.propose(ctx, &proposal{data: encodeProposal(p), done: func(r result, err error) { done <- outcome{r, err} }}) {
		return "", errors.Join(errNotLeader, ctx.Err())
	}
	select {
	case o := <-done:
		return o.r.refused, o.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
