package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/shoalmq/shoal/broker/session"
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
}

type fetching struct {
	l     *link
	after uint64
}

func newFeedClient(p *process, group uint32) *feedClient {
	return &feedClient{p: p, group: group, links: make(map[string]*fetching), wake: newSignal()}
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

// feedStream carries requests to a shard's leader and replies back.
type feedStream interface {
	Send(*shoalpb.FeedRequest) error
	Recv() (*shoalpb.FeedReply, error)
}

// run keeps a stream to whoever leads.
func (f *feedClient) run(ctx context.Context) {
	for ctx.Err() == nil {
		if !f.idle(ctx) {
			return
		}
		inner, cancel := context.WithCancel(ctx)
		stream, err := f.dial(inner)
		if err == nil {
			f.talk(inner, cancel, stream)
		}
		cancel()
		pause(ctx, retryDelay)
	}
}

// idle waits until there is something to fetch or to send.
func (f *feedClient) idle(ctx context.Context) bool {
	for {
		f.mu.Lock()
		some := len(f.links) > 0 || len(f.volatiles.list) > 0
		f.mu.Unlock()
		if some {
			return true
		}
		select {
		case <-f.wake:
		case <-ctx.Done():
			return false
		}
	}
}

func (f *feedClient) dial(ctx context.Context) (feedStream, error) {
	n := f.p.n
	if g := n.group(f.group); g != nil && g.leads() {
		return newLocalFeed(ctx, f)
	}
	peer, inner, cancel, err := n.toLeader(ctx, f.group, feedLinger)
	if err != nil {
		return nil, err
	}
	stream, err := peer.Feed(inner)
	if err != nil {
		cancel()
	}
	return stream, err
}

// talk sends what there is to ask until the stream breaks.
func (f *feedClient) talk(ctx context.Context, cancel context.CancelFunc, stream feedStream) {
	over := make(chan struct{})
	var sent, taken uint64 // volatiles; taken is the listener's until over
	go func() {
		defer close(over)
		defer cancel()
		taken = f.listen(stream)
	}()
	defer func() {
		cancel()
		<-over
		if _, local := stream.(*localFeed); !local && sent > taken {
			f.lose(int(sent - taken))
		}
	}()
	f.askAll()
	first := true
	for {
		req := f.request()
		if first || len(req.Fetches) > 0 || len(req.Volatiles) > 0 {
			first = false
			sent += uint64(len(req.Volatiles))
			if stream.Send(req) != nil {
				return
			}
			if f.more() {
				continue
			}
		}
		select {
		case <-f.wake:
		case <-ctx.Done():
			return
		}
	}
}

// askAll asks for every session again, after what has come.
func (f *feedClient) askAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asks = f.asks[:0]
	for client, x := range f.links {
		f.asks = append(f.asks, &shoalpb.Fetch{Client: client, Conn: x.l.conn, After: x.after})
	}
}

func (f *feedClient) request() *shoalpb.FeedRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	req := &shoalpb.FeedRequest{
		Group: f.group, Node: f.p.n.config.NodeID, Boot: f.p.boot, Fetches: f.asks,
	}
	req.Volatiles, req.Picks = split(f.volatiles.take())
	f.asks = nil
	return req
}

// more tells whether the last request left something.
func (f *feedClient) more() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.volatiles.list) > 0
}

// listen takes replies until the stream ends. It returns how many volatiles the
// leader has taken as far as it has said.
func (f *feedClient) listen(stream feedStream) (taken uint64) {
	for {
		r, err := stream.Recv()
		if err != nil {
			return taken
		}
		taken = r.Taken
		if r.NotLeader {
			return taken
		}
		if !f.newest(r.Term) { // QoS 0 is the only thing that nobody else has
			for _, s := range r.Sessions {
				f.lose(volatileEntries(s.Entries))
			}
			continue
		}
		for _, s := range r.Sessions {
			f.deliver(s.Client, s.Conn, deliveries(s.Entries))
		}
		for _, notice := range r.Notices {
			f.notice(notice)
		}
	}
}

func volatileEntries(entries []*shoalpb.FeedEntry) (n int) {
	for _, e := range entries {
		if e.Seq == 0 {
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

// deliver hands entries to their connection. Only the goroutine that listens
// calls it.
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
