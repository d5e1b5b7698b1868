package shard

import (
	"fmt"
	"maps"
	"slices"
	"sort"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// lines is the state as text, to be compared with that of a Machine.
func (m *model) lines() (lines []string) {
	for _, s := range m.sessions {
		head := fmt.Sprintf("session %s durable=%v owner=%v former=%v will=%s", s.client, s.durable, ownerText(s.owner), ownersText(s.former), s.will.GetMessage().GetPayload())
		if s.durable {
			head += fmt.Sprintf(" seq=%d sent=%d dropped=%d", s.seq, s.sentHi, s.dropped)
		}
		lines = append(lines, head)
		for _, sub := range s.subs {
			lines = append(lines, fmt.Sprintf("session %s sub %s", s.client, subText(sub)))
		}
		for _, e := range s.queue {
			lines = append(lines, fmt.Sprintf("session %s entry %d q%d %v %v %v %s %s",
				s.client, e.seq, e.qos, e.released, e.retain, e.ids, e.share, e.message.Payload))
		}
		lines = append(lines, s.replayLines()...)
		if s.lastConn != 0 && s.owner == nil {
			lines = append(lines, fmt.Sprintf("session %s last %d", s.client, s.lastConn))
		}
		if b := s.bid; b != nil {
			lines = append(lines, fmt.Sprintf("session %s bid %s %v", s.client, ownerText(b.owner), b.present))
		}
		for conn, waits := range s.wills {
			lines = append(lines, fmt.Sprintf("session %s will of %d waits for %v", s.client, conn, slices.Sorted(maps.Keys(waits))))
		}
		for i, x := range s.exchanges {
			waits := slices.Sorted(maps.Keys(x.waits))
			lines = append(lines, fmt.Sprintf("session %s exchange %d: %d %x %d %v %v %v", s.client, i, x.id, x.hash, x.conn, x.released, x.whole, waits)+x.retained)
		}
	}
	for id, d := range m.due {
		lines = append(lines, fmt.Sprintf("due %d %s of %s %d%s until %d", id, d.message.Payload, d.client, d.conn, d.share, d.until))
	}
	for f, r := range m.routes {
		lines = append(lines, fmt.Sprintf("filter %s q%d n%d %v", f, r.qos, r.n, m.turnOf(f)))
	}
	for _, b := range m.boxes {
		for n, c := range b.list {
			lines = append(lines, fmt.Sprintf("outbox %s %d %s", targetText(b.target), n, commandText(c)))
		}
	}
	lines = append(lines, m.retainedLines()...)
	sort.Strings(lines)
	return lines
}

// stateLines is the same of a Machine, whose state file is rows.
func stateLines(t failer, m *Machine, rows memRows) (lines []string) {
	for _, s := range m.sessions {
		var owner *shoalpb.Owner
		if s.owner != nil {
			owner = &shoalpb.Owner{Node: s.owner.node, Boot: s.owner.boot, Conn: s.conn}
		}
		head := fmt.Sprintf("session %s durable=%v owner=%v former=%v will=%s", s.client, s.durable, ownerText(owner), ownersText(s.formerOwners()), willText(s))
		if s.durable {
			head += fmt.Sprintf(" seq=%d sent=%d dropped=%d", s.nextSeq-1, s.sentHi, dropped(s))
		}
		lines = append(lines, head)
		for _, sub := range s.subs {
			lines = append(lines, fmt.Sprintf("session %s sub %s", s.client, subText(sub.row())))
		}
		for seq := uint64(1); seq < s.nextSeq; seq++ {
			if r := s.queue.find(seq); r != nil {
				message := r.body.message
				if message == nil {
					message, _ = rows.message(t, r.body.seq)
				}
				lines = append(lines, fmt.Sprintf("session %s entry %d q%d %v %v %v %s %s", s.client, seq, r.flag.qos(),
					r.flag&refReleased != 0, r.flag&refRetain != 0, r.from.list(), shareText(r.from), message.Payload))
			}
		}
		lines = append(lines, exchangeLines(s)...)
		lines = append(lines, bidLines(s)...)
		lines = append(lines, replayLines(s)...)
	}
	for _, d := range m.due.list {
		if d != nil {
			message := d.body.message
			if message == nil {
				message, _ = rows.message(t, d.body.seq)
			}
			lines = append(lines, fmt.Sprintf("due %d %s of %s %d%s until %d", d.id, message.Payload, d.client, d.conn, d.pick.GetShare(), d.body.until))
		}
	}
	m.eachFilter(func(f *filter) bool {
		turn := uint64(0)
		if sh := m.shares[f.name]; sh != nil {
			turn = sh.turn
		}
		lines = append(lines, fmt.Sprintf("filter %s q%d n%d %v", f.name, f.qos(), f.route, turn))
		return true
	})
	for _, o := range m.outboxes {
		first, list := rows.outbox(t, m, o.target, 0, 0)
		for i, c := range list {
			lines = append(lines, fmt.Sprintf("outbox %s %d %s", targetText(o.target), first+uint64(i), commandText(c)))
		}
	}
	lines = append(lines, retainedLines(t, m, rows)...)
	sort.Strings(lines)
	return lines
}

func shareText(o *origin) string {
	if o == nil {
		return ""
	}
	return o.share
}

func (m *model) turnOf(share string) uint64 {
	if sh := m.shares[share]; sh != nil {
		return sh.turn
	}
	return 0
}

func bidLines(s *session) (lines []string) {
	if s.conn != 0 && s.owner == nil {
		lines = append(lines, fmt.Sprintf("session %s last %d", s.client, s.conn))
	}
	if b := s.standing(); b != nil {
		owner := &shoalpb.Owner{Node: b.process.node, Boot: b.process.boot, Conn: b.conn}
		lines = append(lines, fmt.Sprintf("session %s bid %s %v", s.client, ownerText(owner), b.present))
	}
	if !s.hasFormer() {
		return lines
	}
	for _, f := range s.extra.former {
		if f.will == nil {
			continue
		}
		waits := []string{}
		for _, p := range f.will.pending {
			waits = append(waits, waitText(p.outbox.target, p.n))
		}
		slices.Sort(waits)
		lines = append(lines, fmt.Sprintf("session %s will of %d waits for %v", s.client, f.conn, waits))
	}
	return lines
}

func exchangeLines(s *session) (lines []string) {
	if s.extra == nil {
		return nil
	}
	for i, x := range s.extra.received {
		waits := []string{}
		for _, p := range x.pending {
			waits = append(waits, waitText(p.outbox.target, p.n))
		}
		slices.Sort(waits)
		if len(waits) == 0 {
			waits = nil
		}
		line := fmt.Sprintf("session %s exchange %d: %d %x %d %v %v %v", s.client, i, x.id, x.hash, x.conn, x.released, x.whole, waits)
		if p := x.retained; p.outbox != nil {
			line += waitText(p.outbox.target, p.n)
		}
		lines = append(lines, line)
	}
	return lines
}

func waitText(t *shoalpb.Target, n uint64) string { return fmt.Sprintf("%s #%d", targetText(t), n) }

func ownerText(o *shoalpb.Owner) string {
	if o == nil {
		return "-"
	}
	return fmt.Sprintf("%s/%d/%d", o.Node, o.Boot, o.Conn)
}

func ownersText(list []*shoalpb.Owner) (text []string) {
	for _, o := range list {
		text = append(text, ownerText(o))
	}
	return text
}

func subText(s *shoalpb.Subscription) string {
	return fmt.Sprintf("%s q%d %v %v %d %d", s.Filter, s.Qos, s.NoLocal, s.RetainAsPublished, s.RetainHandling, s.Identifier)
}

func commandText(c *shoalpb.Command) string {
	if r := c.Route; r != nil {
		return fmt.Sprintf("route %s %v q%d %d,%d", r.Filter, r.Present, r.Qos, r.Members, r.Attached)
	}
	if c.Retain != nil {
		return "retain " + string(c.Retain.Message.Payload)
	}
	return string(c.Append.Message.Payload)
}

func dropped(s *session) uint64 {
	if s.extra == nil {
		return 0
	}
	return s.extra.dropped
}

func willText(s *session) []byte {
	if s.extra == nil {
		return nil
	}
	return s.extra.will.GetMessage().GetPayload()
}
