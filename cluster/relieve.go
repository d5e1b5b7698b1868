package cluster

import (
	"context"
	"time"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// runRelieve looks for messages of Shared Subscriptions that wait for members who
// are not connected, while others are, and has them go there: a page for each
// Shared Subscription at a time, and not faster than members take them.
func (l *shardLead) runRelieve(ctx context.Context) {
	tick := time.NewTicker(relieveInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-l.stranded:
		case <-ctx.Done():
			return
		}
		for l.relieve(ctx) {
			pause(ctx, relievePace)
		}
	}
}

// relieve does one round and reports whether there may be another.
func (l *shardLead) relieve(ctx context.Context) (some bool) {
	clients := map[string]string{} // by Shared Subscription
	l.g.read(func(m machine) {
		n := 0
		m.(*shardMachine).Stranded(func(client, share string) bool {
			clients[share] = client
			n++
			return n < relievePage
		})
	})
	for share, client := range clients {
		if !l.n.attended(share) {
			continue
		}
		some = true
		r := &shoalpb.Relieve{Client: client, Share: share, Limit: relieveLimit}
		if l.commit(ctx, &shoalpb.Proposal{Relieve: r}) != nil {
			return false
		}
	}
	return some && ctx.Err() == nil
}

// attended tells whether a Shared Subscription has durable members that are
// connected.
func (n *Node) attended(share string) bool {
	for _, c := range n.share(share).Candidates {
		if c.Node == "" && c.Attached > 0 {
			return true
		}
	}
	return false
}
