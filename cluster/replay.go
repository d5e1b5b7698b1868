package cluster

import (
	"context"
	"strings"

	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/cluster/shard"
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

// replay commits one page.
func (l *shardLead) replay(ctx context.Context, r shard.Replay) {
	page, group, next, err := l.n.retained(ctx, r.Filter, session.RetainedCursor{Group: r.Group, After: r.After})
	if err != nil {
		l.g.log.Debug("read a page of retained messages", "err", err)
		return
	}
	p := &shoalpb.Page{Client: r.Client, Replay: r.ID, Group: r.Group, After: r.After}
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
