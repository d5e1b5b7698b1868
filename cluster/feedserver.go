package cluster

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalmq/shoal/cluster/shard"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// feedSeat is one node's feed at a shard's leader. It holds what to look at,
// not what to send: entries are read from the machine when the stream is ready
// for them.
type feedSeat struct {
	mu        sync.Mutex
	fetches   map[string]*shoalpb.Fetch // by client; After moves on
	dirty     []string
	isDirty   map[string]bool
	volatiles []shard.Volatile
	volume    int // bytes of volatiles
	notices   []*shoalpb.Notice
	taken     uint64 // volatiles that the node has sent
	over      bool   // it takes no more
	wake      signal
}

func newFeedSeat() *feedSeat {
	return &feedSeat{fetches: make(map[string]*shoalpb.Fetch), isDirty: make(map[string]bool), wake: newSignal()}
}

// mark notes that client has something to read.
func (s *feedSeat) mark(client string) {
	if s.fetches[client] != nil && !s.isDirty[client] {
		s.isDirty[client] = true
		s.dirty = append(s.dirty, client)
	}
}

// ask takes a fetch of the node.
func (s *feedSeat) ask(f *shoalpb.Fetch) {
	old := s.fetches[f.Client]
	switch {
	case f.Gone:
		if old != nil && old.Conn == f.Conn {
			delete(s.fetches, f.Client)
		}
	case old == nil || old.Conn <= f.Conn:
		s.fetches[f.Client] = f
		s.mark(f.Client)
	}
}

// request takes what a node asks and sends; not if the seat is closed.
func (l *shardLead) request(s *feedSeat, r *shoalpb.FeedRequest) (taken bool) {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return false
	}
	s.taken += uint64(len(r.Volatiles))
	for _, f := range r.Fetches {
		s.ask(f)
	}
	s.mu.Unlock()
	s.wake.set()
	l.asked(r.Fetches)
	if len(r.Volatiles) > 0 {
		l.spread(r.Volatiles, r.Picks)
	}
	return true
}

// spread hands publishes of QoS 0 in effect to the feeds of the sessions that
// match.
func (l *shardLead) spread(messages []*shoalpb.Message, picks []*shoalpb.MessagePick) {
	var all []shard.Volatile
	of, missed := picksOf(picks), 0
	l.g.read(func(m machine) {
		for i, msg := range messages {
			missed += m.(*shardMachine).MatchVolatile(msg, of.at(i), func(v shard.Volatile) bool {
				all = append(all, v)
				return true
			})
		}
	})
	l.hand(l.join(all))
	l.n.metrics.dropped.WithLabelValues("no_member").Add(float64(missed))
}

// volatile queues v if its session is fetched here, which it reports; what does
// not fit is dropped and counted. Called with mu held.
func (s *feedSeat) volatile(n *Node, v shard.Volatile) bool {
	if f := s.fetches[v.Client]; f == nil || f.Conn != v.Conn {
		return false
	}
	size := messageBytes(v.Message)
	if s.volume+size > volatileBytes && len(s.volatiles) > 0 {
		n.metrics.dropped.WithLabelValues("feed_full").Inc()
		return true
	}
	s.volume += size
	s.volatiles = append(s.volatiles, v)
	return true
}

// take hands the effects of applies on to the feeds and the outbox. It runs on
// the apply goroutine: it marks and wakes, no more.
func (l *shardLead) take(eff *shard.Effects) {
	l.eachSeat(func(s *feedSeat) {
		for _, r := range eff.Ready {
			s.mark(r.Client)
		}
		for _, c := range eff.Recorded {
			s.notice(c.Client, c.Conn, func(n *shoalpb.Notice) { n.Recorded = append(n.Recorded, uint32(c.ID)) })
		}
		for _, c := range eff.Completed {
			s.notice(c.Client, c.Conn, func(n *shoalpb.Notice) { n.Completed = append(n.Completed, uint32(c.ID)) })
		}
		for _, x := range eff.Replayed {
			s.notice(x.Client, x.Conn, func(n *shoalpb.Notice) { n.Replayed = true })
		}
		for _, x := range eff.Superseded {
			s.notice(x.Client, x.Conn, func(n *shoalpb.Notice) { n.Superseded = true })
		}
	})
	l.hand(eff.Volatile)
	if eff.Detached > 0 {
		l.n.metrics.dropped.WithLabelValues("session_detached").Add(float64(eff.Detached))
	}
	if eff.VolatileLost > 0 {
		l.n.metrics.dropped.WithLabelValues("not_in_memory").Add(float64(eff.VolatileLost))
	}
	for _, client := range eff.OwnersChanged {
		l.owners.change(client)
	}
	for _, x := range eff.Superseded {
		l.owners.change(x.Client)
	}
	if len(eff.OutboxGrew) > 0 {
		l.outboxGrew.set()
	}
	if eff.ReplayMoved {
		l.replayMoved.set()
	}
	if eff.DueGrew {
		l.dueGrew.set()
	}
	if eff.Stranded {
		l.stranded.set()
	}
	if eff.DeadlineMoved {
		l.deadlineMoved.set()
	}
}

// notice adds to what client's connection is told. Called with mu held.
func (s *feedSeat) notice(client string, conn uint64, set func(*shoalpb.Notice)) {
	if f := s.fetches[client]; f == nil || f.Conn != conn {
		return
	}
	n := &shoalpb.Notice{Client: client, Conn: conn}
	set(n)
	s.notices = append(s.notices, n)
}

func (l *shardLead) eachSeat(f func(*feedSeat)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.seats {
		s.mu.Lock()
		f(s)
		some := len(s.dirty) > 0 || len(s.volatiles) > 0 || len(s.notices) > 0
		s.mu.Unlock()
		if some {
			s.wake.set()
		}
	}
}

func (l *shardLead) sit(s *feedSeat) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seats[s] = struct{}{}
}

func (l *shardLead) leave(s *feedSeat) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.seats, s)
	s.mu.Lock()
	l.lose(len(s.volatiles))
	s.volatiles, s.volume = nil, 0
	s.mu.Unlock()
}

// more waits until a seat has something or beat ticks; false at the end.
func (l *shardLead) more(ctx context.Context, s *feedSeat, beat <-chan time.Time) bool {
	for {
		s.mu.Lock()
		some := len(s.dirty) > 0 || len(s.volatiles) > 0 || len(s.notices) > 0
		s.mu.Unlock()
		if some {
			return true
		}
		select {
		case <-s.wake:
		case <-beat:
			return true
		case <-ctx.Done():
			return false
		case <-l.tasks.ctx.Done():
			return false
		}
	}
}

// serveFeed is the peer's side of a feed.
func (n *Node) serveFeed(stream grpc.BidiStreamingServer[shoalpb.FeedRequest, shoalpb.FeedReply]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	l := n.leadOf(first.Group)
	if l == nil || n.isFenced(processID{first.Node, first.Boot}) {
		return stream.Send(&shoalpb.FeedReply{NotLeader: true, Leader: n.hint(first.Group)})
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	s := newFeedSeat()
	l.sit(s)
	defer l.leave(s)
	l.request(s, first)
	go func() {
		defer cancel()
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			l.request(s, r)
		}
	}()
	beat := time.NewTicker(feedBeat)
	defer beat.Stop()
	for l.more(ctx, s, beat.C) {
		if err := stream.Send(l.next(s).encode(l.term)); err != nil {
			return err
		}
		beat.Reset(feedBeat)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for l.rest(s) {
		if err := stream.Send(l.next(s).encode(l.term)); err != nil {
			return err
		}
	}
	return stream.Send(&shoalpb.FeedReply{NotLeader: true, Leader: n.hint(first.Group), Taken: s.taken})
}

// rest closes the seat of a lead that has ended, and tells whether QoS 0
// deliveries are left in it: they go to their node before the stream ends.
func (l *shardLead) rest(s *feedSeat) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.seats, s)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	return len(s.volatiles) > 0
}

// localFeed is the feed of a leader to its own node.
type localFeed struct {
	f   *feedClient
	l   *shardLead
	s   *feedSeat
	ctx context.Context
}

func newLocalFeed(ctx context.Context, f *feedClient) (feedPipe, error) {
	l := f.p.n.leadOf(f.group)
	if l == nil {
		return nil, errNotLeader
	}
	x := &localFeed{f: f, l: l, s: newFeedSeat(), ctx: ctx}
	l.sit(x.s)
	return x, nil
}

// Send implements sender.Pipe.
func (x *localFeed) Send(r *shoalpb.FeedRequest) error {
	if !x.l.request(x.s, r) {
		x.f.lose(len(r.Volatiles))
	}
	return nil
}

// Recv implements sender.Pipe, until the lead ends.
func (x *localFeed) Recv() (feedWord, error) {
	if x.f.newest(x.l.term) && (x.l.more(x.ctx, x.s, nil) || x.l.rest(x.s)) {
		return feedWord{portion: x.l.next(x.s), term: x.l.term}, nil
	}
	return feedWord{}, errNotLeader
}

// Close implements sender.Pipe.
func (x *localFeed) Close() { x.l.leave(x.s) }
