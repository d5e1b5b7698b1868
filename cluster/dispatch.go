package cluster

import (
	"context"

	"github.com/shoalmq/shoal/cluster/directory"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// dueMessage is a message that a shard wants matched; see shard.Machine.Due.
type dueMessage struct {
	id      uint64
	message *shoalpb.Message
	pick    *shoalpb.Pick
}

// runDispatch matches what is due and proposes where it goes. It may be done
// twice, by this leader or by two: apply takes one.
func (l *shardLead) runDispatch(ctx context.Context) {
	for {
		select {
		case <-l.dueGrew:
		case <-ctx.Done():
			return
		}
		for list := l.dueNow(); len(list) > 0 && ctx.Err() == nil; list = l.dueNow() {
			if !l.dispatch(ctx, list) {
				pause(ctx, retryDelay)
			}
		}
	}
}

// dueNow are the oldest due messages.
func (l *shardLead) dueNow() (list []dueMessage) {
	l.g.read(func(m machine) {
		m.(*shardMachine).Due(func(id uint64, message *shoalpb.Message, pick *shoalpb.Pick) bool {
			list = append(list, dueMessage{id, message, pick})
			return len(list) < dispatchPage
		})
	})
	return list
}

// dispatch reports whether all of list is done.
func (l *shardLead) dispatch(ctx context.Context, list []dueMessage) bool {
	results := make(chan error, len(list))
	for _, d := range list {
		p := l.n.matchDue(d)
		if p == nil || !l.g.propose(ctx, &proposal{
			data: encodeProposal(&shoalpb.Proposal{Dispatch: p}),
			done: func(_ result, err error) { results <- err },
		}) {
			results <- errNoLease
		}
	}
	all := true
	for range list {
		select {
		case err := <-results:
			all = all && err == nil
		case <-ctx.Done():
			return false
		}
	}
	return all
}

// matchDue decides where a due message goes. It returns nil if this node's lease
// did not hold over the match: see link.route.
func (n *Node) matchDue(d dueMessage) *shoalpb.Dispatch {
	expiry := n.lease.expiry()
	t := n.routes.match(d.message.Topic)
	p := n.targetsOfDue(d, t)
	if bootTime() >= expiry {
		return nil
	}
	return p
}

// targetsOfDue are all that match, those of QoS 0 too: a due message has no
// publisher who would send it once more beside the outbox.
func (n *Node) targetsOfDue(d dueMessage, t *directory.Targets) *shoalpb.Dispatch {
	p := &shoalpb.Dispatch{Due: d.id}
	if d.pick != nil {
		return p
	}
	for _, s := range t.Shards {
		p.Targets = append(p.Targets, &shoalpb.Target{Group: s.Group})
	}
	for _, node := range t.Nodes {
		p.Targets = append(p.Targets, &shoalpb.Target{Node: node.Node, Boot: node.Boot})
	}
	if d.message.Retain {
		p.Retain = n.shardOf(d.message.Topic)
	}
	return p
}
