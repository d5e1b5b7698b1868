package shard

import (
	"fmt"
	"slices"
	"testing"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// TestTimeInPages: what is due at once is done by several entries, an Open does
// not wait for its page, and a replica that is restored in between takes the
// same sessions.
func TestTimeInPages(t *testing.T) {
	const sessions = 2*deadlinePage + 500
	m := New(Config{Group: 1, Life: 1})
	index, sent := uint64(0), uint64(0)
	apply := func(to *Machine, clock uint64, c ...*shoalpb.Command) *shoalpb.BatchAnswer {
		t.Helper()
		p := &shoalpb.Proposal{Tick: &shoalpb.Tick{}}
		if len(c) > 0 {
			p = &shoalpb.Proposal{Batch: &shoalpb.Batch{Node: "X", Boot: 1, Target: 1, TargetLife: 1, First: sent + 1, Commands: c}}
		}
		r, err := to.Apply(index, &shoalpb.Entry{Format: stream.FirstFormat, ClockMs: clock, Proposals: []*shoalpb.Proposal{p}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r[0].Batch
	}
	open := func(i int, clean bool) *shoalpb.Command {
		return &shoalpb.Command{Open: &shoalpb.Open{
			Client: fmt.Sprintf("c%04d", i), ExpiryS: 10, CleanStart: clean,
			Will: &shoalpb.Will{Message: &shoalpb.Message{Topic: "w"}, DelayS: 10},
		}}
	}
	for i := range sessions {
		index++
		conn := apply(m, 0, open(i, false)).Answers[0].Open.Conn
		sent, index = sent+1, index+1
		apply(m, 0, &shoalpb.Command{Close: &shoalpb.Close{Client: fmt.Sprintf("c%04d", i), Conn: conn, Drained: true}})
		sent++
	}
	rows := memRows{}
	save(t, m, rows)
	other := load(t, Config{Group: 1, Life: 1}, rows)

	var left []int
	for len(m.sessions) > 0 && len(left) < 10 {
		index++
		apply(m, 10_000)
		apply(other, 10_000)
		left = append(left, len(m.sessions))
		if m.Digest() != other.Digest() {
			t.Fatalf("digests differ with %d and %d sessions left", len(m.sessions), len(other.sessions))
		}
		save(t, other, rows)
		other = load(t, Config{Group: 1, Life: 1}, rows)
	}
	if want := []int{sessions - deadlinePage, sessions - 2*deadlinePage, 0}; !slices.Equal(left, want) {
		t.Errorf("sessions left after each entry: %v, not %v", left, want)
	}
	if st := m.Stats(); st.Wills != sessions || st.Due != sessions {
		t.Errorf("%d wills, %d due", st.Wills, st.Due)
	}
}

// TestOpenBeforeItsPage: a session whose time is over is not resumed, although
// no entry has come to it yet.
func TestOpenBeforeItsPage(t *testing.T) {
	m := New(Config{Group: 1, Life: 1})
	var commands []*shoalpb.Command
	for i := range deadlinePage + 1 {
		commands = append(commands, &shoalpb.Command{Open: &shoalpb.Open{Client: fmt.Sprintf("c%04d", i), ExpiryS: 10}})
	}
	last := commands[len(commands)-1]
	apply := func(index, clock uint64, p *shoalpb.Proposal) *shoalpb.BatchAnswer {
		t.Helper()
		r, err := m.Apply(index, &shoalpb.Entry{Format: stream.FirstFormat, ClockMs: clock, Proposals: []*shoalpb.Proposal{p}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r[0].Batch
	}
	batch := func(boot uint64, c ...*shoalpb.Command) *shoalpb.Proposal {
		return &shoalpb.Proposal{Batch: &shoalpb.Batch{Node: "X", Boot: boot, Target: 1, TargetLife: 1, First: 1, Commands: c}}
	}
	apply(1, 0, batch(1, commands...))
	apply(2, 0, &shoalpb.Proposal{Fence: &shoalpb.Fence{Number: 1, Nodes: []*shoalpb.NodeBoot{{Node: "X", Boot: 2}}}})
	if a := apply(3, 10_000, batch(2, last)).Answers[0].Open; a.Present {
		t.Error("a session was resumed after its end")
	}
	if n := len(m.sessions); n != 1 {
		t.Errorf("%d sessions, not the new one alone", n)
	}
}
