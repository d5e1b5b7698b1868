package topic

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// Levels are few, so that filters meet, and many below one node, so that its
// children change their form both ways.
var (
	anyText = rapid.SampledFrom([]string{"", "a", "b", "c", "$SYS", "$", "a b", "é", "A"})
	anyName = rapid.Custom(func(t *rapid.T) string {
		name := strings.Join(rapid.SliceOfN(rapid.OneOf(anyText, anyNumber), 1, 5).Draw(t, "levels"), "/")
		if name == "" {
			return "/"
		}
		return name
	})
	anyNumber = rapid.Custom(func(t *rapid.T) string { return fmt.Sprint(rapid.IntRange(0, 30).Draw(t, "n")) })
	anyFilter = rapid.Custom(func(t *rapid.T) string {
		levels := strings.Split(anyName.Draw(t, "name"), "/")
		for i := range levels {
			if rapid.IntRange(0, 2).Draw(t, "wild") == 0 {
				levels[i] = "+"
			}
		}
		if rapid.IntRange(0, 2).Draw(t, "multi") == 0 {
			levels[len(levels)-1] = "#"
		}
		return strings.Join(levels, "/")
	})
)

// modelled is a Trie and a map that should hold the same.
type modelled struct {
	trie  Trie[int]
	model map[string]int
	next  int
}

func (m *modelled) set(t *rapid.T, filter string) {
	_, had := m.model[filter]
	before := m.trie.Generation()
	m.next++
	m.trie.Set(filter, m.next)
	m.model[filter] = m.next
	if changed := m.trie.Generation() != before; changed == had {
		t.Fatalf("Set(%q): generation changed %v, filter there before %v", filter, changed, had)
	}
}

func (m *modelled) delete(t *rapid.T, filter string) {
	_, had := m.model[filter]
	before := m.trie.Generation()
	if got := m.trie.Delete(filter); got != had {
		t.Fatalf("Delete(%q) = %v, want %v", filter, got, had)
	}
	if changed := m.trie.Generation() != before; changed != had {
		t.Fatalf("Delete(%q): generation changed %v", filter, changed)
	}
	delete(m.model, filter)
}

// check compares everything that can be asked about the whole.
func (m *modelled) check(t *rapid.T) {
	if m.trie.Len() != len(m.model) {
		t.Fatalf("Len %d, want %d", m.trie.Len(), len(m.model))
	}
	for filter, want := range m.model {
		if got, ok := m.trie.Lookup(filter); !ok || got != want {
			t.Fatalf("Lookup(%q) = %d, %v, want %d", filter, got, ok, want)
		}
	}
	all := make(map[string]int)
	var order []string
	m.trie.All(func(filter string, v int) bool {
		all[filter] = v
		order = append(order, filter)
		return true
	})
	if !maps.Equal(all, m.model) || len(order) != len(m.model) {
		t.Fatalf("All: %v, want %v", order, m.model)
	}
	if !slices.IsSortedFunc(order, compareKeys) {
		t.Fatalf("All is not in order: %q", order)
	}
	if len(m.model) == 0 && !m.trie.root.empty() {
		t.Fatal("an empty Trie keeps nodes")
	}
	checkNode(t, &m.trie.root, true)
}

// compareKeys is the order of All.
func compareKeys(a, b string) int {
	rank := func(level string) int {
		return map[string]int{"+": -1, "#": 1}[level]
	}
	return slices.CompareFunc(strings.Split(a, "/"), strings.Split(b, "/"), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
	})
}

// checkNode: no node without a purpose, wide nodes hold the same twice.
func checkNode(t *rapid.T, n *node[int], root bool) {
	if !root && n.empty() {
		t.Fatalf("node %q is empty", n.level)
	}
	if w := n.children.wide; w != nil {
		runs := slices.Concat(w.runs...)
		if len(runs) != len(w.byLevel) || len(runs) == 0 {
			t.Fatalf("%d in order, %d by level", len(runs), len(w.byLevel))
		}
		if !wellCut(w) {
			t.Fatalf("node %q has a bad run", n.level)
		}
	}
	n.children.each("", func(c *node[int]) bool {
		if n.children.find(c.level) != c {
			t.Fatalf("child %q is not found", c.level)
		}
		checkNode(t, c, false)
		return true
	})
}

// wellCut: no run is empty or too long, no two neighbours are both short.
func wellCut(w *wide[int]) bool {
	for i, run := range w.runs {
		if len(run) == 0 || len(run) > maxRun || i > 0 && len(run)+len(w.runs[i-1]) <= maxRun/2 {
			return false
		}
	}
	return true
}

func TestTrieAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &modelled{model: make(map[string]int)}
		known := func(t *rapid.T) string {
			if len(m.model) == 0 {
				return anyFilter.Draw(t, "filter")
			}
			return rapid.SampledFrom(slices.Sorted(maps.Keys(m.model))).Draw(t, "known")
		}
		t.Repeat(map[string]func(*rapid.T){
			"set":         func(t *rapid.T) { m.set(t, anyFilter.Draw(t, "filter")) },
			"set again":   func(t *rapid.T) { m.set(t, known(t)) },
			"delete":      func(t *rapid.T) { m.delete(t, known(t)) },
			"delete none": func(t *rapid.T) { m.delete(t, anyFilter.Draw(t, "filter")) },
			"match": func(t *rapid.T) {
				name := anyName.Draw(t, "name")
				var got, want []int
				m.trie.Match(name, func(v int) bool { got = append(got, v); return true })
				for filter, v := range m.model {
					if MatchOne(filter, name) {
						want = append(want, v)
					}
				}
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Fatalf("Match(%q) = %v, want %v of %v", name, got, want, m.model)
				}
			},
			"": m.check,
		})
		for filter := range maps.Clone(m.model) {
			m.delete(t, filter)
		}
		m.check(t)
	})
}

func TestMatchNamesAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfN(anyName, 0, 60).Draw(t, "names")
		var tr Trie[string]
		for _, n := range names {
			tr.Set(n, "v"+n)
		}
		slices.SortFunc(names, compareKeys)
		names = slices.Compact(names)
		filter := rapid.OneOf(anyFilter, rapid.SampledFrom(append(names, "a"))).Draw(t, "filter")
		var want []string
		for _, n := range names {
			if MatchOne(filter, n) {
				want = append(want, n)
			}
		}
		var got []string
		tr.MatchNames(filter, func(name, v string) bool {
			if v != "v"+name {
				t.Fatalf("%q has value %q", name, v)
			}
			got = append(got, name)
			return true
		})
		if !slices.Equal(got, want) {
			t.Fatalf("MatchNames(%q) = %q, want %q", filter, got, want)
		}
		after := rapid.OneOf(anyName, rapid.SampledFrom(append(names, "a"))).Draw(t, "after")
		got = nil
		work := 2 + strings.Count(filter, separator) + rapid.IntRange(0, 10).Draw(t, "work")
		for place, more := after, true; more; {
			place, more = tr.MatchNamesAfter(filter, place, work, func(name, _ string) bool { got = append(got, name); return true })
		}
		want = slices.DeleteFunc(want, func(n string) bool { return compareKeys(n, after) <= 0 })
		if !slices.Equal(got, want) {
			t.Fatalf("MatchNamesAfter(%q, %q) = %q, want %q", filter, after, got, want)
		}
	})
}

// Pages put together are the whole, also over a node with many runs.
func TestMatchNamesInPages(t *testing.T) {
	var tr Trie[int]
	for i := range 5000 {
		tr.Set(fmt.Sprintf("d/%d/state", i), i)
		tr.Set(fmt.Sprintf("d/%d", i), i)
	}
	var got []string
	for after, last := "", ""; ; after = last {
		n := 0
		tr.MatchNamesAfter("d/#", after, math.MaxInt, func(name string, _ int) bool {
			got, last = append(got, name), name
			n++
			return n < 97
		})
		if n < 97 {
			break
		}
	}
	var want []string
	tr.MatchNames("d/#", func(name string, _ int) bool { want = append(want, name); return true })
	if len(want) != 10000 || !slices.Equal(got, want) {
		t.Fatalf("%d names in pages, %d at once", len(got), len(want))
	}
}

// What matches nothing is looked at in bounded steps.
func TestMatchNamesBoundsWork(t *testing.T) {
	var tr Trie[int]
	for i := range 5000 {
		tr.Set(fmt.Sprintf("d/%d/state", i), i)
	}
	tr.Set("d/777/other", -1)
	found, steps := 0, 0
	for place, more := "", true; more; steps++ {
		place, more = tr.MatchNamesAfter("+/+/other", place, 100, func(string, int) bool { found++; return true })
	}
	if found != 1 || steps < 50 || steps > 60 {
		t.Fatalf("%d found in %d steps", found, steps)
	}
}

// A node that is filled and emptied at random keeps its order, and lets go of
// what it does not need.
func TestWideNode(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var c children[int]
	model := make(map[string]bool)
	for round := range 7 {
		for range 9000 {
			level := fmt.Sprint(r.IntN(4000))
			if grow := round%2 == 0; grow && !model[level] {
				c.insert(&node[int]{level: level})
				model[level] = true
			} else if !grow && model[level] {
				c.remove(level)
				delete(model, level)
			}
		}
		var got []string
		c.each("", func(n *node[int]) bool { got = append(got, n.level); return true })
		if !slices.Equal(got, slices.Sorted(maps.Keys(model))) {
			t.Fatalf("round %d: %d levels of %d, or out of order", round, len(got), len(model))
		}
		if c.wide != nil && !wellCut(c.wide) {
			t.Errorf("round %d: %d runs for %d levels", round, len(c.wide.runs), len(model))
		}
	}
	for i, level := range slices.Sorted(maps.Keys(model)) {
		if i%10 != 0 {
			c.remove(level)
			delete(model, level)
		}
		if c.wide != nil && !wellCut(c.wide) {
			t.Fatalf("%d removed in order: %d runs for %d levels", i, len(c.wide.runs), len(model))
		}
	}
	for level := range model {
		c.remove(level)
	}
	if !c.empty() {
		t.Error("not empty")
	}
}

// What yield refuses ends every visit at once.
func TestVisitsStop(t *testing.T) {
	var tr Trie[int]
	for i, f := range []string{"#", "+", "+/#", "a", "a/#", "a/+", "a/b", "b/c"} {
		tr.Set(f, i)
	}
	var names Trie[int]
	for i := range 20 {
		names.Set(fmt.Sprintf("a/%d", i), i)
		names.Set(fmt.Sprintf("a/%d/x", i), i)
	}
	for stop := 1; stop <= 5; stop++ {
		for what, visit := range map[string]func(func() bool){
			"Match":        func(y func() bool) { tr.Match("a/b", func(int) bool { return y() }) },
			"All":          func(y func() bool) { tr.All(func(string, int) bool { return y() }) },
			"MatchNames #": func(y func() bool) { names.MatchNames("a/#", func(string, int) bool { return y() }) },
			"MatchNames +": func(y func() bool) { names.MatchNames("+/+", func(string, int) bool { return y() }) },
		} {
			n := 0
			visit(func() bool { n++; return n < stop })
			if n != stop {
				t.Errorf("%s visited %d, to stop after %d", what, n, stop)
			}
		}
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	tr := filtersWithWildcards(1000)
	n := 0
	if a := testing.AllocsPerRun(100, func() {
		tr.Match("site/7/device/7/temp", func(v int) bool { n += v; return true })
	}); a != 0 {
		t.Errorf("Match allocates %v times", a)
	}
}

// The levels of a deleted filter must not keep its text alive through nodes
// that others share: Set copies them.
func TestLevelsAreCopies(t *testing.T) {
	var tr Trie[int]
	tr.Set("a/b", 1)
	n := tr.root.children.find("a").children.find("b")
	if unsafe.StringData(n.level) == unsafe.StringData(n.key[2:]) {
		t.Error("a level is a part of its filter's string")
	}
}
