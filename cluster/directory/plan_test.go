package directory

import (
	"fmt"
	"slices"
	"testing"

	shoalpb "github.com/shoalmq/shoal/proto"
	"pgregory.net/rapid"
)

// TestPlanComesToAnEnd: whatever has become of the nodes, making one planned move
// after the other ends, in a placement that has what it can have.
func TestPlanComesToAnEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, index := New(), uint64(0)
		propose := func(p *shoalpb.Proposal) string {
			index++
			rs, err := m.Apply(index, &shoalpb.Entry{Format: 1, Proposals: []*shoalpb.Proposal{p}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			return rs[0].Err
		}
		founders, shards := rapid.IntRange(1, 6).Draw(t, "founders"), rapid.Uint32Range(1, 12).Draw(t, "shards")
		propose(&shoalpb.Proposal{Birth: &shoalpb.Birth{ClusterId: "c", Version: 1, Shards: shards, Members: members(founders)}})
		up := func(i int, disk string) {
			name := fmt.Sprintf("node-%d", i)
			boot := max(1, m.MinBoot(name))
			propose(&shoalpb.Proposal{NodeUp: &shoalpb.NodeUp{Node: &shoalpb.NodeInfo{Node: name, Disk: disk, Boot: boot, Version: 1}}})
		}
		for i := range founders {
			up(i, fmt.Sprintf("disk%d", i))
		}
		for range rapid.IntRange(1, 5).Draw(t, "turns") {
			for range rapid.IntRange(1, 4).Draw(t, "changes") {
				i := rapid.IntRange(0, 7).Draw(t, "node")
				n, _ := m.Node(fmt.Sprintf("node-%d", i))
				down := &shoalpb.Proposal{NodeDown: &shoalpb.NodeDown{Node: n.Info.GetNode(), Boot: n.Info.GetBoot()}}
				switch rapid.SampledFrom([]string{"up", "down", "wiped", "set", "set"}).Draw(t, "change") {
				case "up":
					up(i, fmt.Sprintf("disk%d", i))
				case "down":
					propose(down)
				case "wiped":
					propose(down)
					up(i, fmt.Sprintf("wiped%d", index))
				case "set":
					propose(&shoalpb.Proposal{SetNode: &shoalpb.SetNode{
						Node: n.Info.GetNode(), Drained: rapid.Bool().Draw(t, "drained"), Leaving: rapid.IntRange(0, 2).Draw(t, "leaving") == 0,
					}})
				}
			}
			settle(t, m, propose)
		}
	})
}

// settle makes planned moves until there are none, and looks at the end.
func settle(t *rapid.T, m *Machine, propose func(*shoalpb.Proposal) string) {
	limit := 6*int(m.Shards()) + 6
	for left := limit; ; left-- {
		plan := m.Plan(anySettled)
		if len(plan) == 0 {
			break
		}
		if left == 0 {
			t.Fatalf("still moving after %d moves: %v", limit, plan[0])
		}
		move := rapid.SampledFrom(plan).Draw(t, "move")
		if refused := propose(&shoalpb.Proposal{Place: move}); refused != "" {
			t.Fatalf("%v: %s", move, refused)
		}
		p := m.Placed(move.Group)
		replicas := p.Finished()
		if p.Moving() && rapid.IntRange(0, 9).Draw(t, "given up") == 0 {
			replicas, left = p.Replicas, left+1
		}
		if refused := propose(&shoalpb.Proposal{Place: &shoalpb.Place{Group: move.Group, Version: p.Version, Replicas: replicas}}); refused != "" {
			t.Fatalf("end of %v: %s", move, refused)
		}
	}
	settled(t, m)
}

func settled(t *rapid.T, m *Machine) {
	var free []string // nodes that could take replicas
	staying := 0
	load := map[string]int{}
	for _, n := range m.Nodes() {
		if n.Up && !n.Leaving && !n.Drained {
			free = append(free, n.Info.Node)
		}
		if !n.Leaving {
			staying++
		}
	}
	for group := uint32(1); group <= m.Shards(); group++ {
		p := m.Placed(group)
		unused := slices.DeleteFunc(slices.Clone(free), func(node string) bool {
			return slices.ContainsFunc(p.Replicas, func(r string) bool { return nodeOf(r) == node })
		})
		if len(p.Replicas) < min(Replicas, staying) && len(unused) > 0 {
			t.Fatalf("shard %d on %v, and %v are free", group, p.Replicas, unused)
		}
		for _, r := range p.Replicas {
			load[nodeOf(r)]++
			n, _ := m.Node(nodeOf(r))
			if bad := !m.current(r) || n.Leaving || n.Drained; bad && len(unused) > 0 {
				t.Fatalf("shard %d stays on %s (%v), and %v are free", group, r, p.Replicas, unused)
			}
		}
	}
	for _, a := range free {
		for _, b := range free {
			if load[a]-load[b] > 1 {
				t.Fatalf("loads are %v of %v", load, free)
			}
		}
	}
}
