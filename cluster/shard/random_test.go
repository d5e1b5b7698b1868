package shard

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// replica is a second machine that is checkpointed, crashes and comes back.
type replica struct {
	t      *rapid.T
	config Config
	m      *Machine
	rows   memRows
	log    []logged
}

type logged struct {
	index uint64
	entry []byte
}

func (r *replica) apply(l logged) []Result {
	e := &shoalpb.Entry{}
	if err := e.UnmarshalVT(l.entry); err != nil {
		r.t.Fatal(err)
	}
	results, err := r.m.Apply(l.index, e, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return results
}

// checkpoint saves the state, or fails to, while during is applied.
func (r *replica) checkpoint(during func(), fail bool) {
	c := r.m.Freeze()
	rows := r.rows.clone()
	during()
	err := c.Write(rows, unlocked)
	if err != nil {
		r.t.Fatal(err)
	}
	if fail {
		c.Done(errors.New("no space"))
		return
	}
	r.rows = rows
	c.Done(nil)
}

// crash loses the memory and starts from the file and the log.
func (r *replica) crash() {
	r.m = New(r.config)
	if err := r.m.Restore(r.rows.scan); err != nil {
		r.t.Fatal(err)
	}
	for _, l := range r.log {
		r.apply(l)
	}
}

// TestRandom feeds random entries to a machine, to the model, and to a replica
// that takes and fails checkpoints, lets messages leave memory and crashes. All must stay equal, the answers
// too; and repeating an entry must change nothing.
func TestRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		config := Config{Group: 1, Life: 1, Subscriptions: 5}
		config.QueueEntries = rapid.SampledFrom([]int{6, 70, 250}).Draw(t, "queue")
		config.RestoreBytes = rapid.SampledFrom([]int{1, 1000, 1 << 20}).Draw(t, "restored")
		config.Retained = rapid.SampledFrom([]int{1, 2, 100}).Draw(t, "retained")
		config.QueueBytes = rapid.SampledFrom([]int{20, 500, 1 << 20}).Draw(t, "queue bytes")
		config.segment = rapid.SampledFrom([]int{1, 2, 5, 256}).Draw(t, "segment")
		config.unrowed = rapid.SampledFrom([]int{1, 3, 32}).Draw(t, "unrowed")
		config.sweepPage = rapid.SampledFrom([]int{1, 2, 1000}).Draw(t, "page")
		w := newWorld(t)
		m, plain := New(config), newModel(config)
		w.replays = plain.pages
		r := &replica{t: t, config: config, m: New(config), rows: memRows{}}
		eff := &Effects{}
		step := func() {
			e := w.entry()
			data, _ := e.MarshalVT()
			l := logged{w.index, data}
			r.log = append(r.log, l)
			before := plain.sendable()
			results, err := m.Apply(w.index, e, eff)
			if err != nil {
				t.Fatal(err)
			}
			compareResults(t, "model", results, plain.apply(w.index, e))
			compareResults(t, "replica", results, answers(r.apply(l)))
			w.learn(e, results)
			if got, want := stateLines(t, m, nil), plain.lines(); !slices.Equal(got, want) {
				t.Fatalf("after entry %d\nmachine: %q\n  model: %q", w.index, got, want)
			}
			checkEffects(t, before, plain.sendable(), eff)
			checkCounts(t, m)
			checkConns(t, m)
			checkRoomy(t, m)
			if _, due := m.NextDeadline(); plain.unswept() && !due {
				t.Fatalf("nobody goes on with the sweep")
			}
			if got, want := plain.checkDue(m); !slices.Equal(got, want) {
				t.Fatalf("may be dispatched: %v, not %v", got, want)
			}
			repeat(t, m, l)
		}
		for n := rapid.IntRange(1, 40).Draw(t, "steps"); n > 0; n-- {
			switch w.choose(9, "step") {
			case 0:
				r.crash()
			case 8:
				evict(t, r.m)
			case 1, 2:
				r.checkpoint(func() {
					for k := w.choose(4, "during"); k > 0; k-- {
						step()
					}
				}, w.choose(3, "fail") == 0)
			default:
				step()
			}
			if got := stateLines(t, r.m, r.rows); !slices.Equal(got, plain.lines()) {
				t.Fatalf("after entry %d\nreplica: %q\n  model: %q", w.index, got, plain.lines())
			}
			checkCounts(t, r.m)
			checkConns(t, r.m)
			checkRoomy(t, r.m)
			if m.Digest() != r.m.Digest() {
				t.Fatalf("digests differ after entry %d\nmachine: %q\nreplica: %q", w.index, stateLines(t, m, nil), stateLines(t, r.m, r.rows))
			}
		}
		save(t, m, memRows{})
	})
}

func answers(results []Result) (list []*shoalpb.BatchAnswer) {
	for _, r := range results {
		list = append(list, r.Batch)
	}
	return list
}

func compareResults(t *rapid.T, what string, got []Result, want []*shoalpb.BatchAnswer) {
	if len(got) != len(want) {
		t.Fatalf("%s: %d results, not %d", what, len(got), len(want))
	}
	for i := range got {
		if !proto.Equal(got[i].Batch, want[i]) {
			t.Fatalf("%s: result %d\n got: %v\nwant: %v", what, i, got[i].Batch, want[i])
		}
	}
}

// checkEffects makes sure that a leader was told, once, of every connection that
// may send more than before.
func checkEffects(t *rapid.T, before, after map[uint64]uint64, eff *Effects) {
	ready := map[uint64]bool{}
	for _, r := range eff.Ready {
		if ready[r.Conn] {
			t.Fatalf("connection %d is ready twice", r.Conn)
		}
		ready[r.Conn] = true
	}
	for conn, seq := range after {
		if had, ok := before[conn]; ok && seq > had && !ready[conn] {
			t.Fatalf("connection %d may send up to %d and is not ready", conn, seq)
		}
	}
	eff.Reset()
}

// checkCounts checks the identity of the counters and that bodies and references
// agree.
func checkCounts(t *rapid.T, m *Machine) {
	st := m.Stats()
	if err := st.Account(); err != nil {
		t.Fatal(err)
	}
	bodies := map[*body]int32{}
	for _, s := range m.sessions {
		s.queue.record(func(b *body) { bodies[b]++ }, true)
		checkQueue(t, m, s)
	}
	for _, d := range m.due.list {
		if d != nil {
			bodies[d.body]++
		}
	}
	m.retained.All(func(_ string, r *retained) bool {
		bodies[r.body]++
		return true
	})
	for _, o := range m.outboxes {
		size := 0
		for _, e := range o.entries {
			size += e.bytes()
			if e.body != nil {
				bodies[e.body]++
			}
		}
		if size != o.bytes {
			t.Fatalf("outbox to %v has %d bytes and counts %d", o.target, size, o.bytes)
		}
	}
	for b, refs := range bodies {
		if b.refs != refs {
			t.Fatalf("body %d has %d references and counts %d", b.seq, refs, b.refs)
		}
	}
	bytes, memory, inMemory := 0, 0, 0
	for b := range bodies {
		bytes += b.bytes()
		if b.message != nil {
			memory += b.bytes()
			if b.is(isListed) {
				inMemory += b.bytes()
			}
			if b.inFile == inFile && !b.is(isListed) && !b.is(isRegister) {
				t.Fatalf("body %d would stay in memory for ever", b.seq)
			}
		}
	}
	if got, evictable := m.Memory(); st.BodyBytes != bytes || got != memory || evictable != inMemory {
		t.Fatalf("bodies have %d bytes, %d in memory, %d of those in the file; counted %d, %d, %d",
			bytes, memory, inMemory, st.BodyBytes, got, evictable)
	}
	if st.Bodies != len(bodies) {
		t.Fatalf("%d bodies, counted %d", len(bodies), st.Bodies)
	}
}

// checkConns checks the index of connections by process.
func checkConns(t *rapid.T, m *Machine) {
	conns, attached := 0, 0
	for _, s := range m.sessions {
		if s.owner != nil {
			conns++
			attached += isSet(s.attached())
			if s.owner.conns[s.place] != s {
				t.Fatalf("%s is not at its place", s.client)
			}
		}
		if b := s.standing(); b != nil {
			conns++
			if b.process.conns[b.place] != s {
				t.Fatalf("the bid for %s is not at its place", s.client)
			}
		}
		if s.hasFormer() {
			for _, f := range s.extra.former {
				if f.process == nil { // only its Will is on the way
					continue
				}
				conns++
				if f.process.conns[f.place] != s {
					t.Fatalf("former connection %d of %s is not at its place", f.conn, s.client)
				}
			}
		}
	}
	for _, p := range m.processes {
		for _, s := range p.conns {
			conns -= isSet(s != nil)
		}
	}
	if got := m.Stats().Attached; conns != 0 || got != attached {
		t.Fatalf("%d connections too few; %d sessions are attached, counted %d", conns, attached, got)
	}
	for i, d := range m.deadlines {
		if int(d.session.place) != i+1 || d.session.owner != nil {
			t.Fatalf("%s is not at its place among the deadlines", d.session.client)
		}
	}
}

// checkRoomy checks which replays may go on.
func checkRoomy(t *rapid.T, m *Machine) {
	replaying := 0
	for _, s := range m.sessions {
		_, roomy := m.roomy[s]
		want := false
		if s.replays() {
			replaying++
			room, bytes := m.replayRoom(s)
			want = room > 0 && bytes > 0
		}
		if roomy != want {
			t.Fatalf("a page has room in the queue of %s: %v, noted %v", s.client, want, roomy)
		}
	}
	if got := m.Stats().Replays; got != replaying || len(m.roomy) > replaying {
		t.Fatalf("%d sessions with replays, counted %d, %d with room", replaying, got, len(m.roomy))
	}
}

// checkQueue checks what a queue and its segments count.
func checkQueue(t *rapid.T, m *Machine, s *session) {
	q := s.queue
	if q == nil {
		return
	}
	want, next, rows := queue{unsent: q.unsent}, uint64(1), 0
	for i, g := range q.segments {
		left, shared := 0, 0
		for i, r := range g.refs {
			if r.body == nil {
				continue
			}
			seq := g.first + uint64(i)
			if want.unfinished == 0 {
				want.base = seq
			}
			want.count(s, seq, &r)
			left++
			shared += isSet(r.from.isShared())
		}
		want.unrowed += len(g.refs) - g.rowed
		switch {
		case left != g.left, shared != g.shared, g.session != s, g.first < next, len(g.refs) > m.cfg.segment:
			t.Fatalf("segment of %s from %d on counts %+v and has %d entries, %d shared", s.client, next, g, left, shared)
		case g.rowed > 0 && g.number == 0, g.number > m.file.lastSegment, i > 0 && g.number > 0 && g.number <= q.segments[i-1].number:
			t.Fatalf("segment %d of %s has row %d", i, s.client, g.number)
		case g.rowed < len(g.refs) && i+1 < len(q.segments) && q.segments[i+1].rowed > 0:
			t.Fatalf("entries of %s in the middle are in the session's row", s.client)
		}
		next = g.end()
		rows += isSet(g.number > 0)
	}
	want.rows = rows
	got := *q
	got.segments = nil
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("queue of %s counts %+v and has %+v", s.client, got, want)
	}
	if next > s.nextSeq {
		t.Fatalf("queue of %s ends at %d, not %d", s.client, next, s.nextSeq)
	}
	// One of before FormatOrder is all in the session's row until it changes.
	if q.unrowed > m.cfg.unrowed && rows > 0 {
		t.Fatalf("%d entries of %s are in the session's row", q.unrowed, s.client)
	}
}

// repeat applies an entry again: as old, and under a new index. Nothing may
// change.
func repeat(t *rapid.T, m *Machine, l logged) {
	if len(m.unswept) > 0 {
		return // any entry goes on with the sweep
	}
	before := m.Digest()
	e := &shoalpb.Entry{}
	if err := e.UnmarshalVT(l.entry); err != nil {
		t.Fatal(err)
	}
	for _, p := range e.Proposals {
		switch b, o := p.Batch, p.OutboxAnswered; {
		case p.Relieve != nil, p.Page != nil, p.Dispatch != nil && m.due.find(p.Dispatch.Due) != nil:
			return // it was not there then
		case b != nil && !consumed(m, b):
			return // what was ahead of a fence, or behind a gap, may be taken now
		case b != nil:
			b.Answered = 0 // or what was refused forgets answers now
		case o != nil:
			if _, left, _ := m.Outbox(o.Target, 0, 1, 0); len(left) > 0 {
				return // it may name what was not there
			}
		}
	}
	if results, err := m.Apply(l.index, e, nil); results != nil || err != nil {
		t.Fatalf("an old entry was applied: %v, %v", results, err)
	}
	e.ClockMs = 0
	applied := m.applied
	if _, err := m.Apply(l.index+1000, e, nil); err != nil {
		t.Fatal(err)
	}
	m.applied = applied
	if m.Digest() != before {
		t.Fatalf("a repeat of entry %d changed the state: %q", l.index, stateLines(t, m, nil))
	}
}

func consumed(m *Machine, b *shoalpb.Batch) bool {
	if b.Node != "" && b.Boot < m.in.MinBoot(b.Node) {
		return true // refused again
	}
	return m.in.Last(b.Node, b.Boot, b.Group) >= b.First+uint64(len(b.Commands))-1
}
