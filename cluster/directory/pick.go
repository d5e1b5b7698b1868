package directory

// ShareTargets is a Shared Subscription that matches a Topic Name, and where it
// has members: a message goes to one of the candidates (MQTT 5 §4.8.2).
type ShareTargets struct {
	// Share is all of its filter, "$share/{ShareName}/{filter}".
	Share string
	// Candidates in an order that is the same on all nodes.
	Candidates []ShareCandidate
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

// Pick chooses the candidate of a message that is published with a QoS; equal
// randoms meet the same one as long as the members stay. It returns nil if
// nobody could take the message.
//
// With QoS 1 and 2 shards have precedence over processes, because they keep what
// they get, and connected members over others. With QoS 0 only connected members
// count. Among those a target's chance is as large as its share of members.
func (s *ShareTargets) Pick(qos uint8, random uint64) *ShareCandidate {
	if qos > 0 {
		for _, weight := range []func(*ShareCandidate) uint32{durableAttached, durableMembers} {
			if c := s.weighted(weight, random); c != nil {
				return c
			}
		}
	}
	return s.weighted(connected, random)
}

// PickLocal is Pick among the candidates that are local, or among all if those
// can not take the message.
func (s *ShareTargets) PickLocal(qos uint8, random uint64, local func(*ShareCandidate) bool) *ShareCandidate {
	near := ShareTargets{Share: s.Share}
	durable := false
	for i := range s.Candidates {
		c := &s.Candidates[i]
		durable = durable || c.Node == ""
		if local(c) {
			near.Candidates = append(near.Candidates, *c)
		}
	}
	best := s.Pick(qos, random)
	c := near.Pick(qos, random)
	switch {
	case c == nil, best == nil:
		return best
	case qos > 0 && durable && (c.Node != "" || c.Attached == 0 && best.Attached > 0):
		return best // precedence holds everywhere
	}
	return c
}

func (s *ShareTargets) weighted(weight func(*ShareCandidate) uint32, random uint64) *ShareCandidate {
	total := uint64(0)
	for i := range s.Candidates {
		total += uint64(weight(&s.Candidates[i]))
	}
	if total == 0 {
		return nil
	}
	random %= total
	for i := range s.Candidates {
		c := &s.Candidates[i]
		w := uint64(weight(c))
		if random < w {
			return c
		}
		random -= w
	}
	return nil // not reached: random is below the sum
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
			s := ShareTargets{Share: sh.name}
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
		for _, c := range sh.targets {
			if isAlive(m.routes.alive, c.target) {
				s.Candidates = append(s.Candidates, ShareCandidate{c.Source, c.qos, c.members, c.attached})
			}
		}
	}
	return s
}
