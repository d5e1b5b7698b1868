package cluster

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalmq/shoal/cluster/directory"
	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// clusterVersion is the highest cluster version this build can serve. What a
// version brings may be used when the directory says that every node has it.
const clusterVersion = stream.LastFormat

// announceTimeout bounds one try to announce a process.
const announceTimeout = 2 * time.Second

// announce makes the directory know a process of this node, and returns its boot
// when the own copy says so: the one given, or a higher one if the directory wants
// it. An error means that the directory refuses this disk.
func (n *Node) announce(ctx context.Context, boot uint64) (uint64, error) {
	if err := n.lookForBoot(ctx, boot); err != nil {
		return 0, err
	}
	waits := ""
	for ctx.Err() == nil {
		info := &shoalpb.NodeInfo{
			Node: n.config.NodeID, Disk: n.disk, Boot: boot,
			RpcAddr: n.rpcName, HttpAddr: n.config.HTTPAddr, MqttAddr: n.config.MQTTAddr,
			Version: clusterVersion, Build: n.config.Build,
		}
		n.bootTold.Store(boot)
		known := n.directoryChanged.next()
		if n.knows(info) {
			return boot, nil
		}
		reply, err := n.askAnnounce(ctx, info, false)
		switch {
		case err != nil:
			n.log.Debug("announce this process", "err", err)
		case reply.MinBoot > boot:
			// The node had other disks, or was taken for dead meanwhile.
			if boot, err = n.dir.RaiseBoot(reply.MinBoot); err != nil {
				return 0, err
			}
			n.bootNow.Store(boot)
			continue
		case reply.Wait:
			if waits != reply.Error {
				waits = reply.Error
				n.log.Info("waits to be let in", "reason", waits)
			}
		case reply.BadDisk:
			return 0, n.dir.Condemn(reply.Error)
		case reply.Error != "":
			return 0, fmt.Errorf("announce boot %d of disk %s: %s", boot, n.disk, reply.Error)
		}
		t := time.NewTimer(5 * retryDelay)
		select {
		case <-known:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
	return 0, ctx.Err()
}

// lookForBoot asks, before this process announces its first boot, whether the
// directory knows it already. Then another process on this disk has had it, and
// the disk was put back from a copy since: two processes of one boot would be one
// to everybody.
func (n *Node) lookForBoot(ctx context.Context, boot uint64) error {
	for ctx.Err() == nil && n.bootTold.Load() < boot {
		reply, err := n.askAnnounce(ctx, &shoalpb.NodeInfo{Node: n.config.NodeID, Disk: n.disk, Boot: boot}, true)
		switch {
		case err != nil || reply.NotLeader:
			pause(ctx, 5*retryDelay)
		case reply.KnownBoot >= boot:
			return n.dir.Condemn(fmt.Sprintf("disk %s is rolled back: boot %d was seen, this is the first process that took %d", n.disk, reply.KnownBoot, boot))
		default:
			return nil // what an error may say is heard again by the announcement
		}
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

// askAnnounce asks the directory's leader, wherever it is: a server that is not
// in the directory's configuration any more hears of no leader by itself.
func (n *Node) askAnnounce(ctx context.Context, info *shoalpb.NodeInfo, look bool) (*shoalpb.AnnounceReply, error) {
	data, err := info.MarshalVT()
	if err != nil {
		return nil, err
	}
	req := &shoalpb.AnnounceRequest{Info: data, ClusterId: n.clusterID(), Look: look}
	inner, cancel := context.WithTimeout(ctx, announceTimeout)
	reply := n.acceptAnnounce(inner, req)
	cancel()
	if !reply.NotLeader {
		return reply, nil
	}
	return askLeader(ctx, n, 0, func(ctx context.Context, p shoalpb.PeerClient) (*shoalpb.AnnounceReply, error) {
		return p.Announce(ctx, req)
	})
}

// acceptAnnounce is the directory leader's side.
func (n *Node) acceptAnnounce(ctx context.Context, req *shoalpb.AnnounceRequest) *shoalpb.AnnounceReply {
	g := n.group(0)
	if g == nil || !g.leads() {
		return &shoalpb.AnnounceReply{NotLeader: true, Leader: n.hint(0)}
	}
	info := &shoalpb.NodeInfo{}
	if err := info.UnmarshalVT(req.Info); err != nil {
		return &shoalpb.AnnounceReply{Error: "unreadable node info: " + err.Error()}
	}
	unborn, refusal := false, directory.Refusal{}
	g.read(func(m machine) {
		d := m.(*directoryMachine)
		unborn, refusal = d.ClusterID() == "", d.Refuse(info)
	})
	server := raft.ServerID(info.Node + "/" + info.Disk)
	member := slices.ContainsFunc(g.configured.Load().servers, func(s raft.Server) bool { return s.ID == server })
	switch own := n.clusterID(); {
	case unborn:
		return &shoalpb.AnnounceReply{NotLeader: true} // its leader is about to give birth
	case req.ClusterId != own:
		return &shoalpb.AnnounceReply{Error: fmt.Sprintf("it belongs to cluster %s, this is cluster %s", req.ClusterId, own)}
	case req.Look:
		return &shoalpb.AnnounceReply{KnownBoot: n.knownBoot(string(server))}
	case refusal.Reason != "":
		return &shoalpb.AnnounceReply{Error: refusal.Reason, Wait: refusal.Wait, MinBoot: refusal.MinBoot, BadDisk: refusal.BadDisk}
	case !member: // it would not hear of its own announcement
		return &shoalpb.AnnounceReply{Error: "this server is being added to the directory", Wait: true}
	}
	refused, err := g.commit(ctx, &shoalpb.Proposal{NodeUp: &shoalpb.NodeUp{Node: info}})
	if err != nil {
		return &shoalpb.AnnounceReply{NotLeader: true}
	}
	return &shoalpb.AnnounceReply{Error: refused, Wait: refused != ""} // asked again, it hears more
}
