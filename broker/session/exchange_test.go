package session

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// exchange is a durable session with all that belongs to it: its shard, which
// never forgets, a connection that breaks at any moment and loses what is under
// way, and a client that keeps the standard.
type exchange struct {
	// The shard: unfinished entries, ascending, and what it may have sent.
	entries []Delivery
	nextSeq uint64
	sentHi  uint64
	window  uint16

	// The connection: nil if there is none.
	out      *Outbound
	openedHi uint64 // Opened.SentHi
	commits  []uint64
	toClient []Send
	toServer []answer

	// The client: what it took over, in order of first arrival, and the QoS 2
	// identifiers between PUBREC and PUBREL.
	arrived  []uint64
	confirms map[uint16]bool
	// seen in this connection
	published map[uint64]bool
	last      uint64
}

type answer struct {
	kind string
	id   uint16
}

func (x *exchange) append(qos uint8) {
	x.nextSeq++
	d := Delivery{Seq: x.nextSeq, QoS: qos, Message: message(x.nextSeq)}
	x.entries = append(x.entries, d)
	if x.out != nil {
		x.attach(d)
	}
}

// attach hands an entry to the connection, which may send it from then on.
func (x *exchange) attach(d Delivery) {
	x.sentHi = max(x.sentHi, d.Seq)
	x.out.Deliver(d)
}

func (x *exchange) connect(window uint16) {
	*x = exchange{entries: x.entries, nextSeq: x.nextSeq, sentHi: x.sentHi, openedHi: x.sentHi, window: window,
		arrived: x.arrived, confirms: x.confirms, published: make(map[uint64]bool)}
	x.out = NewOutbound(window, x.sentHi, 0)
	for _, d := range x.entries {
		x.attach(d)
	}
}

func (x *exchange) entry(seq uint64) *Delivery {
	i := slices.IndexFunc(x.entries, func(d Delivery) bool { return d.Seq == seq })
	return &x.entries[i]
}

func (x *exchange) ack(seq uint64) {
	x.entries = slices.DeleteFunc(x.entries, func(d Delivery) bool { return d.Seq == seq })
}

// write checks what a connection must observe of [MQTT-4.4.0-1],
// [MQTT-4.6.0-1] and the window.
func (x *exchange) write(t *rapid.T) {
	s, ok := x.out.Next()
	if !ok {
		return
	}
	if !s.Pubrel {
		switch {
		case s.Seq <= x.last:
			t.Fatalf("PUBLISH %d after %d", s.Seq, x.last)
		case s.Dup != (s.Seq <= x.openedHi):
			t.Fatalf("PUBLISH %d with DUP %v, sent before up to %d", s.Seq, s.Dup, x.openedHi)
		case x.entry(s.Seq).Released:
			t.Fatalf("PUBLISH %d after its PUBREC", s.Seq)
		}
		x.last = s.Seq
		x.published[s.Seq] = true
		if open := x.openPublishes(); open > int(x.window) {
			t.Fatalf("%d PUBLISH packets in flight, Receive Maximum %d", open, x.window)
		}
	}
	x.toClient = append(x.toClient, s)
}

// openPublishes counts what this connection published and did not finish.
func (x *exchange) openPublishes() (n int) {
	for _, d := range x.entries {
		if x.published[d.Seq] {
			n++
		}
	}
	return n
}

// receive is the client's part: [MQTT-4.3.2], [MQTT-4.3.3], receiver.
func (x *exchange) receive(t *rapid.T) {
	if len(x.toClient) == 0 {
		return
	}
	s := x.toClient[0]
	x.toClient = x.toClient[1:]
	switch {
	case s.Pubrel:
		delete(x.confirms, s.ID)
		x.toServer = append(x.toServer, answer{"PUBCOMP", s.ID})
	case s.QoS == 1:
		x.arrived = append(x.arrived, s.Seq)
		x.toServer = append(x.toServer, answer{"PUBACK", s.ID})
	default:
		if !x.confirms[s.ID] {
			if slices.Contains(x.arrived, s.Seq) {
				t.Fatalf("QoS 2 entry %d arrived twice", s.Seq)
			}
			x.arrived = append(x.arrived, s.Seq)
			x.confirms[s.ID] = true
		}
		x.toServer = append(x.toServer, answer{"PUBREC", s.ID})
	}
}

func (x *exchange) answered(t *rapid.T) {
	if len(x.toServer) == 0 {
		return
	}
	a := x.toServer[0]
	x.toServer = x.toServer[1:]
	switch a.kind {
	case "PUBREC":
		seq, r := x.out.Pubrec(a.id, false)
		if r != PubrecRelease {
			t.Fatalf("PUBREC %d: %d", a.id, r)
		}
		x.commits = append(x.commits, seq)
		return
	case "PUBACK":
		seq, ok := x.out.Puback(a.id)
		if !ok {
			t.Fatalf("PUBACK %d is unknown", a.id)
		}
		x.ack(seq)
	case "PUBCOMP":
		seq, ok := x.out.Pubcomp(a.id)
		if !ok {
			t.Fatalf("PUBCOMP %d is unknown", a.id)
		}
		x.ack(seq)
	}
}

// commit lets the shard commit one release; if the connection does not hear of
// it, it is because it broke.
func (x *exchange) commit(which int, heard bool) {
	seq := x.commits[which]
	x.commits = slices.Delete(x.commits, which, which+1)
	x.entry(seq).Released = true
	if heard {
		x.out.Released(seq)
	} else {
		x.connect(x.window)
	}
}

// drain lets everything go its way, without breaks.
func (x *exchange) drain(t *rapid.T) {
	for range 10 * (len(x.entries) + 1) {
		x.write(t)
		x.receive(t)
		x.answered(t)
		if len(x.commits) > 0 {
			x.commit(0, true)
		}
	}
	if len(x.entries) > 0 {
		t.Fatalf("stuck with %d unfinished, first %+v", len(x.entries), x.entries[0])
	}
}

// Exactly once, in order, over any number of connections that break at any
// step.
func TestExchangeOverConnections(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := &exchange{confirms: make(map[uint16]bool)}
		x.nextSeq = rapid.SampledFrom([]uint64{0, 65_530, 131_060}).Draw(t, "base")
		x.sentHi = x.nextSeq
		first := x.nextSeq + 1
		x.connect(3)
		commit := func(t *rapid.T) {
			if n := len(x.commits); n > 0 {
				x.commit(rapid.IntRange(0, n-1).Draw(t, "which"), rapid.IntRange(0, 4).Draw(t, "heard") > 0)
			}
		}
		publish := func(t *rapid.T) { x.append(rapid.Uint8Range(1, 2).Draw(t, "qos")) }
		t.Repeat(map[string]func(*rapid.T){
			"publish":       publish,
			"write":         x.write,
			"write more":    x.write,
			"receive":       x.receive,
			"receive more":  x.receive,
			"answered":      x.answered,
			"answered more": x.answered,
			"commit":        commit,
			"commit more":   commit,
			"leader change": func(t *rapid.T) {
				for _, d := range x.entries {
					x.attach(d)
				}
			},
			"connect": func(t *rapid.T) { x.connect(rapid.Uint16Range(1, 5).Draw(t, "window")) },
		})
		x.drain(t)
		checkFirstArrivals(t, x.arrived, first, x.nextSeq)
	})
}

// checkFirstArrivals: the first time that each entry arrived is in the order of
// the queue, from next to last without a hole.
func checkFirstArrivals(t *rapid.T, arrived []uint64, next, last uint64) {
	for _, seq := range arrived {
		if seq > next {
			t.Fatalf("%d arrived before %d: %v", seq, next, arrived)
		}
		if seq == next {
			next++
		}
	}
	if next != last+1 {
		t.Fatalf("%d never arrived: %v", next, arrived)
	}
}
