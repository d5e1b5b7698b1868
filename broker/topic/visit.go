package topic

import "strings"

// Match visits the value of each filter that matches the Topic Name, once, as
// long as yield returns true. Wildcards at the start do not match a name that
// begins with '$' ([MQTT-4.7.2-1]). The order depends on nothing but the
// filters and the name. Match does not allocate.
//
// Work is bounded by what is there: at each level at most the level itself, '+'
// and '#' are looked up, and no node is visited twice, so a name of L levels
// costs at most min(2^L, nodes whose path matches a beginning of it).
func (t *Trie[V]) Match(name string, yield func(v V) bool) {
	t.root.match(name, true, !reserved(name), yield)
}

// match visits what matches the levels of rest below n; more is false if there
// are none left, wild false if wildcards must not match the next one. It
// reports whether to go on.
func (n *node[V]) match(rest string, more, wild bool, yield func(v V) bool) bool {
	// '#' stands for any number of levels, none too: "sport/#" matches "sport".
	if wild && n.hash != nil && n.hash.set && !yield(n.hash.value) {
		return false
	}
	if !more {
		return !n.set || yield(n.value)
	}
	level, rest, more := strings.Cut(rest, separator)
	if c := n.children.find(level); c != nil && !c.match(rest, more, true, yield) {
		return false
	}
	if c := n.plus; wild && c != nil && !c.match(rest, more, true, yield) {
		return false
	}
	return true
}

// MatchNames is the look-up in the other direction, for a Trie of Topic Names:
// it visits each name that the Topic Filter matches, with its value, as long as
// yield returns true, level by level in ascending order of the levels' bytes.
// Wildcards at the start do not match names that begin with '$'
// ([MQTT-4.7.2-1]). Work is at most the nodes whose path matches a beginning of
// the filter, and all nodes below '#'.
func (t *Trie[V]) MatchNames(filter string, yield func(name string, v V) bool) {
	t.root.matchNames(filter, yield, true)
}

// matchNames visits the names below n that the levels of filter match; top is
// true at the root. It reports whether to go on.
func (n *node[V]) matchNames(filter string, yield func(string, V) bool, top bool) bool {
	level, rest, more := strings.Cut(filter, separator)
	switch level {
	case "#":
		if top {
			return n.children.each(func(c *node[V]) bool { return reserved(c.level) || c.all(yield) })
		}
		return n.all(yield)
	case "+":
		return n.children.each(func(c *node[V]) bool {
			return top && reserved(c.level) || c.matchNamesOrSelf(rest, more, yield)
		})
	}
	c := n.children.find(level)
	return c == nil || c.matchNamesOrSelf(rest, more, yield)
}

// matchNamesOrSelf goes on below n, or ends at n if the filter is used up.
func (n *node[V]) matchNamesOrSelf(rest string, more bool, yield func(string, V) bool) bool {
	if more {
		return n.matchNames(rest, yield, false)
	}
	return !n.set || yield(n.key, n.value)
}

// All visits every filter with its value, as long as yield returns true, level
// by level: of two filters that part at a level, "+" comes first, "#" last, and
// text between them in ascending order of bytes.
func (t *Trie[V]) All(yield func(filter string, v V) bool) { t.root.all(yield) }

// all visits n and everything below it. It reports whether to go on.
func (n *node[V]) all(yield func(string, V) bool) bool {
	if n.set && !yield(n.key, n.value) {
		return false
	}
	if n.plus != nil && !n.plus.all(yield) {
		return false
	}
	if !n.children.each(func(c *node[V]) bool { return c.all(yield) }) {
		return false
	}
	return n.hash == nil || n.hash.all(yield)
}
