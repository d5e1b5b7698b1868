package shard

import (
	"fmt"
	"slices"
	"strings"

	mqtt "github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// verbs are what a script does besides commands.
var verbs map[string]func(*script, *args) []string

func init() {
	verbs = map[string]func(*script, *args) []string{
		"boot":     (*script).boot,
		"format":   func(s *script, a *args) []string { s.format = uint32(parseNumber(a.plain[0])); return nil },
		"batch":    func(s *script, a *args) []string { s.begin(a, false); return nil },
		"fence":    (*script).fence,
		"answered": (*script).answered,
		"entries":  (*script).entries,
		"former":   (*script).former,
		"owner":    (*script).owner,
		"exchange": (*script).exchange,
		"outbox":   (*script).outbox,
		"stats":    (*script).stats,
		"effects":  (*script).effects,
		"flood":    (*script).flood,
		"limits":   (*script).limits,
		"mark":     func(s *script, _ *args) []string { s.marked = s.state(); return nil },
		"same":     (*script).same,
		"tick":     (*script).tick,
		"deadline": (*script).deadline,
		"due":      (*script).due,
		"dispatch": (*script).dispatch,
		"relieve":  (*script).relieve,
		"stranded": (*script).stranded,
		"volatile": (*script).volatile,
		"retained": (*script).retained,
		"page":     (*script).page,
		"replays":  (*script).replays,
	}
}

func (s *script) boot(a *args) []string {
	s.boots[a.plain[0]] = parseNumber(a.plain[1])
	return nil
}

// limits gives a new shard with these limits.
func (s *script) limits(a *args) []string {
	s.config.QueueEntries = int(a.number("queue", 0))
	s.config.QueueBytes = int(a.number("queuebytes", 0))
	s.config.Subscriptions = int(a.number("subscriptions", 0))
	s.config.OutboxEntries = int(a.number("outbox", 0))
	s.config.Retained = int(a.number("retained", 0))
	s.config.OutboxBytes = int(a.number("bytes", 0))
	s.m = New(s.config)
	return nil
}

func (s *script) fence(a *args) []string {
	f := &shoalpb.Fence{Number: parseNumber(a.plain[0])}
	for _, node := range []string{"X", "Y", "Z"} {
		if boot, ok := a.named[node]; ok {
			f.Nodes = append(f.Nodes, &shoalpb.NodeBoot{Node: node, Boot: parseNumber(boot)})
		}
	}
	s.apply(&shoalpb.Proposal{Fence: f})
	return nil
}

func (s *script) answered(a *args) []string {
	o := &shoalpb.OutboxAnswered{Target: parseTarget(a.plain[0]), UpTo: parseNumber(a.plain[1])}
	if n := a.number("refused", 0); n > 0 {
		o.Refused = []*shoalpb.Answer{{N: n, Code: shoalpb.Code_CODE_QUEUE_FULL}}
	}
	s.apply(&shoalpb.Proposal{OutboxAnswered: o})
	return nil
}

// flood appends many equal messages, 512 in an entry.
func (s *script) flood(a *args) []string {
	s.flooding = true
	defer func() { s.flooding = false }()
	for left := int(parseNumber(a.plain[1])); left > 0; {
		s.begin(a, false)
		for n := min(left, 512); n > 0; n-- {
			left--
			s.batch.Commands = append(s.batch.Commands, &shoalpb.Command{
				Append: &shoalpb.Append{Message: a.message(1, a.plain[0], "m")},
			})
		}
		s.opened = make([]string, len(s.batch.Commands))
		s.flush()
	}
	return nil
}

// parseTarget reads "shard:2", "directory" or "Z/7".
func parseTarget(text string) *shoalpb.Target {
	t := &shoalpb.Target{}
	if node, boot, ok := strings.Cut(text, "/"); ok {
		t.Node, t.Boot = node, parseNumber(boot)
	} else if group, ok := strings.CutPrefix(text, "shard:"); ok {
		t.Group = uint32(parseNumber(group))
	}
	return t
}

func targetText(t *shoalpb.Target) string {
	switch {
	case t.Node != "":
		return fmt.Sprintf("%s/%d", t.Node, t.Boot)
	case t.Group == 0:
		return "directory"
	}
	return fmt.Sprintf("shard:%d", t.Group)
}

func (s *script) entries(a *args) []string {
	c := s.conns[a.plain[0]]
	list := []string{}
	limit := int(a.number("max", 1000))
	entries, owner := s.rows.entries(s.t, s.m, c, a.number("after", 0), limit, s.now(a))
	if !owner {
		return []string{"not owner"}
	}
	for _, d := range entries {
		list = append(list, deliveryText(d))
	}
	return orNone(list)
}

func deliveryText(d mqtt.Delivery) string {
	text := fmt.Sprintf("%d:%s q%d", d.Seq, d.Message.Payload, d.QoS)
	if d.Released {
		text += " released"
	}
	if d.Retain {
		text += " retain"
	}
	if d.Identifiers != nil {
		text += fmt.Sprintf(" ids%v", d.Identifiers)
	}
	if d.Message.ExpiryMs != nil {
		text += fmt.Sprintf(" aged %v of %dms", d.Age, *d.Message.ExpiryMs)
	}
	return text
}

func orNone(list []string) []string {
	if len(list) == 0 {
		return []string{"none"}
	}
	return []string{strings.Join(list, ", ")}
}

func (s *script) former(a *args) []string {
	session := s.m.sessions[a.plain[0]]
	if session == nil {
		return []string{"no row"}
	}
	return []string{s.ownersText(session.formerOwners())}
}

func (s *script) ownersText(owners []*shoalpb.Owner) string {
	names := []string{}
	for _, o := range owners {
		names = append(names, s.names[o.Conn])
	}
	return "{" + strings.Join(names, " ") + "}"
}

func (s *script) owner(a *args) []string {
	c := s.conns[a.plain[0]]
	_, owner, _ := s.m.Others(c.client, c.conn)
	return []string{yesNo(owner)}
}

func (s *script) exchange(a *args) []string {
	c := s.conns[a.plain[0]]
	id := uint32(parseNumber(a.plain[1]))
	if pending, _ := s.m.ReceivedPending(c.client, c.conn, id); pending {
		return []string{"pending"}
	}
	if s.m.sessions[c.client].exchange(id, false) != nil {
		return []string{"received"}
	}
	return []string{"none"}
}

func (s *script) outbox(a *args) []string {
	first, list := s.rows.outbox(s.t, s.m, parseTarget(a.plain[0]), a.number("after", 0), s.now(a))
	text := []string{}
	for i, c := range list {
		what := ""
		if r := c.Route; r == nil {
			what = messageText(c)
		} else if r.Present {
			what = fmt.Sprintf("+%s q%d", r.Filter, r.Qos)
			if r.Members > 0 {
				what += fmt.Sprintf(" *%d,%d", r.Members, r.Attached)
			}
		} else {
			what = "-" + r.Filter
		}
		text = append(text, fmt.Sprintf("%d:%s", first+uint64(i), what))
	}
	return orNone(text)
}

func (s *script) stats(a *args) []string {
	st := s.m.Stats()
	values := map[string]any{
		"sessions": st.Sessions, "attached": st.Attached, "queued": st.Queued, "bodies": st.Bodies, "outbox": st.OutboxEntries,
		"enqueued": st.Enqueued, "acked": st.Acked, "expired": st.Expired, "full": st.QueueFull,
		"redispatched": st.Redispatched, "nomember": st.NoMember, "retained": st.Retained, "retained-expired": st.RetainedExpired, "wills": st.Wills, "due": st.Due, "ended": st.SessionEnded,
		"oldest": st.DroppedOldest, "rejected": st.Rejected,
		"fenced": st.OutboxFenced, "refused": st.OutboxRefused, "replaced": st.ReceivedReplaced,
	}
	text := []string{}
	for _, name := range a.plain {
		text = append(text, fmt.Sprintf("%s=%v", name, values[name]))
	}
	return []string{strings.Join(text, " ")}
}

// effects prints what the entries since the last time told a leader.
func (s *script) effects(*args) []string {
	list := []string{}
	for _, r := range s.eff.Ready {
		list = append(list, "ready "+s.names[r.Conn])
	}
	for _, v := range s.eff.Volatile {
		list = append(list, fmt.Sprintf("volatile %s %s", s.names[v.Conn], v.Message.Payload))
	}
	for _, c := range s.eff.Completed {
		list = append(list, fmt.Sprintf("completed %s %d", s.names[c.Conn], c.ID))
	}
	for _, c := range s.eff.Recorded {
		list = append(list, fmt.Sprintf("recorded %s %d", s.names[c.Conn], c.ID))
	}
	for _, c := range s.eff.Superseded {
		list = append(list, "superseded "+s.names[c.Conn])
	}
	for _, c := range s.eff.OwnersChanged {
		list = append(list, "free "+c)
	}
	for _, t := range s.eff.OutboxGrew {
		list = append(list, "outbox "+targetText(t))
	}
	if s.eff.ReplayMoved {
		list = append(list, "replay")
	}
	if s.eff.DueGrew {
		list = append(list, "due")
	}
	s.eff.Reset()
	slices.Sort(list)
	return orNone(slices.Compact(list))
}

// state is a digest without what every entry changes.
func (s *script) state() [32]byte {
	applied, streams := s.m.applied, s.m.in
	s.m.applied, s.m.in = 0, New(s.config).in
	defer func() { s.m.applied, s.m.in = applied, streams }()
	return s.m.Digest()
}

func (s *script) same(*args) []string { return []string{yesNo(s.state() == s.marked)} }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// now is the leader's clock for a verb that reads: the shard's, or now=.
func (s *script) now(a *args) uint64 { return a.number("now", s.m.Clock()) }

func (s *script) tick(a *args) []string {
	s.clock = parseNumber(a.plain[0])
	s.apply(&shoalpb.Proposal{Tick: &shoalpb.Tick{WallMs: a.number("wall", 0)}})
	return nil
}

func (s *script) deadline(*args) []string {
	at, ok := s.m.NextDeadline()
	if !ok {
		return []string{"none"}
	}
	return []string{fmt.Sprint(at)}
}

func (s *script) due(*args) []string {
	list := []string{}
	s.m.Due(func(d Due) bool {
		if d.Message == nil { // one for a pick may leave memory
			d.Message, _ = s.rows.message(s.t, s.m.due.find(d.ID).body.seq)
		}
		text := fmt.Sprintf("%d:%s", d.ID, d.Message.GetPayload())
		if d.Pick != nil {
			text += " " + d.Pick.Share
		}
		list = append(list, text)
		return true
	})
	return orNone(list)
}

func (s *script) dispatch(a *args) []string {
	d := &shoalpb.Dispatch{Due: parseNumber(a.plain[0]), Retain: uint32(a.number("retain", 0))}
	for _, t := range strings.Split(a.named["to"], ",") {
		if t != "" {
			d.Targets = append(d.Targets, parseTarget(t))
		}
	}
	if pick, ok := a.named["pick"]; ok {
		target, share, _ := strings.Cut(pick, "/")
		d.Picks = []*shoalpb.TargetPick{{Target: parseTarget(target), Pick: &shoalpb.Pick{Share: share}}}
	}
	s.apply(&shoalpb.Proposal{Dispatch: d})
	return nil
}

func (s *script) relieve(a *args) []string {
	s.apply(&shoalpb.Proposal{Relieve: &shoalpb.Relieve{Client: a.plain[0], Share: a.plain[1], Limit: uint32(a.number("limit", 100))}})
	return nil
}

func (s *script) stranded(*args) []string {
	list := []string{}
	s.m.Stranded(func(client, share string) bool {
		list = append(list, client+" "+share)
		return true
	})
	slices.Sort(list)
	return orNone(list)
}

// volatile prints who gets a message published with QoS 0.
func (s *script) volatile(a *args) []string {
	list := []string{}
	missed := s.m.MatchVolatile(a.message(0, a.plain[0], a.plain[1]), a.picks(), func(v Volatile) bool {
		list = append(list, fmt.Sprintf("%s%v", s.names[v.Conn], v.Identifiers))
		return true
	})
	if missed > 0 {
		list = append(list, fmt.Sprintf("missed %d", missed))
	}
	return orNone(list)
}

// messageText is an outbox entry that carries a message.
func messageText(c *shoalpb.Command) string {
	text := string(c.GetAppend().GetMessage().GetPayload())
	m := c.GetAppend().GetMessage()
	if c.Retain != nil {
		m = c.Retain.Message
		text = "retain " + string(m.Payload)
	}
	for _, p := range c.GetAppend().GetPicks() {
		text += " pick " + p.Share
	}
	if m.ExpiryMs != nil {
		text += fmt.Sprintf(" lasts %dms", *m.ExpiryMs)
	}
	return text
}

// retained prints a page of the register.
func (s *script) retained(a *args) []string {
	list := []string{}
	left := a.number("max", 1000)
	s.m.Retained(a.plain[0], a.named["after"], s.now(a), func(m *shoalpb.Message) bool {
		if left == 0 {
			list = append(list, "more")
			return false
		}
		left--
		text := fmt.Sprintf("%s:%s", m.Topic, m.Payload)
		if m.ExpiryMs != nil {
			text += fmt.Sprintf(" lasts %dms", *m.ExpiryMs)
		}
		list = append(list, text)
		return true
	})
	return orNone(list)
}

// page proposes a page of a replay; a topic stands for its message. by= names
// the publisher of all.
func (s *script) page(a *args) []string {
	p := &shoalpb.Page{Client: a.plain[0], Replay: parseNumber(a.plain[1])}
	p.Group, p.After = parsePlace(a.plain[2])
	for _, name := range a.plain[3:] {
		m := a.message(1, name, "old-"+name)
		m.Retain = true
		p.Messages = append(p.Messages, m)
	}
	if next, ok := a.named["next"]; ok {
		p.NextGroup, p.NextAfter = parsePlace(next)
	}
	s.apply(&shoalpb.Proposal{Page: p})
	return nil
}

// parsePlace reads "2" or "2/a/b": a group and a topic.
func parsePlace(text string) (group uint32, after string) {
	number, after, _ := strings.Cut(text, "/")
	return uint32(parseNumber(number)), after
}

// replays prints those that can go on.
func (s *script) replays(*args) []string {
	list := []string{}
	s.m.Replays(func(r Replay) bool {
		list = append(list, fmt.Sprintf("%s %d %s at %d/%s room %d", r.Client, r.ID, r.Filter, r.Group, r.After, r.Messages))
		return true
	})
	slices.Sort(list)
	return orNone(list)
}
