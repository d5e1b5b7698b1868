package cluster

import (
	"context"
	"fmt"
	"strings"
	"sync"
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
// takes. group is the shard that the page is of.
func (n *Node) retained(parent context.Context, filter string, at session.RetainedCursor) (page []*shoalpb.Message, group uint32, next session.RetainedCursor, err error) {
	ctx, cancel := context.WithTimeout(parent, awayTimeout)
	defer cancel()
	if at.Group == 0 {
		at.Group = n.firstRegisters(filter)
	}
	for !at.Done && len(page) == 0 {
		r, err := n.readRetained(ctx, &shoalpb.RetainedRequest{Group: at.Group, Filter: filter, After: at.After})
		if err != nil {
			return nil, 0, at, err
		}
		page, group, at = r.Messages, at.Group, n.afterPage(filter, at, r)
	}
	return page, group, at, nil
}

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
		at.After = r.After
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
	if l.confirms.confirm(ctx, l) != nil {
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

// confirmations lets those who ask at about the same time share a confirmation
// of leadership that begins after all of them have asked.
type confirmations struct {
	mu      sync.Mutex
	next    *confirmation // not begun
	running bool
}

type confirmation struct {
	done chan struct{}
	err  error
}

func (c *confirmations) confirm(ctx context.Context, l *shardLead) error {
	c.mu.Lock()
	if c.next == nil {
		c.next = &confirmation{done: make(chan struct{})}
	}
	mine := c.next
	if !c.running {
		c.running = l.tasks.run(func(ctx context.Context) { c.run(ctx, l) })
	}
	started := c.running
	c.mu.Unlock()
	if !started {
		return errNotLeader
	}
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run confirms as long as anyone waits.
func (c *confirmations) run(ctx context.Context, l *shardLead) {
	for {
		c.mu.Lock()
		now := c.next
		c.next = nil
		c.running = now != nil
		c.mu.Unlock()
		if now == nil {
			return
		}
		inner, cancel := context.WithTimeout(ctx, confirmTimeout)
		now.err = l.g.confirm(inner)
		cancel()
		close(now.done)
	}
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
