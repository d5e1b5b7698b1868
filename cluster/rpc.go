package cluster

import (
	"context"
	"encoding/json"

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
	return s.n.acceptTakeover(r), nil
}

func (s *peerServer) Await(ctx context.Context, r *shoalpb.AwaitRequest) (*shoalpb.AwaitReply, error) {
	l := s.n.leadOf(r.Group)
	if l == nil {
		return &shoalpb.AwaitReply{NotLeader: true, Leader: s.n.hint(r.Group)}, nil
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
		return &shoalpb.RetainedReply{NotLeader: true, Leader: s.n.hint(r.Group)}, nil
	}
	return l.readRetained(ctx, r), nil
}

func (s *peerServer) Settle(ctx context.Context, r *shoalpb.SettleRequest) (*shoalpb.SettleReply, error) {
	return s.n.acceptSettle(ctx, r), nil
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

// dialGroup opens a pipe to the leader of o's group.
func dialGroup(ctx context.Context, o *office) (batchPipe, error) {
	if g := o.n.group(o.group); g != nil && g.leads() {
		o.node = ""
		return newLocalPipe(ctx, g), nil
	}
	return dialLeader(ctx, o, 0, func(ctx context.Context, p shoalpb.PeerClient) (grpc.BidiStreamingClient[shoalpb.AppendRequest, shoalpb.AppendReply], error) {
		return p.Append(ctx)
	})
}
