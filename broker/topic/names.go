package topic

import (
	"math"
	"strings"
)

// MatchNames is the look-up in the other direction, for a Trie of Topic Names:
// it visits each name that the Topic Filter matches, with its value, as long as
// yield returns true, in the order of All. Wildcards at the start do not match
// names that begin with '$' ([MQTT-4.7.2-1]). Work is at most the nodes whose
// path matches a beginning of the filter, and all nodes below '#'.
func (t *Trie[V]) MatchNames(filter string, yield func(name string, v V) bool) {
	t.root.matchNames(filter, cursor{}, true, &walk[V]{yield: yield, left: math.MaxInt})
}

// MatchNamesAfter is MatchNames from behind the name after, which need not be
// in the Trie (any more). With it a long answer is read in pages: going on
// costs O(levels), not what was passed over.
//
// A filter may match little of what it looks at. After about work nodes
// MatchNamesAfter stops and reports that there may be more behind place, which
// is a place to go on from and need not be a name that matches; work must be
// more than the levels of filter, or it gets nowhere. If yield ends the visit,
// more is false.
func (t *Trie[V]) MatchNamesAfter(filter, after string, work int, yield func(name string, v V) bool) (place string, more bool) {
	w := &walk[V]{yield: yield, left: work}
	t.root.matchNames(filter, cursor{below, after}, true, w)
	return w.place, w.stopped
}

// walk is one visit of names.
type walk[V any] struct {
	yield func(string, V) bool
	left  int // nodes that may still be looked at
	// stopped: there were too many; the visit ended at place.
	stopped bool
	place   string
}

// spent counts a node, and reports whether it was one too many: then the visit
// ends at it.
func (w *walk[V]) spent(level string) bool {
	if w.left--; w.left >= 0 {
		return false
	}
	w.stopped, w.place = true, level
	return true
}

// inside takes the result of a visit below a node of some level.
func (w *walk[V]) inside(level string, goOn bool) bool {
	if w.stopped {
		w.place = level + separator + w.place
	}
	return goOn
}

// matchNames visits the names below n that the levels of filter match and that
// come after c; top is true at the root. It reports whether to go on.
func (n *node[V]) matchNames(filter string, c cursor, top bool, w *walk[V]) bool {
	level, rest, more := strings.Cut(filter, separator)
	step := func(child *node[V]) bool {
		switch next := c.at(child.level); {
		case top && level != child.level && reserved(child.level):
			return true
		case level == "#":
			return child.all(next, w.yield)
		case more: // nothing of the child itself matches, unless '#' follows: then something always does
			return (rest == "#" || !w.spent(child.level)) &&
				w.inside(child.level, child.matchNames(rest, next, false, w))
		default:
			return child.self(next, w.yield) && !w.spent(child.level)
		}
	}
	switch level {
	case "#":
		return n.self(c, w.yield) && n.children.each(c.level(), step)
	case "+":
		return n.children.each(c.level(), step)
	}
	child := n.children.find(level)
	return child == nil || level < c.level() || step(child)
}

// cursor is a place in the order of names, as seen from a node.
type cursor struct {
	place place
	// rest is the levels from the node to the place, if it is below.
	rest string
}

type place uint8

const (
	before place = iota // the place is before the node: everything comes after it
	here                // the node is the place: what is below comes after it
	below               // the place is below the node: some of that comes after it
)

// level is the first level below the node that may hold something after the
// place.
func (c cursor) level() string {
	if c.place != below {
		return ""
	}
	level, _, _ := strings.Cut(c.rest, separator)
	return level
}

// at is the cursor as seen from a child that is not before level().
func (c cursor) at(child string) cursor {
	if c.place != below {
		return cursor{}
	}
	level, rest, more := strings.Cut(c.rest, separator)
	switch {
	case child != level:
		return cursor{}
	case more:
		return cursor{below, rest}
	}
	return cursor{place: here}
}
