package acl

import (
	"slices"
	"strings"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/broker/topic"
)

// clause is a rule for one filter, for a client that it concerns. Without a
// filter it is about all topics.
type clause struct {
	*rule
	filter string
}

func (c *clause) matches(name string) bool {
	return c.filter == "" || topic.MatchOne(c.filter, name)
}

// clauses are the rules that concern a client, in order, and an index of them.
type clauses struct {
	list  []clause
	index *topic.Trie[[]int32] // of list by filter, nil for a short one
	all   []int32              // of list, without a filter
	allow bool
}

// choose returns the rules that concern a client, and whether it may connect.
func (r *Rules) choose(c *broker.Client) (*clauses, bool) {
	out := &clauses{allow: r.allow}
	connect, decided := true, false
	for i := range r.rules {
		of := &r.rules[i]
		if !of.concerns(c) {
			continue
		}
		if of.connect && !decided {
			connect, decided = !of.deny, true
		}
		if of.pattern && strings.ContainsAny(c.ID+c.Identity.Username, "+#") {
			out.list = append(out.list, clause{rule: &unsafeName})
			break // nothing below can allow anything
		}
		for _, f := range of.filters {
			state := filled
			if !of.literal {
				f, state = fill(f, of.pattern, nameOf(c))
			}
			switch {
			case state == filled && topic.ValidateFilter(f) == nil:
				out.list = append(out.list, clause{of, f})
			case state != missing && of.deny: // unsafe, or too long with the name
				// What was to be denied cannot be said: nothing below may allow it.
				out.list = append(out.list, clause{rule: &unsafeName})
			}
		}
	}
	out.makeIndex()
	return out, connect
}

// unsafeName denies all to clients whose names cannot be in filters.
var unsafeName = rule{where: "client's name has one of + # /, or is too long", deny: true, publish: true, receive: true}

// indexFrom is the length from which an index is quicker than to look at all.
const indexFrom = 32

func (s *clauses) makeIndex() {
	if len(s.list) < indexFrom {
		return
	}
	s.index = &topic.Trie[[]int32]{}
	for i, c := range s.list {
		if c.filter == "" {
			s.all = append(s.all, int32(i))
			continue
		}
		at, _ := s.index.Lookup(c.filter)
		s.index.Set(c.filter, append(at, int32(i)))
	}
}

// match calls f with the clauses that match a Topic Name, in order, until it
// returns false.
func (s *clauses) match(name string, f func(*clause) bool) {
	if s.index == nil {
		for i := range s.list {
			if s.list[i].matches(name) && !f(&s.list[i]) {
				return
			}
		}
		return
	}
	found := slices.Clone(s.all)
	s.index.Match(name, func(at []int32) bool {
		found = append(found, at...)
		return true
	})
	slices.Sort(found)
	for _, i := range found {
		if !f(&s.list[i]) {
			return
		}
	}
}

// publish decides about a PUBLISH, and says by which rule, nil for none.
func (s *clauses) publish(name string, qos packet.QoS, retain bool) (bool, *rule) {
	return s.decide(name, func(r *rule) bool { return r.publish && r.appliesTo(qos, retain) })
}

// receive decides about a delivery.
func (s *clauses) receive(name string) (bool, *rule) {
	return s.decide(name, func(r *rule) bool { return r.receive })
}

func (s *clauses) decide(name string, about func(*rule) bool) (allow bool, by *rule) {
	allow = s.allow
	s.match(name, func(c *clause) bool {
		if !about(c.rule) {
			return true
		}
		allow, by = !c.deny, c.rule
		return false
	})
	return allow, by
}

// subscribe decides about a subscription: to some of what it matches, or, for a
// shared one, to all of it. It errs on the careful side: that several rules cover
// a filter together it does not see.
func (s *clauses) subscribe(filter string, shared bool) (bool, *rule) {
	for i := range s.list {
		c := &s.list[i]
		if !c.receive {
			continue
		}
		covers := c.filter == "" || topic.Covers(c.filter, filter)
		meets := covers || topic.Intersects(c.filter, filter)
		switch {
		case c.deny && (covers || shared && meets):
			return false, c.rule
		case !c.deny && (covers || !shared && meets):
			return true, c.rule
		}
	}
	return s.allow, nil
}
