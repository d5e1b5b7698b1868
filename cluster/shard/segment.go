package shard

import (
	"slices"
	"sort"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// segment is a run of at most Config.segment entries of a queue, and a row of the
// state file, so that a checkpoint writes what has changed of a long queue and no
// more. Where segments begin and end is no part of the state.
type segment struct {
	session *session
	first   uint64 // seq of refs[0]
	refs    []ref
	left    int // unfinished entries
	shared  int // those that came through a Shared Subscription
	// The segment's row has refs below rowed, the session's row the others: the
	// youngest of a queue, so that a message need not rewrite a segment.
	rowed int
	// number of the row, higher than those of earlier segments; 0 if there is
	// none.
	number uint64
	tracked
}

// end is the seq behind the last entry.
func (g *segment) end() uint64 { return g.first + uint64(len(g.refs)) }

// place returns where in q.segments the entry seq is, or the first segment behind
// it.
func (q *queue) place(seq uint64) int {
	if len(q.segments) == 0 || seq < q.segments[0].end() {
		return 0
	}
	return 1 + sort.Search(len(q.segments)-1, func(i int) bool { return seq < q.segments[i+1].end() })
}

// at returns the segment of the entry seq, nil if there is none.
func (q *queue) at(seq uint64) *segment {
	if q == nil {
		return nil
	}
	if i := q.place(seq); i < len(q.segments) && seq >= q.segments[i].first {
		return q.segments[i]
	}
	return nil
}

// find returns the unfinished entry seq, or nil.
func (q *queue) find(seq uint64) *ref {
	g := q.at(seq)
	if g == nil {
		return nil
	}
	if r := &g.refs[seq-g.first]; r.body != nil {
		return r
	}
	return nil
}

// next returns the first unfinished entry from seq on; r is nil if there is none.
// shared asks for those of Shared Subscriptions alone.
func (q *queue) next(seq uint64, shared bool) (at uint64, r *ref) {
	for i := q.place(seq); i < len(q.segments); i++ {
		g := q.segments[i]
		if g.left == 0 || shared && g.shared == 0 {
			continue
		}
		for seq = max(seq, g.first); seq < g.end(); seq++ {
			if r := &g.refs[seq-g.first]; r.body != nil && (!shared || r.from.isShared()) {
				return seq, r
			}
		}
	}
	return 0, nil
}

// push adds the entry seq, behind all others. The session has been touched.
func (m *Machine) push(s *session, seq uint64, r ref) {
	q := s.queue
	m.pushRestored(s, seq, r)
	q.count(s, seq, &r)
	if q.unrowed > m.cfg.unrowed {
		from := len(q.segments) - 1
		for from > 0 && q.segments[from-1].rowed < len(q.segments[from-1].refs) {
			from--
		}
		m.rowFrom(s, from)
	}
}

// pushRestored is push for an entry that is where it is in the state file.
func (m *Machine) pushRestored(s *session, seq uint64, r ref) {
	q := s.queue
	n := len(q.segments)
	switch {
	case n == 0:
		q.segments = append(q.segments, &segment{session: s, first: seq})
	case seq-q.segments[n-1].first >= uint64(m.cfg.segment):
		q.segments = append(q.segments, &segment{session: s, first: seq, refs: make([]ref, 0, m.cfg.segment)})
	}
	g := q.segments[len(q.segments)-1]
	q.unrowed -= len(g.refs) - g.rowed
	g.append(seq, r)
	q.unrowed += len(g.refs) - g.rowed
}

// append adds the entry seq, behind finished ones if need be.
func (g *segment) append(seq uint64, r ref) {
	for g.end() < seq {
		if g.number > 0 && g.rowed == len(g.refs) {
			g.rowed++ // nothing more for the row
		}
		g.refs = append(g.refs, ref{})
	}
	g.refs = append(g.refs, r)
	g.left++
	g.shared += isSet(r.from.isShared())
}

// count counts an entry that was added.
func (q *queue) count(s *session, seq uint64, r *ref) {
	q.unfinished++
	q.volatile += isSet(r.flag.qos() == 0)
	q.bytes += int(r.body.size)
	if seq <= s.sentHi {
		q.sent++
		q.sentBytes += int(r.body.size)
	}
}

// rowFrom puts all entries of the segments from a place on into rows of their
// own. The session has been touched.
func (m *Machine) rowFrom(s *session, from int) {
	if m.format < stream.FormatOrder {
		return
	}
	q := s.queue
	for _, g := range q.segments[from:] {
		if g.rowed == len(g.refs) {
			continue
		}
		if g.number == 0 {
			m.file.lastSegment++
			g.number = m.file.lastSegment
			q.rows++
		}
		m.touch(g)
		q.unrowed -= len(g.refs) - g.rowed
		g.rowed = len(g.refs)
	}
}

// touchEntry must come before a change of the entry seq of g.
func (m *Machine) touchEntry(g *segment, seq uint64) {
	if int(seq-g.first) < g.rowed {
		m.touch(g)
	} else {
		m.touch(g.session)
	}
}

// take finishes the entry seq of g, and removes g if nothing is left in it. The
// session has been touched.
func (m *Machine) take(g *segment, seq uint64) {
	i := int(seq - g.first)
	if i < g.rowed {
		m.touch(g)
	}
	q, r := g.session.queue, &g.refs[i]
	g.shared -= isSet(r.from.isShared())
	g.left--
	m.drop(r.body)
	*r = ref{}
	if g.left == 0 && q.unfinished > 0 {
		m.removeSegment(q, q.place(seq))
	}
}

// removeSegment removes a segment and its row.
func (m *Machine) removeSegment(q *queue, i int) {
	g := q.segments[i]
	m.forgetSegment(q, g)
	q.unrowed -= len(g.refs) - g.rowed
	if i == 0 {
		q.segments[0] = nil
		q.segments = q.segments[1:]
		return
	}
	q.segments = slices.Delete(q.segments, i, i+1)
}

func (m *Machine) forgetSegment(q *queue, g *segment) {
	if g.number > 0 {
		q.rows--
		m.forget(g)
	}
}

// trim moves base to the first unfinished entry.
func (m *Machine) trim(q *queue) {
	for len(q.segments) > 0 && q.segments[0].left == 0 {
		m.removeSegment(q, 0)
	}
	q.base, _ = q.next(q.base, false)
}

// closeUp gives the entries from seq on, of which none has been sent, dense
// numbers from there, and returns the number behind them. It takes little time
// for segments without finished entries. The session has been touched.
func (m *Machine) closeUp(s *session, seq uint64) (next uint64) {
	q := s.queue
	at := q.place(seq)
	list := slices.Clone(q.segments[at:])
	q.segments = q.segments[:at]
	merged := false
	for _, g := range list {
		q.unrowed -= len(g.refs) - g.rowed
		if g.left == 0 {
			m.forgetSegment(q, g)
			continue
		}
		if g.number > 0 {
			m.touch(g)
		}
		g.renumber(seq)
		seq = g.end()
		if n := len(q.segments); n > 0 && m.merge(q, q.segments[n-1], g) {
			merged = true
			continue
		}
		q.unrowed += len(g.refs) - g.rowed
		q.segments = append(q.segments, g)
	}
	clear(q.segments[len(q.segments):cap(q.segments)])
	if merged || q.unrowed > m.cfg.unrowed {
		m.rowFrom(s, max(at-1, 0))
	}
	return seq
}

// renumber gives the unfinished entries of g, without those below seq, dense
// numbers from seq.
func (g *segment) renumber(seq uint64) {
	keep := 0
	if g.first < seq {
		keep = int(seq - g.first)
	} else {
		g.first = seq
	}
	if g.left == len(g.refs) {
		return
	}
	kept := slices.DeleteFunc(g.refs[keep:], func(r ref) bool { return r.body == nil })
	g.refs = g.refs[:keep+len(kept)]
	g.rowed = min(g.rowed, len(g.refs))
}

// merge adds the entries of g, which follow those of to, if there is room.
func (m *Machine) merge(q *queue, to, g *segment) bool {
	if to.end() != g.first || len(to.refs)+len(g.refs) > m.cfg.segment {
		return false
	}
	if to.number > 0 {
		m.touch(to)
	}
	to.refs = append(to.refs, g.refs...)
	to.left += g.left
	to.shared += g.shared
	q.unrowed += len(g.refs)
	m.forgetSegment(q, g)
	return true
}

func (g *segment) key() (bucket, name string, number uint64) {
	return bucketQueues, g.session.client, g.number
}

func (g *segment) row(use func(*body)) []byte {
	row := &shoalpb.QueueRow{First: g.first}
	c := refCoder{use: use}
	c.add(g, 0, g.rowed)
	row.Queue, row.Shares = c.b, c.shares
	return encode(row)
}
