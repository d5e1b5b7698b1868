package acl

import (
	"slices"
	"strings"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/broker/topic"
)

// clauses are the rules that concern a client. Most say the same of many clients,
// and are compiled once for all of these; those with the client's names in their
// filters are its own. Immutable.
type clauses struct {
	common *list
	own    list
	allow  bool
}

// choose returns the rules that concern a client, and whether it may connect.
func (r *Rules) choose(c *broker.Client) (*clauses, bool) {
	out := &clauses{allow: r.allow}
	connect, decided := true, false
	var common []int32
	for i := range r.rules {
		of := &r.rules[i]
		if !of.concerns(c) {
			continue
		}
		if of.connect && !decided {
			connect, decided = !of.deny, true
		}
		if of.pattern && strings.ContainsAny(c.ID+c.Identity.Username, "+#") {
			out.own.add(clause{rule: &unsafeName, at: int32(i)})
			break // nothing below can allow anything
		}
		if slices.ContainsFunc(of.filters, of.isCommon) {
			common = append(common, int32(i))
		}
		out.own.fill(of, int32(i), c)
	}
	out.own.makeIndex()
	out.common = r.common(common)
	return out, connect
}

// isCommon tells whether a filter of the rule has no names of clients in it.
func (r *rule) isCommon(filter string) bool { return r.literal || !hasPlaces(filter) }

// fill adds the filters of a rule that have places for names, with the client's.
func (l *list) fill(of *rule, at int32, c *broker.Client) {
	for _, f := range of.filters {
		if of.isCommon(f) {
			continue
		}
		f, state := fill(f, of.pattern, nameOf(c))
		switch {
		case state == filled && topic.ValidateFilter(f) == nil:
			l.add(clause{of, f, at})
		case state != missing && of.deny: // unsafe, or too long with the name
			// What was to be denied cannot be said: nothing below may allow it.
			l.add(clause{rule: &unsafeName, at: at})
		}
	}
}

// unsafeName denies all to clients whose names cannot be in filters.
var unsafeName = rule{where: "client's name has one of + # /, or is too long", deny: true, publish: true, receive: true}

// each calls f with all clauses in order, until it returns false.
func (s *clauses) each(f func(*clause) bool) {
	own, common := s.own.clauses, s.common.clauses
	for len(own)+len(common) > 0 {
		next := &common
		if len(common) == 0 || len(own) > 0 && own[0].at <= common[0].at {
			next = &own
		}
		if !f(&(*next)[0]) {
			return
		}
		*next = (*next)[1:]
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
	c := s.common.first(name, about)
	// Of one rule the own ones come first: unsafeName is among them.
	if own := s.own.first(name, about); own != nil && (c == nil || own.at <= c.at) {
		c = own
	}
	if c == nil {
		return s.allow, nil
	}
	return !c.deny, c.rule
}

// subscribe decides about a subscription: to some of what it matches, or, for a
// shared one, to all of it. It errs on the careful side: that several rules cover
// a filter together it does not see.
func (s *clauses) subscribe(filter string, shared bool) (allow bool, by *rule) {
	allow = s.allow
	s.each(func(c *clause) bool {
		if !c.receive {
			return true
		}
		covers := c.filter == "" || topic.Covers(c.filter, filter)
		meets := covers || topic.Intersects(c.filter, filter)
		switch {
		case c.deny && (covers || shared && meets):
			allow, by = false, c.rule
		case !c.deny && (covers || !shared && meets):
			allow, by = true, c.rule
		}
		return by == nil
	})
	return allow, by
}
