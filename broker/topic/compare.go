package topic

import "strings"

// Covers reports whether a matches every Topic Name that b matches. Both must be
// valid Topic Filters, or Topic Names. To this and Intersects "/#" matches an
// empty name, which there is not: so they may be too careful about it.
func Covers(a, b string) bool {
	if reserved(b) && wildcardFirst(a) {
		return false
	}
	if a == "+/#" && b == "#" { // every name has a first level
		return true
	}
	for {
		have, aRest, aMore := strings.Cut(a, separator)
		want, bRest, bMore := strings.Cut(b, separator)
		switch {
		case have == "#":
			return true
		case want == "#", have != "+" && have != want:
			return false
		case !bMore: // "sport/#" includes the parent level
			return !aMore || aRest == "#"
		case !aMore:
			return false
		}
		a, b = aRest, bRest
	}
}

// Intersects reports whether there is a Topic Name that both match. Both must be
// valid Topic Filters, or Topic Names.
func Intersects(a, b string) bool {
	if reserved(a) && wildcardFirst(b) || reserved(b) && wildcardFirst(a) {
		return false
	}
	for {
		have, aRest, aMore := strings.Cut(a, separator)
		want, bRest, bMore := strings.Cut(b, separator)
		switch {
		case have == "#" || want == "#":
			return true
		case have != "+" && want != "+" && have != want:
			return false
		case !aMore || !bMore:
			return aMore == bMore || aMore && aRest == "#" || bMore && bRest == "#"
		}
		a, b = aRest, bRest
	}
}

// wildcardFirst reports whether a filter does not match names that begin with $.
func wildcardFirst(filter string) bool { return filter[0] == '+' || filter[0] == '#' }
