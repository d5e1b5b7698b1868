package directory

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

func shard(group, members, attached uint32) ShareCandidate {
	return ShareCandidate{Source: Source{Group: group}, QoS: 1, Members: members, Attached: attached}
}

func node(name string, members uint32) ShareCandidate {
	return ShareCandidate{Source: Source{Node: name, Boot: 1}, QoS: 1, Members: members}
}

// TestPick: who may get a message, and with which chance.
func TestPick(t *testing.T) {
	for _, c := range []struct {
		name       string
		candidates []ShareCandidate
		qos        uint8
		want       []float64 // chance of each candidate
	}{
		{"nobody", nil, 1, nil},
		{"attached by weight", []ShareCandidate{shard(1, 9, 1), shard(2, 3, 3), node("a", 50)}, 1, []float64{0.25, 0.75, 0}},
		{"detached by members", []ShareCandidate{shard(1, 1, 0), shard(2, 3, 0), node("a", 50)}, 2, []float64{0.25, 0.75, 0}},
		{"processes when nothing is durable", []ShareCandidate{node("a", 1), node("b", 1)}, 1, []float64{0.5, 0.5}},
		{"QoS 0 to all that are connected", []ShareCandidate{shard(1, 9, 1), shard(2, 5, 0), node("a", 3)}, 0, []float64{0.25, 0, 0.75}},
		{"QoS 0 to nobody", []ShareCandidate{shard(1, 9, 0)}, 0, []float64{0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := ShareTargets{Candidates: c.candidates}
			r := rand.New(rand.NewPCG(1, 2))
			got := make([]float64, len(c.candidates))
			const tries = 20000
			for range tries {
				if p, _ := s.Pick(c.qos, r.Uint64()); p != nil {
					for i := range s.Candidates {
						if p == &s.Candidates[i] {
							got[i]++
						}
					}
				}
			}
			for i, want := range c.want {
				if math.Abs(got[i]/tries-want) > 0.02 {
					t.Errorf("candidate %d: %.3f, want %.3f", i, got[i]/tries, want)
				}
			}
		})
	}
}

// TestPickLocal: near candidates first, unless they keep less than others.
func TestPickLocal(t *testing.T) {
	near := func(c *ShareCandidate) bool { return c.Group == 1 || c.Node == "a" }
	for _, c := range []struct {
		candidates []ShareCandidate
		qos        uint8
		want       string
	}{
		{[]ShareCandidate{shard(1, 1, 1), shard(2, 99, 99)}, 1, "#1:1*1,1"},
		{[]ShareCandidate{shard(1, 9, 0), shard(2, 1, 1)}, 1, "#2:1*1,1"},
		{[]ShareCandidate{shard(2, 1, 0), node("a", 9)}, 1, "#2:1*1,0"},
		{[]ShareCandidate{shard(2, 99, 99), node("a", 1)}, 0, "a/1:1*1,0"},
		{[]ShareCandidate{node("a", 1), node("b", 99)}, 1, "a/1:1*1,0"},
		{[]ShareCandidate{node("b", 1)}, 1, "b/1:1*1,0"},
	} {
		s := ShareTargets{Candidates: c.candidates, Turns: new(Turns)}
		for range 200 {
			p, _ := s.PickLocal(c.qos, near)
			if got := targetText(p.Source, seats{p.QoS, p.Members, p.Attached}); got != c.want {
				t.Fatalf("%v: %s, want %s", c.candidates, got, c.want)
			}
		}
	}
}

// TestPickNext: whoever comes into question for a message gets as many as the
// others, to one, whatever is published in between with another QoS.
func TestPickNext(t *testing.T) {
	near := func(c *ShareCandidate) bool { return c.Group == 1 || c.Node == "a" }
	for _, c := range []struct {
		name       string
		candidates []ShareCandidate
		qos        []uint8 // published in turn
		members    []int   // who take part, of each QoS
		local      bool
	}{
		{"one process", []ShareCandidate{node("a", 4)}, []uint8{0}, []int{4}, false},
		{"two processes", []ShareCandidate{node("a", 1), node("b", 1)}, []uint8{1}, []int{2}, false},
		{"unlike processes", []ShareCandidate{node("a", 3), node("b", 1), node("c", 2)}, []uint8{0}, []int{6}, false},
		{"shards", []ShareCandidate{shard(1, 5, 3), shard(2, 2, 0), shard(3, 1, 1), node("a", 3)}, []uint8{1}, []int{4}, false},
		{"shards with nobody there", []ShareCandidate{shard(1, 5, 0), shard(2, 2, 0), node("a", 3)}, []uint8{2}, []int{7}, false},
		{"of both kinds", []ShareCandidate{shard(1, 1, 1), node("a", 1)}, []uint8{0}, []int{2}, false},
		{"QoS 0 and 1 in turn", []ShareCandidate{shard(1, 1, 1), shard(2, 1, 1), node("a", 2)}, []uint8{0, 1}, []int{4, 2}, false},
		{"those nearby", []ShareCandidate{shard(1, 1, 1), shard(2, 9, 9), node("a", 2), node("b", 7)}, []uint8{0, 1}, []int{3, 1}, true},
		{"nobody nearby", []ShareCandidate{shard(2, 2, 2), node("b", 3)}, []uint8{0, 1}, []int{5, 2}, true},
	} {
		s := ShareTargets{Candidates: c.candidates, Turns: new(Turns)}
		got := make([]map[string]int, len(c.qos))
		for i := range c.qos {
			got[i] = map[string]int{}
		}
		for n := range 80 {
			i := n % len(c.qos)
			pick := s.PickNext
			if c.local {
				pick = func(qos uint8) (*ShareCandidate, uint64) { return s.PickLocal(qos, near) }
			}
			p, member := pick(c.qos[i])
			got[i][fmt.Sprint(p.Source, member)]++
		}
		for i, members := range got {
			least, most := 80, 0
			for _, n := range members {
				least, most = min(least, n), max(most, n)
			}
			if len(members) != c.members[i] || most-least > 1 {
				t.Errorf("%s, QoS %d: %v", c.name, c.qos[i], members)
			}
		}
	}
}
