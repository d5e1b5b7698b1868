package acl

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"
	"weak"

	"github.com/shoalmq/shoal/broker/topic"
)

// clause is a rule for one filter, for a client that it concerns. Without a
// filter it is about all topics.
type clause struct {
	*rule
	filter string
	at     int32 // which rule it is
}

func (c *clause) matches(name string) bool {
	return c.filter == "" || topic.MatchOne(c.filter, name)
}

// list is some clauses, in the order of their rules, and an index of them.
type list struct {
	clauses []clause
	index   *topic.Trie[[]int32] // of clauses by filter, nil for a short list
	all     []int32              // clauses without a filter
}

func (l *list) add(c clause) { l.clauses = append(l.clauses, c) }

// indexFrom is the length from which an index is quicker than to look at all.
const indexFrom = 32

func (l *list) makeIndex() {
	if len(l.clauses) < indexFrom {
		return
	}
	l.index = &topic.Trie[[]int32]{}
	for i, c := range l.clauses {
		if c.filter == "" {
			l.all = append(l.all, int32(i))
			continue
		}
		at, _ := l.index.Lookup(c.filter)
		l.index.Set(c.filter, append(at, int32(i)))
	}
}

// first returns the first clause that matches a Topic Name and is about what is
// asked, nil for none.
func (l *list) first(name string, about func(*rule) bool) *clause {
	if l.index == nil {
		for i := range l.clauses {
			if c := &l.clauses[i]; about(c.rule) && c.matches(name) {
				return c
			}
		}
		return nil
	}
	best := int32(len(l.clauses))
	consider := func(at []int32) bool {
		if i := slices.IndexFunc(at, func(i int32) bool { return about(l.clauses[i].rule) }); i >= 0 {
			best = min(best, at[i])
		}
		return true
	}
	consider(l.all)
	l.index.Match(name, consider)
	if int(best) == len(l.clauses) {
		return nil
	}
	return &l.clauses[best]
}

// shared are the lists that clients have in common, by the rules that they are
// of, for as long as a client has them: a thousand rules take half a megabyte,
// and ten thousand clients of one kind must not have them ten thousand times.
type shared struct {
	mu    sync.Mutex
	lists map[[sha256.Size]byte]weak.Pointer[list]
	full  int // number of lists at which those that nobody has go
}

// fullFrom is the least of shared.full.
const fullFrom = 64

// common returns what the rules with these numbers say of all clients.
func (r *Rules) common(rules []int32) *list {
	numbers := make([]byte, 0, 4*len(rules))
	for _, i := range rules {
		numbers = binary.BigEndian.AppendUint32(numbers, uint32(i))
	}
	key := sha256.Sum256(numbers)
	s := &r.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lists[key].Value(); l != nil {
		return l
	}
	l := &list{}
	for _, i := range rules {
		of := &r.rules[i]
		for _, f := range of.filters {
			if of.isCommon(f) {
				l.add(clause{of, f, i})
			}
		}
	}
	l.makeIndex()
	s.keep(key, l)
	return l
}

// keep remembers a list. mu is held.
func (s *shared) keep(key [sha256.Size]byte, l *list) {
	if s.lists == nil {
		s.lists, s.full = make(map[[sha256.Size]byte]weak.Pointer[list]), fullFrom
	}
	if len(s.lists) >= s.full {
		for k, w := range s.lists {
			if w.Value() == nil {
				delete(s.lists, k)
			}
		}
		s.full = max(fullFrom, 2*len(s.lists))
	}
	s.lists[key] = weak.Make(l)
}
