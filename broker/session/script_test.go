package session

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestScripts plays testdata/*.txt. A line that is not indented is a packet
// that comes or an event; the indented lines below it are what follows from it.
// A '#' begins a comment.
//
//	connect window=N [sent-hi=N] [queue=N]    a connection's Outbound begins
//	deliver seq=N qos=N [released]            the shard hands over an entry
//	enqueue qos=N                             a message for a transient session
//	write                                     all that may be written now
//	puback | pubrec | pubcomp  id=N [code=N]  the client answers
//	committed seq=N                           a release is committed
//	discard seq=N                             not written after all
//	unfinished                                what is left
//
//	accept receive-maximum=N [resumed]        a connection's Inbound begins
//	publish qos=N id=N [dup]                  the client sends
//	answered qos=N id=N [code=N]              PUBACK or PUBREC leaves
//	pubrel id=N                               the client sends
//	completed id=N                            PUBCOMP leaves
//
//	arrives NAME                              a packet that wants an answer
//	ready NAME                                its answer is known
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			play(t, file, strings.Split(string(text), "\n"))
		})
	}
}

func play(t *testing.T, file string, lines []string) {
	p := player{places: make(map[string]Token)}
	for i := 0; i < len(lines); {
		at, line := i, strings.TrimSpace(uncomment(lines[i]))
		var want []string
		for i++; i < len(lines) && (strings.HasPrefix(lines[i], " ") || uncomment(lines[i]) == ""); i++ {
			if w := strings.TrimSpace(uncomment(lines[i])); w != "" {
				want = append(want, w)
			}
		}
		if line == "" {
			continue
		}
		got, err := p.step(line)
		if err != nil {
			t.Fatalf("%s:%d: %s: %v", file, at+1, line, err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%s:%d: %s\n got %q\nwant %q", file, at+1, line, got, want)
		}
	}
}

func uncomment(line string) string {
	line, _, _ = strings.Cut(line, "#")
	return line
}

// player is what a script talks to.
type player struct {
	out    *Outbound
	in     *Inbound
	order  AckOrder[string]
	places map[string]Token
}

// args are the words of a line behind the verb; key=value or flags.
type args map[string]string

func (a args) number(key string) uint64 {
	n, err := strconv.ParseUint(a[key], 0, 64)
	if err != nil && a[key] != "" {
		panic(fmt.Sprintf("%s=%s: %v", key, a[key], err))
	}
	return n
}

func (a args) flag(key string) bool { _, ok := a[key]; return ok }
func (a args) id() uint16           { return uint16(a.number("id")) }
func (a args) qos() uint8           { return uint8(a.number("qos")) }
func (a args) failed() bool         { return a.number("code") >= 0x80 }

func (p *player) step(line string) ([]string, error) {
	words := strings.Fields(line)
	a := make(args)
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		a[key] = value
	}
	for _, verbs := range []map[string]func(args) []string{p.outbound(), p.inbound(), p.ordering(words)} {
		if f := verbs[words[0]]; f != nil {
			return f(a), nil
		}
	}
	return nil, fmt.Errorf("unknown verb")
}

func (p *player) outbound() map[string]func(args) []string {
	return map[string]func(args) []string{
		"connect": func(a args) []string {
			p.out = NewOutbound(uint16(a.number("window")), a.number("sent-hi"), int(a.number("queue")))
			return nil
		},
		"deliver": func(a args) []string {
			d := Delivery{Seq: a.number("seq"), QoS: a.qos(), Released: a.flag("released")}
			return unless(p.out.Deliver(d), "ignored")
		},
		"enqueue": func(a args) []string {
			return unless(p.out.Enqueue(Delivery{QoS: a.qos()}), "dropped: queue full")
		},
		"write": func(args) []string { return p.write() },
		"puback": func(a args) []string {
			return finishedOrUnknown(p.out.Puback(a.id()))
		},
		"pubrec": func(a args) []string {
			seq, r := p.out.Pubrec(a.id(), a.failed())
			return []string{map[PubrecResult]string{
				PubrecUnknown:  fmt.Sprintf("PUBREL id=%d code=0x92", a.id()),
				PubrecRelease:  fmt.Sprintf("release seq=%d", seq),
				PubrecFinished: fmt.Sprintf("finished seq=%d", seq),
				PubrecAgain:    fmt.Sprintf("PUBREL id=%d again", a.id()),
				PubrecWait:     "wait",
			}[r]}
		},
		"pubcomp": func(a args) []string {
			return finishedOrUnknown(p.out.Pubcomp(a.id()))
		},
		"committed":  func(a args) []string { p.out.Released(a.number("seq")); return nil },
		"discard":    func(a args) []string { p.out.Discard(a.number("seq")); return nil },
		"unfinished": func(args) []string { return p.unfinished() },
	}
}

func (p *player) write() []string {
	var out []string
	for s, ok := p.out.Next(); ok; s, ok = p.out.Next() {
		if s.Pubrel {
			out = append(out, fmt.Sprintf("PUBREL id=%d", s.ID))
			continue
		}
		line := fmt.Sprintf("PUBLISH id=%d qos=%d", s.ID, s.QoS)
		if s.Dup {
			line += " dup"
		}
		out = append(out, line)
	}
	return out
}

func (p *player) unfinished() []string {
	out := []string{fmt.Sprintf("in flight %d, queued %d", p.out.InFlight(), p.out.Queued())}
	p.out.Unfinished(func(d Delivery, sent bool) bool {
		out = append(out, fmt.Sprintf("seq=%d %s", d.Seq, map[bool]string{true: "sent", false: "waiting"}[sent]))
		return true
	})
	return out
}

func (p *player) inbound() map[string]func(args) []string {
	results := map[InboundResult]string{
		InboundNew: "new", InboundRepeat: "PUBREC again", InboundWait: "wait",
		InboundInUse: "PUBREC code=0x91", InboundExceeded: "DISCONNECT code=0x93",
		InboundKnown: "known", InboundUnknown: "PUBCOMP code=0x92", InboundAsk: "ask the shard",
	}
	return map[string]func(args) []string{
		"accept": func(a args) []string {
			begin := NewInbound
			if a.flag("resumed") {
				begin = NewResumedInbound
			}
			p.in = begin(uint16(a.number("receive-maximum")))
			return nil
		},
		"publish": func(a args) []string {
			return []string{results[p.in.Publish(a.qos(), a.id(), a.flag("dup"))]}
		},
		"answered": func(a args) []string { p.in.Answered(a.qos(), a.id(), a.failed()); return nil },
		"pubrel":   func(a args) []string { return []string{results[p.in.Pubrel(a.id())]} },
		"completed": func(a args) []string {
			if success := p.in.Completed(a.id(), !a.flag("unknown")); !success {
				return []string{"PUBCOMP code=0x92"}
			}
			return nil
		},
	}
}

func (p *player) ordering(words []string) map[string]func(args) []string {
	name := words[len(words)-1]
	return map[string]func(args) []string{
		"arrives": func(args) []string { p.places[name] = p.order.Push(); return nil },
		"ready": func(args) []string {
			var out []string
			p.order.Done(p.places[name], name)
			for r, ok := p.order.Pop(); ok; r, ok = p.order.Pop() {
				out = append(out, r)
			}
			return out
		},
	}
}

func unless(ok bool, what string) []string {
	if ok {
		return nil
	}
	return []string{what}
}

func finishedOrUnknown(seq uint64, ok bool) []string {
	if ok {
		return []string{fmt.Sprintf("finished seq=%d", seq)}
	}
	return []string{"unknown"}
}
