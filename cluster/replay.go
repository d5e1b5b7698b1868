package cluster

import (
	"context"
	"slices"
	"strings"

	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/cluster/shard"
	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// runReplays brings replays of retained messages forward, while this node leads
// the sessions' shard: reads pages at the leaders of the topics' shards and
// commits them. It keeps nothing: where a replay stands is part of the state.
func (l *shardLead) runReplays(ctx context.Context) {
	active := make(map[string]bool) // by client; of this goroutine
	ended := make(chan string, replaysAtOnce)
	for {
		for _, r := range l.replaysNow(active) {
			if l.tasks.run(func(ctx context.Context) {
				l.replay(ctx, r)
				ended <- r.Client
			}) {
				active[r.Client] = true
			}
		}
		select {
		case <-l.replayMoved:
		case client := <-ended:
			delete(active, client)
		case <-ctx.Done():
			return
		}
	}
}

// replaysNow are replays that can go on, of clients that are not active.
func (l *shardLead) replaysNow(active map[string]bool) (list []shard.Replay) {
	room := replaysAtOnce - len(active)
	if room == 0 {
		return nil
	}
	l.g.read(func(m machine) {
		m.(*shardMachine).Replays(func(r shard.Replay) bool {
			if !active[r.Client] {
				list = append(list, r)
			}
			return len(list) < room
		})
	})
	return list
}

// replay commits one page. Nothing is read before all nodes match the subscription:
// what they matched earlier is in the registers then.
func (l *shardLead) replay(ctx context.Context, r shard.Replay) {
	if r.After == "" && l.n.routed(ctx, routeSource{group: l.g.id}, r.Route) != nil {
		return
	}
	page, group, next, err := l.n.retained(ctx, r.Filter, session.RetainedCursor{Group: r.Group, After: r.After, Settle: r.Live})
	if err != nil {
		l.g.log.Debug("read a page of retained messages", "err", err)
		return
	}
	p := &shoalpb.Page{Client: r.Client, Replay: r.ID, Group: r.Group, After: r.After}
	if l.n.entryFormat() >= stream.FormatOrder && (r.After == "" || r.Live) {
		p.ReadIndex = r.Index
	}
	p.Messages = pace(page, r.Messages, r.Bytes)
	if len(p.Messages) < len(page) {
		next = session.RetainedCursor{Group: group, After: p.Messages[len(p.Messages)-1].Topic}
	}
	p.NextGroup, p.NextAfter = next.Group, next.After
	l.n.step(ctx, "page")
	if err := l.commit(ctx, &shoalpb.Proposal{Page: p}); err != nil {
		pause(ctx, retryDelay)
	}
}

// join proposes the deliveries of QoS 0 that belong among retained messages in their
// sessions' queues, and what follows such ones, and returns the others.
func (l *shardLead) join(all []shard.Volatile) []shard.Volatile {
	if l.n.entryFormat() < stream.FormatOrder {
		return all
	}
	return slices.DeleteFunc(all, func(v shard.Volatile) bool {
		l.mu.Lock()
		joins := v.Joins || !v.Shared && l.joining[v.Client] > 0
		if joins {
			l.joining[v.Client]++
		}
		l.mu.Unlock()
		if !joins {
			return false
		}
		done := func(err error) {
			if err != nil {
				l.lose(1)
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.joining[v.Client]--; l.joining[v.Client] == 0 {
				delete(l.joining, v.Client)
			}
		}
		live := &shoalpb.Live{Client: v.Client, Conn: v.Conn, Message: v.Message}
		proposed := l.g.propose(l.tasks.ctx, &proposal{
			data: encodeProposal(&shoalpb.Proposal{Live: live}),
			done: func(_ result, err error) { done(err) },
		})
		if !proposed {
			done(errNotLeader)
		}
		return true
	})
}

// routed waits until a route change is visible on every node.
func (n *Node) routed(ctx context.Context, source routeSource, change uint64) error {
	done := make(chan error, 1)
	n.visible.await(source, change, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// replays are the shards where the replays of retained messages for new
// subscriptions begin, 0 where there is to be none (MQTT 5 §3.8.3.1, §4.8.2).
func (n *Node) replays(subs []*shoalpb.Subscription) []uint32 {
	first := make([]uint32, len(subs))
	for i, s := range subs {
		if s.RetainHandling < 2 && !strings.HasPrefix(s.Filter, "$share/") {
			first[i] = n.firstRegisters(s.Filter)
		}
	}
	return first
}
