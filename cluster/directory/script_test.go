package directory

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// script runs the lines of a file of testdata against one machine, which is
// written, restored and compared after every line:
//
//	birth ID shards=P NODE/DISK...       up NODE/DISK BOOT [rpc=ADDR] [version=V]
//	down NODE BOOT                       route SOURCE FIRST: +FILTER:QOS[*MEMBERS,ATTACHED] -FILTER...
//	set NODE [drained] [leaving]         remove NODE/DISK
//	place G VERSION NODE/DISK... [+JOINING] [-LEAVING]
//	recover ID NODE/DISK SHARD...        what an offline recovery has written
//	move G, done G                       the first move that is planned of G; its end
//	nodes, since N, placement G, placed G, plan [SETTLED...], shardof KEY, match TOPIC,
//	index SOURCE
//
// A SOURCE is NODE/BOOT or #GROUP. Each line is followed by "= " and what comes
// of it.
type script struct {
	t     *testing.T
	m     *Machine
	file  *file
	index uint64
}

func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			s := &script{t: t, m: New(), file: newFile()}
			s.run(name)
		})
	}
}

func (s *script) run(name string) {
	text, err := os.ReadFile(name)
	if err != nil {
		s.t.Fatal(err)
	}
	var got string
	lines := bufio.NewScanner(bytes.NewReader(text))
	for number := 1; lines.Scan(); number++ {
		line := lines.Text()
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '=':
			if want := strings.TrimSpace(line[1:]); got != want {
				s.t.Errorf("%s:%d:\n got %q\nwant %q", name, number, got, want)
			}
		default:
			got = strings.TrimSpace(s.line(line))
			s.m = s.file.reopened(s.t, s.m)
		}
	}
}

func (s *script) line(line string) string {
	head, rest, _ := strings.Cut(line, ": ")
	w := strings.Fields(head)
	switch w[0] {
	case "birth":
		return s.birth(w[1], w[2:])
	case "up":
		return s.up(w[1], w[2], w[3:])
	case "down":
		return s.propose(&shoalpb.Proposal{NodeDown: &shoalpb.NodeDown{Node: w[1], Boot: s.number(w[2])}})
	case "route":
		return s.route(w[1], w[2], strings.Fields(rest))
	case "set":
		set := &shoalpb.SetNode{Node: w[1], Drained: slices.Contains(w[2:], "drained"), Leaving: slices.Contains(w[2:], "leaving")}
		return s.propose(&shoalpb.Proposal{SetNode: set})
	case "remove":
		node, disk, _ := strings.Cut(w[1], "/")
		return s.propose(&shoalpb.Proposal{RemoveNode: &shoalpb.RemoveNode{Node: node, Disk: disk}})
	case "place":
		return s.place(uint32(s.number(w[1])), s.number(w[2]), w[3:])
	case "recover":
		r := &shoalpb.Recover{ClusterId: w[1], Server: &shoalpb.NodeDisk{}, Shards: s.m.Shards()}
		r.Server.Node, r.Server.Disk, _ = strings.Cut(w[2], "/")
		for _, kept := range w[3:] {
			r.Kept = append(r.Kept, uint32(s.number(kept)))
		}
		return s.propose(&shoalpb.Proposal{Recover: r})
	case "move":
		for _, move := range s.m.Plan(anySettled) {
			if move.Group == uint32(s.number(w[1])) {
				return s.propose(&shoalpb.Proposal{Place: move})
			}
		}
		return "no move"
	case "done":
		group := uint32(s.number(w[1]))
		p := s.m.Placed(group)
		return s.propose(&shoalpb.Proposal{Place: &shoalpb.Place{Group: group, Version: p.Version, Replicas: p.Finished()}})
	case "placed":
		p := s.m.Placed(uint32(s.number(w[1])))
		return fmt.Sprintf("%d: %s; founded by %s", p.Version, placedText(p.Replicas, p.Joining, p.Leaving), strings.Join(p.Founders, " "))
	case "plan":
		var all []string
		for _, move := range s.m.Plan(func(node string) bool { return slices.Contains(w[1:], node) }) {
			all = append(all, fmt.Sprintf("%d: %s", move.Group, placedText(move.Replicas, move.Joining, move.Leaving)))
		}
		return strings.Join(all, "; ")
	case "nodes":
		var all []string
		for _, n := range s.m.Nodes() {
			state := map[bool]string{true: "up", false: "down"}[n.Up]
			if n.Drained {
				state += " drained"
			}
			if n.Leaving {
				state += " leaving"
			}
			all = append(all, fmt.Sprintf("%s/%s:%d %s", n.Info.Node, n.Info.Disk, n.Info.Boot, state))
		}
		return fmt.Sprintf("%s; fences %d, version %d", strings.Join(all, ", "), s.m.FenceNumber(), s.m.Version())
	case "since":
		var all string
		for _, f := range s.m.FencesSince(s.number(w[1])) {
			all += fmt.Sprintf("%s/%d ", f.Node, f.Boot)
		}
		return all
	case "placement":
		return strings.Join(s.m.Placement(uint32(s.number(w[1]))), " ")
	case "shardof":
		return fmt.Sprint(s.m.ShardOf(w[1]))
	case "match":
		return matched(s.m, w[1])
	case "index":
		src := s.source(w[1])
		return fmt.Sprint(s.m.RouteIndex(src.Node, src.Boot, src.Group))
	}
	s.t.Fatalf("unknown line %q", line)
	return ""
}

func anySettled(string) bool { return true }

func placedText(replicas []string, joining, leaving string) string {
	text := strings.Join(replicas, " ")
	if joining != "" {
		text += " +" + joining
	}
	if leaving != "" {
		text += " -" + leaving
	}
	return text
}

func (s *script) place(group uint32, version uint64, words []string) string {
	p := &shoalpb.Place{Group: group, Version: version}
	for _, w := range words {
		switch w[0] {
		case '+':
			p.Joining = w[1:]
		case '-':
			p.Leaving = w[1:]
		default:
			p.Replicas = append(p.Replicas, w)
		}
	}
	return s.propose(&shoalpb.Proposal{Place: p})
}

// matched returns a match as sorted text.
func matched(m *Machine, topic string) string {
	var t Targets
	m.Match(topic, &t)
	var all []string
	for _, n := range t.Nodes {
		all = append(all, fmt.Sprintf("%s/%d:%d", n.Node, n.Boot, n.QoS))
	}
	slices.Sort(all)
	shards := len(all)
	for _, s := range t.Shards {
		all = append(all, fmt.Sprintf("#%d:%d", s.Group, s.QoS))
	}
	slices.Sort(all[shards:])
	shares := len(all)
	for _, s := range t.Shares {
		var targets []string
		for _, c := range s.Candidates {
			targets = append(targets, targetText(c.Source, seats{c.QoS, c.Members, c.Attached}))
		}
		all = append(all, fmt.Sprint(s.Share, targets))
	}
	slices.Sort(all[shares:])
	return strings.Join(all, " ")
}

func targetText(s Source, w seats) string {
	name := fmt.Sprintf("#%d", s.Group)
	if s.Node != "" {
		name = fmt.Sprintf("%s/%d", s.Node, s.Boot)
	}
	return fmt.Sprintf("%s:%d*%d,%d", name, w.qos, w.members, w.attached)
}

func (s *script) propose(p *shoalpb.Proposal) string {
	s.index++
	var eff Effects
	results, err := s.m.Apply(s.index, &shoalpb.Entry{Format: 1, Proposals: []*shoalpb.Proposal{p}}, &eff)
	if err != nil {
		return "error: " + err.Error()
	}
	if results[0].Err != "" {
		return "refused: " + results[0].Err
	}
	var out []string
	if b := results[0].Batch; b != nil {
		if b.Refusal != 0 {
			out = append(out, strings.TrimPrefix(b.Refusal.String(), "REFUSAL_")+",")
		}
		out = append(out, fmt.Sprintf("last %d", b.Last))
		for i, a := range b.Answers {
			if i == 0 {
				out[len(out)-1] += ","
				out = append(out, "answers")
			}
			out = append(out, fmt.Sprint(a.N))
		}
	}
	for _, r := range eff.Routed {
		out[len(out)-1] += ","
		if r.Node == "" {
			out = append(out, fmt.Sprintf("routed #%d", r.Group))
		} else {
			out = append(out, fmt.Sprintf("routed %s/%d", r.Node, r.Boot))
		}
	}
	if eff.Fences {
		out = append(out, "fences")
	}
	if eff.Nodes {
		out = append(out, "nodes")
	}
	return strings.Join(out, " ")
}

func (s *script) birth(id string, words []string) string {
	b := &shoalpb.Birth{ClusterId: id, Version: 1}
	for _, w := range words {
		if key, value, ok := strings.Cut(w, "="); ok {
			switch key {
			case "shards":
				b.Shards = uint32(s.number(value))
			case "version":
				b.Version = uint32(s.number(value))
			}
			continue
		}
		node, disk, _ := strings.Cut(w, "/")
		b.Members = append(b.Members, &shoalpb.NodeDisk{Node: node, Disk: disk})
	}
	return s.propose(&shoalpb.Proposal{Birth: b})
}

func (s *script) up(name, boot string, words []string) string {
	info := &shoalpb.NodeInfo{Boot: s.number(boot), Version: 1}
	info.Node, info.Disk, _ = strings.Cut(name, "/")
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "rpc":
			info.RpcAddr = value
		case "version":
			info.Version = uint32(s.number(value))
		}
	}
	return s.propose(&shoalpb.Proposal{NodeUp: &shoalpb.NodeUp{Node: info}})
}

func (s *script) route(source, first string, changes []string) string {
	b := batchOf(s.source(source), s.number(first))
	for _, c := range changes {
		r := &shoalpb.RouteChange{Filter: c[1:]}
		if c[0] == '+' {
			i := strings.LastIndexByte(c, ':')
			qos, members, shared := strings.Cut(c[i+1:], "*")
			r.Present, r.Filter, r.Qos = true, c[1:i], uint32(s.number(qos))
			if shared {
				members, attached, _ := strings.Cut(members, ",")
				r.Members, r.Attached = uint32(s.number(members)), uint32(s.number(attached))
			}
		}
		b.Commands = append(b.Commands, &shoalpb.Command{Route: r})
	}
	return s.propose(&shoalpb.Proposal{Batch: b})
}

func batchOf(s Source, first uint64) *shoalpb.Batch {
	b := &shoalpb.Batch{Node: s.Node, Boot: s.Boot, Group: s.Group, TargetLife: 1, First: first}
	if s.Node == "" {
		b.SourceLife = 1
	}
	return b
}

func (s *script) source(word string) Source {
	if group, ok := strings.CutPrefix(word, "#"); ok {
		return Source{Group: uint32(s.number(group))}
	}
	node, boot, _ := strings.Cut(word, "/")
	return Source{Node: node, Boot: s.number(boot)}
}

func (s *script) number(word string) uint64 {
	n, err := strconv.ParseUint(word, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}
