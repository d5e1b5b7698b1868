package shard

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// world makes random entries that a shard could get, and remembers enough of
// the answers to make them interesting.
type world struct {
	t       *rapid.T
	index   uint64
	boots   map[string]uint64
	numbers map[string]uint64 // highest consumed of each source
	last    map[string]*shoalpb.Batch
	conns   []scriptConn
	fence   uint64
	text    int
}

func newWorld(t *rapid.T) *world {
	return &world{
		t: t, boots: map[string]uint64{"X": 1, "Y": 1, "Z": 1},
		numbers: map[string]uint64{}, last: map[string]*shoalpb.Batch{},
	}
}

func (w *world) choose(n int, label string) int { return rapid.IntRange(0, n-1).Draw(w.t, label) }

func (w *world) one(label string, of ...string) string { return of[w.choose(len(of), label)] }

func (w *world) flip(label string) bool { return rapid.Bool().Draw(w.t, label) }

// entry makes the next entry.
func (w *world) entry() *shoalpb.Entry {
	w.index += 1 + uint64(w.choose(2, "skip"))
	e := &shoalpb.Entry{Format: entryFormat, ClockMs: uint64(w.choose(50, "clock"))}
	for n := 1 + w.choose(3, "proposals"); n > 0; n-- {
		e.Proposals = append(e.Proposals, w.proposal())
	}
	return e
}

func (w *world) proposal() *shoalpb.Proposal {
	switch w.choose(12, "proposal") {
	case 0:
		node := w.one("node", "X", "Y", "Z")
		w.boots[node] += uint64(w.choose(2, "boot"))
		w.fence += uint64(w.choose(2, "fence"))
		return &shoalpb.Proposal{Fence: &shoalpb.Fence{
			Number: w.fence, Nodes: []*shoalpb.NodeBoot{{Node: node, Boot: w.boots[node]}},
		}}
	case 1, 2:
		up := uint64(w.choose(12, "up to"))
		return &shoalpb.Proposal{OutboxAnswered: &shoalpb.OutboxAnswered{
			Target: w.target(), UpTo: up, Refused: []*shoalpb.Answer{{N: up, Code: shoalpb.Code_CODE_QUEUE_FULL}},
		}}
	}
	return &shoalpb.Proposal{Batch: w.batch()}
}

func (w *world) target() *shoalpb.Target {
	node := w.one("target", "", "", "Y", "Z")
	if node == "" {
		return &shoalpb.Target{Group: uint32(w.choose(3, "group"))}
	}
	return &shoalpb.Target{Node: node, Boot: w.boots[node]}
}

// batch makes a batch: a new one, one that repeats or overlaps the last one of
// its source, or one with a gap.
func (w *world) batch() *shoalpb.Batch {
	b := &shoalpb.Batch{Target: 1, TargetLife: 1, Fence: w.fence}
	if b.Node = w.one("source", "X", "X", "Y", "Y", "Z", ""); b.Node != "" {
		b.Boot = w.boots[b.Node]
		if b.Boot > 1 && w.choose(15, "old boot") == 0 {
			b.Boot--
		}
	} else {
		b.Group, b.SourceLife = 2, 1
	}
	last := w.numbers[source(b)]
	b.First = last + 1
	switch kind := w.choose(12, "kind"); {
	case kind == 0:
		b.First++ // a gap, unless the batch before it is in the same entry
	case kind == 1:
		b.Fence++
	case kind <= 3 && w.last[source(b)] != nil:
		again := w.last[source(b)]
		b.First = again.First
		b.Commands = slices.Clone(again.Commands)
	}
	if w.choose(4, "know") == 0 {
		b.Answered = uint64(w.choose(int(b.First), "answered"))
	}
	for n := w.choose(5, "commands"); n >= 0; n-- {
		b.Commands = append(b.Commands, w.command(b.Node))
	}
	if w.choose(10, "burst") == 0 {
		for range 90 {
			b.Commands = append(b.Commands, &shoalpb.Command{Append: &shoalpb.Append{Message: w.message()}})
		}
	}
	w.last[source(b)] = b
	w.numbers[source(b)] = max(last, b.First+uint64(len(b.Commands))-1) // if all goes well
	return b
}

func (w *world) message() *shoalpb.Message {
	w.text++
	return &shoalpb.Message{
		Topic: w.one("topic", "a", "a/b", "a/c", "b"), Payload: fmt.Appendf(nil, "m%d", w.text),
		Qos: uint32(w.choose(3, "qos")), Retain: w.flip("retain"), Publisher: w.one("publisher", "c0", "c1", "p"),
	}
}

func (w *world) command(node string) *shoalpb.Command {
	kind := w.choose(20, "command")
	switch {
	case node == "" || kind < 5:
		return &shoalpb.Command{Append: &shoalpb.Append{Message: w.message()}}
	case kind < 7 || len(w.conns) == 0:
		return &shoalpb.Command{Open: &shoalpb.Open{
			Client: w.one("client", "c0", "c1", "c2"), CleanStart: w.choose(4, "clean") == 0,
			ExpiryS: uint32(w.choose(4, "expiry")), Window: uint32(w.choose(3, "window")),
		}}
	}
	c := w.conns[len(w.conns)-1-w.choose(min(len(w.conns), 4), "conn")]
	switch kind {
	case 7:
		cl := &shoalpb.Close{Client: c.client, Conn: c.conn, Drained: w.flip("drained")}
		if w.choose(4, "expire") == 0 {
			cl.ExpiryS = new(uint32)
		}
		return &shoalpb.Command{Close: cl}
	case 8:
		return &shoalpb.Command{Drained: &shoalpb.Drained{Client: c.client, Conn: c.conn}}
	case 9, 10, 11:
		return &shoalpb.Command{Subscribe: w.subscribe(c)}
	case 12:
		return &shoalpb.Command{Unsubscribe: &shoalpb.Unsubscribe{
			Client: c.client, Conn: c.conn, Filters: []string{w.filter(), w.filter()},
		}}
	case 13, 14:
		return &shoalpb.Command{Received: w.received(c)}
	case 15:
		return &shoalpb.Command{Released: &shoalpb.Released{Client: c.client, Conn: c.conn, Id: w.id()}}
	case 16, 17:
		return &shoalpb.Command{Release: &shoalpb.Release{Client: c.client, Conn: c.conn, Seq: w.seq()}}
	}
	return &shoalpb.Command{Ack: &shoalpb.Ack{
		Client: c.client, Conn: c.conn, Seqs: []uint64{w.seq(), w.seq(), w.seq()}, Expired: []uint64{w.seq()},
	}}
}

func (w *world) id() uint32      { return uint32(1 + w.choose(3, "id")) }
func (w *world) seq() uint64     { return uint64(w.choose([]int{8, 16, 150}[w.choose(3, "span")], "seq")) }
func (w *world) filter() string  { return w.one("filter", "a", "a/#", "+", "a/+", "#", "b") }
func (w *world) options() uint32 { return uint32(w.choose(3, "option")) }

func (w *world) subscribe(c scriptConn) *shoalpb.Subscribe {
	s := &shoalpb.Subscribe{Client: c.client, Conn: c.conn}
	for n := w.choose(3, "subscriptions"); n >= 0; n-- {
		filter := w.filter()
		if w.choose(20, "shared") == 0 {
			filter = "$share/g/" + filter
		}
		s.Subscriptions = append(s.Subscriptions, &shoalpb.Subscription{
			Filter: filter, Qos: w.options(), NoLocal: w.flip("no local"), RetainAsPublished: w.flip("rap"),
			RetainHandling: w.options(), Identifier: w.options(),
		})
	}
	return s
}

func (w *world) received(c scriptConn) *shoalpb.Received {
	r := &shoalpb.Received{
		Client: c.client, Conn: c.conn, Id: w.id(), Hash: uint64(w.choose(2, "hash")), Dup: w.flip("dup"), Message: w.message(),
	}
	for n := w.choose(4, "targets"); n > 0; n-- {
		if t := w.target(); t.Node != "" || t.Group != 0 {
			r.Targets = append(r.Targets, t)
		}
	}
	return r
}

// learn remembers what came of an entry.
func (w *world) learn(e *shoalpb.Entry, results []Result) {
	for i, p := range e.Proposals {
		if p.Batch == nil {
			continue
		}
		answer := results[i].Batch
		w.numbers[source(p.Batch)] = answer.Last
		for _, a := range answer.Answers {
			if a.Open != nil {
				client := p.Batch.Commands[a.N-p.Batch.First].GetOpen().GetClient()
				w.conns = append(w.conns, scriptConn{client: client, node: p.Batch.Node, boot: p.Batch.Boot, conn: a.Open.Conn})
			}
		}
	}
}

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
// that takes and fails checkpoints and crashes. All must stay equal, the answers
// too; and repeating an entry must change nothing.
func TestRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		config := Config{Group: 1, Life: 1, Subscriptions: 5}
		config.QueueEntries = rapid.SampledFrom([]int{6, 250}).Draw(t, "queue")
		w := newWorld(t)
		m, plain := New(config), newModel(config)
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
			if got, want := stateLines(m), plain.lines(); !slices.Equal(got, want) {
				t.Fatalf("after entry %d\nmachine: %q\n  model: %q", w.index, got, want)
			}
			checkEffects(t, before, plain.sendable(), eff)
			checkCounts(t, m)
			repeat(t, m, l)
		}
		for n := rapid.IntRange(1, 40).Draw(t, "steps"); n > 0; n-- {
			switch w.choose(8, "step") {
			case 0:
				r.crash()
			case 1, 2:
				r.checkpoint(func() {
					for k := w.choose(4, "during"); k > 0; k-- {
						step()
					}
				}, w.choose(3, "fail") == 0)
			default:
				step()
			}
			if m.Digest() != r.m.Digest() {
				t.Fatalf("digests differ after entry %d\nmachine: %q\nreplica: %q", w.index, stateLines(m), stateLines(r.m))
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
	if st.Enqueued != st.Acked+st.Expired+st.SessionEnded+uint64(st.Queued) {
		t.Fatalf("counters do not add up: %+v", st)
	}
	bodies := map[*body]int32{}
	for _, s := range m.sessions {
		s.queue.row(func(b *body) { bodies[b]++ })
	}
	for _, o := range m.outboxes {
		for _, e := range o.entries {
			if e.body != nil {
				bodies[e.body]++
			}
		}
	}
	for b, refs := range bodies {
		if b.refs != refs {
			t.Fatalf("body %d has %d references and counts %d", b.seq, refs, b.refs)
		}
	}
	if st.Bodies != len(bodies) {
		t.Fatalf("%d bodies, counted %d", len(bodies), st.Bodies)
	}
}

// repeat applies an entry again: as old, and under a new index. Nothing may
// change.
func repeat(t *rapid.T, m *Machine, l logged) {
	before := m.Digest()
	e := &shoalpb.Entry{}
	if err := e.UnmarshalVT(l.entry); err != nil {
		t.Fatal(err)
	}
	for _, p := range e.Proposals {
		switch b, o := p.Batch, p.OutboxAnswered; {
		case b != nil && !consumed(m, b):
			return // what was ahead of a fence, or behind a gap, may be taken now
		case o != nil:
			if _, left := m.Outbox(o.Target, 0, 1); len(left) > 0 {
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
		t.Fatalf("a repeat of entry %d changed the state: %q", l.index, stateLines(m))
	}
}

func consumed(m *Machine, b *shoalpb.Batch) bool {
	if b.Node != "" && b.Boot < m.in.MinBoot(b.Node) {
		return true // refused again
	}
	return m.in.Last(b.Node, b.Boot, b.Group) >= b.First+uint64(len(b.Commands))-1
}
