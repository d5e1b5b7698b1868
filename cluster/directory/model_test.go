package directory

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/broker/topic"
	shoalpb "github.com/shoalmq/shoal/proto"
	"pgregory.net/rapid"
)

// model is the directory as plain as can be: no ids, no bits, no trie.
type model struct {
	nodes  map[string]modelNode
	fences uint64
	min    map[string]uint64
	last   map[Source]uint64
	routes map[string]map[Source]seats
	placed map[uint32][]string
	// version of each placement.
	version map[uint32]uint64
}

type modelNode struct {
	disk             string
	boot             uint64
	up               bool
	drained, leaving bool
	removed          bool
	refused          string // disks, each behind a space
}

func newModel() *model {
	return &model{nodes: map[string]modelNode{}, min: map[string]uint64{}, last: map[Source]uint64{}, routes: map[string]map[Source]seats{},
		placed: map[uint32][]string{}, version: map[uint32]uint64{1: 1, 2: 1, 3: 1}}
}

// nodeUp returns whether it is taken.
func (m *model) nodeUp(info *shoalpb.NodeInfo) bool {
	n, known := m.nodes[info.Node]
	if strings.Contains(n.refused+" ", " "+info.Disk+" ") {
		return false
	}
	if known && n.up && n.disk == info.Disk && n.boot == info.Boot {
		return true
	}
	if known && n.up && (n.disk != info.Disk || n.boot > info.Boot) || info.Boot == 0 || info.Boot < m.min[info.Node] {
		return false
	}
	if n.removed {
		n = modelNode{refused: n.refused}
	} else if known && n.disk != info.Disk {
		n.refused += " " + n.disk
	}
	n.disk, n.boot, n.up = info.Disk, info.Boot, true
	m.nodes[info.Node] = n
	m.fence(info.Node, info.Boot)
	return true
}

func (m *model) nodeDown(node string, boot uint64) {
	if n := m.nodes[node]; n.up && n.boot == boot {
		n.up = false
		m.nodes[node] = n
		m.fence(node, boot+1)
	}
}

func (m *model) fence(node string, boot uint64) {
	m.fences++
	m.min[node] = max(m.min[node], boot)
	dead := func(s Source) bool { return s.Node == node && s.Boot < m.min[node] }
	maps.DeleteFunc(m.last, func(s Source, _ uint64) bool { return dead(s) })
	for _, at := range m.routes {
		maps.DeleteFunc(at, func(s Source, _ seats) bool { return dead(s) })
	}
}

func (m *model) batch(s Source, b *shoalpb.Batch) {
	if s.Node != "" && s.Boot < m.min[s.Node] || b.First > m.last[s]+1 {
		return
	}
	for i, c := range b.Commands {
		if n := b.First + uint64(i); n != m.last[s]+1 {
			continue
		}
		m.last[s]++
		if m.routes[c.Route.Filter] == nil {
			m.routes[c.Route.Filter] = map[Source]seats{}
		}
		if at := m.routes[c.Route.Filter]; c.Route.Present {
			at[s] = seats{uint8(c.Route.Qos), c.Route.Members, c.Route.Attached}
		} else {
			delete(at, s)
		}
	}
}

func (m *model) matched(name string) string {
	highest := map[Source]uint8{}
	var shares []string
	for filter, at := range m.routes {
		_, rest, shared, _ := topic.ParseShare(filter)
		switch {
		case !topic.MatchOne(rest, name):
		case shared && len(at) > 0:
			var targets []string
			for _, s := range slices.SortedFunc(maps.Keys(at), compareSources) {
				targets = append(targets, targetText(s, at[s]))
			}
			shares = append(shares, fmt.Sprint(filter, targets))
		case !shared:
			for s, w := range at {
				highest[s] = max(highest[s], w.qos)
			}
		}
	}
	slices.Sort(shares)
	var nodes, shards []string
	for s, qos := range highest {
		if s.Node == "" {
			shards = append(shards, fmt.Sprintf("#%d:%d", s.Group, qos))
		} else {
			nodes = append(nodes, fmt.Sprintf("%s/%d:%d", s.Node, s.Boot, qos))
		}
	}
	slices.Sort(nodes)
	slices.Sort(shards)
	return strings.Join(slices.Concat(nodes, shards, shares), " ")
}

// cluster is two replicas of one log and the model: straight only applies;
// other is written to a file, restored from it, and replays.
type cluster struct {
	t        *rapid.T
	log      []*shoalpb.Entry // index 1 is log[0]
	digests  [][32]byte       // of straight after each index
	model    *model
	straight *Machine
	other    *Machine
	file     *file
}

var (
	filters = []string{"a", "a/b", "+", "+/b", "#", "a/#", "$x/#", "$x/b", "b/" + strings.Repeat("long", 400), "+/" + strings.Repeat("long", 400),
		"$share/g/a/b", "$share/h/a/b", "$share/g/#", "$share/g/+/" + strings.Repeat("long", 400)}
	names = []string{"a", "a/b", "b", "b/b", "a/b/c", "$x/b", "b/" + strings.Repeat("long", 400)}
)

// entry makes an entry of 1 to 3 proposals and lets the model apply it.
func (c *cluster) entry() {
	e := &shoalpb.Entry{Format: 1, ClockMs: 5}
	var taken []bool
	for range rapid.IntRange(1, 3).Draw(c.t, "proposals") {
		p, ok := c.proposal()
		e.Proposals, taken = append(e.Proposals, p), append(taken, ok)
	}
	c.log = append(c.log, e)
	generation, before := c.straight.Generation(), c.matches()
	results, err := c.straight.Apply(uint64(len(c.log)), e, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	for i, r := range results {
		if taken[i] != (r.Err == "") {
			c.t.Fatalf("%v: refused %q", e.Proposals[i], r.Err)
		}
	}
	if c.straight.Generation() == generation && before != c.matches() {
		c.t.Fatal("matches changed, the generation did not")
	}
	c.digests = append(c.digests, c.straight.Digest())
}

func (c *cluster) proposal() (p *shoalpb.Proposal, taken bool) {
	t := c.t
	node := rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "node")
	boot := c.model.nodes[node].boot
	known := c.model.nodes[node].disk != "" && !c.model.nodes[node].removed
	switch rapid.SampledFrom([]string{"route", "route", "route", "route", "up", "down", "set", "remove", "place"}).Draw(t, "kind") {
	case "set":
		set := &shoalpb.SetNode{Node: node, Drained: rapid.Bool().Draw(t, "drained"), Leaving: rapid.Bool().Draw(t, "leaving")}
		if n := c.model.nodes[node]; known {
			n.drained, n.leaving = set.Drained, set.Leaving
			c.model.nodes[node] = n
		}
		return &shoalpb.Proposal{SetNode: set}, known
	case "remove":
		n := c.model.nodes[node]
		gone := &shoalpb.RemoveNode{Node: node, Disk: n.disk}
		known = known && n.leaving
		for group := uint32(1); group <= 3; group++ {
			for _, home := range c.model.placed[group] {
				known = known && nodeOf(home) != node
			}
		}
		if known {
			n.up, n.drained, n.leaving, n.removed, n.refused = false, false, false, true, n.refused+" "+n.disk
			c.model.nodes[node] = n
			c.model.fence(node, max(n.boot+1, c.model.min[node]))
		}
		return &shoalpb.Proposal{RemoveNode: gone}, known
	case "place":
		group := rapid.Uint32Range(1, 3).Draw(t, "group")
		place := &shoalpb.Place{Group: group, Version: c.model.version[group], Replicas: []string{"q/d0"}}
		if known && rapid.Bool().Draw(t, "there") {
			place.Replicas = []string{node + "/" + c.model.nodes[node].disk}
		}
		if rapid.IntRange(0, 3).Draw(t, "late") == 0 {
			place.Version--
			return &shoalpb.Proposal{Place: place}, false
		}
		c.model.version[group]++
		c.model.placed[group] = place.Replicas
		return &shoalpb.Proposal{Place: place}, true
	case "up":
		info := &shoalpb.NodeInfo{Node: node, Disk: rapid.SampledFrom([]string{"d1", "d1", "d2", "d3", "d4", c.model.nodes[node].disk + "x"}).Draw(t, "disk"), Version: 1}
		info.Boot = rapid.Uint64Range(boot-min(boot, 1), boot+2).Draw(t, "boot")
		return &shoalpb.Proposal{NodeUp: &shoalpb.NodeUp{Node: info}}, c.model.nodeUp(info)
	case "down":
		boot := rapid.Uint64Range(boot-min(boot, 1), boot).Draw(t, "boot")
		c.model.nodeDown(node, boot)
		return &shoalpb.Proposal{NodeDown: &shoalpb.NodeDown{Node: node, Boot: boot}}, true
	}
	s := Source{Node: node, Boot: rapid.Uint64Range(boot-min(boot, 1), boot+1).Draw(t, "boot")}
	if rapid.Bool().Draw(t, "shard") {
		s = Source{Group: rapid.Uint32Range(1, 3).Draw(t, "group")}
	}
	b := batchOf(s, rapid.Uint64Range(1, c.model.last[s]+2).Draw(t, "first"))
	if rapid.Bool().Draw(t, "next") {
		b.First = c.model.last[s] + 1
	}
	for range rapid.IntRange(1, 6).Draw(t, "changes") {
		change := &shoalpb.RouteChange{
			Filter:  rapid.SampledFrom(filters).Draw(t, "filter"),
			Present: rapid.IntRange(0, 2).Draw(t, "present") > 0,
			Qos:     rapid.Uint32Range(0, 2).Draw(t, "QoS"),
		}
		if strings.HasPrefix(change.Filter, "$share/") && change.Present {
			change.Members = rapid.Uint32Range(1, 3).Draw(t, "members")
			change.Attached = rapid.Uint32Range(0, change.Members).Draw(t, "attached")
		}
		b.Commands = append(b.Commands, &shoalpb.Command{Route: change})
	}
	c.model.batch(s, b)
	return &shoalpb.Proposal{Batch: b}, true
}

func (c *cluster) matches() string {
	var all []string
	for _, name := range names {
		all = append(all, matched(c.straight, name))
	}
	return strings.Join(all, "; ")
}

// catchUp lets other apply up to n more entries, and one again.
func (c *cluster) catchUp(n int) {
	for ; n > 0 && c.other.Applied() < uint64(len(c.log)); n-- {
		index := c.other.Applied() + 1
		for range 2 {
			if _, err := c.other.Apply(index, c.log[index-1], nil); err != nil {
				c.t.Fatal(err)
			}
		}
		c.compare()
	}
}

func (c *cluster) compare() {
	c.t.Helper()
	if n := c.other.Applied(); n > 0 && c.other.Digest() != c.digests[n-1] {
		c.t.Fatalf("the replicas differ at %d", n)
	}
}

// checkpoint writes other while it goes on applying, and perhaps restarts it.
func (c *cluster) checkpoint() {
	frozen := c.other.Freeze()
	at := c.other.Applied()
	c.file.fail = rapid.IntRange(-20, 10).Draw(c.t, "fails after")
	c.catchUp(rapid.IntRange(0, 1).Draw(c.t, "before"))
	err := c.file.checkpoint(frozen, func(page func()) {
		c.catchUp(rapid.IntRange(0, 2).Draw(c.t, "between"))
		page()
	})
	c.file.fail = -1
	if err == nil {
		again := c.file.restored(c.t)
		if again.Applied() != at || at > 0 && again.Digest() != c.digests[at-1] {
			c.t.Fatalf("the checkpoint of %d holds %d or something else", at, again.Applied())
		}
	}
	if rapid.Bool().Draw(c.t, "restart") {
		c.other = c.small(c.file.restored(c.t))
		c.compare()
	}
}

// small makes m work in small pages.
func (c *cluster) small(m *Machine) *Machine {
	m.sweepPage, m.checkpointPage = 1, 2
	return m
}

func (c *cluster) check() {
	m := c.straight
	for _, name := range names {
		if got, want := matched(m, name), c.model.matched(name); got != want {
			c.t.Fatalf("%.9s goes to %q, want %q", name, got, want)
		}
	}
	for s, last := range c.model.last {
		if got := m.RouteIndex(s.Node, s.Boot, s.Group); got != last {
			c.t.Fatalf("%v: last %d, want %d", s, got, last)
		}
	}
	since := map[string]uint64{}
	for _, f := range m.FencesSince(0) {
		since[f.Node] = f.Boot
	}
	if m.FenceNumber() != c.model.fences || !maps.Equal(since, c.model.min) {
		c.t.Fatalf("fences %d %v, want %d %v", m.FenceNumber(), since, c.model.fences, c.model.min)
	}
	for name, want := range c.model.nodes {
		n, ok := m.Node(name)
		if want.removed == ok {
			c.t.Fatalf("node %s is a member: %v", name, ok)
		}
		if ok && (n.Up != want.up || n.Info.Boot != want.boot || n.Info.Disk != want.disk || n.Drained != want.drained || n.Leaving != want.leaving) {
			c.t.Fatalf("node %s is %v, want %v", name, n, want)
		}
	}
}

// TestModel: a replica, one that is written and restored at any time, and a
// plain model agree after every entry.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &cluster{t: t, model: newModel(), straight: New(), file: newFile()}
		c.other = c.small(New())
		birth := &shoalpb.Birth{ClusterId: "c", Version: 1, Shards: 3, Members: []*shoalpb.NodeDisk{{Node: "x", Disk: "d1"}, {Node: "y", Disk: "d1"}}}
		c.model.nodes["x"], c.model.nodes["y"] = modelNode{disk: "d1"}, modelNode{disk: "d1"}
		for i, homes := range Place(3, Replicas, birth.Members) {
			c.model.placed[uint32(i+1)] = homes
		}
		c.log = []*shoalpb.Entry{{Format: 1, Proposals: []*shoalpb.Proposal{{Birth: birth}}}}
		if _, err := c.straight.Apply(1, c.log[0], nil); err != nil {
			t.Fatal(err)
		}
		c.digests = append(c.digests, c.straight.Digest())
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			c.entry()
			c.check()
			if rapid.Bool().Draw(t, "catch up") {
				c.catchUp(3)
			}
			if rapid.IntRange(0, 3).Draw(t, "checkpoint") == 0 {
				c.checkpoint()
			}
		}
		c.catchUp(len(c.log))
		if c.other.Applied() != c.straight.Applied() {
			t.Fatal("the other replica stopped")
		}
	})
}
