package directory

import (
	"fmt"
	"math/rand/v2"
	"testing"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// born returns a machine with the founding members.
func born(t testing.TB, shards uint32, members ...string) *Machine {
	m := New()
	b := &shoalpb.Birth{ClusterId: "c", Version: 1, Shards: shards}
	for _, name := range members {
		b.Members = append(b.Members, &shoalpb.NodeDisk{Node: name, Disk: "d"})
	}
	apply(t, m, &shoalpb.Proposal{Birth: b})
	return m
}

// apply applies one entry, of which nothing may be refused.
func apply(t testing.TB, m *Machine, p ...*shoalpb.Proposal) {
	t.Helper()
	results, err := m.Apply(m.Applied()+1, &shoalpb.Entry{Format: 1, Proposals: p}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r.Err != "" || r.Batch.GetRefusal() != 0 || len(r.Batch.GetAnswers()) > 0 {
			t.Fatalf("%v: %v", p[i], r)
		}
	}
}

func up(node string, boot uint64) *shoalpb.Proposal {
	return &shoalpb.Proposal{NodeUp: &shoalpb.NodeUp{Node: &shoalpb.NodeInfo{Node: node, Disk: "d", Boot: boot, Version: 1}}}
}

// present is a batch that makes routes for filters.
func present(s Source, first uint64, qos uint32, filters ...string) *shoalpb.Proposal {
	b := batchOf(s, first)
	for _, filter := range filters {
		b.Commands = append(b.Commands, &shoalpb.Command{Route: &shoalpb.RouteChange{Filter: filter, Present: true, Qos: qos}})
	}
	return &shoalpb.Proposal{Batch: b}
}

// TestManyTargets: more targets than a word has bits, their QoS apart.
func TestManyTargets(t *testing.T) {
	m := born(t, 200, "x")
	apply(t, m, up("x", 1))
	qos := func(group uint32, filter int) uint32 { return (group*7 + uint32(filter)*3) % 3 }
	filters := []string{"a/b", "a/+", "#"}
	has := func(group uint32, filter int) bool { return (group+uint32(filter))%4 != 0 }
	for group := uint32(1); group <= 200; group++ {
		first := uint64(1)
		for i, filter := range filters {
			if has(group, i) {
				apply(t, m, present(Source{Group: group}, first, qos(group, i), filter))
				first++
			}
		}
	}
	var got Targets
	m.Match("a/b", &got)
	if len(got.Shards) != 200 || len(got.Nodes) != 0 {
		t.Fatalf("%d shards, %d nodes", len(got.Shards), len(got.Nodes))
	}
	for _, s := range got.Shards {
		var want uint32
		for i := range filters {
			if has(s.Group, i) {
				want = max(want, qos(s.Group, i))
			}
		}
		if s.QoS != uint8(want) {
			t.Errorf("shard %d: QoS %d, want %d", s.Group, s.QoS, want)
		}
	}
	f := newFile()
	m = f.reopened(t, m)
	m.Match("nowhere", &got)
	if len(got.Shards) != 150 {
		t.Fatalf("%d shards match by # alone", len(got.Shards))
	}
}

// TestNothingStays: what a dead process had is given back, in memory and in the
// file, and its id is another's.
func TestNothingStays(t *testing.T) {
	m := born(t, 1, "x", "y")
	m.sweepPage = 10
	apply(t, m, up("x", 1), up("y", 1))
	f := newFile()
	for boot := uint64(1); boot <= 5; boot++ {
		for i := range 30 {
			apply(t, m, present(Source{Node: "x", Boot: boot}, uint64(i+1), 1, fmt.Sprint("f/", i)))
		}
		apply(t, m, present(Source{Node: "y", Boot: 1}, boot, 1, fmt.Sprint("f/", boot)))
		m = f.reopened(t, m)
		m.sweepPage = 10
		apply(t, m, up("x", boot+1))
		if got := matched(m, "f/20"); got != "" {
			t.Fatalf("boot %d: f/20 goes to %q", boot, got)
		}
		if boot%2 == 1 { // restored with routes of the dead
			m = f.reopened(t, m)
			m.sweepPage = 10
		}
		for range 3 {
			apply(t, m, present(Source{Node: "y", Boot: 1}, boot+1, 1))
		}
		m = f.reopened(t, m)
	}
	if n := m.routes.trie.Len(); n != 5 || len(f.rows[bucketRoutes]) != 5 {
		t.Errorf("%d routes and %d rows are left", n, len(f.rows[bucketRoutes]))
	}
	if len(m.routes.owner) > 2 || m.routes.dead != nil || m.DirtyRefs() != 0 {
		t.Errorf("%d ids, %d dead, %d dirty", len(m.routes.owner), len(m.routes.dead), m.DirtyRefs())
	}
}

// TestIDsAreReused without a restart too.
func TestIDsAreReused(t *testing.T) {
	m := born(t, 1, "x")
	for boot := uint64(1); boot <= 100; boot++ {
		apply(t, m, up("x", boot))
		apply(t, m, present(Source{Node: "x", Boot: boot}, 1, 1, "a", "b/+"))
		if got, want := matched(m, "a"), fmt.Sprintf("x/%d:1", boot); got != want {
			t.Fatalf("a goes to %q, want %q", got, want)
		}
	}
	apply(t, m, up("x", 101))
	if len(m.routes.owner) > 2 || m.routes.trie.Len() != 0 {
		t.Errorf("%d ids, %d filters", len(m.routes.owner), m.routes.trie.Len())
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	m := withRoutes(t, 1000)
	var got Targets
	if n := testing.AllocsPerRun(100, func() { m.Match("site/17/sensor/3", &got) }); n != 0 {
		t.Errorf("%v allocations per match", n)
	}
	if len(got.Nodes) != 2 || len(got.Shards) != 1 {
		t.Errorf("targets are %v", got)
	}
}

// withRoutes returns a machine with about n filters of a plant.
func withRoutes(t testing.TB, n int) *Machine {
	m := born(t, 6, "x", "y", "z")
	apply(t, m, up("x", 1), up("y", 1), up("z", 1))
	apply(t, m, present(Source{Node: "x", Boot: 1}, 1, 0, "site/#"))
	apply(t, m, present(Source{Node: "y", Boot: 1}, 1, 1, "site/+/sensor/3"))
	for i := range n {
		group := uint32(i%6 + 1)
		first := m.RouteIndex("", 0, group) + 1
		apply(t, m, present(Source{Group: group}, first, 1, fmt.Sprintf("site/%d/sensor/%d", i/10, i%10)))
	}
	return m
}

func BenchmarkMatch(b *testing.B) {
	m := withRoutes(b, 100_000)
	r := rand.New(rand.NewPCG(1, 2))
	topics := make([]string, 1024)
	for i := range topics {
		topics[i] = fmt.Sprintf("site/%d/sensor/%d", r.IntN(10_000), r.IntN(10))
	}
	var t Targets
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m.Match(topics[i%len(topics)], &t)
	}
}
