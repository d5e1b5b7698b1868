package stream

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	shoalpb "github.com/shoalmq/shoal/proto"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"
)

// sender is a source as plain as can be: it sends what it likes of what is not
// answered, any number of times, over a net that keeps, loses and reorders.
type sender struct {
	node     string
	boot     uint64
	group    uint32
	made     uint64                     // commands made: 1..made
	answered uint64                     // numbers up to here have their answers
	got      map[uint64]*shoalpb.Answer // first answer seen of each number, nil for done
	net      []*shoalpb.Batch           // sent and not lost
	taken    []string                   // what the target consumed
}

func (s *sender) command(n uint64) string {
	return fmt.Sprintf("%s/%d/%d/%d", s.node, s.boot, s.group, n)
}

// send puts a batch that begins anywhere from the oldest unanswered on (and so
// may leave a gap) into the net.
func (s *sender) send(t *rapid.T, fence uint64) {
	s.made = max(s.made, s.answered) + rapid.Uint64Range(0, 3).Draw(t, "new")
	b := &shoalpb.Batch{Node: s.node, Boot: s.boot, Group: s.group, Target: 7, TargetLife: 1, Fence: fence, Answered: s.answered}
	if s.group != 0 {
		b.SourceLife = 1
	}
	b.First = rapid.Uint64Range(s.answered+1, s.made+1).Draw(t, "first")
	last := rapid.Uint64Range(b.First-1, s.made).Draw(t, "last")
	for n := b.First; n <= last; n++ {
		b.Commands = append(b.Commands, named(s.command(n)))
	}
	s.net = append(s.net, b)
}

// heard takes an answer that was not lost, old ones included.
func (s *sender) heard(t *rapid.T, b *shoalpb.Batch, r *shoalpb.BatchAnswer) {
	if r.Refusal != 0 {
		return
	}
	for n := b.First; n < b.First+uint64(len(b.Commands)); n++ {
		if n <= s.answered {
			continue // a late repeat; the answer may be forgotten
		}
		var a *shoalpb.Answer
		if i := slices.IndexFunc(r.Answers, func(a *shoalpb.Answer) bool { return a.N == n }); i >= 0 {
			a = r.Answers[i]
		}
		if (n%2 == 1) != (a != nil) || a != nil && a.Open.Conn != n {
			t.Fatalf("number %d answered %v", n, a)
		}
		s.got[n] = a
	}
	for {
		if _, ok := s.got[s.answered+1]; !ok {
			return
		}
		s.answered++
	}
}

// TestEveryNumberOnce: whatever the net does, each number of each stream is
// consumed once and in order, and every answer is the first one, over reloads.
func TestEveryNumberOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := NewIn(7, 1)
		senders := []*sender{{node: "x", boot: 3}, {node: "x", boot: 4}, {node: "y", boot: 3}, {group: 2}}
		for _, s := range senders {
			s.got = map[uint64]*shoalpb.Answer{}
		}
		var fence uint64
		minBoot := map[string]uint64{}
		for range rapid.IntRange(60, 300).Draw(t, "steps") {
			s := rapid.SampledFrom(senders).Draw(t, "source")
			switch rapid.SampledFrom([]string{"send", "send", "arrive", "arrive", "arrive", "lose", "reload", "fence"}).Draw(t, "step") {
			case "send":
				s.send(t, rapid.Uint64Range(0, fence+1).Draw(t, "fence"))
			case "arrive": // and stays in the net: it may arrive again
				if len(s.net) > 0 {
					arrive(t, in, s, rapid.SampledFrom(s.net).Draw(t, "batch"), fence, minBoot[s.node])
				}
			case "lose":
				if len(s.net) > 0 {
					i := rapid.IntRange(0, len(s.net)-1).Draw(t, "lost")
					s.net = slices.Delete(s.net, i, i+1)
				}
			case "reload":
				in = reloaded(t, in)
			case "fence":
				if rapid.IntRange(0, 4).Draw(t, "rare") == 0 {
					fence++
					minBoot["x"] = 4
					in.Fence(fence, []*shoalpb.NodeBoot{{Node: "x", Boot: 4}})
				}
			}
		}
		for _, s := range senders {
			for i, name := range s.taken {
				if name != s.command(uint64(i+1)) {
					t.Fatalf("consumed %v", s.taken)
				}
			}
			if s.answered > uint64(len(s.taken)) {
				t.Fatalf("answered %d of %d", s.answered, len(s.taken))
			}
		}
	})
}

func arrive(t *rapid.T, in *In, s *sender, b *shoalpb.Batch, fence, minBoot uint64) {
	before := in.AppendRow(nil)
	r := in.Apply(b, func(n uint64, c *shoalpb.Command) *shoalpb.Answer {
		s.taken = append(s.taken, c.Append.Message.Topic)
		if n%2 == 1 {
			return &shoalpb.Answer{Open: &shoalpb.OpenAnswer{Conn: n}}
		}
		return nil
	})
	var want shoalpb.Refusal
	switch {
	case b.Boot < minBoot:
		want = shoalpb.Refusal_REFUSAL_FENCED
	case b.Fence > fence:
		want = shoalpb.Refusal_REFUSAL_FENCE_AHEAD
	case b.First > uint64(len(s.taken))+1:
		want = shoalpb.Refusal_REFUSAL_GAP
	}
	if r.Refusal != want || r.Fence != fence {
		t.Fatalf("answered %v, want refusal %v, fence %d", r, want, fence)
	}
	if r.Refusal != 0 && !bytes.Equal(before, in.AppendRow(nil)) {
		t.Fatal("a refused batch changed the state")
	}
	if r.Refusal != shoalpb.Refusal_REFUSAL_FENCED && (r.Last != uint64(len(s.taken)) || in.Last(s.node, s.boot, s.group) != r.Last) {
		t.Fatalf("last %d, consumed %d", r.Last, len(s.taken))
	}
	if rapid.Bool().Draw(t, "heard") {
		s.heard(t, b, r)
	}
}

// TestOpenTwice: a repeated Open gets the very answer of the first.
func TestOpenTwice(t *testing.T) {
	in := NewIn(1, 1)
	b := &shoalpb.Batch{Node: "x", Boot: 1, Target: 1, TargetLife: 1, First: 1,
		Commands: []*shoalpb.Command{{Open: &shoalpb.Open{Client: "c"}}}}
	opened := 0
	f := func(uint64, *shoalpb.Command) *shoalpb.Answer {
		opened++
		return &shoalpb.Answer{Open: &shoalpb.OpenAnswer{Conn: 41, Former: []*shoalpb.Owner{{Node: "y", Boot: 2, Conn: 40}}}}
	}
	first, _ := in.Apply(b, f).MarshalVT()
	again, _ := reloaded(t, in).Apply(b, f).MarshalVT()
	if opened != 1 || !bytes.Equal(first, again) {
		t.Fatalf("opened %d times, answers %x, %x", opened, first, again)
	}
}

// TestLoadRowRefuses: rows of other builds and other groups are errors, and every
// truncation is an error or another state, never a crash.
func TestLoadRowRefuses(t *testing.T) {
	in := NewIn(7, 1)
	in.Fence(4, []*shoalpb.NodeBoot{{Node: "x", Boot: 4}})
	in.Apply(&shoalpb.Batch{Node: "x", Boot: 4, Target: 7, TargetLife: 1, First: 1, Commands: []*shoalpb.Command{named("a")}},
		func(uint64, *shoalpb.Command) *shoalpb.Answer { return &shoalpb.Answer{Code: shoalpb.Code_CODE_QUOTA} })
	row := in.AppendRow(nil)
	if err := NewIn(8, 1).LoadRow(row); err == nil {
		t.Error("row of another group loaded")
	}
	newer := protowire.AppendVarint(protowire.AppendTag(bytes.Clone(row), 99, protowire.VarintType), 1)
	if err := NewIn(7, 1).LoadRow(newer); err == nil {
		t.Error("row with an unknown field loaded")
	}
	if err := NewIn(7, 1).LoadRow(nil); err == nil {
		t.Error("row without format loaded")
	}
	for n := range row {
		again := NewIn(7, 1)
		if again.LoadRow(row[:n]) == nil && bytes.Equal(again.AppendRow(nil), row) {
			t.Errorf("row cut at %d is whole", n)
		}
	}
}

// TestDigest: equal states, equal digests; any difference shows.
func TestDigest(t *testing.T) {
	digest := func(steps ...func(*In)) [sha256.Size]byte {
		in := NewIn(7, 1)
		for _, step := range steps {
			step(in)
		}
		h := sha256.New()
		in.Digest(h)
		return [sha256.Size]byte(h.Sum(nil))
	}
	batch := func(node string, a *shoalpb.Answer) func(*In) {
		return func(in *In) {
			in.Apply(&shoalpb.Batch{Node: node, Boot: 4, Target: 7, TargetLife: 1, First: 1, Commands: []*shoalpb.Command{named("a")}},
				func(uint64, *shoalpb.Command) *shoalpb.Answer { return a })
		}
	}
	x, y := batch("x", nil), batch("y", &shoalpb.Answer{Code: shoalpb.Code_CODE_QUOTA})
	if digest(x, y) != digest(y, x) {
		t.Error("order of independent streams shows")
	}
	if digest(x, y) == digest(x, batch("y", nil)) {
		t.Error("a kept answer does not show")
	}
}
