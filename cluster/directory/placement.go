package directory

import (
	"fmt"
	"slices"
	"strings"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// Placement is where the replicas of a shard are. Servers are "node/disk". It is
// read-only.
//
// A move names the replica that is being added (Joining), the one that is being
// removed (Leaving), or both, while Replicas are those from before it. It ends
// with Finished, or without either if it is given up. So what is under way can be
// read from the placement and the group's raft configuration alone.
type Placement struct {
	// Replicas serve, the preferred leader first. None is twice on a node.
	Replicas []string
	// Version counts changes, from 1 at birth.
	Version uint64
	// Joining and Leaving are "" for none. Leaving is among Replicas, Joining is
	// not, and its node is not either, unless that is the leaving one's.
	Joining, Leaving string
	// Founders are the replicas at birth: they alone may bootstrap the group,
	// and only while Version is 1.
	Founders []string
}

// Homes are all servers that may have a replica. Who is not among them, nor in
// the group's raft configuration, may throw its replica away.
func (p Placement) Homes() []string {
	if p.Joining == "" {
		return p.Replicas
	}
	return append(slices.Clone(p.Replicas), p.Joining)
}

// Moving tells whether a move is under way.
func (p Placement) Moving() bool { return p.Joining != "" || p.Leaving != "" }

// Finished are the replicas once the move is done: the joining one takes the
// leaving one's place.
func (p Placement) Finished() []string {
	var out []string
	for _, r := range p.Replicas {
		switch {
		case r != p.Leaving:
			out = append(out, r)
		case p.Joining != "":
			out = append(out, p.Joining)
		}
	}
	if p.Joining != "" && p.Leaving == "" {
		out = append(out, p.Joining)
	}
	return out
}

// Placement returns where the serving replicas of a shard are, the preferred
// leader first; nil if there is no such shard. It is read-only.
func (m *Machine) Placement(group uint32) []string { return m.Placed(group).Replicas }

// Placed returns the whole placement of a shard; the zero one if there is no such
// shard.
func (m *Machine) Placed(group uint32) Placement {
	if group == 0 || group > uint32(len(m.placement)) {
		return Placement{}
	}
	return m.placement[group-1]
}

// applyPlace changes the placement of a shard. It returns why not. Two leaders
// of the directory may have planned at the same time, so what was planned from
// another version is refused.
func (m *Machine) applyPlace(p *shoalpb.Place, eff *Effects) string {
	if p.Group == 0 || p.Group > uint32(len(m.placement)) {
		return fmt.Sprintf("there is no shard %d", p.Group)
	}
	now := &m.placement[p.Group-1]
	if p.Version != now.Version {
		return fmt.Sprintf("the placement of shard %d has version %d, not %d", p.Group, now.Version, p.Version)
	}
	next := Placement{p.Replicas, now.Version + 1, p.Joining, p.Leaving, now.Founders}
	if reason := m.checkPlacement(next); reason != "" {
		return reason
	}
	*now = next
	eff.Nodes = true
	return ""
}

// checkPlacement returns what is wrong with a placement.
func (m *Machine) checkPlacement(p Placement) string {
	if len(p.Replicas) == 0 || len(p.Replicas) > MaxReplicas {
		return fmt.Sprintf("a shard has 1 to %d replicas, not %d", MaxReplicas, len(p.Replicas))
	}
	if p.Leaving != "" && !slices.Contains(p.Replicas, p.Leaving) {
		return p.Leaving + " leaves without being a replica"
	}
	if len(p.Finished()) == 0 {
		return "the last replica cannot leave"
	}
	for _, list := range [][]string{p.Replicas, p.Finished()} {
		nodes := map[string]bool{}
		for _, server := range list {
			node, disk, _ := strings.Cut(server, "/")
			if reason := checkNames(node, disk); reason != "" {
				return reason
			}
			if nodes[node] {
				return "two replicas on node " + node
			}
			nodes[node] = true
		}
	}
	if p.Joining != "" && !m.current(p.Joining) {
		return p.Joining + " is not a member with this disk"
	}
	return ""
}

// current tells whether a server is a member with the disk that its node has.
func (m *Machine) current(server string) bool {
	node, disk, _ := strings.Cut(server, "/")
	n, ok := m.Node(node)
	return ok && n.Info.Disk == disk
}
