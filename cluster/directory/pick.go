package directory

import "sync/atomic"

// ShareTargets is a Shared Subscription that matches a Topic Name, and where it
// has members: a message goes to one of the candidates (MQTT 5 §4.8.2).
type ShareTargets struct {
	// Share is all of its filter, "$share/{ShareName}/{filter}".
	Share string
	// Candidates in an order that is the same on all nodes.
	Candidates []ShareCandidate
	// Turns are shared by all copies.
	Turns *Turns
}

// ShareCandidate is a shard (Group) or a process (Node, Boot) with members of a
// Shared Subscription.
type ShareCandidate struct {
	Source
	// QoS is the highest granted to one of them.
	QoS uint8
	// Members counts them. Attached are those of a shard's that are connected; a
	// process has no others.
	Members, Attached uint32
}

// Turns are where this node's turns among the candidates of a Shared Subscription
// stand, for each precedence. They are no part of the state: each node that
// publishes counts for itself.
type Turns [len(precedences)]atomic.Uint64

// precedences tell how many members a candidate has for a message, of those who come
// first. With QoS 1 and 2 shards come before processes, because they keep what they
// get, and connected members before others. With QoS 0 only connected members count.
var precedences = [...]func(*ShareCandidate) uint32{durableAttached, durableMembers, connected}

// precedence returns the first of the precedences that anybody has for a message of
// a QoS, or none.
func (s *ShareTargets) precedence(qos uint8) (of int, ok bool) {
	if qos == 0 {
		of = len(precedences) - 1
	}
	for ; of < len(precedences); of++ {
		for i := range s.Candidates {
			if precedences[of](&s.Candidates[i]) > 0 {
				return of, true
			}
		}
	}
	return 0, false
}

// Pick chooses the candidate of a message that is published with a QoS; equal
// numbers meet the same one as long as the members stay. It returns nil if nobody
// could take the message. Among those of the highest precedence a candidate's
// chance is as large as its share of members: member, below Members, is the one of
// the candidate that the number meets.
func (s *ShareTargets) Pick(qos uint8, number uint64) (c *ShareCandidate, member uint64) {
	of, ok := s.precedence(qos)
	if !ok {
		return nil, 0
	}
	return s.meet(of, number)
}

// PickNext is Pick by turns: of as many messages as there are members, each member
// gets one.
func (s *ShareTargets) PickNext(qos uint8) (c *ShareCandidate, member uint64) {
	of, ok := s.precedence(qos)
	if !ok {
		return nil, 0
	}
	return s.meet(of, s.Turns[of].Add(1))
}

// PickLocal is PickNext among the candidates that are local, or among all if others
// have precedence.
func (s *ShareTargets) PickLocal(qos uint8, local func(*ShareCandidate) bool) (c *ShareCandidate, member uint64) {
	near := ShareTargets{Share: s.Share, Turns: s.Turns}
	for i := range s.Candidates {
		if local(&s.Candidates[i]) {
			near.Candidates = append(near.Candidates, s.Candidates[i])
		}
	}
	here, some := near.precedence(qos)
	if anywhere, _ := s.precedence(qos); !some || here != anywhere {
		return s.PickNext(qos)
	}
	return near.PickNext(qos)
}

// meet returns the member that a number meets among those of a precedence, which
// somebody has, and whose it is.
func (s *ShareTargets) meet(of int, number uint64) (c *ShareCandidate, member uint64) {
	weight, total := precedences[of], uint64(0)
	for i := range s.Candidates {
		total += uint64(weight(&s.Candidates[i]))
	}
	member = number % total
	for i := range s.Candidates {
		c = &s.Candidates[i]
		w := uint64(weight(c))
		if member < w {
			break
		}
		member -= w
	}
	return c, member
}

func durableAttached(c *ShareCandidate) uint32 {
	if c.Node != "" {
		return 0
	}
	return c.Attached
}

func durableMembers(c *ShareCandidate) uint32 {
	if c.Node != "" || c.QoS == 0 {
		return 0 // who subscribes with QoS 0 keeps nothing while away
	}
	return c.Members
}

func connected(c *ShareCandidate) uint32 {
	if c.Node != "" {
		return c.Members
	}
	return c.Attached
}

// matchShares fills t.Shares with what matches the Topic Name.
func (r *routes) matchShares(topic string, t *Targets) {
	t.Shares = t.Shares[:0]
	if r.shared.Len() == 0 {
		return
	}
	r.shared.Match(topic, func(set *shareSet) bool {
		for _, sh := range set.shares {
			s := ShareTargets{Share: sh.name, Turns: sh.turns}
			for _, c := range sh.targets {
				if isAlive(r.alive, c.target) {
					s.Candidates = append(s.Candidates, ShareCandidate{c.Source, c.qos, c.members, c.attached})
				}
			}
			if s.Candidates != nil {
				t.Shares = append(t.Shares, s)
			}
		}
		return true
	})
}

// Share returns who has members of a Shared Subscription; it has no candidates
// if nobody has.
func (m *Machine) Share(name string) ShareTargets {
	s := ShareTargets{Share: name}
	if sh := m.routes.share(name); sh != nil {
		s.Turns = sh.turns
		for _, c := range sh.targets {
			if isAlive(m.routes.alive, c.target) {
				s.Candidates = append(s.Candidates, ShareCandidate{c.Source, c.qos, c.members, c.attached})
			}
		}
	}
	return s
}
