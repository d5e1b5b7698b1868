package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// clusterVersion is the highest cluster version this build can serve.
const clusterVersion = 1

// announceTimeout bounds one try to announce a process.
const announceTimeout = 2 * time.Second

// announce makes the directory know this node's boot, and returns when the own
// copy says so. An error means that the directory refuses this disk.
func (n *Node) announce(ctx context.Context, boot uint64) error {
	info := &shoalpb.NodeInfo{
		Node: n.config.NodeID, Disk: n.disk, Boot: boot,
		RpcAddr: n.rpcName, HttpAddr: n.config.HTTPAddr, MqttAddr: n.config.MQTTAddr,
		Version: clusterVersion, Build: n.config.Build,
	}
	data, err := info.MarshalVT()
	if err != nil {
		return err
	}
	req := &shoalpb.AnnounceRequest{Info: data, ClusterId: n.clusterID()}
	for ctx.Err() == nil {
		known := n.directoryChanged.next()
		if n.knows(info) {
			return nil
		}
		reply, err := n.askAnnounce(ctx, req)
		switch {
		case err != nil:
			n.log.Debug("announce this process", "err", err)
		case reply.Error != "":
			return fmt.Errorf("announce boot %d of disk %s: %s", boot, n.disk, reply.Error)
		}
		t := time.NewTimer(5 * retryDelay)
		select {
		case <-known:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
	return ctx.Err()
}

// knows tells whether the own copy has this very process.
func (n *Node) knows(info *shoalpb.NodeInfo) (known bool) {
	n.readDirectory(func(d *directoryMachine) {
		node, ok := d.Node(info.Node)
		known = ok && node.Up && node.Info.Boot == info.Boot && node.Info.Disk == info.Disk
	})
	return known
}

func (n *Node) askAnnounce(parent context.Context, req *shoalpb.AnnounceRequest) (*shoalpb.AnnounceReply, error) {
	ctx, cancel := context.WithTimeout(parent, announceTimeout)
	defer cancel()
	g := n.group(0)
	if g == nil {
		return nil, errors.New("no copy of the directory yet")
	}
	if g.leads() {
		return n.acceptAnnounce(ctx, req), nil
	}
	leader := g.leader()
	if leader == "" || leader == n.config.NodeID {
		return nil, errors.New("the directory has no leader")
	}
	peer, err := n.peer(leader)
	if err != nil {
		return nil, err
	}
	reply, err := peer.Announce(ctx, req)
	if err == nil && reply.NotLeader {
		err = errNotLeader
	}
	return reply, err
}

// acceptAnnounce is the directory leader's side.
func (n *Node) acceptAnnounce(ctx context.Context, req *shoalpb.AnnounceRequest) *shoalpb.AnnounceReply {
	g := n.group(0)
	if g == nil || !g.leads() {
		return &shoalpb.AnnounceReply{NotLeader: true}
	}
	unborn := false
	g.read(func(m machine) { unborn = m.(*directoryMachine).ClusterID() == "" })
	if unborn {
		return &shoalpb.AnnounceReply{NotLeader: true} // its leader is about to give birth
	}
	if own := n.clusterID(); req.ClusterId != own {
		return &shoalpb.AnnounceReply{Error: fmt.Sprintf("it belongs to cluster %s, this is cluster %s", req.ClusterId, own)}
	}
	info := &shoalpb.NodeInfo{}
	if err := info.UnmarshalVT(req.Info); err != nil {
		return &shoalpb.AnnounceReply{Error: "unreadable node info: " + err.Error()}
	}
	type outcome struct {
		r   result
		err error
	}
	done := make(chan outcome, 1)
	p := encodeProposal(&shoalpb.Proposal{NodeUp: &shoalpb.NodeUp{Node: info}})
	g.propose(ctx, &proposal{data: p, done: func(r result, err error) { done <- outcome{r, err} }})
	select {
	case o := <-done:
		if o.err != nil {
			return &shoalpb.AnnounceReply{NotLeader: true}
		}
		return &shoalpb.AnnounceReply{Error: o.r.refused}
	case <-ctx.Done():
		return &shoalpb.AnnounceReply{NotLeader: true}
	}
}
