package gossip

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// TestSuperseded: while a former process still counts as living, only the
// latest of its disk is shown, in whichever order they were met; another disk's
// boots are not comparable.
func TestSuperseded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := &Gossip{name: "self", meta: Meta{Node: "a", Disk: "1", Boot: 5, RPCAddr: "a:5"}, members: make(map[string]*entry)}
		metas := rapid.Permutation([]Meta{
			g.meta,
			{Node: "a", Disk: "1", Boot: 4, RPCAddr: "a:4"},
			{Node: "b", Disk: "2", Boot: 1, RPCAddr: "b:1"},
			{Node: "b", Disk: "2", Boot: 2, RPCAddr: "b:2"},
			{Node: "b", Disk: "3", Boot: 1, RPCAddr: "b3:1"},
		}).Draw(t, "order")
		latest := ""
		for i, m := range metas {
			name := fmt.Sprint(i)
			if m == g.meta {
				name = g.name
			}
			g.members[name] = &entry{meta: m, known: true, seen: uint64(i)}
			if m.RPCAddr == "b:2" || m.RPCAddr == "b3:1" {
				latest = m.RPCAddr
			}
		}
		shown := make(map[string]bool)
		for _, m := range g.Members() {
			shown[m.RPCAddr] = true
		}
		if len(shown) != 3 || !shown["a:5"] || !shown["b:2"] || !shown["b3:1"] {
			t.Fatalf("shown: %v", shown)
		}
		if addr, ok := g.address("b"); !ok || addr != latest {
			t.Fatalf("b is at %s, want %s", addr, latest)
		}
	})
}
