package topic

import "strings"

// Trie maps Topic Filters, or Topic Names, to values: one value each. The zero
// Trie is empty and ready.
//
// Filters and names must be valid; MaxLevels bounds the depth of every
// recursion here. Set and Delete take O(levels). Each level that a filter does
// not share with another costs about 100 bytes and its text, so a filter costs
// 100 to 400 bytes besides its own text and V; Delete frees what it leaves empty.
//
// A Trie is not safe for concurrent use: calls that only read may run at the
// same time as each other, but not as Set or Delete. A yield function must not
// change the Trie.
type Trie[V any] struct {
	root       node[V]
	len        int
	generation uint64
}

// node is one level of the hierarchy. The wildcards have places of their own,
// so that no look-up can take them for text.
type node[V any] struct {
	// level is this node's own text. It is a copy: a part of some filter's
	// string would keep the whole of it alive after that filter is gone.
	level    string
	children children[V]
	plus     *node[V]
	hash     *node[V]
	// key is the whole filter or name, if set.
	key   string
	value V
	set   bool
}

// Set gives filter the value v, in place of a former one.
func (t *Trie[V]) Set(filter string, v V) {
	n := &t.root
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, separator)
		n = n.grow(level)
	}
	n.value = v
	if n.set {
		return
	}
	n.key, n.set = filter, true
	t.len++
	t.generation++
}

// Lookup returns the value of exactly this filter; it does not match.
func (t *Trie[V]) Lookup(filter string) (V, bool) {
	n := &t.root
	for rest, more := filter, true; more && n != nil; {
		var level string
		level, rest, more = strings.Cut(rest, separator)
		n = n.child(level)
	}
	if n == nil {
		var none V
		return none, false
	}
	return n.value, n.set
}

// Delete removes filter and reports whether it was there.
func (t *Trie[V]) Delete(filter string) bool {
	if !t.root.remove(filter) {
		return false
	}
	t.len--
	t.generation++
	return true
}

// Len is the number of filters.
func (t *Trie[V]) Len() int { return t.len }

// Generation changes whenever the set of filters does: with every Set of a new
// filter and every successful Delete, not when Set replaces a value. What a
// cache remembers of Match under one generation stays true as long as it lasts.
func (t *Trie[V]) Generation() uint64 { return t.generation }

// child returns the node of a level of a filter below n, or nil.
func (n *node[V]) child(level string) *node[V] {
	switch level {
	case "+":
		return n.plus
	case "#":
		return n.hash
	}
	return n.children.find(level)
}

// grow returns the node of a level of a filter below n, made if missing.
func (n *node[V]) grow(level string) *node[V] {
	if c := n.child(level); c != nil {
		return c
	}
	c := &node[V]{level: strings.Clone(level)}
	switch level {
	case "+":
		n.plus = c
	case "#":
		n.hash = c
	default:
		n.children.insert(c)
	}
	return c
}

// remove clears the value of filter, relative to n, and cuts off what that
// leaves empty. It reports whether there was a value.
func (n *node[V]) remove(filter string) bool {
	level, rest, more := strings.Cut(filter, separator)
	c := n.child(level)
	switch {
	case c == nil:
		return false
	case more:
		if !c.remove(rest) {
			return false
		}
	case !c.set:
		return false
	default:
		var none V
		c.key, c.value, c.set = "", none, false
	}
	if c.empty() {
		n.cut(c)
	}
	return true
}

// empty reports whether a node has neither a value nor anything below it.
func (n *node[V]) empty() bool {
	return !n.set && n.plus == nil && n.hash == nil && n.children.empty()
}

// cut takes the child c off n.
func (n *node[V]) cut(c *node[V]) {
	switch c {
	case n.plus:
		n.plus = nil
	case n.hash:
		n.hash = nil
	default:
		n.children.remove(c.level)
	}
}
