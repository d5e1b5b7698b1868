package session

import (
	"fmt"
	"testing"

	shoalpb "github.com/shoalmq/shoal/proto"
	"pgregory.net/rapid"
)

// plainOutbound is Outbound as one would write it without regard to speed: a
// list of entries that is searched from the front.
type plainOutbound struct {
	window  int
	sentHi  uint64
	taken   uint64
	entries []*plainEntry
	rels    []*plainEntry
}

type plainEntry struct {
	seq   uint64
	qos   uint8
	stage stage
}

func (p *plainOutbound) find(id uint16) *plainEntry {
	for _, e := range p.entries {
		if PacketID(e.seq) == id {
			return e
		}
	}
	return nil
}

func (p *plainOutbound) finish(e *plainEntry) {
	kept := p.entries[:0]
	for _, o := range p.entries {
		if o != e {
			kept = append(kept, o)
		}
	}
	p.entries = kept
}

func (p *plainOutbound) inFlight() (n int) {
	for _, e := range p.entries {
		if e.stage != queued {
			n++
		}
	}
	return n
}

func (p *plainOutbound) next() (e *plainEntry, pubrel bool) {
	if len(p.rels) > 0 && p.rels[0].stage == released {
		e, p.rels = p.rels[0], p.rels[1:]
		e.stage = completing
		return e, true
	}
	if p.inFlight() >= p.window {
		return nil, false
	}
	for _, e := range p.entries {
		if e.stage == queued {
			if e.seq >= p.entries[0].seq+packetIDs {
				return nil, false
			}
			e.stage = published
			return e, false
		}
	}
	return nil, false
}

func (p *plainOutbound) pubrec(id uint16, failed bool) (uint64, PubrecResult) {
	e := p.find(id)
	if e == nil {
		// sent by a former connection, not delivered to this one
		for s := p.taken + 1; s <= p.sentHi && s <= p.taken+packetIDs; s++ {
			if PacketID(s) == id {
				return 0, PubrecWait
			}
		}
		return 0, PubrecUnknown
	}
	switch {
	case e.qos != 2 || e.stage == queued && e.seq > p.sentHi:
		return 0, PubrecUnknown
	case e.stage == completing:
		return 0, PubrecAgain
	case e.stage != published:
		return 0, PubrecWait
	case failed:
		p.finish(e)
		return e.seq, PubrecFinished
	}
	e.stage = releasing
	p.rels = append(p.rels, e)
	return e.seq, PubrecRelease
}

// outboundPair drives an Outbound and the plain one.
type outboundPair struct {
	o *Outbound
	p *plainOutbound
}

func (m *outboundPair) connect(t *rapid.T, window uint16, sentHi uint64) {
	m.o = NewOutbound(window, sentHi, 0)
	m.p = &plainOutbound{window: int(window), sentHi: sentHi}
}

func (m *outboundPair) deliver(t *rapid.T, d Delivery) {
	want := d.Seq > m.p.taken
	if got := m.o.Deliver(d); got != want {
		t.Fatalf("Deliver(%d) = %v", d.Seq, got)
	}
	if !want {
		return
	}
	m.p.taken = d.Seq
	e := &plainEntry{seq: d.Seq, qos: d.QoS}
	m.p.entries = append(m.p.entries, e)
	if d.Released {
		e.stage = released
		m.p.rels = append(m.p.rels, e)
	}
}

func (m *outboundPair) next(t *rapid.T) bool {
	s, ok := m.o.Next()
	e, pubrel := m.p.next()
	if ok != (e != nil) {
		t.Fatalf("Next = %+v, %v, want %+v", s, ok, e)
	}
	if !ok {
		return false
	}
	dup := !pubrel && e.seq <= m.p.sentHi
	if s.Seq != e.seq || s.ID != PacketID(e.seq) || s.Pubrel != pubrel || s.Dup != dup || s.QoS != e.qos {
		t.Fatalf("Next = %+v, want seq %d, pubrel %v, dup %v", s, e.seq, pubrel, dup)
	}
	if !pubrel && s.Message.Topic != fmt.Sprint(s.Seq) {
		t.Fatalf("seq %d carries message %q", s.Seq, s.Message.Topic)
	}
	return true
}

func (m *outboundPair) check(t *rapid.T) {
	var got, want []string
	m.o.Unfinished(func(d Delivery, sent bool) bool {
		got = append(got, fmt.Sprint(d.Seq, d.QoS, sent))
		return true
	})
	for _, e := range m.p.entries {
		want = append(want, fmt.Sprint(e.seq, e.qos, e.stage != queued))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("unfinished %v, want %v", got, want)
	}
	inFlight := m.p.inFlight()
	if m.o.InFlight() != inFlight || m.o.Queued() != len(m.p.entries)-inFlight {
		t.Fatalf("in flight %d, queued %d, want %d of %d", m.o.InFlight(), m.o.Queued(), inFlight, len(want))
	}
	if n := m.o.entries.len(); n != len(want)+m.o.finished || n > 2*len(want)+fewFinished+1 {
		t.Fatalf("%d entries in the ring, %d unfinished", n, len(want))
	}
}

// anyKnown draws the identifier of an unfinished entry, or any.
func (m *outboundPair) anyKnown(t *rapid.T) uint16 {
	if n := len(m.p.entries); n > 0 && rapid.IntRange(0, 9).Draw(t, "known") > 0 {
		return PacketID(m.p.entries[rapid.IntRange(0, n-1).Draw(t, "entry")].seq)
	}
	return rapid.OneOf(rapid.Uint16Range(1, 65535), rapid.Just(PacketID(m.p.taken+1))).Draw(t, "id")
}

func message(seq uint64) *shoalpb.Message { return &shoalpb.Message{Topic: fmt.Sprint(seq)} }

// A client that answers in any order, and some never, makes gaps: they are
// closed, and everything is found on either side.
func TestOutboundGaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &outboundPair{}
		m.connect(t, rapid.Uint16Range(2, 12).Draw(t, "window"), 0)
		never := rapid.Uint64Range(1, 40).Draw(t, "never answered")
		ahead := rapid.IntRange(0, 30).Draw(t, "ahead")
		for range 150 {
			for m.o.Queued() <= ahead {
				seq := m.p.taken + rapid.Uint64Range(1, 3).Draw(t, "gap")
				m.deliver(t, Delivery{Seq: seq, QoS: 1, Message: message(seq)})
			}
			for m.next(t) {
			}
			e := m.p.entries[rapid.IntRange(0, m.p.inFlight()-1).Draw(t, "which")]
			if e.seq == never {
				continue
			}
			if seq, ok := m.o.Puback(PacketID(e.seq)); !ok || seq != e.seq {
				t.Fatalf("Puback(%d) = %d, %v", e.seq, seq, ok)
			}
			m.p.finish(e)
			m.check(t)
		}
	})
}

// What is not needed any more is not kept in memory.
func TestOutboundLetsGo(t *testing.T) {
	o := NewOutbound(1000, 0, 1000)
	for seq := range uint64(1000) {
		o.Enqueue(Delivery{QoS: 2, Message: message(seq), Identifiers: []uint32{1}})
	}
	for s, ok := o.Next(); ok; s, ok = o.Next() {
		o.Pubrec(s.ID, false)
	}
	o.Unfinished(func(d Delivery, _ bool) bool {
		if d.Message != nil || d.Identifiers != nil {
			t.Fatalf("%d keeps its message after PUBREC", d.Seq)
		}
		return true
	})
	for id := uint16(1); id <= 1000; id++ {
		o.Released(uint64(id))
	}
	for s, ok := o.Next(); ok; s, ok = o.Next() {
		o.Pubcomp(s.ID)
	}
	if len(o.entries.buf) != 0 || len(o.rels.buf) != 0 {
		t.Errorf("rings of %d and %d places kept for nothing", len(o.entries.buf), len(o.rels.buf))
	}
}

// A client that stands still while the oldest messages are dropped for newer ones
// makes nothing grow, and gets the newest in their order.
func TestOutboundDropsOldest(t *testing.T) {
	const waiting, all = 10, 200_000
	o := NewOutbound(1, 0, waiting)
	for i := range uint64(all) {
		if o.Queued() == waiting {
			if _, ok := o.DropOldest(); !ok {
				t.Fatal("nothing to drop from a full queue")
			}
		}
		if !o.Enqueue(Delivery{QoS: 1, Message: message(i)}) {
			t.Fatal("no room")
		}
		if i == 0 {
			o.Next() // and no answer to it
		}
	}
	if n := len(o.entries.buf); n > 4*fewFinished+4*waiting {
		t.Errorf("%d places for %d messages", n, waiting+1)
	}
	if o.Queued() != waiting || o.QueuedBytes() != waiting*ContentBytes(&Delivery{Message: message(all - 1)}) {
		t.Errorf("%d queued, %d bytes", o.Queued(), o.QueuedBytes())
	}
	o.Puback(PacketID(1))
	for i := range uint64(waiting) {
		s, ok := o.Next()
		if want := all - waiting + i; !ok || s.Seq != want+1 || s.Message.Topic != message(want).Topic {
			t.Fatalf("%d. is %v, %v", i, s, ok)
		}
		o.Puback(s.ID)
	}
	if _, ok := o.DropOldest(); ok || o.QueuedBytes() != 0 {
		t.Error("something is left")
	}
}

func TestRingClearsWhatLeft(t *testing.T) {
	var r ring[*int]
	for range 3 {
		for range keptRing {
			r.push(new(int))
		}
		r.pop()
		r.truncate(keptRing / 2)
		for r.len() > 0 {
			r.pop()
		}
		for _, p := range r.buf {
			if p != nil {
				t.Fatal("an element that left is kept")
			}
		}
	}
}

func TestOutboundAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &outboundPair{}
		base := rapid.OneOf(rapid.Just(uint64(0)), rapid.Uint64Range(65500, 65600), rapid.Uint64Range(1, 1<<40)).Draw(t, "base")
		sentHi := base + rapid.Uint64Range(0, 40).Draw(t, "sentHi")
		m.connect(t, rapid.Uint16Range(1, 20).Draw(t, "window"), sentHi)
		m.p.taken, m.o.taken = base, base
		gap := rapid.OneOf(rapid.Just(uint64(1)), rapid.Just(uint64(1)), rapid.Uint64Range(1, 5), rapid.Uint64Range(1, 40_000))
		deliver := func(t *rapid.T) {
			d := Delivery{Seq: m.p.taken + gap.Draw(t, "gap"), QoS: rapid.Uint8Range(1, 2).Draw(t, "qos")}
			d.Released = d.QoS == 2 && d.Seq <= sentHi && rapid.Bool().Draw(t, "released")
			d.Message = message(d.Seq)
			m.deliver(t, d)
		}
		t.Repeat(map[string]func(*rapid.T){
			"deliver":      deliver,
			"deliver more": deliver,
			"deliver again": func(t *rapid.T) {
				m.deliver(t, Delivery{Seq: m.p.taken - min(m.p.taken, rapid.Uint64Range(0, 9).Draw(t, "back")), QoS: 1})
			},
			"write one": func(t *rapid.T) { m.next(t) },
			"write": func(t *rapid.T) {
				for m.next(t) {
				}
			},
			"puback": func(t *rapid.T) {
				id := m.anyKnown(t)
				seq, ok := m.o.Puback(id)
				e := m.p.find(id)
				if want := e != nil && e.qos == 1 && e.stage == published; ok != want || ok && seq != e.seq {
					t.Fatalf("Puback(%d) = %d, %v, want %v", id, seq, ok, e)
				} else if ok {
					m.p.finish(e)
				}
			},
			"pubrec": func(t *rapid.T) {
				id, failed := m.anyKnown(t), rapid.IntRange(0, 3).Draw(t, "failed") == 0
				seq, r := m.o.Pubrec(id, failed)
				if wantSeq, want := m.p.pubrec(id, failed); r != want || seq != wantSeq {
					t.Fatalf("Pubrec(%d, %v) = %d, %d, want %d, %d", id, failed, seq, r, wantSeq, want)
				}
			},
			"released": func(t *rapid.T) {
				if e := m.p.find(m.anyKnown(t)); e != nil {
					m.o.Released(e.seq)
					if e.stage == releasing {
						e.stage = released
					}
				}
			},
			"pubcomp": func(t *rapid.T) {
				id := m.anyKnown(t)
				seq, ok := m.o.Pubcomp(id)
				e := m.p.find(id)
				if want := e != nil && e.stage == completing; ok != want || ok && seq != e.seq {
					t.Fatalf("Pubcomp(%d) = %d, %v, want %v", id, seq, ok, e)
				} else if ok {
					m.p.finish(e)
				}
			},
			"discard": func(t *rapid.T) {
				if e := m.p.find(m.anyKnown(t)); e != nil {
					m.o.Discard(e.seq)
					if e.stage == published {
						m.p.finish(e)
					}
				}
			},
			"": m.check,
		})
	})
}
