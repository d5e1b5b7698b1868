package shard

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
	"google.golang.org/protobuf/proto"
)

// errCorrupt: rows contradict each other. Checksums have passed, so it is a
// fault of the program that wrote them.
var errCorrupt = errors.New("state file is inconsistent")

// restorer reads a state file into a fresh Machine.
type restorer struct {
	m      *Machine
	bodies map[uint64]*body
	meta   bool
	// pinned are the bodies whose messages apply will need.
	pinned map[uint64]bool
	// registers are the bodies of retained messages.
	registers map[uint64]bool
	// segments of queues, by the key of their session.
	segments map[string][]*segment
	// conns are the connections that own or owned sessions.
	conns []restoredConn
}

// Restore fills a fresh Machine from the rows of a state file; scan visits all
// rows of a bucket, none if there is no such bucket, and k and v are valid only
// during fn. A file without any row leaves the machine empty. After an error
// the machine must not be used.
func (m *Machine) Restore(scan func(bucket string, fn func(k, v []byte) error) error) error {
	r := &restorer{m: m, bodies: map[uint64]*body{}, pinned: map[uint64]bool{}, registers: map[uint64]bool{}, segments: map[string][]*segment{}}
	// In order of what refers to what.
	for _, step := range []struct {
		bucket string
		row    func(k, v []byte) error
	}{
		{bucketMeta, r.metaRow},
		{bucketDue, r.pinRow},
		{bucketRetained, r.registerRow},
		{bucketBodies, r.bodyRow},
		{bucketOutbox, r.outboxRow},
		{bucketFilters, r.filterRow},
		{bucketQueues, r.queueRow},
		{bucketSessions, r.sessionRow},
		{bucketDue, r.dueRow},
		{bucketRetained, r.retainedRow},
	} {
		if err := scan(step.bucket, step.row); err != nil {
			return fmt.Errorf("restore shard %d: %s: %w", m.cfg.Group, step.bucket, err)
		}
	}
	if err := r.check(); err != nil {
		return fmt.Errorf("restore shard %d: %w", m.cfg.Group, err)
	}
	r.enterConns()
	m.file = file{generation: 1, lastSegment: m.file.lastSegment}
	return nil
}

// decode reads a row that this build understands completely.
func decode(v []byte, row interface {
	proto.Message
	UnmarshalVT([]byte) error
}) error {
	if err := row.UnmarshalVT(v); err != nil {
		return fmt.Errorf("decode row: %w", err)
	}
	return stream.CheckKnown(row)
}

func (r *restorer) metaRow(_, v []byte) error {
	m, row := r.m, &shoalpb.ShardMeta{}
	if err := decode(v, row); err != nil {
		return err
	}
	if row.Format < stream.FirstFormat || row.Format > stream.FormatOrder {
		return fmt.Errorf("unknown format %d", row.Format)
	}
	if row.Group != m.cfg.Group {
		return fmt.Errorf("state of shard %d", row.Group)
	}
	m.format = row.Format
	m.applied, m.clock, m.bodySeq = row.Applied, row.ClockMs, row.BodySeq
	m.wall, m.wallClock = row.WallMs, row.WallClockMs
	m.due.next = row.NextDue
	m.nextReplay = row.NextReplay
	if row.Counters != nil {
		m.counters = row.Counters
	}
	for _, o := range row.Outboxes {
		m.outboxes = append(m.outboxes, &outbox{
			target: o.Target, base: o.Base, entries: make([]outboxEntry, o.Next-o.Base),
			fileBase: o.Base, fileNext: o.Next, retained: o.Next - 1,
		})
	}
	r.meta = true
	return m.in.LoadRow(row.Streams)
}

func (r *restorer) bodyRow(k, v []byte) error {
	row := &shoalpb.BodyRow{}
	if err := decode(v, row); err != nil {
		return err
	}
	if len(k) != 8 || row.Message == nil {
		return fmt.Errorf("body %x: %w", k, errCorrupt)
	}
	b := newBody(row.Message, binary.BigEndian.Uint64(k), row.AtMs)
	b.inFile = inFile
	if r.registers[b.seq] {
		b.marks |= isRegister
	}
	r.bodies[b.seq] = b
	m := r.m
	m.gauges.bodies++
	m.gauges.bodyBytes += b.bytes()
	if m.gauges.memory+b.bytes() > m.cfg.RestoreBytes && !r.pinned[b.seq] && !b.is(isRegister) {
		b.sum, b.message = contentSum(b.message), nil
		return nil
	}
	m.gauges.memory += b.bytes()
	m.resident.add(b)
	return nil
}

// pinRow notes the body of a due message.
func (r *restorer) pinRow(_, v []byte) error {
	row := &shoalpb.DueRow{}
	if err := decode(v, row); err != nil {
		return err
	}
	if row.Pick == nil {
		r.pinned[row.Body] = true
	}
	return nil
}

// registerRow notes the body of a retained message.
func (r *restorer) registerRow(_, v []byte) error {
	row := &shoalpb.RetainedRow{}
	if err := decode(v, row); err != nil {
		return err
	}
	r.registers[row.Body] = true
	return nil
}

// use returns a body and counts a reference to it.
func (r *restorer) use(seq uint64) (*body, error) {
	b := r.bodies[seq]
	if b == nil {
		return nil, fmt.Errorf("body %d is missing: %w", seq, errCorrupt)
	}
	b.refs++
	return b, nil
}

func (r *restorer) outboxRow(k, v []byte) error {
	row := &shoalpb.OutboxRow{}
	if err := decode(v, row); err != nil {
		return err
	}
	t, n, err := parseOutboxKey(k)
	if err != nil {
		return err
	}
	i, ok := r.m.findOutbox(t)
	if !ok || n < r.m.outboxes[i].base || n >= r.m.outboxes[i].next() {
		return fmt.Errorf("outbox entry %d to %v: %w", n, t, errCorrupt)
	}
	o, e := r.m.outboxes[i], outboxEntry{route: row.Route, retain: row.Retain, picks: row.Picks}
	if row.Route == nil {
		if e.body, err = r.use(row.Body); err != nil {
			return err
		}
	}
	o.entries[n-o.base] = e
	o.bytes += e.bytes()
	return nil
}

func (r *restorer) dueRow(k, v []byte) error {
	row := &shoalpb.DueRow{}
	if err := decode(v, row); err != nil {
		return err
	}
	name, err := nameOf(k, "")
	if err != nil {
		return err
	}
	if len(name) != 8 {
		return fmt.Errorf("due message %x: %w", k, errCorrupt)
	}
	d := &due{id: binary.BigEndian.Uint64([]byte(name)), client: row.Client, conn: row.Conn, pick: row.Pick}
	if d.body, err = r.use(row.Body); err != nil {
		return err
	}
	if d.id >= r.m.due.next {
		return fmt.Errorf("due message %d is not below %d: %w", d.id, r.m.due.next, errCorrupt)
	}
	r.m.due.add(d)
	if d.pick == nil {
		r.m.pin(d.body)
	}
	return nil
}

func (r *restorer) filterRow(k, v []byte) error {
	row := &shoalpb.FilterRow{}
	if err := decode(v, row); err != nil {
		return err
	}
	name, err := nameOf(k, row.Filter)
	if err != nil {
		return err
	}
	f := r.m.filter(name)
	f.route = row.Route
	if sh := r.m.shares[name]; sh != nil {
		sh.turn = row.Turn
	}
	return nil
}

// check makes sure that nothing is missing and nothing too much.
func (r *restorer) check() (err error) {
	m := r.m
	if !r.meta && (len(m.sessions) > 0 || len(r.bodies) > 0 || m.filters.Len()+len(m.shares) > 0) {
		return fmt.Errorf("no meta row: %w", errCorrupt)
	}
	for seq, b := range r.bodies {
		if b.refs == 0 {
			return fmt.Errorf("nothing refers to body %d: %w", seq, errCorrupt)
		}
	}
	for key := range r.segments {
		return fmt.Errorf("segments of a queue have no session, key %x: %w", key, errCorrupt)
	}
	for _, o := range m.outboxes {
		for i, e := range o.entries {
			if e.body == nil && e.route == nil {
				return fmt.Errorf("outbox entry %d to %v is missing: %w", o.base+uint64(i), o.target, errCorrupt)
			}
		}
	}
	m.eachFilter(func(f *filter) bool {
		if len(f.subs) == 0 {
			err = fmt.Errorf("nobody subscribes %q: %w", f.name, errCorrupt)
		}
		if sh := m.shares[f.name]; sh != nil {
			sh.told = sh.seats()
		}
		return err == nil
	})
	return err
}
