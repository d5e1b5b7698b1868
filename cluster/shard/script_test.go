package shard

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// The scripts under testdata drive one shard. A line is a verb with its
// arguments; "=> text" is what the verb before must have printed, line for line.
// Lines that begin with '#' are comments.
//
//	limits queue=3 outbox=2     at the start: other limits than usual
//	boot X 4                    batches of node X come from its boot 4 (at first 1)
//	batch X n=5 fence=2         one batch; its commands follow, indented
//	fence 8 X=4 Z=8             Fence with number 8
//	answered shard:2 3          OutboxAnswered; refused=2 names exceptions
//	entries a [after=5]         what may be sent on connection a
//	former c                    former owners of client c
//	outbox shard:2 [after=3]    unanswered entries
//	flood t 1000 node=X         many messages
//	owner a, exchange a 5, stats, effects
//	format 1                    entries are of an older format than usual
//	tick 5000 [wall=9]          the shard's clock is moved to 5000 ms
//	deadline                    when time alone changes something
//	due                         what may be dispatched
//	dispatch 1 to=shard:1,Z/7 [retain=2] [pick=shard:1/share]
//	retained a/# [after=a/b] [max=2]
//	page c 1 2/a t u next=2/u   a page of client c's replay 1 at topics above a of shard 2
//	replays                     replays that can go on
//	mark, same                  remember the state; it is the same again
//
// Commands stand in a batch or alone; alone they take the next number of their
// node, or n=.
//
//	open c node=X as=a [clean] [expiry=60] [window=32] [will[=5]] [topic=t] [retain] [ask] [force] [seen=9]
//	confirm a
//	close a [drained] [expiry=0] [discard] [refused]     drained a
//	subscribe a t/+ qos=1 [id=7] [nolocal] [rap] [replay=2] [handling=1], more filters after a comma
//	unsubscribe a t/+
//	append t text node=X|from=2 [qos=1] [retain] [by=c] [lasts=1000]
//	received a 5 t text to=shard:1,shard:2,Z/7 [dup] [hash=…] [retain=2]
//	retain t [text] node=X|from=2 [qos=1] [by=c] [lasts=1000]
//	released a 5       release a 3       ack a 1 2 [expired=3,4]
//
// Each script runs twice: the second time the shard is checkpointed and
// restored after each entry, without the messages that may stay in the file.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".txt")
		t.Run(name, func(t *testing.T) { runScript(t, f, false) })
		t.Run(name+"/restored", func(t *testing.T) { runScript(t, f, true) })
	}
}

// script is one run.
type script struct {
	t       *testing.T
	config  Config
	m       *Machine
	rows    memRows // state file, nil if the shard is never restored
	index   uint64
	eff     Effects
	boots   map[string]uint64
	numbers map[string]uint64 // next of each "node/boot"
	conns   map[string]scriptConn
	names   map[uint64]string // of connections
	clock   uint64
	format  uint32
	marked  [32]byte
	batch   *shoalpb.Batch // being collected
	opened  []string       // names for the Opens of batch
	single  bool           // batch is a command alone
	// flooding saves the restarts between the entries of a flood.
	flooding bool
}

type scriptConn struct {
	client, node string
	boot, conn   uint64
}

func runScript(t *testing.T, file string, restored bool) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := &script{
		t: t, config: Config{Group: 1, Life: 1, QueueEntries: 200_000},
		boots: map[string]uint64{}, numbers: map[string]uint64{},
		conns: map[string]scriptConn{}, names: map[uint64]string{}, format: stream.LastFormat,
	}
	if restored {
		s.config.RestoreBytes = 1
		s.rows = memRows{}
	}
	s.m = New(s.config)
	var printed, wanted []string
	var verb string
	check := func() {
		if got, want := strings.Join(printed, "\n"), strings.Join(wanted, "\n"); got != want {
			t.Fatalf("%s: %s\n got: %s\nwant: %s", file, verb, got, want)
		}
		printed, wanted = nil, nil
	}
	in := bufio.NewScanner(f)
	for n := 1; in.Scan(); n++ {
		line := in.Text()
		text := strings.TrimSpace(line)
		want, isWanted := strings.CutPrefix(text, "=>")
		switch {
		case text == "" || text[0] == '#':
		case strings.HasPrefix(line, "\t"):
			s.add(parseArgs(text))
		case isWanted:
			printed = append(printed, s.flush()...)
			wanted = append(wanted, strings.TrimSpace(want))
		default:
			printed = append(printed, s.flush()...)
			check()
			verb = fmt.Sprintf("line %d: %s", n, text)
			printed = s.run(parseArgs(text))
		}
	}
	printed = append(printed, s.flush()...)
	check()
}

// args are the words of a line: the verb, plain ones, and key=value.
type args struct {
	verb  string
	plain []string
	named map[string]string
}

func parseArgs(line string) *args {
	words := strings.Fields(line)
	a := &args{verb: words[0], named: map[string]string{}}
	for _, w := range words[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			a.named[k] = v
		} else {
			a.plain = append(a.plain, w)
		}
	}
	return a
}

func (a *args) has(word string) bool {
	for _, p := range a.plain {
		if p == word {
			return true
		}
	}
	return false
}

func (a *args) number(key string, otherwise uint64) uint64 {
	text, ok := a.named[key]
	if !ok {
		return otherwise
	}
	return parseNumber(text)
}

func parseNumber(text string) (n uint64) {
	if _, err := fmt.Sscan(text, &n); err != nil {
		panic(fmt.Sprintf("%q is no number", text))
	}
	return n
}

// run runs a verb and returns what it prints. A batch runs when its last line
// was read.
func (s *script) run(a *args) []string {
	if f, ok := verbs[a.verb]; ok {
		return f(s, a)
	}
	s.begin(a, true)
	s.add(a)
	return nil
}

// begin starts a batch.
func (s *script) begin(a *args, single bool) {
	node := ""
	switch conn, known := s.conns[a.first()]; {
	case a.verb == "batch":
		node = a.plain[0]
	case a.named["node"] != "":
		node = a.named["node"]
	case known && a.verb != "append":
		node = conn.node
		s.boots[node] = max(s.boots[node], 1)
	}
	b := &shoalpb.Batch{
		Target: 1, TargetLife: uint32(a.number("life", 1)), Node: node,
		Fence: a.number("fence", s.m.FenceNumber()), Answered: a.number("answered", 0),
	}
	if node == "" {
		b.Group, b.SourceLife = uint32(a.number("from", 0)), 1
	} else {
		b.Boot = a.number("boot", max(s.boots[node], 1))
	}
	b.First = a.number("n", s.numbers[source(b)]+1)
	s.batch, s.single = b, single
}

func (a *args) first() string {
	if len(a.plain) == 0 {
		return ""
	}
	return a.plain[0]
}

func source(b *shoalpb.Batch) string {
	if b.Node == "" {
		return fmt.Sprintf("shard:%d", b.Group)
	}
	return fmt.Sprintf("%s/%d", b.Node, b.Boot)
}

// add adds a command to the batch.
func (s *script) add(a *args) {
	f, ok := commands[a.verb]
	if !ok {
		s.t.Fatalf("no verb %q", a.verb)
	}
	s.opened = append(s.opened, a.named["as"])
	s.batch.Commands = append(s.batch.Commands, f(s, a))
}

// flush applies the batch, if there is one, and returns its answers as text.
func (s *script) flush() []string {
	b := s.batch
	if b == nil {
		return nil
	}
	s.batch = nil
	answer := s.apply(&shoalpb.Proposal{Batch: b}).Batch
	s.numbers[source(b)] = max(s.numbers[source(b)], answer.Last)
	text := s.answerText(b, answer)
	s.opened = nil
	return []string{text}
}

// apply applies a proposal as one entry.
func (s *script) apply(p *shoalpb.Proposal) Result {
	s.index++
	results, err := s.m.Apply(s.index, &shoalpb.Entry{Format: s.format, ClockMs: s.clock, Proposals: []*shoalpb.Proposal{p}}, &s.eff)
	if err != nil {
		s.t.Fatal(err)
	}
	if s.rows != nil && !s.flooding {
		before := s.m.Digest()
		save(s.t, s.m, s.rows)
		s.m = load(s.t, s.config, s.rows)
		if s.m.Digest() != before {
			s.t.Fatalf("entry %d: the restored state differs", s.index)
		}
	}
	return results[0]
}
