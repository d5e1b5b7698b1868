package cluster

import (
	"context"
	"errors"
	"fmt"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// Operate carries out an operator's command, wherever the directory's leader is:
//
//	drain NODE      its leaderships, and its replicas where others can take them,
//	                move away; it stays a member and serves clients
//	undrain NODE    takes that back, and remove as long as it is under way
//	remove NODE     its replicas move away, then it is forgotten for ever
//	rebalance       replicas and leaderships are spread now, without waiting for
//	                nodes to have been up for a while
//
// It returns when the wish is recorded, not when all has moved; text says what
// follows. force lets remove go on although fewer replicas are left, or the node
// is in use.
func (n *Node) Operate(ctx context.Context, command, node string, force bool) (text string, err error) {
	r, err := n.operate(ctx, &shoalpb.OperateRequest{Command: command, Node: node, Force: force})
	switch {
	case err != nil:
		return "", fmt.Errorf("%s %s: %w", command, node, err)
	case r.Error != "":
		return "", fmt.Errorf("%s %s: %s", command, node, r.Error)
	}
	return r.Text, nil
}

// operate asks the directory's leader until there is one, for a while.
func (n *Node) operate(ctx context.Context, req *shoalpb.OperateRequest) (*shoalpb.OperateReply, error) {
	ctx, cancel := context.WithTimeout(ctx, operateTimeout)
	defer cancel()
	for {
		if r := n.acceptOperate(ctx, req); !r.NotLeader {
			return r, nil
		}
		r, err := askLeader(ctx, n, 0, func(ctx context.Context, p shoalpb.PeerClient) (*shoalpb.OperateReply, error) {
			return p.Operate(ctx, req)
		})
		if err == nil {
			return r, nil
		}
		pause(ctx, 5*retryDelay)
		if ctx.Err() != nil {
			return nil, errors.Join(errors.New("the directory has no leader that can be reached"), err)
		}
	}
}

// acceptOperate is the directory leader's side.
func (n *Node) acceptOperate(ctx context.Context, req *shoalpb.OperateRequest) *shoalpb.OperateReply {
	g := n.group(0)
	if g == nil || !g.leads() {
		return &shoalpb.OperateReply{NotLeader: true, Leader: n.hint(0)}
	}
	text, err := n.command(ctx, g, req)
	switch {
	case errors.Is(err, errNotLeader):
		return &shoalpb.OperateReply{NotLeader: true}
	case err != nil:
		return &shoalpb.OperateReply{Error: err.Error()}
	}
	return &shoalpb.OperateReply{Text: text}
}

func (n *Node) command(ctx context.Context, g *group, req *shoalpb.OperateRequest) (text string, err error) {
	set := &shoalpb.SetNode{Node: req.Node}
	switch req.Command {
	case "":
		return "every group has a quorum without it", n.dispensable(ctx, g, req.Node)
	case "drain":
		set.Drained, set.Leaving = true, isLeaving(g, req.Node)
		text = fmt.Sprintf("%s is drained: it gives its leaderships away, and its replicas where other nodes can take them", req.Node)
	case "undrain":
		text = fmt.Sprintf("%s takes replicas and leaderships again", req.Node)
	case "remove":
		set.Drained, set.Leaving = true, true
		text = fmt.Sprintf("%s is leaving: its replicas move away, then it is forgotten; shoal cluster members shows how far it is", req.Node)
		err = n.mayRemove(ctx, g, req)
	case "rebalance":
		n.rebalance.set()
		return "replicas and leaderships are being spread", nil
	default:
		return "", fmt.Errorf("unknown command %q", req.Command)
	}
	if err != nil {
		return "", err
	}
	refused, err := g.commit(ctx, &shoalpb.Proposal{SetNode: set})
	if err == nil && refused != "" {
		err = errors.New(refused)
	}
	return text, err
}

// isLeaving tells whether a node is being removed.
func isLeaving(g *group, node string) (leaving bool) {
	g.read(func(m machine) {
		n, _ := m.(*directoryMachine).Node(node)
		leaving = n.Leaving
	})
	return leaving
}
