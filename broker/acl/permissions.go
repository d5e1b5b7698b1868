package acl

import (
	"strings"
	"sync"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/packet"
)

// permissions are those of one client. mu guards all but what is constant; it is
// held while rules are matched, which takes a microsecond.
type permissions struct {
	set     *Set
	client  *broker.Client
	granted *clauses // nil for no grants; constant

	mu      sync.Mutex
	of      *Rules // chosen is of these
	chosen  *clauses
	answers [answersKept]answer
	next    uint8
}

// answersKept is how many topics a client's last answers are kept for: most
// publish to a few, and to look through them takes less than a match.
const answersKept = 8

// answer is what was decided, and about what.
type answer struct {
	topic string // empty for none
	about about
	allow bool
}

// about is what is asked of a topic: to receive, or to publish with a QoS and
// RETAIN.
type about uint8

const receiving about = 0xFF

func publishing(qos packet.QoS, retain bool) about {
	if retain {
		return about(qos) | 4
	}
	return about(qos)
}

func newPermissions(s *Set, c *broker.Client, rules *Rules, chosen *clauses) *permissions {
	return &permissions{set: s, client: c, granted: granted(c.Identity.Grants), of: rules, chosen: chosen}
}

// Publish is part of broker.Permissions.
func (p *permissions) Publish(topic string, qos packet.QoS, retain bool) bool {
	return p.ask(topic, publishing(qos, retain), qos, retain)
}

// Receive is part of broker.Permissions.
func (p *permissions) Receive(topic string) bool { return p.ask(topic, receiving, 0, false) }

func (p *permissions) ask(topic string, what about, qos packet.QoS, retain bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.renew()
	for i := range p.answers {
		if a := &p.answers[i]; a.about == what && a.topic == topic {
			return a.allow
		}
	}
	allow := p.decide(p.chosen, topic, what, qos, retain) && (p.granted == nil || p.decide(p.granted, topic, what, qos, retain))
	p.answers[p.next%answersKept] = answer{strings.Clone(topic), what, allow} // the caller's may be part of a buffer
	p.next++
	return allow
}

func (p *permissions) decide(s *clauses, topic string, what about, qos packet.QoS, retain bool) bool {
	var allow bool
	var by *rule
	if what == receiving {
		allow, by = s.receive(topic)
	} else {
		allow, by = s.publish(topic, qos, retain)
	}
	if !allow {
		p.tell("topic denied", topic, by)
	}
	return allow
}

// Subscribe is part of broker.Permissions.
func (p *permissions) Subscribe(filter string, _ packet.QoS, shared bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.renew()
	for _, s := range []*clauses{p.chosen, p.granted} {
		if s == nil {
			continue
		}
		if allow, by := s.subscribe(filter, shared); !allow {
			p.tell("subscription denied", filter, by)
			return false
		}
	}
	return true
}

// renew follows a change of the rules. A client that might not connect any more
// may not do anything. mu is held.
func (p *permissions) renew() {
	rules := p.set.rules.Load()
	if rules == p.of {
		return
	}
	connect := false
	p.of = rules
	p.chosen, connect = rules.choose(p.client)
	if !connect {
		p.chosen = &clauses{common: &list{}}
	}
	p.answers = [answersKept]answer{}
}

func (p *permissions) tell(what, topic string, by *rule) {
	where := "no rule allows it"
	if by != nil {
		where = by.where
	}
	p.set.log.Debug(what, "client", p.client.ID, "user", p.client.Identity.Username, "topic", topic, "by", where)
}
