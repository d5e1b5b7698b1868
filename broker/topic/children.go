package topic

import (
	"slices"
	"strings"
)

// children are the nodes below a node, other than wildcards, by level.
type children[V any] struct {
	// few holds up to fewChildren, ascending. When there are more wide holds
	// all, until none is left.
	few  []*node[V]
	wide *wide[V]
}

// wide finds a level by hash and visits levels in order. The order is kept in
// runs, ascending slices of 1 to maxRun nodes one after the other: a sorted
// slice that moves at most maxRun pointers for an insertion.
type wide[V any] struct {
	byLevel map[string]*node[V]
	runs    [][]*node[V]
}

func (c *children[V]) empty() bool { return len(c.few) == 0 && c.wide == nil }

func (c *children[V]) find(level string) *node[V] {
	if c.wide != nil {
		return c.wide.byLevel[level]
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
	switch {
	case c.wide != nil:
		c.wide.insert(n)
	case len(c.few) < fewChildren:
		i, _ := search(c.few, n.level)
		c.few = slices.Insert(c.few, i, n)
	default:
		c.wide = newWide(c.few)
		c.wide.insert(n)
		c.few = nil
	}
}

// remove takes off the node of a level that is there.
func (c *children[V]) remove(level string) {
	if c.wide != nil {
		c.wide.remove(level)
		if len(c.wide.byLevel) == 0 {
			c.wide = nil
		}
		return
	}
	i, _ := search(c.few, level)
	c.few = slices.Delete(c.few, i, i+1)
}

// each visits the nodes whose level is not before from, ascending, as long as
// yield returns true. It reports whether to go on.
func (c *children[V]) each(from string, yield func(*node[V]) bool) bool {
	if c.wide == nil {
		return eachOf(c.few, from, yield)
	}
	for _, run := range c.wide.runs[c.wide.run(from):] {
		if !eachOf(run, from, yield) {
			return false
		}
	}
	return true
}

func eachOf[V any](nodes []*node[V], from string, yield func(*node[V]) bool) bool {
	i, _ := search(nodes, from)
	for _, n := range nodes[i:] {
		if !yield(n) {
			return false
		}
	}
	return true
}

// newWide takes ascending nodes, at least one.
func newWide[V any](nodes []*node[V]) *wide[V] {
	w := &wide[V]{byLevel: make(map[string]*node[V], 2*len(nodes)), runs: [][]*node[V]{nodes}}
	for _, n := range nodes {
		w.byLevel[n.level] = n
	}
	return w
}

// run returns the index of the run that has level, if any has.
func (w *wide[V]) run(level string) int {
	i, exact := slices.BinarySearchFunc(w.runs, level, func(run []*node[V], level string) int {
		return strings.Compare(run[0].level, level)
	})
	if exact {
		return i
	}
	return max(i-1, 0)
}

func (w *wide[V]) insert(n *node[V]) {
	w.byLevel[n.level] = n
	r := w.run(n.level)
	i, _ := search(w.runs[r], n.level)
	run := slices.Insert(w.runs[r], i, n)
	w.runs[r] = run
	if len(run) > maxRun {
		upper := slices.Clone(run[maxRun/2:])
		w.runs = slices.Insert(w.runs, r+1, upper)
		w.runs[r] = slices.Delete(run, maxRun/2, len(run))
	}
}

func (w *wide[V]) remove(level string) {
	delete(w.byLevel, level)
	r := w.run(level)
	i, _ := search(w.runs[r], level)
	w.runs[r] = slices.Delete(w.runs[r], i, i+1)
	if len(w.runs[r]) == 0 {
		w.runs = slices.Delete(w.runs, r, r+1)
		return
	}
	w.join(r)
	w.join(r - 1)
}

// join makes one run of the runs r and r+1, if they exist and are short. So of
// two neighbours at least one is not.
func (w *wide[V]) join(r int) {
	if r < 0 || r+1 >= len(w.runs) || len(w.runs[r])+len(w.runs[r+1]) > maxRun/2 {
		return
	}
	w.runs[r] = append(w.runs[r], w.runs[r+1]...)
	w.runs = slices.Delete(w.runs, r+1, r+2)
}

// search returns where level is in ascending nodes, or where it belongs.
func search[V any](nodes []*node[V], level string) (int, bool) {
	return slices.BinarySearchFunc(nodes, level, func(n *node[V], level string) int {
		return strings.Compare(n.level, level)
	})
}
