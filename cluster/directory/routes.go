package directory

import (
	"strings"

	"github.com/shoalmq/shoal/broker/topic"
)

// routes is Topic Filter → targets. Targets have small numeric ids, given when
// a target gets its first route; they are this replica's own and no part of the
// replicated state.
type routes struct {
	trie   topic.Trie[*targetSet]
	shared topic.Trie[*shareSet] // by the Topic Filter inside
	ids    map[Source]int
	owner  []*target // by id; nil if the id is free
	free   []int
	// alive has a bit for each id whose routes count. Those of a fenced process
	// do not, even while they are still there.
	alive []uint64
	// dead are the fenced processes whose routes are still there.
	dead []*target
	// generation changes whenever match may answer otherwise.
	generation uint64
	// touch is called before the targets of filter change.
	touch func(filter string)
}

// Source is where a route leads to, and whose stream changes it: a shard (Group)
// with durable subscribers, or a node's process with transient ones.
type Source struct {
	Group uint32
	Node  string
	Boot  uint64
}

type target struct {
	Source
	id int
	// filters of a process, to find them when it is fenced; nil for a shard,
	// whose routes never go all at once.
	filters map[string]struct{}
}

// set makes the route of source for filter.
func (r *routes) set(source Source, filter string, qos uint8) {
	s, known := r.trie.Lookup(filter)
	if id, ok := r.ids[source]; ok && known {
		if have, ok := s.qos(id); ok && have == qos {
			return
		}
	}
	filter = strings.Clone(filter)
	r.touch(filter)
	r.generation++
	if !known {
		s = &targetSet{}
		r.trie.Set(filter, s)
	}
	t := r.target(source)
	s.set(t.id, qos)
	if t.filters != nil {
		t.filters[filter] = struct{}{}
	}
}

// remove removes the route of source for filter, if there is one.
func (r *routes) remove(source Source, filter string) {
	id, ok := r.ids[source]
	if !ok {
		return
	}
	s, _ := r.trie.Lookup(filter)
	if s == nil {
		return
	}
	if _, ok := s.qos(id); ok {
		r.generation++
		r.clear(r.owner[id], filter, s)
	}
}

func (r *routes) clear(t *target, filter string, s *targetSet) {
	r.touch(filter)
	s.clear(t.id)
	delete(t.filters, filter)
	if s.empty() {
		r.trie.Delete(filter)
	}
}

// target returns the target of source, a new one if it has none.
func (r *routes) target(source Source) *target {
	if id, ok := r.ids[source]; ok {
		return r.owner[id]
	}
	t := &target{Source: source, id: len(r.owner)}
	if n := len(r.free); n > 0 {
		t.id, r.free = r.free[n-1], r.free[:n-1]
	} else {
		r.owner = append(r.owner, nil)
	}
	if source.Node != "" {
		t.Node = strings.Clone(source.Node)
		t.filters = map[string]struct{}{}
	}
	if t.id/64 == len(r.alive) {
		r.alive = append(r.alive, 0)
	}
	r.owner[t.id] = t
	r.ids[t.Source] = t.id
	r.alive[t.id/64] |= 1 << (t.id % 64)
	return t
}

// fence ends the routes of all processes of node below boot.
func (r *routes) fence(node string, boot uint64) {
	for source, id := range r.ids {
		if source.Node != node || source.Node == "" || source.Boot >= boot {
			continue
		}
		r.generation++
		r.alive[id/64] &^= 1 << (id % 64)
		r.dead = append(r.dead, r.owner[id])
		delete(r.ids, source)
	}
}

// sweep clears away at most limit routes of fenced processes.
func (r *routes) sweep(limit int) {
	for ; len(r.dead) > 0; r.dead = r.dead[1:] {
		t := r.dead[0]
		for filter := range t.filters {
			if limit == 0 {
				return
			}
			limit--
			if sh := r.share(filter); sh != nil {
				r.clearShare(t, sh)
			} else {
				s, _ := r.trie.Lookup(filter)
				r.clear(t, filter, s)
			}
		}
		r.owner[t.id] = nil
		r.free = append(r.free, t.id)
	}
	r.dead = nil
}
