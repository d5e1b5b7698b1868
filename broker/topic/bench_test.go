package topic

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// filtersWithWildcards makes n filters as a fleet of devices would.
func filtersWithWildcards(n int) *Trie[int] {
	tr := new(Trie[int])
	for i := range n {
		switch i % 4 {
		case 0:
			tr.Set(fmt.Sprintf("site/%d/+/%d/temp", i%100, i), i)
		case 1:
			tr.Set(fmt.Sprintf("site/%d/device/%d/#", i%100, i), i)
		default:
			tr.Set(fmt.Sprintf("site/%d/device/%d/temp", i%100, i), i)
		}
	}
	return tr
}

func BenchmarkMatch100k(b *testing.B) {
	tr := filtersWithWildcards(100_000)
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprintf("site/%d/device/%d/temp", i%100, i*100+i%100)
	}
	matched := 0
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		tr.Match(names[i%len(names)], func(int) bool { matched++; return true })
	}
	b.ReportMetric(float64(matched)/float64(b.N), "matches/op")
}

func BenchmarkMatchDeep(b *testing.B) {
	var tr Trie[int]
	name := strings.TrimSuffix(strings.Repeat("level/", MaxLevels), "/")
	tr.Set(name, 1)
	tr.Set("level/#", 2)
	b.ReportAllocs()
	for b.Loop() {
		tr.Match(name, func(int) bool { return true })
	}
}

// All 2^10 filters of ten levels, each the name's own or '+': the worst that
// wildcards can do to one name is to match with every node there is.
func BenchmarkMatchManyPlus(b *testing.B) {
	var tr Trie[int]
	for i := range 1 << 10 {
		levels := strings.Split("a/b/c/d/e/f/g/h/i/j", "/")
		for l := range levels {
			if i>>l&1 == 1 {
				levels[l] = "+"
			}
		}
		tr.Set(strings.Join(levels, "/"), i)
	}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		tr.Match("a/b/c/d/e/f/g/h/i/j", func(int) bool { n++; return true })
		if n != 1<<10 {
			b.Fatal(n)
		}
	}
}

func BenchmarkSetDelete(b *testing.B) {
	tr := filtersWithWildcards(100_000)
	filters := make([]string, 1000)
	for i := range filters {
		filters[i] = fmt.Sprintf("site/%d/+/new%d/#", i%100, i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		tr.Set(filters[i%1000], i)
		tr.Delete(filters[i%1000])
	}
}

// BenchmarkMemory reports what a filter costs, its own text included.
func BenchmarkMemory(b *testing.B) {
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		tr := filtersWithWildcards(100_000)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(tr.Len()), "B/filter")
	}
}
