package cluster

import (
	"context"
	"io"

	"google.golang.org/grpc"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// localPipe hands batches to a group that this node leads: function calls in
// place of a connection.
type localPipe struct {
	g       *group
	ctx     context.Context
	cancel  context.CancelFunc
	replies chan *shoalpb.AppendReply
}

func newLocalPipe(ctx context.Context, g *group) *localPipe {
	p := &localPipe{g: g, replies: make(chan *shoalpb.AppendReply, 4*batchesInFlight)}
	p.ctx, p.cancel = context.WithCancel(ctx)
	return p
}

func (p *localPipe) Send(r *shoalpb.AppendRequest) error {
	if p.g.leads() && p.g.propose(p.ctx, &proposal{data: r.Batch, batch: true, done: p.answer}) {
		return nil
	}
	p.cancel()
	return errNotLeader
}

// answer is called in the order of Send and does not block: no more than
// batchesInFlight are under way.
func (p *localPipe) answer(r result, err error) {
	select {
	case p.replies <- appendReply(r, err):
	case <-p.ctx.Done():
	}
}

func appendReply(r result, err error) *shoalpb.AppendReply {
	if err != nil {
		return &shoalpb.AppendReply{Error: err.Error()}
	}
	return &shoalpb.AppendReply{Answer: r.batch}
}

func (p *localPipe) Recv() (*shoalpb.AppendReply, error) {
	select {
	case r := <-p.replies:
		return r, nil
	case <-p.ctx.Done():
	}
	select { // what came before the end
	case r := <-p.replies:
		return r, nil
	default:
		return nil, io.EOF
	}
}

func (p *localPipe) Close() { p.cancel() }

// serveAppend answers one peer's batches, in order.
func (n *Node) serveAppend(stream grpc.BidiStreamingServer[shoalpb.AppendRequest, shoalpb.AppendReply]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	slots := make(chan chan *shoalpb.AppendReply, 64)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		defer cancel()
		for slot := range slots {
			select {
			case r := <-slot:
				if stream.Send(r) != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() { <-sent }()
	defer close(slots)
	for {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		slot := make(chan *shoalpb.AppendReply, 1)
		n.acceptBatch(ctx, req, slot)
		select {
		case slots <- slot:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// acceptBatch proposes one batch; its reply goes into slot.
func (n *Node) acceptBatch(ctx context.Context, req *shoalpb.AppendRequest, slot chan *shoalpb.AppendReply) {
	g := n.group(req.Group)
	if g == nil || !g.leads() {
		slot <- &shoalpb.AppendReply{NotLeader: true, Leader: n.hint(req.Group)}
		return
	}
	if err := g.checkBatch(req.Batch); err != nil {
		n.log.Error("a peer sent a batch that this build cannot apply", "group", g.name, "err", err)
		slot <- &shoalpb.AppendReply{Error: err.Error()}
		return
	}
	g.propose(ctx, &proposal{
		data: req.Batch, batch: true,
		done: func(r result, err error) { slot <- appendReply(r, err) },
	})
}

// checkBatch refuses what would stop every replica once it was committed: a
// faulty peer harms only itself.
func (g *group) checkBatch(data []byte) error {
	b := &shoalpb.Batch{}
	if err := b.UnmarshalVTUnsafe(data); err != nil {
		return err
	}
	var m machine
	g.read(func(now machine) { m = now })
	return m.check(&shoalpb.Entry{Format: entryFormat, Proposals: []*shoalpb.Proposal{{Batch: b}}})
}
