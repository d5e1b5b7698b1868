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
// a replica. It asks each once, for askTimeout at most, and the one that it takes
// for the leader no longer than it does; the caller asks again later. This node
// itself is not asked.
func askLeader[R leaderReply](ctx context.Context, n *Node, group uint32, call func(context.Context, shoalpb.PeerClient) (R, error)) (reply R, err error) {
	err = errNoLeader
	asked := []string{n.config.NodeID, ""}
	for next := append([]string{n.leaderOf(group)}, n.mayLead(group)...); len(next) > 0; next = next[1:] {
		if slices.Contains(asked, next[0]) {
			continue
		}
		asked = append(asked, next[0])
		reply, err = askOne(ctx, n, group, next[0], call)
		switch {
		case ctx.Err() != nil:
			return reply, ctx.Err()
		case err != nil:
			n.refuted(group, next[0], "")
		case !reply.GetNotLeader():
			n.guesses.set(group, next[0])
			return reply, nil
		default:
			err = errNoLeader
			n.refuted(group, next[0], reply.GetLeader())
			next = append([]string{"", reply.GetLeader()}, next[1:]...)
		}
	}
	return reply, err
}

func askOne[R leaderReply](parent context.Context, n *Node, group uint32, node string, call func(context.Context, shoalpb.PeerClient) (R, error)) (reply R, err error) {
	peer, err := n.peer(node)
	if err != nil {
		return reply, err
	}
	ctx, cancel := context.WithTimeout(parent, askTimeout)
	defer cancel()
	if node == n.leaderOf(group) {
		var over context.CancelFunc
		ctx, over = n.whileLeads(ctx, group, node, 0)
		defer over()
	}
	return call(ctx, peer)
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
