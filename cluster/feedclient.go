package cluster

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/cluster/sender"
	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// feedClient fetches, from one shard's leader, the entries of the durable
// sessions whose connections are on this node. The leader keeps nothing that it
// could lose: after a change of leader everything is asked for again, after the
// last seq that came.
type feedClient struct {
	p     *process
	group uint32

	mu        sync.Mutex
	links     map[string]*fetching // by client
	asks      []*shoalpb.Fetch     // to send on the current stream
	volatiles volatiles
	term      uint64
	wake      signal

	// Owned by run:
	leader office
	first  bool // nothing has been sent on this pipe
	// sent counts the volatiles sent on this pipe, taken those that the leader has
	// taken as far as it has said.
	sent, taken uint64
}

type fetching struct {
	l     *link
	after uint64
}

func newFeedClient(p *process, group uint32) *feedClient {
	return &feedClient{
		p: p, group: group, links: make(map[string]*fetching), wake: newSignal(), leader: office{n: p.n, group: group},
	}
}

// attach begins to fetch for l.
func (f *feedClient) attach(l *link) {
	f.mu.Lock()
	f.links[l.client] = &fetching{l: l}
	f.asks = append(f.asks, &shoalpb.Fetch{Client: l.client, Conn: l.conn})
	f.mu.Unlock()
	f.wake.set()
}

func (f *feedClient) detach(l *link) {
	f.mu.Lock()
	if x := f.links[l.client]; x != nil && x.l == l {
		delete(f.links, l.client)
		f.asks = append(f.asks, &shoalpb.Fetch{Client: l.client, Conn: l.conn, Gone: true})
	}
	f.mu.Unlock()
	f.wake.set()
}

// volatile sends what is QoS 0 in effect to the shard's leader; what does not
// fit is dropped and counted.
func (f *feedClient) volatile(m *shoalpb.Message, picks []*shoalpb.Pick) {
	f.mu.Lock()
	fits := f.volatiles.add(m, picks)
	f.mu.Unlock()
	if !fits {
		f.p.n.metrics.dropped.WithLabelValues("volatile_full").Inc()
		return
	}
	f.wake.set()
}

// feedPipe carries requests to a shard's leader, and its words back.
type feedPipe = sender.Pipe[*shoalpb.FeedRequest, feedWord]

// feedWord is what a leader says on a feed: entries and notices, or nothing, each
// feedBeat, to show that it is there.
type feedWord struct {
	portion
	term uint64
	// notLeader ends the feed; leader is its guess.
	notLeader bool
	leader    string
}

// run keeps a stream to whoever leads.
func (f *feedClient) run(ctx context.Context) { sender.Run(ctx, f, toGroup) }

// Wait implements sender.Stream: it waits until there is something to fetch or to
// send.
func (f *feedClient) Wait(ctx context.Context) bool {
	for ctx.Err() == nil {
		f.mu.Lock()
		some := len(f.links) > 0 || len(f.volatiles.list) > 0
		f.mu.Unlock()
		if some {
			return true
		}
		select {
		case <-f.wake:
		case <-ctx.Done():
		}
	}
	return false
}

// Dial implements sender.Stream.
func (f *feedClient) Dial(ctx context.Context) (feedPipe, error) {
	n := f.p.n
	if g := n.group(f.group); g != nil && g.leads() {
		f.leader.node = ""
		return newLocalFeed(ctx, f)
	}
	pipe, err := dialLeader(ctx, &f.leader, feedLinger, func(ctx context.Context, p shoalpb.PeerClient) (grpc.BidiStreamingClient[shoalpb.FeedRequest, shoalpb.FeedReply], error) {
		return p.Feed(ctx)
	})
	return &remoteFeed{pipe}, err
}

// Begin implements sender.Stream: every session is asked for again, after what has
// come.
func (f *feedClient) Begin() {
	f.sent, f.taken, f.first = 0, 0, true
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asks = f.asks[:0]
	for client, x := range f.links {
		f.asks = append(f.asks, &shoalpb.Fetch{Client: client, Conn: x.l.conn, After: x.after})
	}
}

// Wake implements sender.Stream.
func (f *feedClient) Wake() <-chan struct{} { return f.wake }

// Next implements sender.Stream. The first request of a pipe may be empty: it says
// what the feed is of.
func (f *feedClient) Next() (*shoalpb.FeedRequest, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.first && len(f.asks)+len(f.volatiles.list) == 0 {
		return nil, false
	}
	f.first = false
	req := &shoalpb.FeedRequest{
		Group: f.group, Node: f.p.n.config.NodeID, Boot: f.p.boot, Fetches: f.asks,
	}
	req.Volatiles, req.Picks = split(f.volatiles.take())
	f.asks = nil
	f.sent += uint64(len(req.Volatiles))
	return req, true
}

// Take implements sender.Stream.
func (f *feedClient) Take(w feedWord) error {
	f.taken = w.taken
	if !w.notLeader && !f.newest(w.term) { // QoS 0 is the only thing that nobody else has
		for _, s := range w.sessions {
			f.lose(volatileEntries(s.entries))
		}
		return nil
	}
	for _, s := range w.sessions {
		f.deliver(s.client, s.conn, s.entries)
	}
	for _, notice := range w.notices {
		f.notice(notice)
	}
	if w.notLeader {
		return &notLeading{w.leader}
	}
	return nil
}

// Owed implements sender.Stream. Leaders of before format 2 say nothing while they
// have nothing.
func (f *feedClient) Owed() bool {
	return f.leader.node != "" && f.p.n.entryFormat() >= stream.FormatOrder
}

// Tick implements sender.Stream.
func (f *feedClient) Tick() {}

// Left implements sender.Stream. A leader on this node counts itself what it takes
// with it.
func (f *feedClient) Left(err error) time.Duration {
	if f.leader.node != "" && f.sent > f.taken {
		f.lose(int(f.sent - f.taken))
	}
	f.sent, f.taken = 0, 0
	f.leader.left(err)
	return 0
}

// remoteFeed is the feed of another node.
type remoteFeed struct {
	*remotePipe[shoalpb.FeedRequest, shoalpb.FeedReply]
}

// Recv implements sender.Pipe.
func (r *remoteFeed) Recv() (feedWord, error) {
	m, err := r.remotePipe.Recv()
	if err != nil {
		return feedWord{}, err
	}
	w := feedWord{term: m.Term, notLeader: m.NotLeader, leader: m.Leader}
	w.notices, w.taken = m.Notices, m.Taken
	for _, s := range m.Sessions {
		w.sessions = append(w.sessions, sessionPortion{client: s.Client, conn: s.Conn, entries: deliveries(s.Entries)})
	}
	return w, nil
}

func volatileEntries(entries []session.Delivery) (n int) {
	for i := range entries {
		if entries[i].Seq == 0 {
			n++
		}
	}
	return n
}

// lose counts QoS 0 messages that were lost with a leader. Of those on the way
// to one that died some may have been delivered.
func (f *feedClient) lose(n int) { f.p.n.metrics.leaderMoved(n) }

// newest refuses replies of a leader that another has followed.
func (f *feedClient) newest(term uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if term < f.term {
		return false
	}
	f.term = term
	return true
}

// find is the link that fetches as (client, conn), nil if there is none.
func (f *feedClient) find(client string, conn uint64) *fetching {
	f.mu.Lock()
	defer f.mu.Unlock()
	if x := f.links[client]; x != nil && x.l.conn == conn {
		return x
	}
	return nil
}

// deliver hands entries to their connection. Only run's goroutine calls it.
func (f *feedClient) deliver(client string, conn uint64, entries []session.Delivery) {
	x := f.find(client, conn)
	if x == nil {
		for i := range entries {
			if entries[i].Seq == 0 {
				f.p.n.metrics.dropped.WithLabelValues("session_detached").Inc()
			}
		}
		return
	}
	f.mu.Lock()
	for _, e := range entries {
		x.after = max(x.after, e.Seq)
	}
	f.mu.Unlock()
	x.l.sink.Deliver(entries)
}

func (f *feedClient) notice(n *shoalpb.Notice) {
	x := f.find(n.Client, n.Conn)
	if x == nil {
		return
	}
	if n.Superseded {
		x.l.sink.Superseded()
	}
	if n.Replayed {
		x.l.replayed()
	}
	for _, id := range n.Recorded {
		x.l.recorded(uint16(id))
	}
	for _, id := range n.Completed {
		x.l.completed(uint16(id))
	}
}

func deliveries(entries []*shoalpb.FeedEntry) []session.Delivery {
	out := make([]session.Delivery, len(entries))
	for i, e := range entries {
		out[i] = session.Delivery{
			Seq: e.Seq, QoS: uint8(e.Qos), Released: e.Released, Retain: e.Retain,
			Identifiers: e.Identifiers, Message: e.Message, Age: time.Duration(e.AgeMs) * time.Millisecond,
		}
	}
	return out
}
