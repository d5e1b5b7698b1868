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

// All visits every filter with its value, as long as yield returns true, level
// by level: a filter comes before those that continue it, and where two part,
// "+" comes first, "#" last, and text between them in ascending order of bytes.
func (t *Trie[V]) All(yield func(filter string, v V) bool) { t.root.all(cursor{}, yield) }

// all visits n and everything below it that comes after c. It reports whether
// to go on.
func (n *node[V]) all(c cursor, yield func(string, V) bool) bool {
	if !n.self(c, yield) {
		return false
	}
	if c.place != below && n.plus != nil && !n.plus.all(cursor{}, yield) {
		return false
	}
	if !n.children.each(c.level(), func(child *node[V]) bool {
		return child.all(c.at(child.level), yield)
	}) {
		return false
	}
	return n.hash == nil || n.hash.all(cursor{}, yield)
}

// self visits n alone, unless c excludes it.
func (n *node[V]) self(c cursor, yield func(string, V) bool) bool {
	return !n.set || c.place != before || yield(n.key, n.value)
}
