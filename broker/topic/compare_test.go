package topic

import (
	"strings"
	"testing"
)

// combine returns all sequences of up to n of the levels.
func combine(levels []string, n int) (all []string) {
	if n == 0 {
		return nil
	}
	for _, rest := range append(combine(levels, n-1), "\x00") {
		for _, l := range levels {
			all = append(all, strings.TrimSuffix(l+separator+rest, separator+"\x00"))
		}
	}
	return all
}

// TestCompare holds Covers and Intersects to what they mean, for all filters of
// up to three levels. Names of up to four levels with a level that is in no filter
// tell any two such filters apart.
func TestCompare(t *testing.T) {
	var filters, names []string
	for _, f := range combine([]string{"", "a", "$b", "+", "#"}, 3) {
		if ValidateFilter(f) == nil {
			filters = append(filters, f)
		}
	}
	names = []string{""} // as Covers has it
	for _, n := range combine([]string{"", "a", "$b", "c"}, 4) {
		if ValidateName(n) == nil {
			names = append(names, n)
		}
	}
	matches := make([][]bool, len(filters))
	for i, f := range filters {
		matches[i] = make([]bool, len(names))
		for j, n := range names {
			matches[i][j] = MatchOne(f, n)
		}
	}
	for i, a := range filters {
		for j, b := range filters {
			covers, intersects := true, false
			for k := range names {
				covers = covers && (matches[i][k] || !matches[j][k])
				intersects = intersects || matches[i][k] && matches[j][k]
			}
			if got := Covers(a, b); got != covers {
				t.Errorf("Covers(%q, %q) = %t", a, b, got)
			}
			if got := Intersects(a, b); got != intersects {
				t.Errorf("Intersects(%q, %q) = %t", a, b, got)
			}
		}
	}
}
