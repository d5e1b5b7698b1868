package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// Retained implements broker.Cluster. It reads one page, at the leader of the
// topics' shard, and tries for awayTimeout.
func (n *Node) Retained(filter string, from session.RetainedCursor, done func([]*shoalpb.Message, session.RetainedCursor, error)) {
	started := n.tasks.run(func(ctx context.Context) {
		page, _, next, err := n.retained(ctx, filter, from)
		if err != nil {
			err = fmt.Errorf("%w: %v", session.ErrUnavailable, err)
		}
		done(page, next, err)
	})
	if !started {
		done(nil, from, session.ErrClosed)
	}
}

// retained reads the next page that has anything, over as many shards as that
// takes. group is the shard that the page is of. What was under way to a shard's
// registers is waited for before its first page is read, or any, if the cursor says
// so; and what came of it, before a page is returned.
func (n *Node) retained(parent context.Context, filter string, at session.RetainedCursor) (page []*shoalpb.Message, group uint32, next session.RetainedCursor, err error) {
	ctx, cancel := context.WithTimeout(parent, awayTimeout)
	defer cancel()
	if at.Group == 0 {
		at.Group = n.firstRegisters(filter)
	}
	settled := false
	for !at.Done && len(page) == 0 {
		if (at.After == "" || at.Settle) && !settled {
			settled = hasWildcard(filter)
			register := at.Group
			if settled { // once for all that follow
				register = 0
			}
			if err := n.settle(ctx, register); err != nil {
				return nil, 0, at, fmt.Errorf("wait for retained publishes to %s: %w", groupName(at.Group), err)
			}
		}
		r, err := n.readRetained(ctx, &shoalpb.RetainedRequest{Group: at.Group, Filter: filter, After: at.After})
		if err != nil {
			return nil, 0, at, err
		}
		page, group, at = r.Messages, at.Group, n.afterPage(filter, at, r)
	}
	if len(page) > 0 {
		if err := n.settle(ctx, group); err != nil {
			return nil, 0, at, fmt.Errorf("wait for retained publishes to %s: %w", groupName(group), err)
		}
	}
	return page, group, at, nil
}

// RegisterOf implements broker.Cluster.
func (n *Node) RegisterOf(topic string) uint32 { return n.shardOf(topic) }

// firstRegisters is the shard where the registers that match filter begin.
func (n *Node) firstRegisters(filter string) uint32 {
	if hasWildcard(filter) {
		return 1
	}
	return n.shardOf(filter)
}

func hasWildcard(filter string) bool { return strings.ContainsAny(filter, "+#") }

// afterPage is where the page after r begins.
func (n *Node) afterPage(filter string, at session.RetainedCursor, r *shoalpb.RetainedReply) session.RetainedCursor {
	switch {
	case r.More:
		at.After, at.Settle = r.After, false
	case hasWildcard(filter) && int(at.Group) < n.shards():
		at = session.RetainedCursor{Group: at.Group + 1}
	default:
		at = session.RetainedCursor{Done: true}
	}
	return at
}

// readRetained asks the leader of a shard, whoever it is, until ctx ends.
func (n *Node) readRetained(ctx context.Context, req *shoalpb.RetainedRequest) (*shoalpb.RetainedReply, error) {
	for {
		r, err := n.askRetained(ctx, req)
		if err == nil && !r.NotLeader {
			return r, nil
		}
		pause(ctx, 2*retryDelay)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("read retained messages of %s: no leader: %w", groupName(req.Group), ctx.Err())
		}
	}
}

func (n *Node) askRetained(ctx context.Context, req *shoalpb.RetainedRequest) (*shoalpb.RetainedReply, error) {
	if l := n.leadOf(req.Group); l != nil {
		return l.readRetained(ctx, req), nil
	}
	return askLeader(ctx, n, req.Group, func(ctx context.Context, p shoalpb.PeerClient) (*shoalpb.RetainedReply, error) {
		return p.Retained(ctx, req)
	})
}

// readRetained reads one page. Every write that was acknowledged before the call
// is in it: the leadership is confirmed after the call, and a leader serves when
// it has applied all that was committed before its term.
func (l *shardLead) readRetained(ctx context.Context, req *shoalpb.RetainedRequest) *shoalpb.RetainedReply {
	if l.confirms.do(ctx, l.tasks, l.confirm) != nil {
		return &shoalpb.RetainedReply{NotLeader: true}
	}
	r := &shoalpb.RetainedReply{}
	bytes, full := 0, false
	l.g.read(func(m machine) {
		s := m.(*shardMachine)
		r.After, r.More = s.Retained(req.Filter, req.After, max(l.g.clock.now(), s.Clock()), func(msg *shoalpb.Message) bool {
			if len(r.Messages) == retainedPage || bytes >= retainedPageBytes {
				full = true
				return false
			}
			bytes += messageBytes(msg)
			r.Messages = append(r.Messages, msg)
			return true
		})
	})
	if full {
		r.After, r.More = r.Messages[len(r.Messages)-1].Topic, true
	}
	return r
}

// pace is what a Replay may take of a page.
func pace(messages []*shoalpb.Message, most, bytes int) []*shoalpb.Message {
	for i, m := range messages {
		if bytes -= messageBytes(m); i == most || bytes < 0 && i > 0 {
			return messages[:i]
		}
	}
	return messages
}

// confirmTimeout bounds one confirmation of leadership: a deposed leader must
// not keep its askers.
const confirmTimeout = 2 * time.Second
