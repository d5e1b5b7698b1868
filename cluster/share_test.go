package cluster

import (
	"fmt"
	"testing"

	"github.com/shoalmq/shoal/cluster/directory"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// TestShareStrategies: which targets get the messages of a few publishers about a
// few topics.
func TestShareStrategies(t *testing.T) {
	s := directory.ShareTargets{Share: "$share/g/#"}
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
		{"", 1, 1, 3, 3}, // a target by chance; there, members take turns
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
			{Share: "s1", Candidates: candidate(1, "", 1)},
			{Share: "s2", Candidates: candidate(2, "", 0)},
			{Share: "s3", Candidates: candidate(0, "a", 1)},
			{Share: "s4", Candidates: candidate(0, "b", 1)},
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
