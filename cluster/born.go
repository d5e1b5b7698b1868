package cluster

import (
	"context"
	"fmt"
	"strings"

	"github.com/shoalmq/shoal/cluster/birth"
	"github.com/shoalmq/shoal/cluster/gossip"
	shoalpb "github.com/shoalmq/shoal/proto"
	"github.com/shoalmq/shoal/storage"
)

// birthDisk is the data directory as birth sees it.
type birthDisk struct{ *storage.Dir }

func (d birthDisk) Promise() []string { return d.Identity().Promise }
func (d birthDisk) ClusterID() string { return d.Identity().ClusterID }

// birthPeers are the others as gossip knows them.
type birthPeers struct{ n *Node }

func (p birthPeers) Members() (peers []birth.Peer) {
	if p.n.gossip == nil {
		return nil
	}
	for _, m := range p.n.gossip.Members() {
		peers = append(peers, birth.Peer{
			Node: m.Node, Disk: m.Disk, ClusterID: m.ClusterID, Expect: m.Expect, Shards: m.Shards,
		})
	}
	return peers
}

func (p birthPeers) Hello(ctx context.Context, node string, req *shoalpb.HelloRequest) (*shoalpb.HelloReply, error) {
	peer, err := p.n.peer(node)
	if err != nil {
		return nil, err
	}
	return peer.Hello(ctx, req)
}

func (n *Node) birthConfig() birth.Config {
	id := n.dir.Identity()
	shards := n.config.Shards
	if id.ClusterID != "" {
		shards = id.Shards
	}
	return birth.Config{
		Self: string(n.self), Nonce: id.Nonce, Expect: n.config.BootstrapExpect, Shards: shards,
		Joining: len(n.config.Join) > 0, Disk: birthDisk{n.dir}, Peers: birthPeers{n},
		Log: n.log, Wake: n.met,
	}
}

// beBorn returns when this node belongs to a cluster, with the founding set if
// it is one of it.
func (n *Node) beBorn(ctx context.Context) (founders []string, err error) {
	n.setPhase(fmt.Sprintf("not born yet: waiting for %d nodes, or for a cluster to join", n.config.BootstrapExpect))
	r, err := n.birth.Run(ctx)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.born = r.ClusterID
	n.mu.Unlock()
	n.gossip.SetMeta(n.meta())
	if r.Founder {
		return r.Members, nil
	}
	return nil, nil
}

// settleBirth forgets this founder's promise once every founder has announced
// itself, or its node has another disk or is gone.
func (n *Node) settleBirth(ctx context.Context) {
	promise := n.dir.Identity().Promise
	for len(promise) > 0 && ctx.Err() == nil {
		changed := n.directoryChanged.next()
		settled := false
		n.readDirectory(func(d *directoryMachine) {
			settled = d.ClusterID() != ""
			for _, founder := range promise {
				x, known := d.Node(nodeOf(founder))
				settled = settled && (!known || serverOf(x) != founder || x.Info.Boot > 0)
			}
		})
		if settled {
			if err := n.birth.Settle(); err != nil {
				n.log.Warn("settle the birth", "err", err)
			}
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// giveBirth proposes the first command of a cluster, while this node leads a
// directory that has none.
func (n *Node) giveBirth(ctx context.Context, g *group) {
	r, err := n.birth.Run(ctx) // born already: it only tells the set again
	if err != nil || !r.Founder {
		return
	}
	b := &shoalpb.Birth{ClusterId: r.ClusterID, Shards: uint32(r.Shards), Version: clusterVersion}
	for _, m := range r.Members {
		node, disk, _ := strings.Cut(m, "/")
		b.Members = append(b.Members, &shoalpb.NodeDisk{Node: node, Disk: disk})
	}
	p := encodeProposal(&shoalpb.Proposal{Birth: b})
	for ctx.Err() == nil {
		known := ""
		g.read(func(m machine) { known = m.(*directoryMachine).ClusterID() })
		if known != "" {
			return
		}
		done := make(chan error, 1)
		g.propose(ctx, &proposal{data: p, done: func(r result, err error) { done <- err }})
		select {
		case err := <-done:
			if err == nil {
				n.log.Info("the cluster is born", "cluster", b.ClusterId, "members", r.Members, "shards", r.Shards)
				return
			}
			n.log.Debug("give birth", "err", err)
			pause(ctx, retryDelay)
		case <-ctx.Done():
		}
	}
}

// meta is what gossip tells others of this node.
func (n *Node) meta() gossip.Meta {
	n.mu.RLock()
	draining := n.draining
	n.mu.RUnlock()
	return gossip.Meta{
		Node: n.config.NodeID, Disk: n.disk, ClusterID: n.clusterID(), RPCAddr: n.rpcName, Boot: n.boot,
		Expect: n.config.BootstrapExpect, Shards: n.config.Shards, Draining: draining || n.watch.unfit(),
	}
}

func (n *Node) startGossip() (err error) {
	c := gossip.Config{
		BindAddr: n.config.GossipAddr, AdvertiseHost: n.config.AdvertiseHost, Join: n.config.Join,
		Key: n.gossipKey, Meta: n.meta(), Log: n.log, OnChange: n.met.set,
	}
	if n.gossip, err = gossip.Start(c); err != nil {
		return err
	}
	n.book.Use(n.gossip)
	return nil
}

// knownAddress is a node's address as the directory has it, for nodes that
// gossip does not know at the moment.
func (n *Node) knownAddress(node string) (addr string, ok bool) {
	n.readDirectory(func(d *directoryMachine) {
		x, known := d.Node(node)
		addr, ok = x.Info.GetRpcAddr(), known && x.Info.GetRpcAddr() != ""
	})
	return addr, ok
}
