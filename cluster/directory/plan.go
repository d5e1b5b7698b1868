package directory

import (
	"cmp"
	"slices"
	"strings"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// Plan returns the moves that would bring shards nearer to where they should be,
// the most urgent first; nil if all is well. The caller makes one of them, waits
// until it is done, and asks again. settled tells whether a node has been up for
// long enough to be given load only for balance.
//
// In order of urgency: replicas leave disks that are gone, nodes that are leaving
// and drained ones; shards get as many replicas as they should have; replicas go
// from the most to the least loaded node; preferred leaders are spread. The last
// two only where it makes the loads more equal, so they come to an end.
//
// A node that is merely down keeps its replicas: only an operator knows that it
// will not come back.
func (m *Machine) Plan(settled func(node string) bool) []*shoalpb.Place {
	p := planner{m: m, load: map[string]int{}, heads: map[string]int{}}
	for _, n := range m.Nodes() {
		if !n.Leaving {
			p.want++
		}
	}
	p.want = min(p.want, Replicas)
	for _, placed := range m.placement {
		for _, r := range placed.Finished() {
			p.load[nodeOf(r)]++
		}
		if len(placed.Finished()) > 0 {
			p.heads[nodeOf(placed.Finished()[0])]++
		}
	}
	var plan []*shoalpb.Place
	for _, step := range []func(uint32, Placement) *shoalpb.Place{p.replace, p.fill} {
		plan = append(plan, p.each(step)...)
	}
	plan = append(plan, p.balance(settled)...)
	return append(plan, p.each(p.prefer)...)
}

// planner is what Plan has counted.
type planner struct {
	m *Machine
	// want is how many replicas a shard should have.
	want int
	// load is how many replicas a node has, heads of how many shards it is the
	// preferred leader.
	load, heads map[string]int
}

func nodeOf(server string) string {
	node, _, _ := strings.Cut(server, "/")
	return node
}

// each asks for a move of every shard that is not moving.
func (p *planner) each(step func(group uint32, placed Placement) *shoalpb.Place) (plan []*shoalpb.Place) {
	for i, placed := range p.m.placement {
		if placed.Moving() {
			continue
		}
		if move := step(uint32(i+1), placed); move != nil {
			plan = append(plan, move)
		}
	}
	return plan
}

// Move is the change of placement that begins a move. joining and leaving may be
// "".
func (p Placement) Move(group uint32, joining, leaving string) *shoalpb.Place {
	return &shoalpb.Place{Group: group, Version: p.Version, Replicas: p.Replicas, Joining: joining, Leaving: leaving}
}

// replace moves a replica away from where it must not, or should not, stay.
func (p *planner) replace(group uint32, placed Placement) *shoalpb.Place {
	for _, r := range placed.Replicas {
		n, member := p.m.Node(nodeOf(r))
		gone := !p.m.current(r)
		if !gone && !n.Leaving && !n.Drained {
			continue
		}
		// A node that has lost its disk gets the same replica again.
		if gone && member && n.Up && !n.Leaving && !n.Drained {
			return placed.Move(group, ServerID(&shoalpb.NodeDisk{Node: n.Info.Node, Disk: n.Info.Disk}), r)
		}
		if joining := p.candidate(group, placed, gone || n.Leaving); joining != "" {
			return placed.Move(group, joining, r)
		}
		if (gone || n.Leaving) && len(placed.Replicas) > max(p.want, 1) {
			return placed.Move(group, "", r)
		}
	}
	return nil
}

// fill adds a replica where one is missing.
func (p *planner) fill(group uint32, placed Placement) *shoalpb.Place {
	if len(placed.Replicas) >= p.want {
		return nil
	}
	if joining := p.candidate(group, placed, true); joining != "" {
		return placed.Move(group, joining, "")
	}
	return nil
}

// candidate is the least loaded server that could take a replica, "" for none:
// of a process that is up and whose node has no replica yet. A drained one only
// if need be.
func (p *planner) candidate(group uint32, placed Placement, needed bool) string {
	var best Node
	for _, n := range p.m.Nodes() {
		taken := slices.ContainsFunc(placed.Replicas, func(r string) bool { return nodeOf(r) == n.Info.Node })
		if taken || !n.Up || n.Leaving || n.Drained && !needed {
			continue
		}
		if best.Info == nil || p.better(group, n, best) {
			best = n
		}
	}
	if best.Info == nil {
		return ""
	}
	return best.Info.Node + "/" + best.Info.Disk
}

func (p *planner) better(group uint32, a, b Node) bool {
	if a.Drained != b.Drained {
		return b.Drained
	}
	return cmp.Or(
		cmp.Compare(p.load[a.Info.Node], p.load[b.Info.Node]),
		cmp.Compare(weight(group, b.Info.Node), weight(group, a.Info.Node)),
	) < 0
}

// balance moves a replica from the most to the least loaded of the settled
// nodes, if they differ by two or more. It names every shard that could be the
// one.
func (p *planner) balance(settled func(node string) bool) (plan []*shoalpb.Place) {
	var most, least *Node
	for _, n := range p.m.Nodes() {
		if !n.Up || n.Leaving || n.Drained || !settled(n.Info.Node) {
			continue
		}
		if most == nil || p.load[n.Info.Node] > p.load[most.Info.Node] {
			most = &n
		}
		if least == nil || p.load[n.Info.Node] < p.load[least.Info.Node] {
			least = &n
		}
	}
	if most == nil || p.load[most.Info.Node]-p.load[least.Info.Node] < 2 {
		return nil
	}
	from, to := most.Info.Node+"/"+most.Info.Disk, least.Info.Node+"/"+least.Info.Disk
	return p.each(func(group uint32, placed Placement) *shoalpb.Place {
		has := func(r string) bool { return nodeOf(r) == least.Info.Node }
		if !slices.Contains(placed.Replicas, from) || slices.ContainsFunc(placed.Replicas, has) {
			return nil
		}
		return placed.Move(group, to, from)
	})
}

// prefer puts another replica first: that of a node that may lead, and is the
// preferred leader of fewer shards.
func (p *planner) prefer(group uint32, placed Placement) *shoalpb.Place {
	best := 0
	for i, r := range placed.Replicas {
		if p.mayLead(r) && (!p.mayLead(placed.Replicas[best]) || p.heads[nodeOf(r)] < p.heads[nodeOf(placed.Replicas[best])]) {
			best = i
		}
	}
	first, other := nodeOf(placed.Replicas[0]), nodeOf(placed.Replicas[best])
	if best == 0 || p.mayLead(placed.Replicas[0]) && p.heads[first]-p.heads[other] < 2 {
		return nil
	}
	p.heads[first]--
	p.heads[other]++
	replicas := slices.Clone(placed.Replicas)
	replicas[0], replicas[best] = replicas[best], replicas[0]
	return &shoalpb.Place{Group: group, Version: placed.Version, Replicas: replicas}
}

func (p *planner) mayLead(server string) bool {
	n, ok := p.m.Node(nodeOf(server))
	return ok && p.m.current(server) && !n.Leaving && !n.Drained
}
