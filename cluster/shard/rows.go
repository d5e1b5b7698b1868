package shard

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// Buckets of the state file and their keys:
//
//	shard.meta      metaKey: everything small
//	shard.bodies    body number, 8 bytes big-endian
//	shard.sessions  Client Identifier, see nameKey
//	shard.queues    number, 8 bytes big-endian, and Client Identifier, see nameKey
//	shard.filters   Topic Filter, see nameKey
//	shard.retained  Topic Name, see nameKey
//	shard.outbox    target and number, see outboxKey
//	shard.due       number, 8 bytes big-endian, as a nameKey
const (
	bucketMeta     = "shard.meta"
	bucketBodies   = "shard.bodies"
	bucketSessions = "shard.sessions"
	bucketQueues   = "shard.queues"
	bucketFilters  = "shard.filters"
	bucketOutbox   = "shard.outbox"
	bucketRetained = "shard.retained"
	bucketDue      = "shard.due"
)

var metaKey = []byte("meta")

// The first byte of a nameKey tells what follows.
const (
	keyIsName = 0
	keyIsHash = 1
)

// nameKey is the key of a row that is named by a client: the name itself, or
// the hash of a long one, as keys of a B+tree must be short and a client may
// send 64 KiB.
func nameKey(name string) []byte {
	if len(name) > maxNameKey {
		h := sha256.Sum256([]byte(name))
		return append([]byte{keyIsHash}, h[:]...)
	}
	return append([]byte{keyIsName}, name...)
}

// nameOf returns the name of a row: that of its key, or else the one inside.
func nameOf(key []byte, inside string) (string, error) {
	switch {
	case len(key) > 0 && key[0] == keyIsName && inside == "":
		return string(key[1:]), nil
	case len(key) > 0 && key[0] == keyIsHash && string(nameKey(inside)) == string(key):
		return inside, nil
	}
	return "", fmt.Errorf("key %x does not fit the row: %w", key, errCorrupt)
}

// nameInside is what a row has to say about its name besides its key.
func nameInside(name string) string {
	if len(name) > maxNameKey {
		return name
	}
	return ""
}

// rowKey is the key of a row that is named by a client and, if it is not 0, by a
// number: in front, so that what is written together stands together.
func rowKey(name string, number uint64) []byte {
	if number == 0 {
		return nameKey(name)
	}
	return append(binary.BigEndian.AppendUint64(nil, number), nameKey(name)...)
}

func bodyKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// outboxKey is group, boot, node and number: fixed widths around the one part
// that has none, so that entries of a target stand together and in order.
func outboxKey(t *shoalpb.Target, n uint64) []byte {
	k := make([]byte, 0, 20+len(t.Node))
	k = binary.BigEndian.AppendUint32(k, t.Group)
	k = binary.BigEndian.AppendUint64(k, t.Boot)
	k = append(k, t.Node...)
	return binary.BigEndian.AppendUint64(k, n)
}

func parseOutboxKey(k []byte) (*shoalpb.Target, uint64, error) {
	if len(k) < 20 {
		return nil, 0, fmt.Errorf("outbox key %x: %w", k, errCorrupt)
	}
	end := len(k) - 8
	return &shoalpb.Target{
		Group: binary.BigEndian.Uint32(k),
		Boot:  binary.BigEndian.Uint64(k[4:]),
		Node:  string(k[12:end]),
	}, binary.BigEndian.Uint64(k[end:]), nil
}

// encode marshals a row. Rows are made here from valid state: that this fails
// is a fault of the program.
func encode(row interface{ MarshalVT() ([]byte, error) }) []byte {
	b, err := row.MarshalVT()
	if err != nil {
		panic(fmt.Sprintf("shard: encode row: %v", err))
	}
	return b
}

// metaRow encodes everything small.
func (m *Machine) metaRow() []byte {
	row := &shoalpb.ShardMeta{
		Format:   m.format,
		Group:    m.cfg.Group,
		Applied:  m.applied,
		ClockMs:  m.clock,
		BodySeq:  m.bodySeq,
		Streams:  m.in.AppendRow(nil),
		Counters: m.counters,

		WallMs:      m.wall,
		WallClockMs: m.wallClock,
		NextReplay:  m.nextReplay,
		NextDue:     m.due.next,
	}
	for _, o := range m.outboxes {
		row.Outboxes = append(row.Outboxes, &shoalpb.OutboxMeta{Target: o.target, Base: o.base, Next: o.next()})
	}
	return encode(row)
}

func (b *body) row() []byte {
	return encode(&shoalpb.BodyRow{Message: b.message, AtMs: b.at})
}

func (f *filter) key() (bucket, name string, number uint64) { return bucketFilters, f.name, 0 }

func (f *filter) row(func(*body)) []byte {
	return encode(&shoalpb.FilterRow{Route: f.route, Filter: nameInside(f.name)})
}

func (e outboxEntry) row() []byte {
	if e.body != nil {
		return encode(&shoalpb.OutboxRow{Body: e.body.seq, Retain: e.retain, Picks: e.picks})
	}
	return encode(&shoalpb.OutboxRow{Route: e.route})
}

func (s *session) key() (bucket, name string, number uint64) { return bucketSessions, s.client, 0 }

// row encodes the session without what segments of its queue have in rows of
// their own, and tells use which bodies the row refers to.
func (s *session) row(use func(*body)) []byte { return encode(s.record(use, false)) }

// record is the session's row, with all of its queue if whole.
func (s *session) record(use func(*body), whole bool) *shoalpb.SessionRow {
	row := &shoalpb.SessionRow{
		Client:     nameInside(s.client),
		Durable:    s.durable,
		Conn:       s.conn,
		Former:     s.formerOwners(),
		Window:     uint32(s.window),
		ExpiryS:    s.expiry,
		DetachedMs: s.detachedAt,
		NextSeq:    s.nextSeq,
		SentHi:     s.sentHi,
		OpenSentHi: s.openSentHi,
	}
	row.Queue, row.Shares, row.QueueRows = s.queue.record(use, whole)
	if s.owner != nil {
		row.Node, row.Boot = s.owner.node, s.owner.boot
	} else {
		row.Conn, row.LastConn = 0, s.conn
	}
	if len(s.subs) > 0 {
		row.Subscriptions = make([]*shoalpb.Subscription, len(s.subs))
		for i, sub := range s.subs {
			row.Subscriptions[i] = sub.row()
		}
	}
	if x := s.extra; x != nil {
		row.Will, row.WillConn = x.will, x.willConn
		row.Dropped, row.Limits = x.dropped, x.limits.row()
		row.Bid = x.bid.row()
		for _, f := range x.former {
			if f.will != nil {
				row.Wills = append(row.Wills, f.will.row())
			}
		}
		for _, r := range x.received {
			row.Received = append(row.Received, r.row())
		}
		for _, r := range x.replays {
			row.Replays = append(row.Replays, r.row())
		}
	}
	return row
}

func (r *received) row() *shoalpb.ReceivedRow {
	row := &shoalpb.ReceivedRow{Id: r.id, Conn: r.conn, Hash: r.hash, Released: r.released, Whole: r.whole}
	row.Pending = pendingRows(r.pending)
	if p := r.retained; p.outbox != nil {
		row.Retained = &shoalpb.PendingRow{Target: p.outbox.target, N: p.n}
	}
	return row
}

func pendingRows(list []pending) (rows []*shoalpb.PendingRow) {
	for _, p := range list {
		rows = append(rows, &shoalpb.PendingRow{Target: p.outbox.target, N: p.n})
	}
	return rows
}

// record encodes the entries that are in the session's row, which are the
// youngest, or the whole queue, and counts the rows of segments.
func (q *queue) record(use func(*body), whole bool) (b []byte, shares []string, rows uint32) {
	if q == nil {
		return nil, nil, 0
	}
	c := refCoder{use: use}
	if whole {
		c.b = make([]byte, 0, 16+4*q.unfinished)
	}
	first := 0
	if !whole {
		for first = len(q.segments); first > 0 && q.segments[first-1].rowed < len(q.segments[first-1].refs); first-- {
		}
		rows = uint32(q.rows)
	}
	for _, g := range q.segments[first:] {
		from := g.rowed
		if whole {
			from = 0
		}
		c.add(g, from, len(g.refs))
	}
	return c.b, c.shares, rows
}

// refCoder encodes unfinished entries, each as varints: seq and body number as
// differences to the entry before, flags, and, if flagged, the number of
// identifiers and the identifiers, and the place of the Shared Subscription in
// shares. A usual entry takes three bytes.
type refCoder struct {
	use          func(*body) // told which bodies there are
	b            []byte
	shares       []string
	seq, bodySeq uint64
}

// add encodes the entries of g at the places from <= i < to.
func (c *refCoder) add(g *segment, from, to int) {
	if n := 16 + 4*(to-from); to > from && cap(c.b)-len(c.b) < n {
		c.b = slices.Grow(c.b, n)
	}
	for i, r := range g.refs[from:to] {
		if r.body == nil {
			continue
		}
		c.use(r.body)
		at := g.first + uint64(from+i)
		c.b = binary.AppendUvarint(c.b, at-c.seq)
		c.b = binary.AppendVarint(c.b, int64(r.body.seq-c.bodySeq))
		c.seq, c.bodySeq = at, r.body.seq
		c.b, c.shares = r.from.append(c.b, r.flag, c.shares)
	}
}

// append encodes the flags of an entry and where it came from.
func (o *origin) append(b []byte, flag refFlag, shares []string) ([]byte, []string) {
	if o == nil {
		return append(b, byte(flag)), shares
	}
	if o.ids != nil {
		flag |= refHasIDs
	}
	if o.share != "" {
		flag |= refIsShared
	}
	b = append(b, byte(flag))
	if o.ids != nil {
		b = binary.AppendUvarint(b, uint64(len(o.ids)))
		for _, id := range o.ids {
			b = binary.AppendUvarint(b, uint64(id))
		}
	}
	if o.share != "" {
		place := slices.Index(shares, o.share)
		if place < 0 {
			place = len(shares)
			shares = append(shares, o.share)
		}
		b = binary.AppendUvarint(b, uint64(place))
	}
	return b, shares
}
