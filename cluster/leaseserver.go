package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/shoalmq/shoal/cluster/directory"
	"github.com/shoalmq/shoal/cluster/lease"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// seat is one node's lease stream at the directory's leader. Replies that do
// not fit are dropped: the next say the same.
type seat struct{ replies chan *shoalpb.LeaseReply }

func newSeat() *seat { return &seat{replies: make(chan *shoalpb.LeaseReply, 64)} }

func (s *seat) reply(r *shoalpb.LeaseReply) {
	select {
	case s.replies <- r:
	default:
	}
}

// leaseServer grants leases while this node leads the directory.
type leaseServer struct {
	n    *Node
	g    *group
	term uint64
	over chan struct{} // closed when the lead ends

	mu      sync.Mutex
	table   *lease.Table
	seats   map[*seat]struct{}
	asked   []renewal // wait for the next confirmation
	visible uint64    // last broadcast
	// renewals are when each node asked for its lease last.
	renewals map[string]time.Duration
	wake     signal // run: something to confirm
	changed  signal // watch: the table may have something due
}

type renewal struct {
	r *shoalpb.LeaseRequest
	s *seat
}

func reportOf(r *shoalpb.LeaseRequest) lease.Report {
	return lease.Report{Node: r.Node, Boot: r.Boot, Copy: r.Copy, Applied: r.Applied}
}

func newLeaseServer(n *Node, g *group, term uint64) *leaseServer {
	s := &leaseServer{
		n: n, g: g, term: term, over: make(chan struct{}),
		seats: make(map[*seat]struct{}), renewals: make(map[string]time.Duration), wake: newSignal(), changed: newSignal(),
	}
	g.read(func(m machine) {
		d := m.(*directoryMachine)
		s.table = lease.NewTable(bootTime(), term, d.Machine.Applied(), upMembers(d.Machine))
	})
	return s
}

func upMembers(d *directory.Machine) (up []lease.Member) {
	for _, node := range d.Nodes() {
		if node.Up {
			up = append(up, lease.Member{Node: node.Info.Node, Boot: node.Info.Boot})
		}
	}
	return up
}

// nodesChanged takes the nodes of the own directory copy.
func (s *leaseServer) nodesChanged() {
	s.mu.Lock() // held over the read: the table never goes back to older nodes
	s.g.read(func(m machine) {
		s.table.SetNodes(bootTime(), upMembers(m.(*directoryMachine).Machine))
	})
	s.mu.Unlock()
	s.broadcast()
}

// take handles one request: an applied index counts at once, a renewal after
// the leadership has been confirmed for it.
func (s *leaseServer) take(r *shoalpb.LeaseRequest, from *seat) {
	s.mu.Lock()
	s.seats[from] = struct{}{}
	s.table.Led(bootTime(), s.g.applied())
	s.table.Applied(bootTime(), reportOf(r))
	if r.Renew {
		s.asked = append(s.asked, renewal{r, from})
		s.renewed(r.Node, bootTime())
		s.wake.set()
	}
	s.mu.Unlock()
	s.broadcast()
}

func (s *leaseServer) leave(seat *seat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.seats, seat)
}

// run confirms leadership for the renewals that wait, all that came before the
// question at once, and grants them.
func (s *leaseServer) run(ctx context.Context) {
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			return
		}
		s.mu.Lock()
		asked := s.asked
		s.asked = nil
		s.mu.Unlock()
		confirm, cancel := context.WithTimeout(ctx, lease.Duration)
		err := s.g.confirm(confirm)
		cancel()
		for _, a := range asked {
			s.answer(a, err)
		}
		s.broadcast()
		s.changed.set()
	}
}

func (s *leaseServer) answer(a renewal, err error) {
	reply := &shoalpb.LeaseReply{Sent: a.r.Sent, Boot: a.r.Boot, Term: s.term}
	s.mu.Lock()
	reply.Granted, reply.Reason = s.table.Renew(bootTime(), reportOf(a.r), err == nil)
	reply.Visible = s.visible
	s.mu.Unlock()
	if err != nil {
		reply.Reason = "the directory's leader has no quorum: " + err.Error()
	}
	if !reply.Granted {
		s.g.read(func(m machine) { reply.Fenced = m.(*directoryMachine).MinBoot(a.r.Node) > a.r.Boot })
	}
	a.s.reply(reply)
}

// broadcast tells all seats a visible index that has risen.
func (s *leaseServer) broadcast() {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.table.Visible(bootTime())
	if v <= s.visible {
		return
	}
	s.visible = v
	for seat := range s.seats {
		seat.reply(&shoalpb.LeaseReply{Visible: v, Term: s.term})
	}
}

// watch proposes NodeDown for processes whose lease has lapsed for long enough
// and lets the visible index pass those that lapsed.
func (s *leaseServer) watch(ctx context.Context) {
	for {
		s.mu.Lock()
		now := bootTime()
		expired := s.table.Expired(now)
		wait := s.table.Next(now) - now
		s.mu.Unlock()
		for _, m := range expired {
			s.n.log.Warn("a node's lease has lapsed: it is taken for down", "node", m.Node, "boot", m.Boot)
			s.nodeDown(ctx, m)
		}
		s.broadcast()
		wait = min(max(wait, 10*time.Millisecond), lease.Renew)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-s.changed:
			t.Stop()
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// nodeDown proposes to fence m and waits for the outcome; if it fails, watch
// tries again.
func (s *leaseServer) nodeDown(ctx context.Context, m lease.Member) {
	done := make(chan error, 1)
	p := &shoalpb.Proposal{NodeDown: &shoalpb.NodeDown{Node: m.Node, Boot: m.Boot}}
	s.g.propose(ctx, &proposal{data: encodeProposal(p), done: func(_ result, err error) { done <- err }})
	select {
	case err := <-done:
		if err != nil {
			s.n.log.Warn("could not record that a node is down", "node", m.Node, "err", err)
			pause(ctx, lease.Renew)
		}
	case <-ctx.Done():
	}
}

func encodeProposal(p *shoalpb.Proposal) []byte {
	data, err := p.MarshalVT()
	if err != nil {
		panic("encode proposal: " + err.Error()) // cannot fail: no required fields
	}
	return data
}
