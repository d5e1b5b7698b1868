package shard

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	shoalpb "github.com/shoalmq/shoal/proto"
)

func (r *restorer) sessionRow(k, v []byte) error {
	row := &shoalpb.SessionRow{}
	if err := decode(v, row); err != nil {
		return err
	}
	client, err := nameOf(k, row.Client)
	if err != nil {
		return err
	}
	s := &session{
		client:     client,
		conn:       row.Conn,
		nextSeq:    row.NextSeq,
		sentHi:     row.SentHi,
		openSentHi: row.OpenSentHi,
		detachedAt: row.DetachedMs,
		expiry:     row.ExpiryS,
		window:     uint16(row.Window),
		durable:    row.Durable,
	}
	m := r.m
	m.sessions[client] = s
	m.gauges.durable += isSet(s.durable)
	if row.Conn != 0 {
		s.owner = m.process(row.Node, row.Boot)
		s.owner.owned++
		m.gauges.attached += isSet(!s.owner.fenced)
		r.conns = append(r.conns, restoredConn{s.owner, s.conn, s})
	} else {
		s.conn = row.LastConn
	}
	if err := r.subscriptions(s, row.Subscriptions); err != nil {
		return fmt.Errorf("session %q: %w", client, err)
	}
	if err := r.queue(s, string(k), row); err != nil {
		return fmt.Errorf("session %q: %w", client, err)
	}
	if err := r.extra(s, row); err != nil {
		return fmt.Errorf("session %q: %w", client, err)
	}
	m.schedule(s)
	m.strand(s)
	return nil
}

func (r *restorer) subscriptions(s *session, rows []*shoalpb.Subscription) error {
	if len(rows) > 0 {
		s.subs = make([]*subscription, len(rows))
	}
	for i, row := range rows {
		f := r.m.lookup(row.Filter)
		if f == nil {
			return fmt.Errorf("filter %q is missing: %w", row.Filter, errCorrupt)
		}
		s.subs[i] = f.add(s, optionsOf(row))
		r.m.enterShare(s.subs[i])
		s.subs[i].identify(row.Identifier)
	}
	r.m.gauges.subscriptions += len(rows)
	return nil
}

func (r *restorer) extra(s *session, row *shoalpb.SessionRow) error {
	if len(row.Former) == 0 && row.Will == nil && row.Dropped == 0 && row.Limits == nil && len(row.Received) == 0 && len(row.Replays) == 0 &&
		row.Bid == nil {
		return nil
	}
	x := s.more()
	x.limits = r.m.limits(row.Limits)
	x.will, x.willConn, x.dropped = row.Will, row.WillConn, row.Dropped
	for _, o := range row.Former {
		f := former{conn: o.Conn}
		if o.Node != "" {
			f.process = r.m.process(o.Node, o.Boot)
			r.conns = append(r.conns, restoredConn{f.process, o.Conn, s})
		}
		r.m.addFormer(s, f)
	}
	if b := row.Bid; b != nil {
		x.bid = &bid{process: r.m.process(b.Node, b.Boot), conn: b.Conn, present: b.Present, open: b.Open}
		r.conns = append(r.conns, restoredConn{x.bid.process, b.Conn, s})
	}
	for _, w := range row.Wills {
		if err := r.lastWill(s, w); err != nil {
			return err
		}
	}
	for _, e := range row.Received {
		exchange := newReceived(s, e.Conn, e.Id, e.Hash)
		exchange.released, exchange.whole = e.Released, e.Whole
		x.received = append(x.received, exchange)
		for _, p := range e.Pending {
			if err := r.wait(&exchange.waiter, p); err != nil {
				return fmt.Errorf("exchange %d: %w", e.Id, err)
			}
			if e.Retained != nil && e.Retained.N == p.N && compareTargets(e.Retained.Target, p.Target) == 0 {
				exchange.retained = exchange.pending[len(exchange.pending)-1]
			}
		}
		if e.Retained != nil && exchange.retained.outbox == nil {
			return fmt.Errorf("exchange %d: its retained entry is not pending: %w", e.Id, errCorrupt)
		}
	}
	return r.replays(s, row.Replays)
}

// lastWill restores a Will that its targets have not all answered.
func (r *restorer) lastWill(s *session, row *shoalpb.WillRow) error {
	f := s.formerOf(row.Conn)
	if f == nil {
		return fmt.Errorf("will of %d, which is no former owner: %w", row.Conn, errCorrupt)
	}
	f.will = newLastWill(s, row.Conn)
	for _, p := range row.Pending {
		if err := r.wait(&f.will.waiter, p); err != nil {
			return fmt.Errorf("will of %d: %w", row.Conn, err)
		}
	}
	return nil
}

// restoredConn is a connection that owns, owned or bids for a session.
type restoredConn struct {
	process *process
	conn    uint64
	session *session
}

// enterConns gives all connections their places, in their order, and finds what
// fences have left to sweep.
func (r *restorer) enterConns() {
	m := r.m
	slices.SortFunc(r.conns, func(a, b restoredConn) int { return cmp.Compare(a.conn, b.conn) })
	for _, c := range r.conns {
		place := c.process.enter(c.session)
		switch s, b := c.session, c.session.standing(); {
		case s.owner != nil && s.conn == c.conn:
			s.place = place
		case b != nil && b.conn == c.conn:
			b.place = place
		default:
			s.formerOf(c.conn).place = place
		}
	}
	for _, o := range m.outboxes {
		if m.isDead(o.target) {
			m.process(o.target.Node, o.target.Boot)
		}
	}
	for _, p := range m.processes {
		if p.fenced {
			m.unswept = append(m.unswept, p)
		}
	}
	slices.SortFunc(m.unswept, compareProcesses)
}

// wait makes w wait for an outbox entry again.
func (r *restorer) wait(w *waiter, p *shoalpb.PendingRow) error {
	i, ok := r.m.findOutbox(p.Target)
	if !ok || p.N < r.m.outboxes[i].base || p.N >= r.m.outboxes[i].next() {
		return fmt.Errorf("it waits for entry %d to %v, which is not there: %w", p.N, p.Target, errCorrupt)
	}
	o := r.m.outboxes[i]
	o.entries[p.N-o.base].waiter = w
	w.pending = append(w.pending, pending{o, p.N})
	return nil
}

// queueRow decodes a segment; its session comes later.
func (r *restorer) queueRow(k, v []byte) error {
	row := &shoalpb.QueueRow{}
	if err := decode(v, row); err != nil {
		return err
	}
	if len(k) <= 8 || row.First == 0 {
		return fmt.Errorf("segment %x: %w", k, errCorrupt)
	}
	g := &segment{first: row.First, number: binary.BigEndian.Uint64(k)}
	r.m.file.lastSegment = max(r.m.file.lastSegment, g.number)
	err := r.refs(row.Queue, row.Shares, func(seq uint64, x ref) bool {
		if seq < g.end() || seq-g.first >= maxSegmentRefs {
			return false
		}
		g.append(seq, x)
		return true
	})
	g.rowed = len(g.refs)
	r.segments[string(k[8:])] = append(r.segments[string(k[8:])], g)
	return err
}

// queue puts the segments of a queue together, and decodes what the session's own
// row has of it. key is that of the row.
func (r *restorer) queue(s *session, key string, row *shoalpb.SessionRow) error {
	segments := r.segments[key]
	delete(r.segments, key)
	if len(segments) != int(row.QueueRows) {
		return fmt.Errorf("%d segments, not %d: %w", len(segments), row.QueueRows, errCorrupt)
	}
	if len(segments) == 0 && len(row.Queue) == 0 {
		return nil
	}
	q := &queue{segments: segments, rows: len(segments)}
	s.queue = q
	next := uint64(1)
	for _, g := range segments {
		if g.first < next {
			return fmt.Errorf("segment %d: %w", g.number, errCorrupt)
		}
		g.session = s
		for i := range g.refs {
			if x := &g.refs[i]; x.body != nil {
				q.count(s, g.first+uint64(i), x)
			}
		}
		next = g.end()
	}
	err := r.refs(row.Queue, row.Shares, func(seq uint64, x ref) bool {
		if seq < next {
			return false
		}
		r.m.pushRestored(s, seq, x)
		q.count(s, seq, &x)
		next = seq + 1
		return true
	})
	if err != nil {
		return err
	}
	if next > s.nextSeq || q.unfinished == 0 {
		return fmt.Errorf("queue: %w", errCorrupt)
	}
	q.base, _ = q.next(0, false)
	r.m.gauges.queued += q.unfinished
	return nil
}

// refs decodes what refCoder encodes. add reports whether an entry fits.
func (r *restorer) refs(b []byte, shares []string, add func(seq uint64, x ref) bool) error {
	d := &varints{b: b}
	var seq, bodySeq uint64
	var last *origin
	for len(d.b) > 0 && !d.bad {
		step := d.unsigned()
		seq += step
		bodySeq += uint64(d.signed())
		flag := refFlag(d.unsigned())
		from := d.origin(flag, shares, last)
		if from != nil {
			last = from
		}
		if d.bad {
			break
		}
		body, err := r.use(bodySeq)
		if err != nil {
			return err
		}
		if step == 0 || !add(seq, ref{body, from, flag &^ (refHasIDs | refIsShared)}) {
			return fmt.Errorf("queue entry %d: %w", seq, errCorrupt)
		}
	}
	if d.bad {
		return fmt.Errorf("queue: %w", errCorrupt)
	}
	return nil
}

// varints reads numbers; bad is set at the first that is cut off.
type varints struct {
	b   []byte
	bad bool
}

func (d *varints) unsigned() uint64 {
	v, n := binary.Uvarint(d.b)
	return v * d.took(n)
}

func (d *varints) signed() int64 {
	v, n := binary.Varint(d.b)
	return v * int64(d.took(n))
}

// took goes on by n bytes. It returns 0 if there was no number.
func (d *varints) took(n int) uint64 {
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return 1
}

// origin reads where an entry came from. Equal ones of neighbours are shared:
// last is one read before.
func (d *varints) origin(flag refFlag, shares []string, last *origin) *origin {
	if flag&(refHasIDs|refIsShared) == 0 {
		return nil
	}
	o := &origin{}
	if flag&refHasIDs != 0 {
		n := d.unsigned()
		if n == 0 || n > uint64(len(d.b)) {
			d.bad = true
			return nil
		}
		o.ids = make([]uint32, n)
		for i := range o.ids {
			o.ids[i] = uint32(d.unsigned())
		}
	}
	if flag&refIsShared != 0 {
		place := d.unsigned()
		if place >= uint64(len(shares)) {
			d.bad = true
			return nil
		}
		o.share = shares[place]
	}
	if last != nil && last.share == o.share && slices.Equal(last.ids, o.ids) {
		return last
	}
	return o
}
