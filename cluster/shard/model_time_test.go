package shard

import (
	"cmp"
	"maps"
	"slices"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// modelDue is a message that waits for a Dispatch.
type modelDue struct {
	message *shoalpb.Message
	until   uint64
	client  string
	conn    uint64
	share   string // of a message that goes to another member
}

// deadlines are when the Will of a detached session is due, and when it ends.
func (s *modelSession) deadlines() (will, end uint64) {
	will, end = never, never
	if s.owner == nil && s.durable && s.bid == nil {
		if s.will != nil {
			will = s.detached + 1000*uint64(min(s.will.DelayS, s.expiry))
		}
		if s.expiry != neverExpires {
			end = s.detached + 1000*uint64(s.expiry)
		}
	}
	return will, end
}

// pass does all that the clock says, in order of time and name.
func (m *model) pass() {
	at := func(s *modelSession) uint64 { return min(s.deadlines()) }
	for {
		list := slices.SortedFunc(maps.Values(m.sessions), func(a, b *modelSession) int {
			return cmp.Or(cmp.Compare(at(a), at(b)), cmp.Compare(a.client, b.client))
		})
		if len(list) == 0 || at(list[0]) > m.clock {
			return
		}
		s := list[0]
		will, end := s.deadlines()
		if will <= m.clock {
			m.makeDue(s)
		}
		if end <= m.clock {
			m.end(s)
			m.settle(s)
		}
	}
}

// detach leaves a session without its owner. Its Will is due now, later, or
// never.
func (m *model) detach(s *modelSession, discard bool) {
	s.willConn, s.lastConn, s.owner, s.detached = s.owner.Conn, s.owner.Conn, nil, m.clock
	if m.format < stream.FormatOrder {
		s.lastConn = 0
	}
	m.attend(s)
	switch {
	case discard:
		s.will = nil
	case s.will != nil && min(s.will.DelayS, s.expiry) == 0:
		m.makeDue(s)
	}
}

// makeDue makes a session's Will due.
func (m *model) makeDue(s *modelSession) {
	if m.format >= stream.FormatOrder && s.willConn != 0 && s.formerOf(s.willConn) == nil {
		s.former = append(s.former, &shoalpb.Owner{Conn: s.willConn})
	}
	m.nextDue++
	m.due[m.nextDue] = &modelDue{message: s.will.Message, until: m.until(s.will.Message), client: s.client, conn: s.willConn}
	s.will = nil
}

// discard takes back the Will of a connection that is owner no more.
func (m *model) discard(c *shoalpb.Close) {
	for id, d := range m.due {
		if d.client == c.Client && d.conn == c.Conn {
			delete(m.due, id)
			m.settleWill(m.sessions[c.Client], c.Conn)
		}
	}
}

// waiting tells that a due Will may still be discarded.
func (m *model) waiting(d *modelDue) bool {
	s := m.sessions[d.client]
	f := s.formerOf(d.conn)
	return f != nil && f.Node != ""
}

func (m *model) dispatch(c *shoalpb.Dispatch) {
	d := m.due[c.Due]
	if d == nil {
		return
	}
	delete(m.due, c.Due)
	waits := map[string]bool{}
	for _, t := range c.Targets {
		picks := picksOf(t, c.Picks)
		if d.share != "" {
			picks = []*shoalpb.Pick{{Share: d.share, Only: true}}
		}
		switch {
		case t.Group == m.config.Group:
			m.appendUntil(d.message, d.until, picks)
		case t.Node == "" || t.Boot >= m.minBoot[t.Node]:
			n := m.push(t, &shoalpb.Command{Append: &shoalpb.Append{Message: d.message, Picks: picks}})
			m.boxes[targetText(t)].until[n] = d.until
			waits[waitText(t, n)] = true
		default:
			m.missProcess(d.message, d.until, picks)
		}
		if d.share != "" {
			break
		}
	}
	if c.Retain != 0 && d.share == "" {
		if n := m.retainIn(c.Retain, d.message, d.until); n > 0 {
			waits[waitText(&shoalpb.Target{Group: c.Retain}, n)] = true
		}
	}
	m.dispatched(d, waits)
}

// checkDue compares what may be dispatched.
func (m *model) checkDue(of *Machine) (got, want []uint64) {
	of.Due(func(d Due) bool {
		got = append(got, d.ID)
		return true
	})
	for id, d := range m.due {
		if !m.waiting(d) {
			want = append(want, id)
		}
	}
	slices.Sort(want)
	return got, want
}
