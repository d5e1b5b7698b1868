package stream

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// TestScripts runs testdata/*.txt: lines "node NAME/BOOT key=value...: commands",
// "group GROUP key=value...: commands" and "fence NUMBER NAME/BOOT...", each
// followed by "= " and what comes of it. The state is saved and loaded between
// any two lines.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { runScript(t, file) })
	}
}

func runScript(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	in := NewIn(7, 1)
	var got string
	lines := bufio.NewScanner(bytes.NewReader(text))
	for number := 1; lines.Scan(); number++ {
		line := lines.Text()
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '=':
			if want := strings.TrimPrefix(line, "= "); got != want {
				t.Fatalf("%s:%d: got %q, want %q", file, number, got, want)
			}
		default:
			got = runLine(t, in, line)
			in = reloaded(t, in)
		}
	}
}

func runLine(t *testing.T, in *In, line string) string {
	head, commands, _ := strings.Cut(line, ":")
	words := strings.Fields(head)
	if words[0] == "fence" {
		return runFence(t, in, words[1:])
	}
	b := &shoalpb.Batch{Target: 7, TargetLife: 1}
	if words[0] == "node" {
		nb := nodeBoot(t, words[1])
		b.Node, b.Boot = nb.Node, nb.Boot
	} else {
		b.Group = uint32(atoi(t, words[1]))
	}
	for _, word := range words[2:] {
		key, value, _ := strings.Cut(word, "=")
		setKey(t, b, key, atoi(t, value))
	}
	for _, name := range strings.Fields(commands) {
		b.Commands = append(b.Commands, named(name))
	}
	var took []string
	reply := in.Apply(b, func(n uint64, c *shoalpb.Command) *shoalpb.Answer {
		name, full := strings.CutPrefix(c.Append.Message.Topic, "!")
		took = append(took, name)
		if !full {
			return nil
		}
		return &shoalpb.Answer{Code: shoalpb.Code_CODE_QUEUE_FULL}
	})
	return describe(reply, took)
}

func setKey(t *testing.T, b *shoalpb.Batch, key string, v uint64) {
	switch key {
	case "first":
		b.First = v
	case "fence":
		b.Fence = v
	case "answered":
		b.Answered = v
	case "life":
		b.SourceLife = uint32(v)
	case "target":
		b.Target = uint32(v)
	case "targetlife":
		b.TargetLife = uint32(v)
	case "group":
		b.Group = uint32(v)
	default:
		t.Fatalf("unknown key %q", key)
	}
}

func describe(r *shoalpb.BatchAnswer, took []string) string {
	var s string
	if r.Refusal != 0 {
		s = strings.TrimPrefix(r.Refusal.String(), "REFUSAL_") + ", "
	}
	s += fmt.Sprintf("last %d", r.Last)
	if took != nil {
		s += ", took " + strings.Join(took, " ")
	}
	for i, a := range r.Answers {
		if i == 0 {
			s += ", answers"
		}
		s += fmt.Sprintf(" %d", a.N)
	}
	return s
}

func runFence(t *testing.T, in *In, words []string) string {
	var nodes []*shoalpb.NodeBoot
	for _, word := range words[1:] {
		nodes = append(nodes, nodeBoot(t, word))
	}
	var s string
	for _, f := range in.Fence(atoi(t, words[0]), nodes) {
		s += fmt.Sprintf("fenced %s/%d, ", f.Node, f.Boot)
	}
	return s + fmt.Sprintf("number %d", in.FenceNumber())
}

func nodeBoot(t *testing.T, word string) *shoalpb.NodeBoot {
	node, boot, _ := strings.Cut(word, "/")
	return &shoalpb.NodeBoot{Node: node, Boot: atoi(t, boot)}
}

func atoi(t *testing.T, s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func named(name string) *shoalpb.Command {
	return &shoalpb.Command{Append: &shoalpb.Append{Message: &shoalpb.Message{Topic: name}}}
}

// reloaded returns in after a round trip through its row.
func reloaded(t interface{ Fatal(...any) }, in *In) *In {
	row := in.AppendRow([]byte("before"))
	again := NewIn(in.group, 9)
	if err := again.LoadRow(row[len("before"):]); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.AppendRow(nil), row[len("before"):]) {
		t.Fatal("a reloaded state gives another row")
	}
	return again
}
