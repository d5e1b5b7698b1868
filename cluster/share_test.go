package cluster

import (
	"fmt"
	"math"
	"testing"

	"github.com/shoalmq/shoal/cluster/directory"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// TestShareStrategies: which targets get the messages of a few publishers about a
// few topics.
func TestShareStrategies(t *testing.T) {
	s := directory.ShareTargets{Share: "$share/g/#", Turns: new(directory.Turns)}
	for group := uint32(1); group <= 3; group++ {
		s.Candidates = append(s.Candidates, directory.ShareCandidate{
			Source: directory.Source{Group: group}, QoS: 2, Members: 5, Attached: 5,
		})
	}
	choice := func(n *Node, publisher, topic string) string {
		c, hint := n.pick(&s, &shoalpb.Message{Publisher: publisher, Topic: topic, Qos: 1})
		return fmt.Sprint(c.Group, " ", hint)
	}
	spread := func(n *Node, publishers, topics int) int {
		seen := map[string]bool{}
		for i := range 200 {
			seen[choice(n, fmt.Sprint("p", i%publishers), fmt.Sprint("t", i%topics))] = true
		}
		return len(seen)
	}
	for _, test := range []struct {
		strategy           string
		publishers, topics int
		least, most        int
	}{
		{"", 1, 1, 3, 3}, // targets take turns; there, members do
		{"round-robin", 1, 1, 3, 3},
		{"random", 1, 1, 150, 200},
		{"sticky", 1, 50, 1, 1},
		{"sticky", 50, 1, 50, 50},
		{"hash", 50, 1, 1, 1},
		{"hash", 1, 50, 50, 50},
	} {
		n := &Node{config: Config{SharedStrategy: test.strategy}}
		if got := spread(n, test.publishers, test.topics); got < test.least || got > test.most {
			t.Errorf("%q, %d publishers, %d topics: %d choices", test.strategy, test.publishers, test.topics, got)
		}
	}
}

// shareMembers are members of a Shared Subscription, who choose as their targets
// do.
type shareMembers struct {
	s     directory.ShareTargets
	turns map[directory.Source]uint64
}

// membersOn puts so many members on each of some nodes, or into shards.
func membersOn(durable bool, each ...uint32) *shareMembers {
	g := &shareMembers{directory.ShareTargets{Share: "$share/g/#", Turns: new(directory.Turns)}, map[directory.Source]uint64{}}
	for i, n := range each {
		c := directory.ShareCandidate{Source: directory.Source{Node: fmt.Sprint("n", i), Boot: 1}, Members: n, QoS: 1}
		if durable {
			c.Source, c.Attached = directory.Source{Group: uint32(i + 1)}, n
		}
		g.s.Candidates = append(g.s.Candidates, c)
	}
	return g
}

// member is who gets m.
func (g *shareMembers) member(n *Node, m *shoalpb.Message) string {
	c, hint := n.pick(&g.s, m)
	if hint == 0 {
		hint = g.turns[c.Source]
		if c.Node != "" || m.Qos > 0 { // a shard's turns move in its log
			g.turns[c.Source]++
		}
	}
	return fmt.Sprint(c.Source, hint%uint64(c.Members))
}

// TestShareIsEven: by turns members get as many as each other, to one; what hangs
// on a name is within 3 σ, and chance, which is another one in each run, within 5 σ
// of more messages.
func TestShareIsEven(t *testing.T) {
	for _, each := range [][]uint32{{2}, {3}, {4}, {1, 1}, {2, 2}, {1, 1, 1, 1}, {3, 1}, {1, 2, 4}} {
		for _, durable := range []bool{false, true} {
			for qos := range uint32(2) {
				for strategy, messages := range map[string]int{"": 80, "round-robin": 80, "local": 80, "hash": 80, "sticky": 80, "random": 4000} {
					name := fmt.Sprintf("%s, durable %t, %v, QoS %d", strategy, durable, each, qos)
					expectEven(t, name, strategy, membersOn(durable, each...), qos, messages)
				}
			}
		}
	}
}

func expectEven(t *testing.T, name, strategy string, g *shareMembers, qos uint32, messages int) {
	t.Helper()
	n, members := &Node{config: Config{SharedStrategy: strategy, NodeID: "elsewhere"}}, 0
	for _, c := range g.s.Candidates {
		members += int(c.Members)
	}
	got := map[string]int{}
	for i := range messages {
		got[g.member(n, &shoalpb.Message{Topic: fmt.Sprint("t/", i), Publisher: fmt.Sprint("p", i), Qos: qos})]++
	}
	p := 1 / float64(members)
	sigma := math.Sqrt(float64(messages) * p * (1 - p))
	off := map[string]float64{"hash": 3 * sigma, "sticky": 3 * sigma, "random": 5 * sigma}[strategy]
	for _, k := range got {
		if math.Abs(float64(k)-float64(messages)*p) > max(off, 1) {
			t.Errorf("%s: %v", name, got)
			return
		}
	}
	if len(got) != members {
		t.Errorf("%s: %d members of %d got something", name, len(got), members)
	}
}

// TestPicked: a target that a message goes to anyway gets the pick with it.
func TestPicked(t *testing.T) {
	n := &Node{}
	candidate := func(group uint32, node string, qos uint8) []directory.ShareCandidate {
		return []directory.ShareCandidate{{Source: directory.Source{Group: group, Node: node, Boot: 1}, QoS: qos, Members: 1, Attached: 1}}
	}
	of := &directory.Targets{
		Shards: []directory.ShardTarget{{Group: 1, QoS: 0}},
		Nodes:  []directory.NodeTarget{{Node: "a", Boot: 1, QoS: 2}},
		Shares: []directory.ShareTargets{
			{Share: "s1", Turns: new(directory.Turns), Candidates: candidate(1, "", 1)},
			{Share: "s2", Turns: new(directory.Turns), Candidates: candidate(2, "", 0)},
			{Share: "s3", Turns: new(directory.Turns), Candidates: candidate(0, "a", 1)},
			{Share: "s4", Turns: new(directory.Turns), Candidates: candidate(0, "b", 1)},
		},
	}
	got := n.picked(of, &shoalpb.Message{Qos: 2})
	text := ""
	for _, s := range got.Shards {
		text += fmt.Sprintf("#%d q%d %d; ", s.Group, s.QoS, len(s.Picks))
	}
	for _, s := range got.Nodes {
		text += fmt.Sprintf("%s q%d %d; ", s.Node, s.QoS, len(s.Picks))
	}
	if want := "#1 q1 1; #2 q0 1; a q2 1; b q1 1; "; text != want {
		t.Errorf("got %s, want %s", text, want)
	}
	if of.Shards[0].Picks != nil || of.Shards[0].QoS != 0 || len(of.Nodes) != 1 {
		t.Error("the match was changed, which others use")
	}
	if got.Shards[1].Picks[0].Hint == 0 {
		t.Error("a pick that is QoS 0 in effect has no hint")
	}
}
