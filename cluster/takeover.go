package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/shoalmq/shoal/cluster/shard"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// takeoverAsk bounds one round of asking former owners' nodes, and one wait
// for the shard's word: a dead node must not hold up the others.
const takeoverAsk = 500 * time.Millisecond

// takeover asks the nodes of former owners to close and drain their
// connections, again and again, until the shard says that none is left; then
// l's publishes may go, those of a closed connection too.
func (n *Node) takeover(ctx context.Context, l *link, former []*shoalpb.Owner) {
	for ctx.Err() == nil && !l.hasDrained() {
		n.askFormer(ctx, l.client, former)
		reply, err := n.await(ctx, &shoalpb.AwaitRequest{Group: l.shard, Client: l.client, Conn: l.conn})
		switch {
		case err != nil:
			pause(ctx, retryDelay)
		case !reply.Owner:
			l.disowned()
			return
		case reply.Done:
			n.metFence(reply.Fence)
			l.unhold()
			return
		default:
			former = reply.Former
		}
	}
}

// askFormer asks all former owners' nodes at once. Failures do not matter: it
// is done again until the shard has seen each of them drained or fenced.
func (n *Node) askFormer(parent context.Context, client string, former []*shoalpb.Owner) {
	ctx, cancel := context.WithTimeout(parent, takeoverAsk)
	defer cancel()
	var wg sync.WaitGroup
	for _, o := range former {
		if o.Node == n.config.NodeID {
			n.closeFormer(client, o.Conn, o.Boot)
			continue
		}
		wg.Go(func() {
			peer, err := n.peer(o.Node)
			if err == nil {
				_, err = peer.Takeover(ctx, &shoalpb.TakeoverRequest{Client: client, Conn: o.Conn, Boot: o.Boot})
			}
			if err != nil {
				n.log.Debug("ask a former owner to close", "node", o.Node, "err", err)
			}
		})
	}
	wg.Wait()
}

// runFormer asks, once a second, the nodes of former owners that were there a
// second ago already to close them: the connection that took over, whose node
// asks first, may be gone itself.
func (l *shardLead) runFormer(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	type key struct {
		client string
		conn   uint64
	}
	before := map[key]bool{}
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := map[key]bool{}
		late := map[string][]*shoalpb.Owner{}
		l.g.read(func(m machine) {
			m.(*shardMachine).FormerOwners(func(client string, o *shoalpb.Owner) bool {
				k := key{client, o.Conn}
				now[k] = true
				if before[k] {
					late[client] = append(late[client], o)
				}
				return len(late) < formerPage
			})
		})
		before = now
		var wg sync.WaitGroup // a dead node must not hold up the others
		for client, former := range late {
			wg.Go(func() { l.n.askFormer(ctx, client, former) })
		}
		wg.Wait()
	}
}

// closeFormer closes and drains a connection of this process.
func (n *Node) closeFormer(client string, conn, boot uint64) {
	if p := n.proc.Load(); p != nil && p.boot == boot {
		p.takeover(client, conn)
	}
}

// await asks the shard's leader whether a connection still has former owners.
func (n *Node) await(parent context.Context, req *shoalpb.AwaitRequest) (*shoalpb.AwaitReply, error) {
	ctx, cancel := context.WithTimeout(parent, 2*askTimeout) // one may be silent
	defer cancel()
	if l := n.leadOf(req.Group); l != nil {
		reply := l.await(ctx, req)
		if reply.NotLeader {
			return nil, errNotLeader
		}
		return reply, nil
	}
	return askLeader(ctx, n, req.Group, func(ctx context.Context, p shoalpb.PeerClient) (*shoalpb.AwaitReply, error) {
		return p.Await(ctx, req)
	})
}

// await answers at once if nothing is left to wait for, else when something
// has changed or some time has passed.
func (l *shardLead) await(ctx context.Context, req *shoalpb.AwaitRequest) *shoalpb.AwaitReply {
	if l.g.applied() < shard.OpenIndex(req.Conn) { // deposed without knowing: it has not seen the Open
		return &shoalpb.AwaitReply{NotLeader: true}
	}
	changed := l.owners.next()
	reply := l.owned(req)
	if reply.Done || !reply.Owner {
		return reply
	}
	t := time.NewTimer(takeoverAsk)
	defer t.Stop()
	for {
		select {
		case <-changed:
			changed = l.owners.next()
			if reply = l.owned(req); reply.Done || !reply.Owner {
				return reply
			}
		case <-t.C:
			return l.owned(req)
		case <-ctx.Done():
			return reply
		case <-l.tasks.ctx.Done():
			return &shoalpb.AwaitReply{NotLeader: true}
		}
	}
}

func (l *shardLead) owned(req *shoalpb.AwaitRequest) *shoalpb.AwaitReply {
	r := &shoalpb.AwaitReply{}
	l.g.read(func(m machine) {
		s := m.(*shardMachine)
		r.Former, r.Owner = s.Former(req.Client, req.Conn)
		r.Fence = s.FenceNumber()
	})
	r.Done = r.Owner && len(r.Former) == 0
	return r
}
