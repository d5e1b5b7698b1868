package cluster

import (
	"context"
	"slices"

	"github.com/shoalmq/shoal/cluster/directory"
	"github.com/shoalmq/shoal/cluster/shard"
	shoalpb "github.com/shoalmq/shoal/proto"
)

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
func (l *shardLead) dueNow() (list []shard.Due) {
	l.g.read(func(m machine) {
		m.(*shardMachine).Due(func(d shard.Due) bool {
			list = append(list, d)
			return len(list) < dispatchPage
		})
	})
	return list
}

// dispatch reports whether all of list is done.
func (l *shardLead) dispatch(ctx context.Context, list []shard.Due) bool {
	results := make(chan error, len(list))
	for _, d := range list {
		p := l.matchDue(d)
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
func (l *shardLead) matchDue(d shard.Due) (p *shoalpb.Dispatch) {
	n := l.n
	claim := n.lease.claim()
	if d.Pick != nil {
		p = l.memberOfDue(d)
	} else {
		p = n.targetsOfDue(d, n.picked(n.routes.match(d.Message.Topic), d.Message))
	}
	if !n.lease.holds(claim) {
		return nil
	}
	return p
}

// targetsOfDue are all that match, those of QoS 0 too: a due message has no
// publisher who would send it once more beside the outbox. Of each Shared
// Subscription that matches, t has one.
func (n *Node) targetsOfDue(d shard.Due, t *directory.Targets) *shoalpb.Dispatch {
	p := &shoalpb.Dispatch{Due: d.ID, Picks: targetPicks(t)}
	for _, s := range t.Shards {
		p.Targets = append(p.Targets, &shoalpb.Target{Group: s.Group})
	}
	for _, node := range t.Nodes {
		p.Targets = append(p.Targets, &shoalpb.Target{Node: node.Node, Boot: node.Boot})
	}
	if d.Message.Retain {
		p.Retain = n.shardOf(d.Message.Topic)
	}
	return p
}

// memberOfDue is where another member of a Shared Subscription may be, no target
// if there is none. A shard whose members are all gone looks so in the directory
// only a moment later; this one asks itself.
func (l *shardLead) memberOfDue(d shard.Due) *shoalpb.Dispatch {
	p := &shoalpb.Dispatch{Due: d.ID}
	here := false
	l.g.read(func(m machine) { here = m.(*shardMachine).CanTake(d.Pick.Share, d.QoS) })
	share := l.n.share(d.Pick.Share)
	if !here {
		share.Candidates = slices.DeleteFunc(share.Candidates, func(c directory.ShareCandidate) bool { return c.Group == l.g.id })
	}
	if c, _ := share.PickNext(d.QoS); c != nil {
		p.Targets = []*shoalpb.Target{{Group: c.Group, Node: c.Node, Boot: c.Boot}}
	}
	return p
}
