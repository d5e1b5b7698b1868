package topic

import (
	"maps"
	"slices"
	"strings"
)

// children are the nodes below a node, other than wildcards, by level.
type children[V any] struct {
	// few holds up to fewChildren, ascending; then wide holds all.
	few  []*node[V]
	wide map[string]*node[V]
}

func (c *children[V]) len() int { return len(c.few) + len(c.wide) }

func (c *children[V]) find(level string) *node[V] {
	if c.wide != nil {
		return c.wide[level]
	}
	for _, n := range c.few {
		if n.level == level {
			return n
		}
	}
	return nil
}

// insert adds a node whose level is not there yet.
func (c *children[V]) insert(n *node[V]) {
	if c.wide == nil && len(c.few) == fewChildren {
		c.wide = make(map[string]*node[V], 2*fewChildren)
		for _, f := range c.few {
			c.wide[f.level] = f
		}
		c.few = nil
	}
	if c.wide != nil {
		c.wide[n.level] = n
		return
	}
	i, _ := slices.BinarySearchFunc(c.few, n.level, byLevel)
	c.few = slices.Insert(c.few, i, n)
}

func (c *children[V]) remove(level string) {
	if c.wide == nil {
		c.few = slices.DeleteFunc(c.few, func(n *node[V]) bool { return n.level == level })
		return
	}
	delete(c.wide, level)
	if len(c.wide) == 0 {
		c.wide = nil
	}
}

// each visits the nodes ascending by level, as long as yield returns true.
func (c *children[V]) each(yield func(*node[V]) bool) bool {
	nodes := c.few
	if c.wide != nil {
		nodes = slices.SortedFunc(maps.Values(c.wide), func(a, b *node[V]) int {
			return strings.Compare(a.level, b.level)
		})
	}
	for _, n := range nodes {
		if !yield(n) {
			return false
		}
	}
	return true
}

func byLevel[V any](n *node[V], level string) int { return strings.Compare(n.level, level) }
