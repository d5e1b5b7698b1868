package shard

import (
	"fmt"
	"slices"

	"pgregory.net/rapid"

	"github.com/shoalmq/shoal/cluster/stream"
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
	format  uint32
	text    int
	clock   uint64
	// replays are those under way.
	replays func() []*shoalpb.Page
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
	if w.choose(4, "upgrade") == 0 {
		w.format = stream.LastFormat
	}
	e := &shoalpb.Entry{Format: max(w.format, stream.FirstFormat), ClockMs: w.time()}
	for n := 1 + w.choose(3, "proposals"); n > 0; n-- {
		e.Proposals = append(e.Proposals, w.proposal())
	}
	return e
}

// time mostly goes on a little, at times far, and may seem to stand.
func (w *world) time() uint64 {
	w.clock += uint64(w.choose([]int{1, 50, 50, 2500}[w.choose(4, "pace")], "clock"))
	return w.clock - uint64(w.choose(min(int(w.clock+1), 3), "late"))
}

func (w *world) dispatch() *shoalpb.Dispatch {
	d := &shoalpb.Dispatch{Due: 1 + uint64(w.choose(6, "due"))}
	for n := w.choose(4, "targets"); n > 0; n-- {
		if t := w.target(); t.Node != "" || t.Group != 0 {
			d.Targets = append(d.Targets, t)
		}
	}
	d.Picks = w.targetPicks(d.Targets)
	d.Retain = uint32(w.choose(3, "retain in"))
	return d
}

func (w *world) share() string { return "$share/g/" + w.one("share", "a", "#") }

func (w *world) picks() (list []*shoalpb.Pick) {
	for n := w.choose(6, "picks") - 3; n > 0; n-- {
		p := &shoalpb.Pick{Share: w.share(), Only: w.choose(4, "only") == 0}
		if w.choose(3, "hint") == 0 {
			p.Hint = uint64(w.choose(5, "hint"))
		}
		list = append(list, p)
	}
	return list
}

func (w *world) targetPicks(targets []*shoalpb.Target) (list []*shoalpb.TargetPick) {
	for _, t := range targets {
		for _, p := range w.picks() {
			list = append(list, &shoalpb.TargetPick{Target: t, Pick: p})
		}
	}
	return list
}

// page is mostly one of a replay under way, of topics that may have come live.
func (w *world) page() *shoalpb.Page {
	place := func() (uint32, string) { return uint32(w.choose(3, "group")), w.one("place", "", "", "a/b") }
	p := &shoalpb.Page{Client: w.one("client", "c0", "c1", "c2"), Replay: 1 + uint64(w.choose(4, "replay"))}
	p.Group, p.After = place()
	if list := w.replays(); len(list) > 0 && w.choose(4, "late") > 0 {
		p = list[w.choose(len(list), "replay")]
	}
	p.NextGroup, p.NextAfter = place()
	if w.flip("settled") {
		p.ReadIndex = uint64(w.choose(60, "read index"))
	}
	for n := w.choose(5, "page"); n > 0; n-- {
		m := w.message()
		m.Retain = true
		p.Messages = append(p.Messages, m)
	}
	return p
}

func (w *world) will() *shoalpb.Will {
	if w.choose(3, "will") > 0 {
		return nil
	}
	return &shoalpb.Will{Message: w.message(), DelayS: uint32(w.choose(4, "delay"))}
}

func (w *world) proposal() *shoalpb.Proposal {
	switch w.choose(13, "proposal") {
	case 5:
		return &shoalpb.Proposal{Relieve: &shoalpb.Relieve{
			Client: w.one("client", "c0", "c1", "c2"), Share: w.share(), Limit: uint32(w.choose(4, "limit")),
		}}
	case 3:
		return &shoalpb.Proposal{Tick: &shoalpb.Tick{WallMs: uint64(w.choose(3, "wall"))}}
	case 4:
		return &shoalpb.Proposal{Dispatch: w.dispatch()}
	case 6:
		return &shoalpb.Proposal{Page: w.page()}
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
			b.Commands = append(b.Commands, &shoalpb.Command{Append: &shoalpb.Append{Message: w.message(), Picks: w.picks()}})
		}
	}
	w.last[source(b)] = b
	w.numbers[source(b)] = max(last, b.First+uint64(len(b.Commands))-1) // if all goes well
	return b
}

func (w *world) message() *shoalpb.Message {
	w.text++
	m := &shoalpb.Message{
		Topic: w.one("topic", "a", "a/b", "a/c", "b"), Payload: fmt.Appendf(nil, "m%d", w.text),
		Qos: uint32(w.choose(3, "qos")), Retain: w.flip("retain"), Publisher: w.one("publisher", "c0", "c1", "p"),
	}
	if w.choose(8, "clears") == 0 {
		m.Payload = nil
	}
	if w.choose(6, "expires") == 0 {
		ms := uint64(w.choose(60, "expiry"))
		m.ExpiryMs = &ms
	}
	return m
}

// limits are sometimes those of the shard.
func (w *world) limits() *shoalpb.QueueLimits {
	if w.flip("own limits") {
		return nil
	}
	return &shoalpb.QueueLimits{
		Messages: uint64(w.choose(4, "messages")) * 33, Bytes: uint64(w.choose(4, "bytes")) * 150,
		Policy:        shoalpb.QueuePolicy(w.choose(3, "policy")),
		Subscriptions: uint64(w.choose(4, "subscriptions")),
	}
}

func (w *world) command(node string) *shoalpb.Command {
	kind := w.choose(24, "command")
	switch {
	case kind == 0:
		return &shoalpb.Command{Retain: &shoalpb.Retain{Message: w.message()}}
	case node == "" || kind < 5:
		return &shoalpb.Command{Append: &shoalpb.Append{Message: w.message(), Picks: w.picks()}}
	case kind < 7 || len(w.conns) == 0:
		return &shoalpb.Command{Open: &shoalpb.Open{
			Client: w.one("client", "c0", "c1", "c2"), CleanStart: w.choose(4, "clean") == 0,
			ExpiryS: uint32(w.choose(4, "expiry")), Window: uint32(w.choose(3, "window")),
			Limits: w.limits(), Will: w.will(), Ask: w.choose(4, "ask") > 0, Force: w.flip("force"),
			Seen: w.index - min(w.index, uint64(w.choose(4, "behind"))),
		}}
	}
	c := w.conns[len(w.conns)-1-w.choose(min(len(w.conns), 4), "conn")]
	switch kind {
	case 7:
		cl := &shoalpb.Close{Client: c.client, Conn: c.conn, Drained: w.flip("drained"), DiscardWill: w.choose(3, "discard") == 0}
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
			Client: c.client, Conn: c.conn, Filters: []string{w.filter(), w.one("shared", w.filter(), w.share())},
		}}
	case 13, 14:
		return &shoalpb.Command{Received: w.received(c)}
	case 15:
		return &shoalpb.Command{Released: &shoalpb.Released{Client: c.client, Conn: c.conn, Id: w.id()}}
	case 20, 21:
		return &shoalpb.Command{Confirm: &shoalpb.Confirm{Client: c.client, Conn: c.conn}}
	case 22:
		return &shoalpb.Command{Close: &shoalpb.Close{Client: c.client, Conn: c.conn, Refused: true}}
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
		noLocal := w.flip("no local")
		if w.choose(3, "shared") == 0 {
			filter, noLocal = w.share(), noLocal && w.choose(10, "wrong") == 0
		}
		s.Subscriptions = append(s.Subscriptions, &shoalpb.Subscription{
			Filter: filter, Qos: w.options(), NoLocal: noLocal, RetainAsPublished: w.flip("rap"),
			RetainHandling: w.options(), Identifier: w.options(),
		})
		replay := uint32(0)
		if !isShared(filter) {
			replay = uint32(w.choose(3, "replay from"))
		}
		s.Replay = append(s.Replay, replay)
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
	r.Picks = w.targetPicks(r.Targets)
	r.Retain = uint32(w.choose(3, "retain in"))
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
			if a.Open.GetConn() != 0 {
				client := p.Batch.Commands[a.N-p.Batch.First].GetOpen().GetClient()
				w.conns = append(w.conns, scriptConn{client: client, node: p.Batch.Node, boot: p.Batch.Boot, conn: a.Open.Conn})
			}
		}
	}
}
