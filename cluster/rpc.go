package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalmq/shoal/cluster/raftnet"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// peerServer is what other nodes can call.
type peerServer struct {
	shoalpb.UnimplementedPeerServer
	n *Node
}

func (s *peerServer) Append(stream grpc.BidiStreamingServer[shoalpb.AppendRequest, shoalpb.AppendReply]) error {
	return s.n.serveAppend(stream)
}

func (s *peerServer) Feed(stream grpc.BidiStreamingServer[shoalpb.FeedRequest, shoalpb.FeedReply]) error {
	return s.n.serveFeed(stream)
}

func (s *peerServer) Forward(stream grpc.BidiStreamingServer[shoalpb.ForwardRequest, shoalpb.ForwardReply]) error {
	return s.n.serveForward(stream)
}

func (s *peerServer) Lease(stream grpc.BidiStreamingServer[shoalpb.LeaseRequest, shoalpb.LeaseReply]) error {
	return s.n.serveLease(stream)
}

func (s *peerServer) Announce(ctx context.Context, r *shoalpb.AnnounceRequest) (*shoalpb.AnnounceReply, error) {
	return s.n.acceptAnnounce(ctx, r), nil
}

func (s *peerServer) Takeover(_ context.Context, r *shoalpb.TakeoverRequest) (*shoalpb.TakeoverReply, error) {
	s.n.closeFormer(r.Client, r.Conn, r.Boot)
	return &shoalpb.TakeoverReply{}, nil
}

func (s *peerServer) Await(ctx context.Context, r *shoalpb.AwaitRequest) (*shoalpb.AwaitReply, error) {
	l := s.n.leadOf(r.Group)
	if l == nil {
		return &shoalpb.AwaitReply{NotLeader: true}, nil
	}
	return l.await(ctx, r), nil
}

func (s *peerServer) Reconfigure(ctx context.Context, r *shoalpb.ReconfigureRequest) (*shoalpb.ReconfigureReply, error) {
	return s.n.reconfigure(ctx, r), nil
}

func (s *peerServer) Operate(ctx context.Context, r *shoalpb.OperateRequest) (*shoalpb.OperateReply, error) {
	return s.n.acceptOperate(ctx, r), nil
}

func (s *peerServer) Retained(ctx context.Context, r *shoalpb.RetainedRequest) (*shoalpb.RetainedReply, error) {
	l := s.n.leadOf(r.Group)
	if l == nil {
		return &shoalpb.RetainedReply{NotLeader: true}, nil
	}
	return l.readRetained(ctx, r), nil
}

func (s *peerServer) Hello(_ context.Context, r *shoalpb.HelloRequest) (*shoalpb.HelloReply, error) {
	reply := s.n.birth.Answer(r)
	reply.WallMs = s.n.config.wall()
	status, err := json.Marshal(s.n.Status())
	if err == nil {
		reply.Status = status
	}
	return reply, nil
}

// peer is the client of another node.
func (n *Node) peer(node string) (shoalpb.PeerClient, error) {
	c, err := n.pool.Conn(node, raftnet.Data)
	if err != nil {
		return nil, err
	}
	return shoalpb.NewPeerClient(c), nil
}

// toLeader returns the client of the node that leads group, and a context for
// calls that ends when another does, linger later.
func (n *Node) toLeader(parent context.Context, group uint32, linger time.Duration) (shoalpb.PeerClient, context.Context, context.CancelFunc, error) {
	leader := n.leaderOf(group)
	if leader == "" || leader == n.config.NodeID {
		return nil, nil, nil, errNoLeader
	}
	peer, err := n.peer(leader)
	if err != nil {
		return nil, nil, nil, err
	}
	if g := n.group(group); g != nil {
		ctx, cancel := g.whileLeads(parent, leader, linger)
		return peer, ctx, cancel, nil
	}
	ctx, cancel := context.WithCancel(parent)
	return peer, ctx, cancel, nil
}

var errNoLeader = errors.New("the group has no leader that this node knows of")

// dialGroup opens a pipe to the leader of a group.
func (n *Node) dialGroup(ctx context.Context, group uint32) (batchPipe, bool) {
	if g := n.group(group); g != nil && g.leads() {
		return newLocalPipe(ctx, g), true
	}
	peer, inner, cancel, err := n.toLeader(ctx, group, 0)
	if err != nil {
		return nil, false
	}
	stream, err := peer.Append(inner)
	if err != nil {
		cancel()
		return nil, false
	}
	return &remotePipe{group: group, stream: stream, cancel: cancel}, true
}

// leaderOf is the node that leads group as far as this node knows, "" if
// unknown. A node without a replica asks those that have one in turn.
func (n *Node) leaderOf(group uint32) string {
	if g := n.group(group); g != nil {
		return g.leader()
	}
	var replicas []string
	n.readDirectory(func(d *directoryMachine) { replicas = d.Placed(group).Homes() })
	if len(replicas) == 0 {
		return ""
	}
	return nodeOf(replicas[int(n.guess.Add(1))%len(replicas)])
}
