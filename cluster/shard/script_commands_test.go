package shard

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// commands make the command of a line.
var commands = map[string]func(*script, *args) *shoalpb.Command{
	"open":        (*script).openCommand,
	"confirm":     (*script).confirmCommand,
	"close":       (*script).closeCommand,
	"drained":     (*script).drainedCommand,
	"subscribe":   (*script).subscribeCommand,
	"unsubscribe": (*script).unsubscribeCommand,
	"append":      (*script).appendCommand,
	"received":    (*script).receivedCommand,
	"retain":      (*script).retainCommand,
	"released":    (*script).releasedCommand,
	"release":     (*script).releaseCommand,
	"ack":         (*script).ackCommand,
}

func (s *script) openCommand(a *args) *shoalpb.Command {
	o := &shoalpb.Open{
		Client: a.plain[0], CleanStart: a.has("clean"),
		ExpiryS: uint32(a.number("expiry", 0)), Window: uint32(a.number("window", 32)),
		Ask: a.has("ask"), Force: a.has("force"),
	}
	if o.Ask {
		o.Seen = a.number("seen", s.m.Applied())
	}
	if _, delay := a.named["will"]; a.has("will") || delay {
		topic := "will"
		if t, ok := a.named["topic"]; ok {
			topic = t
		}
		o.Will = &shoalpb.Will{Message: a.message(1, topic, "will-of-"+a.named["as"]), DelayS: uint32(a.number("will", 5))}
	}
	if _, ok := a.named["policy"]; ok {
		o.Limits = &shoalpb.QueueLimits{
			Messages: a.number("messages", 0), Bytes: a.number("bytes", 0),
			Policy: shoalpb.QueuePolicy(slices.Index([]string{"drop-oldest", "drop-new", "reject"}, a.named["policy"])),
		}
	}
	return &shoalpb.Command{Open: o}
}

func (s *script) closeCommand(a *args) *shoalpb.Command {
	c := s.conns[a.plain[0]]
	cl := &shoalpb.Close{Client: c.client, Conn: c.conn, Drained: a.has("drained"), DiscardWill: a.has("discard"), Refused: a.has("refused")}
	if _, ok := a.named["expiry"]; ok {
		e := uint32(a.number("expiry", 0))
		cl.ExpiryS = &e
	}
	return &shoalpb.Command{Close: cl}
}

func (s *script) confirmCommand(a *args) *shoalpb.Command {
	c := s.conns[a.plain[0]]
	return &shoalpb.Command{Confirm: &shoalpb.Confirm{Client: c.client, Conn: c.conn}}
}

func (s *script) drainedCommand(a *args) *shoalpb.Command {
	c := s.conns[a.plain[0]]
	return &shoalpb.Command{Drained: &shoalpb.Drained{Client: c.client, Conn: c.conn}}
}

func (s *script) subscribeCommand(a *args) *shoalpb.Command {
	c := s.conns[a.plain[0]]
	sub := &shoalpb.Subscribe{Client: c.client, Conn: c.conn}
	for _, f := range strings.Split(a.plain[1], ",") {
		sub.Subscriptions = append(sub.Subscriptions, &shoalpb.Subscription{
			Filter: f, Qos: uint32(a.number("qos", 1)), Identifier: uint32(a.number("id", 0)),
			NoLocal: a.has("nolocal"), RetainAsPublished: a.has("rap"),
			RetainHandling: uint32(a.number("handling", 0)),
		})
	}
	if group := uint32(a.number("replay", 0)); group > 0 {
		for range sub.Subscriptions {
			sub.Replay = append(sub.Replay, group)
		}
	}
	return &shoalpb.Command{Subscribe: sub}
}

func (s *script) unsubscribeCommand(a *args) *shoalpb.Command {
	c := s.conns[a.plain[0]]
	return &shoalpb.Command{Unsubscribe: &shoalpb.Unsubscribe{
		Client: c.client, Conn: c.conn, Filters: strings.Split(a.plain[1], ","),
	}}
}

func (a *args) message(qos uint64, topic, payload string) *shoalpb.Message {
	var expiry *uint64
	if _, ok := a.named["lasts"]; ok {
		ms := a.number("lasts", 0)
		expiry = &ms
	}
	return &shoalpb.Message{
		ExpiryMs: expiry,
		Topic:    topic, Payload: []byte(payload), Qos: uint32(a.number("qos", qos)),
		Retain: a.has("retain"), Publisher: a.named["by"],
	}
}

func (s *script) appendCommand(a *args) *shoalpb.Command {
	return &shoalpb.Command{Append: &shoalpb.Append{Message: a.message(1, a.plain[0], a.plain[1]), Picks: a.picks()}}
}

// picks are those of pick=SHARE[:HINT][,...].
func (a *args) picks() (list []*shoalpb.Pick) {
	for _, p := range strings.Split(a.named["pick"], ",") {
		if p == "" {
			continue
		}
		share, hint, hinted := strings.Cut(p, ":")
		pick := &shoalpb.Pick{Share: share, Only: a.has("only")}
		if hinted {
			pick.Hint = parseNumber(hint)
		}
		list = append(list, pick)
	}
	return list
}

// retainCommand without a text clears.
func (s *script) retainCommand(a *args) *shoalpb.Command {
	text := ""
	if len(a.plain) > 1 {
		text = a.plain[1]
	}
	m := a.message(1, a.plain[0], text)
	m.Retain = true
	return &shoalpb.Command{Retain: &shoalpb.Retain{Message: m}}
}

func (s *script) receivedCommand(a *args) *shoalpb.Command {
	c := s.conns[a.plain[0]]
	h := fnv.New64a()
	h.Write([]byte(a.plain[2] + "\x00" + a.plain[3]))
	r := &shoalpb.Received{
		Client: c.client, Conn: c.conn, Id: uint32(parseNumber(a.plain[1])), Dup: a.has("dup"),
		Hash: h.Sum64(), Message: a.message(2, a.plain[2], a.plain[3]), Retain: uint32(a.number("retain", 0)),
	}
	for _, t := range strings.Split(a.named["to"], ",") {
		if t != "" {
			r.Targets = append(r.Targets, parseTarget(t))
		}
	}
	return &shoalpb.Command{Received: r}
}

func (s *script) releasedCommand(a *args) *shoalpb.Command {
	c := s.conns[a.plain[0]]
	return &shoalpb.Command{Released: &shoalpb.Released{
		Client: c.client, Conn: c.conn, Id: uint32(parseNumber(a.plain[1])),
	}}
}

func (s *script) releaseCommand(a *args) *shoalpb.Command {
	c := s.conns[a.plain[0]]
	return &shoalpb.Command{Release: &shoalpb.Release{Client: c.client, Conn: c.conn, Seq: parseNumber(a.plain[1])}}
}

func (s *script) ackCommand(a *args) *shoalpb.Command {
	c := s.conns[a.plain[0]]
	ack := &shoalpb.Ack{Client: c.client, Conn: c.conn}
	for _, p := range a.plain[1:] {
		first, last, isRange := strings.Cut(p, "-")
		if !isRange {
			last = first
		}
		for n := parseNumber(first); n <= parseNumber(last); n++ {
			ack.Seqs = append(ack.Seqs, n)
		}
	}
	if e := a.named["expired"]; e != "" {
		for _, p := range strings.Split(e, ",") {
			ack.Expired = append(ack.Expired, parseNumber(p))
		}
	}
	return &shoalpb.Command{Ack: ack}
}

var codeText = map[shoalpb.Code]string{
	shoalpb.Code_CODE_NOT_OWNER: "not owner", shoalpb.Code_CODE_QUEUE_FULL: "queue full",
	shoalpb.Code_CODE_KNOWN: "known", shoalpb.Code_CODE_ID_IN_USE: "id in use",
	shoalpb.Code_CODE_PENDING: "pending", shoalpb.Code_CODE_UNKNOWN_ID: "unknown id",
	shoalpb.Code_CODE_QUOTA: "quota", shoalpb.Code_CODE_STALE: "stale",
}

var refusalText = map[shoalpb.Refusal]string{
	shoalpb.Refusal_REFUSAL_GAP: "gap", shoalpb.Refusal_REFUSAL_FENCED: "fenced",
	shoalpb.Refusal_REFUSAL_FENCE_AHEAD: "fence ahead", shoalpb.Refusal_REFUSAL_LIFE: "life",
}

// answerText prints the answer of a batch, and remembers the connections it
// opened.
func (s *script) answerText(b *shoalpb.Batch, a *shoalpb.BatchAnswer) string {
	if a.Refusal != shoalpb.Refusal_REFUSAL_NONE {
		return fmt.Sprintf("refused %s, last %d", refusalText[a.Refusal], a.Last)
	}
	list := []string{}
	answers := a.Answers
	for i := range b.Commands {
		n := b.First + uint64(i)
		text := "done"
		if len(answers) > 0 && answers[0].N == n {
			text = s.oneAnswer(b, answers[0], b.Commands[i], s.opened[i])
			answers = answers[1:]
		}
		if s.single {
			return text + fullText(a)
		}
		list = append(list, fmt.Sprintf("%d %s", n, text))
	}
	return strings.Join(list, ", ") + fmt.Sprintf("; last %d", a.Last) + fullText(a)
}

func fullText(a *shoalpb.BatchAnswer) string {
	text := ""
	for _, t := range a.Full {
		text += "; full " + targetText(t)
	}
	return text
}

func (s *script) oneAnswer(b *shoalpb.Batch, a *shoalpb.Answer, c *shoalpb.Command, name string) string {
	switch {
	case a.Code == shoalpb.Code_CODE_ATTACHED:
		return "attached " + s.ownersText(a.Open.Former)
	case a.Open != nil:
		if name != "" {
			s.conns[name] = scriptConn{client: c.Open.Client, node: b.Node, boot: b.Boot, conn: a.Open.Conn}
			s.names[a.Open.Conn] = name
		}
		class := "transient"
		if a.Open.Durable {
			class = "durable"
		}
		text := fmt.Sprintf("%s %s present=%s sent=%d former=%s",
			class, s.names[a.Open.Conn], yesNo(a.Open.Present), a.Open.SentHi, s.ownersText(a.Open.Former))
		if a.Open.Bid {
			text = "bid " + text
		}
		if a.Open.WillDue {
			text += " will due"
		}
		return text
	case a.Subscribe != nil:
		return fmt.Sprintf("route %d existed=%s", a.Subscribe.Route, existedText(a.Subscribe.Existed))
	case a.Unsubscribe != nil:
		return "existed=" + existedText(a.Unsubscribe.Existed)
	}
	return codeText[a.Code]
}

func existedText(list []bool) string {
	text := make([]string, len(list))
	for i, e := range list {
		text[i] = yesNo(e)
	}
	return strings.Join(text, ",")
}
