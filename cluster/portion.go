package cluster

import (
	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/cluster/shard"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// What a feed's seat reads from its shard, a reply at a time: first what the
// machine knows, under its lock, then from the state file what has left memory.

// portion is what one reply carries, before it is encoded or handed over.
type portion struct {
	taken    uint64 // volatiles of the node, so far
	sessions []sessionPortion
	notices  []*shoalpb.Notice
	// missing are the messages that have left memory.
	missing []uint64
}

type sessionPortion struct {
	client  string
	conn    uint64
	entries []session.Delivery
	// bodies, if not nil, has for each entry the number of its message if that
	// has left memory, else 0.
	bodies []uint64
}

// next reads up to a reply's worth of what a seat waits for.
func (l *shardLead) next(s *feedSeat) portion {
	p := l.gather(s)
	if len(p.missing) > 0 {
		l.complete(s, &p)
	}
	return p
}

// complete reads the messages of p that have left memory. The entry of one that
// is not in the file any more is over: the session is read again from there.
func (l *shardLead) complete(s *feedSeat, p *portion) {
	found := l.g.load(p.missing)
	again := false
	for i := range p.sessions {
		x := &p.sessions[i]
		for j, number := range x.bodies {
			if number == 0 {
				continue
			}
			m, ok := found[number]
			if !ok {
				again = true
				s.rewind(x.client, x.conn, x.entries[j].Seq)
				x.entries = x.entries[:j]
				break
			}
			x.entries[j].Message = m.Message
		}
	}
	if again {
		pause(l.tasks.ctx, retryDelay)
	}
}

// rewind has the entries of a session read again from seq on.
func (s *feedSeat) rewind(client string, conn, seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.fetches[client]; f != nil && f.Conn == conn {
		f.After = min(f.After, seq-1)
		s.mark(client)
	}
}

// gather takes what a seat waits for, without what has left memory.
func (l *shardLead) gather(s *feedSeat) portion {
	var p portion
	s.mu.Lock()
	defer s.mu.Unlock()
	p.notices, s.notices = s.notices, nil
	p.taken = s.taken
	size := 0
	for len(s.volatiles) > 0 && size < feedReplyBytes {
		v := s.volatiles[0]
		s.volatiles[0] = shard.Volatile{}
		s.volatiles = s.volatiles[1:]
		size += messageBytes(v.Message)
		p.sessions = append(p.sessions, sessionPortion{client: v.Client, conn: v.Conn, entries: []session.Delivery{{
			Retain: v.Retain, Identifiers: v.Identifiers, Message: v.Message,
		}}})
	}
	s.volume -= size
	if len(s.dirty) == 0 {
		return p
	}
	now := l.g.clock.now()
	l.g.read(func(m machine) {
		for len(s.dirty) > 0 && size < feedReplyBytes {
			client := s.dirty[0]
			s.dirty = s.dirty[1:]
			delete(s.isDirty, client)
			f := s.fetches[client]
			if f == nil {
				continue
			}
			size += s.read(m.(*shardMachine).Machine, f, now, &p)
		}
	})
	return p
}

// read takes one session's new entries, with their ages by the shard's clock now. Called with mu held.
func (s *feedSeat) read(m *shard.Machine, f *shoalpb.Fetch, now uint64, p *portion) (size int) {
	out := sessionPortion{client: f.Client, conn: f.Conn}
	owner := m.Entries(f.Client, f.Conn, f.After, feedSessionEntries, now, func(d session.Delivery, at shard.Stored) bool {
		out.add(d, at)
		size += at.Size
		return size < feedReplyBytes
	})
	if !owner && m.Conn(f.Client) > f.Conn { // the notice may have come before the fetch
		p.notices = append(p.notices, &shoalpb.Notice{Client: f.Client, Conn: f.Conn, Superseded: true})
	}
	if n := len(out.entries); n > 0 {
		f.After = out.entries[n-1].Seq
		p.sessions = append(p.sessions, out)
		for _, number := range out.bodies {
			if number != 0 {
				p.missing = append(p.missing, number)
			}
		}
		if n == feedSessionEntries || size >= feedReplyBytes {
			s.mark(f.Client) // the rest after the others' turn
		}
	}
	return size
}

// add takes an entry; nearly always its message is in memory.
func (x *sessionPortion) add(d session.Delivery, at shard.Stored) {
	x.entries = append(x.entries, d)
	if at.Body == 0 && x.bodies == nil {
		return
	}
	for len(x.bodies) < len(x.entries)-1 {
		x.bodies = append(x.bodies, 0)
	}
	x.bodies = append(x.bodies, at.Body)
}

func (p portion) encode(term uint64) *shoalpb.FeedReply {
	r := &shoalpb.FeedReply{Term: term, Notices: p.notices, Taken: p.taken}
	for _, s := range p.sessions {
		out := &shoalpb.FeedEntries{Client: s.client, Conn: s.conn}
		for _, d := range s.entries {
			out.Entries = append(out.Entries, &shoalpb.FeedEntry{
				Seq: d.Seq, Qos: uint32(d.QoS), Released: d.Released, Retain: d.Retain,
				Identifiers: d.Identifiers, Message: d.Message, AgeMs: milliseconds(d.Age),
			})
		}
		r.Sessions = append(r.Sessions, out)
	}
	return r
}
