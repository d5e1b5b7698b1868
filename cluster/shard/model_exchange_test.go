package shard

import (
	"slices"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

func (s *modelSession) exchange(id uint64, released bool) *modelExchange {
	for _, x := range s.exchanges {
		if x.id == id && x.released == released {
			return x
		}
	}
	return nil
}

func (s *modelSession) remove(x *modelExchange) {
	s.exchanges = slices.DeleteFunc(s.exchanges, func(o *modelExchange) bool { return o == x })
}

func (m *model) receive(s *modelSession, c *shoalpb.Received) *shoalpb.Answer {
	if x := s.exchange(uint64(c.Id), false); x != nil {
		switch {
		case x.hash == c.Hash:
			x.conn = c.Conn
			if x.whole || x.retained != "" {
				return refuse(shoalpb.Code_CODE_PENDING)
			}
			return refuse(shoalpb.Code_CODE_KNOWN)
		case c.Dup || x.conn == c.Conn:
			return refuse(shoalpb.Code_CODE_ID_IN_USE)
		}
		s.remove(x)
	}
	x := &modelExchange{id: uint64(c.Id), hash: c.Hash, conn: c.Conn, waits: map[string]bool{}}
	s.exchanges = append(s.exchanges, x)
	for _, t := range c.Targets {
		switch {
		case t.Group == m.config.Group:
			m.appendAll(c.Message, picksOf(t, c.Picks))
		case t.Node == "" || t.Boot >= m.minBoot[t.Node]:
			n := m.push(t, &shoalpb.Command{Append: &shoalpb.Append{Message: c.Message, Picks: picksOf(t, c.Picks)}})
			m.boxes[targetText(t)].until[n] = m.until(c.Message)
			x.waits[waitText(t, n)] = true
		default:
			m.missProcess(c.Message, m.until(c.Message), picksOf(t, c.Picks))
		}
	}
	if c.Retain == 0 {
		return nil
	}
	if n := m.retainIn(c.Retain, c.Message, m.until(c.Message)); n > 0 {
		x.retained = waitText(&shoalpb.Target{Group: c.Retain}, n)
		x.waits[x.retained] = true
	}
	if m.format >= stream.FormatOrder {
		x.whole, x.retained = len(x.waits) > 0, ""
	}
	if x.whole || x.retained != "" {
		return refuse(shoalpb.Code_CODE_PENDING)
	}
	return nil
}

func (m *model) released(s *modelSession, c *shoalpb.Released) *shoalpb.Answer {
	x := s.exchange(uint64(c.Id), false)
	if x == nil {
		x = s.exchange(uint64(c.Id), true)
	}
	if x == nil {
		return refuse(shoalpb.Code_CODE_UNKNOWN_ID)
	}
	x.released, x.conn = true, c.Conn
	if len(x.waits) > 0 {
		return refuse(shoalpb.Code_CODE_PENDING)
	}
	s.remove(x)
	return nil
}

func (m *model) answered(c *shoalpb.OutboxAnswered) {
	b := m.boxes[targetText(c.Target)]
	if b == nil {
		return
	}
	for n := range b.list {
		if n <= c.UpTo {
			m.pop(b, n)
		}
	}
}

// pop removes an outbox entry and ends what waited for it.
func (m *model) pop(b *modelBox, n uint64) {
	delete(b.list, n)
	for _, s := range m.sessions {
		m.willAnswered(s, waitText(b.target, n))
		for _, x := range slices.Clone(s.exchanges) {
			delete(x.waits, waitText(b.target, n))
			if x.retained == waitText(b.target, n) {
				x.retained = ""
			}
			x.whole = x.whole && len(x.waits) > 0
			if x.released && len(x.waits) == 0 {
				s.remove(x)
			}
		}
	}
}
