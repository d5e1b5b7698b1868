package cluster

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalmq/shoal/cluster/lease"
	"github.com/shoalmq/shoal/cluster/sender"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// leaseClient holds this node's lease and learns the visible index from the
// directory's leader.
type leaseClient struct {
	n *Node
	// until is when the lease ends, on bootTime's clock.
	until atomic.Int64
	// copy is holder.Copy, for claims.
	copy atomic.Uint64
	// held is whether the lease was valid a short time ago: good enough for
	// QoS 0.
	held atomic.Bool
	// granted wakes those who wait for a valid lease.
	granted signal
	// applied wakes the reporting of the applied index, which is due; see report.
	applied signal
	due     atomic.Bool

	mu     sync.Mutex
	boot   uint64 // whose lease it is; 0 for nobody's
	holder lease.Holder
	last   struct{ index, term uint64 } // entry applied
	reason string                       // why the last renewal failed
}

func newLeaseClient(n *Node) *leaseClient {
	c := &leaseClient{n: n, granted: newSignal(), applied: newSignal(), reason: "no lease asked for yet"}
	c.copy.Store(c.holder.Copy())
	return c
}

// expiry is the end of the lease.
func (c *leaseClient) expiry() time.Duration { return time.Duration(c.until.Load()) }

// claim is a look at the lease before work on the directory copy. If the lease
// still holds by it when the work is done, it held all the time, and for a copy
// that was not set back meanwhile.
type claim struct {
	copy  uint64
	until time.Duration
}

func (c *leaseClient) claim() claim {
	number := c.copy.Load() // first: see setBack
	return claim{number, c.expiry()}
}

func (c *leaseClient) holds(l claim) bool { return bootTime() < l.until && c.copy.Load() == l.copy }

func (c *leaseClient) valid() bool { return bootTime() < c.expiry() }

func (c *leaseClient) why() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason == "" { // the last answer was a grant
		return "it does not answer"
	}
	return c.reason
}

func (c *leaseClient) fail(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reason = reason
}

// begin makes the lease that of a process with the boot given, 0 for none: what
// another had is gone, and late grants to it count for nothing.
func (c *leaseClient) begin(boot uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.boot = boot
	c.holder.Begin(bootTime())
	c.holder.Applied(c.last.index, c.last.term)
	c.until.Store(0)
	c.held.Store(false)
}

// setBack tells that the own directory copy has been replaced by one that has
// forgotten entries. The lease ends, and with it what was claimed by it: it has to
// be asked for anew. Called with the group's lock held, so before anyone can read
// the new copy.
func (c *leaseClient) setBack() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holder.SetBack(bootTime())
	c.holder.Applied(c.last.index, c.last.term)
	c.until.Store(int64(c.holder.Expiry()))
	c.held.Store(false)
	c.copy.Store(c.holder.Copy()) // last: who sees it sees that the lease has ended
}

// request builds what process boot tells the directory's leader.
func (c *leaseClient) request(boot uint64, renew bool) *shoalpb.LeaseRequest {
	r := &shoalpb.LeaseRequest{Node: c.n.config.NodeID, Boot: boot, Renew: renew, Sent: uint64(bootTime())}
	c.mu.Lock() // after Sent: a copy that ends later takes the grant with it
	r.Copy = c.holder.Copy()
	c.mu.Unlock()
	r.Applied = c.n.directoryIndex() // of this copy, or of a later one that forgot entries
	return r
}

// entry tells that the own directory copy has applied an entry. Called with
// the group's lock held, so before anyone can wait for the index.
func (c *leaseClient) entry(index, term uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last.index, c.last.term = index, term
	c.holder.Applied(index, term)
}

// told takes a visible index from the directory's leader of a term.
func (c *leaseClient) told(term, visible uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holder.Told(term, visible)
}

// visible is up to which index all leased nodes' copies are current.
func (c *leaseClient) visible() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.holder.Visible()
}

// closeClients tells that the lease is gone for so long that clients must go.
func (c *leaseClient) closeClients() bool {
	c.held.Store(c.valid())
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.holder.CloseClients(bootTime())
}

func (c *leaseClient) grant(boot uint64, sentAt time.Duration) {
	c.mu.Lock()
	if boot != c.boot {
		c.mu.Unlock()
		return
	}
	c.holder.Granted(sentAt, bootTime())
	c.until.Store(int64(c.holder.Expiry()))
	c.held.Store(c.valid())
	c.reason = ""
	c.mu.Unlock()
	c.granted.set()
}

// leasePipe carries requests to the directory's leader, and its replies back.
type leasePipe = sender.Pipe[*shoalpb.LeaseRequest, *shoalpb.LeaseReply]

// run keeps asking, whoever leads.
func (c *leaseClient) run(ctx context.Context) {
	o := toGroup
	o.Tick = lease.Renew
	sender.Run(ctx, &leaseAsker{c: c, leader: office{n: c.n}}, o)
}

// report has the applied index told to the directory's leader now, and a lease
// asked for if there is none.
func (c *leaseClient) report() {
	c.due.Store(true)
	c.applied.set()
}

// leaseAsker is the lease stream of this node. It is owned by run.
type leaseAsker struct {
	c      *leaseClient
	leader office
	// say: a request is due; renew: it asks for a lease.
	say, renew bool
	// owed: a renewal was sent after the last word.
	owed bool
}

// Wait implements sender.Stream.
func (a *leaseAsker) Wait(ctx context.Context) bool { return ctx.Err() == nil }

// Dial implements sender.Stream.
func (a *leaseAsker) Dial(ctx context.Context) (leasePipe, error) {
	g := a.c.n.group(0)
	if g == nil {
		return nil, errors.New("this node has no copy of the directory yet")
	}
	if g.leads() {
		a.leader.node = ""
		return newLocalLease(ctx, a.c.n), nil
	}
	return dialLeader(ctx, &a.leader, 0, func(ctx context.Context, p shoalpb.PeerClient) (grpc.BidiStreamingClient[shoalpb.LeaseRequest, shoalpb.LeaseReply], error) {
		return p.Lease(ctx)
	})
}

// Begin implements sender.Stream.
func (a *leaseAsker) Begin() { a.say, a.renew, a.owed = true, true, false }

// Wake implements sender.Stream.
func (a *leaseAsker) Wake() <-chan struct{} { return a.c.applied }

// Tick implements sender.Stream.
func (a *leaseAsker) Tick() { a.say, a.renew = true, true }

// Next implements sender.Stream. A node whose disk hangs reports, and asks for no
// lease.
func (a *leaseAsker) Next() (*shoalpb.LeaseRequest, bool) {
	if a.c.due.Swap(false) {
		a.say, a.renew = true, a.renew || !a.c.valid()
	}
	p := a.c.n.proc.Load()
	if !a.say || p == nil {
		return nil, false
	}
	if a.c.n.watch.hangs.Load() {
		a.renew = false
		a.c.fail(errDiskHangs.Error())
	}
	r := a.c.request(p.boot, a.renew)
	a.owed = a.owed || a.renew
	a.say, a.renew = false, false
	return r, true
}

// Owed implements sender.Stream: renewals are answered.
func (a *leaseAsker) Owed() bool { return a.owed }

// Take implements sender.Stream.
func (a *leaseAsker) Take(r *shoalpb.LeaseReply) error {
	a.owed = false
	c := a.c
	switch {
	case r.NotLeader:
		return &notLeading{r.Leader}
	case r.Fenced:
		if p := c.n.proc.Load(); p != nil && r.Boot == p.boot {
			p.fenced.set()
		}
	case r.Granted:
		c.grant(r.Boot, time.Duration(r.Sent))
	case r.Reason != "":
		c.fail(r.Reason)
	}
	if r.Visible > 0 {
		c.told(r.Term, r.Visible)
		c.n.visible.wake.set()
	}
	return nil
}

// Left implements sender.Stream.
func (a *leaseAsker) Left(err error) time.Duration {
	a.leader.left(err)
	a.c.fail("the directory: " + err.Error())
	return 0
}

// localLease is the stream of a node that leads the directory to itself.
type localLease struct {
	n    *Node
	ctx  context.Context
	seat *seat
}

func newLocalLease(ctx context.Context, n *Node) *localLease {
	return &localLease{n: n, ctx: ctx, seat: newSeat()}
}

func (l *localLease) Send(r *shoalpb.LeaseRequest) error {
	s := l.n.leases.Load()
	if s == nil {
		return errNotLeader
	}
	s.take(r, l.seat)
	return nil
}

// Close implements sender.Pipe.
func (l *localLease) Close() {
	if s := l.n.leases.Load(); s != nil {
		s.leave(l.seat)
	}
}

func (l *localLease) Recv() (*shoalpb.LeaseReply, error) {
	s := l.n.leases.Load()
	if s == nil {
		return nil, errNotLeader
	}
	select {
	case r := <-l.seat.replies:
		return r, nil
	case <-s.over:
		return nil, errNotLeader
	case <-l.ctx.Done():
		return nil, l.ctx.Err()
	}
}

// serveLease is the peer's side of a lease stream.
func (n *Node) serveLease(stream grpc.BidiStreamingServer[shoalpb.LeaseRequest, shoalpb.LeaseReply]) error {
	s := n.leases.Load()
	if s == nil {
		return stream.Send(&shoalpb.LeaseReply{NotLeader: true, Leader: n.hint(0)})
	}
	seat := newSeat()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	go func() {
		defer s.leave(seat)
		defer cancel()
		for {
			r, err := stream.Recv() // ends with the stream, when this call returns
			if err != nil {
				return
			}
			s.take(r, seat)
		}
	}()
	for {
		select {
		case r := <-seat.replies:
			if err := stream.Send(r); err != nil {
				return err
			}
		case <-s.over:
			return stream.Send(&shoalpb.LeaseReply{NotLeader: true, Leader: n.hint(0)})
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
