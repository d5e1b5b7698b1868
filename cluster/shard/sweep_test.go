package shard

import (
	"fmt"
	"testing"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// fence fences node X's boot 1.
func (f *fixture) fence() {
	f.t.Helper()
	f.propose(&shoalpb.Proposal{Fence: &shoalpb.Fence{Number: 1, Nodes: []*shoalpb.NodeBoot{{Node: "X", Boot: 2}}}})
}

// fromY applies commands of node Y's boot 1, numbered from n.
func (f *fixture) fromY(n uint64, list ...*shoalpb.Command) *shoalpb.BatchAnswer {
	f.t.Helper()
	return f.propose(&shoalpb.Proposal{Batch: &shoalpb.Batch{
		Node: "Y", Boot: 1, Target: 1, TargetLife: 1, First: n, Fence: f.m.FenceNumber(), Commands: list,
	}}).Batch
}

func will(text string) *shoalpb.Will {
	return &shoalpb.Will{Message: &shoalpb.Message{Topic: "w", Payload: []byte(text), Qos: 1}}
}

// TestFenceInPages: an entry sweeps a bounded number of the sessions of a dead
// process, whatever there is: the rest waits for Ticks, over a restart too, and
// what the process sent is refused from the first entry on.
func TestFenceInPages(t *testing.T) {
	const sessions = 3*sweepPage + 7
	f := newFixture(t, New(testConfig()))
	for i := range sessions {
		f.do(&shoalpb.Command{Open: &shoalpb.Open{Client: fmt.Sprintf("c%d", i), ExpiryS: 60, Will: will("gone")}})
	}
	f.eff = &Effects{}
	f.fence()
	wills := func() int { return int(f.m.Stats().Wills) }
	if n := wills(); n > sweepPage {
		t.Fatalf("one entry ended %d sessions", n)
	}
	if at, ok := f.m.NextDeadline(); !ok || at > f.m.Clock() || !f.eff.DeadlineMoved {
		t.Fatal("nobody is told to go on")
	}
	late := f.propose(&shoalpb.Proposal{Batch: &shoalpb.Batch{
		Node: "X", Boot: 1, Target: 1, TargetLife: 1, First: f.n + 1,
		Commands: []*shoalpb.Command{{Open: &shoalpb.Open{Client: "late"}}},
	}})
	if late.Batch.Refusal != shoalpb.Refusal_REFUSAL_FENCED {
		t.Fatalf("a batch of the dead process: %v", late.Batch)
	}
	if n := f.m.Stats().Attached; n != 0 {
		t.Fatalf("%d sessions are attached to a dead process", n)
	}
	f.m.Attached(func(client, _ string, _, _ uint64) bool {
		t.Fatalf("%s is attached to a dead process", client)
		return false
	})
	rows := memRows{}
	save(t, f.m, rows)
	restored := newFixture(t, load(t, testConfig(), rows))
	for before := -1; ; {
		if restored.m.Digest() != f.m.Digest() {
			t.Fatalf("the restored shard differs after %d Wills", wills())
		}
		if n := wills(); n == sessions {
			break
		} else if n <= before || n > before+sweepPage && before >= 0 {
			t.Fatalf("from %d to %d Wills", before, n)
		} else {
			before = n
		}
		f.propose(&shoalpb.Proposal{Tick: &shoalpb.Tick{}})
		restored.propose(&shoalpb.Proposal{Tick: &shoalpb.Tick{}})
	}
	if at, _ := f.m.NextDeadline(); at == 0 {
		t.Fatal("the sweep does not end")
	}
}

// TestSharesBesideSweep: while a fence is swept, messages of a Shared Subscription
// go to members that live, with each QoS and hint; and when all are dead, into a
// queue.
func TestSharesBesideSweep(t *testing.T) {
	const share = "$share/g/a"
	for _, living := range []bool{true, false} {
		config := testConfig()
		config.sweepPage = 1
		f := newFixture(t, New(config))
		f.eff = &Effects{}
		for i := range 5 {
			c := fmt.Sprintf("c%d", i)
			f.subscribe(c, f.open(c), share, 1)
		}
		n := uint64(1)
		if living {
			conn := f.fromY(n, &shoalpb.Command{Open: &shoalpb.Open{Client: "d", ExpiryS: 60, Window: 100}}).Answers[0].Open.Conn
			f.fromY(n+1, &shoalpb.Command{Subscribe: &shoalpb.Subscribe{
				Client: "d", Conn: conn, Subscriptions: []*shoalpb.Subscription{{Filter: share, Qos: 1}},
			}})
			n += 2
		}
		f.fence()
		if len(f.m.unswept) == 0 {
			t.Fatal("nothing is left to sweep")
		}
		queued := f.m.Stats().Queued
		for hint := range uint64(3) {
			f.eff.Reset()
			f.fromY(n, &shoalpb.Command{Append: &shoalpb.Append{
				Message: &shoalpb.Message{Topic: "a", Qos: 1}, Picks: []*shoalpb.Pick{{Share: share, Hint: hint}},
			}})
			n++
			if len(f.m.unswept) == 0 {
				t.Fatal("nothing is left to sweep")
			}
			if f.m.Stats().Queued != queued+1 {
				t.Fatalf("hint %d: the message is in no queue: %+v", hint, f.m.Stats())
			}
			queued++
			if living && (len(f.eff.Ready) != 1 || f.eff.Ready[0].Client != "d") {
				t.Fatalf("hint %d: ready are %v", hint, f.eff.Ready)
			}
		}
	}
}

// TestOpenBesideSweep: a client whose session the sweep has not come to yet gets
// it with its queue, and with no former owner but the Will of the dead one, which
// is published first.
func TestOpenBesideSweep(t *testing.T) {
	config := testConfig()
	config.sweepPage = 1
	f := newFixture(t, New(config))
	for i := range 9 {
		c := fmt.Sprintf("c%d", i)
		conn := f.do(&shoalpb.Command{Open: &shoalpb.Open{Client: c, ExpiryS: 60, Window: 5, Will: will(c)}}).Open.Conn
		f.subscribe(c, conn, "t", 1)
	}
	f.append("t", 1)
	f.fence()
	answer := f.fromY(1, &shoalpb.Command{Open: &shoalpb.Open{Client: "c8", ExpiryS: 60, Window: 5}}).Answers[0].Open
	if len(f.m.unswept) == 0 {
		t.Fatal("nothing is left to sweep")
	}
	if !answer.Present || len(answer.Former) != 1 || answer.Former[0].Node != "" || answer.SentHi != 1 {
		t.Fatalf("answer %v", answer)
	}
	wills := map[string]bool{}
	f.m.Due(func(d Due) bool {
		wills[string(d.Message.Payload)] = true
		return true
	})
	if !wills["c8"] || wills["c7"] {
		t.Fatalf("due are %v", wills)
	}
	for range 9 {
		f.propose(&shoalpb.Proposal{Tick: &shoalpb.Tick{}})
	}
	if f.m.Conn("c8") != answer.Conn || f.m.Stats().Attached != 1 || f.m.Stats().Wills != 9 {
		t.Fatalf("after the sweep: connection %d, %+v", f.m.Conn("c8"), f.m.Stats())
	}
}

// TestFenceOfFirstFormat: entries of before FormatOrder are applied as all nodes
// apply them.
func TestFenceOfFirstFormat(t *testing.T) {
	f := newFixture(t, New(testConfig()))
	f.format = stream.FirstFormat
	for i := range sweepPage + 1 {
		f.do(&shoalpb.Command{Open: &shoalpb.Open{Client: fmt.Sprintf("c%d", i), Will: will("gone")}})
	}
	f.fence()
	if f.m.Stats().Sessions != 0 {
		t.Fatalf("%+v", f.m.Stats())
	}
}
