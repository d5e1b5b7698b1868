package shard

import (
	shoalpb "github.com/shoalmq/shoal/proto"
)

// distribute gives a message to targets: to this shard's own sessions at once,
// to others through the outbox. *b is its body, if it is stored already or is
// now. waiter, if any, waits for the answers.
func (m *Machine) distribute(b **body, message *shoalpb.Message, targets []*shoalpb.Target, picks []*shoalpb.TargetPick, waiter *waiter) {
	for _, t := range targets {
		switch own := picksOf(t, picks); {
		case t.Node == "" && t.Group == m.cfg.Group:
			m.deliver(b, message, own)
		case m.isDead(t):
			m.missProcess(b, message, own)
		default:
			m.pushMessage(t, outboxEntry{body: m.use(b, message), picks: own, waiter: waiter})
		}
	}
}

// distributeRetained gives a message to the register of retained messages in
// group: to this shard's own at once, to another through the outbox; then it
// returns the entry to wait for.
func (m *Machine) distributeRetained(b **body, message *shoalpb.Message, group uint32, waiter *waiter) pending {
	if group == m.cfg.Group {
		if !m.retain(b, message) {
			m.counters.OutboxRefused++
		}
		return pending{}
	}
	return m.pushMessage(&shoalpb.Target{Group: group}, outboxEntry{body: m.use(b, message), retain: true, waiter: waiter})
}

// pushMessage puts e into the outbox to t, and makes its waiter wait.
func (m *Machine) pushMessage(t *shoalpb.Target, e outboxEntry) pending {
	o := m.outbox(t)
	p := pending{o, m.pushOutbox(o, e)}
	if e.waiter != nil {
		e.waiter.pending = append(e.waiter.pending, p)
	}
	return p
}

// picksOf are the picks that are for t.
func picksOf(t *shoalpb.Target, all []*shoalpb.TargetPick) (own []*shoalpb.Pick) {
	for _, p := range all {
		if compareTargets(p.Target, t) == 0 {
			own = append(own, p.Pick)
		}
	}
	return own
}
