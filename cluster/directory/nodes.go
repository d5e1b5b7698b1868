package directory

import (
	"fmt"
	"slices"
	"strings"

	shoalpb "github.com/shoalmq/shoal/proto"
	"google.golang.org/protobuf/proto"
)

// applyBirth makes the cluster. It returns why not.
func (m *Machine) applyBirth(b *shoalpb.Birth, eff *Effects) string {
	if m.clusterID != "" {
		return "the cluster is born already: " + m.clusterID
	}
	if b.ClusterId == "" || b.Shards == 0 || b.Shards > MaxShards || len(b.Members) == 0 || b.Version == 0 {
		return "a birth needs an id, a version, members and 1 to 1024 shards"
	}
	for i, member := range b.Members {
		if refused := checkNames(member.Node, member.Disk); refused != "" {
			return refused
		}
		if i > 0 && member.Node <= b.Members[i-1].Node {
			return "the members are not in name order"
		}
	}
	m.clusterID, m.version, m.shards = b.ClusterId, b.Version, b.Shards
	m.slots = make([]uint32, Slots)
	for i := range m.slots {
		m.slots[i] = uint32(i)%b.Shards + 1
	}
	for _, replicas := range Place(b.Shards, Replicas, b.Members) {
		m.placement = append(m.placement, Placement{Replicas: replicas, Version: 1, Founders: replicas})
	}
	for _, member := range b.Members {
		m.nodes[member.Node] = &Node{Info: &shoalpb.NodeInfo{Node: member.Node, Disk: member.Disk}}
	}
	eff.Nodes = true
	return ""
}

// checkNames returns what is wrong with names that must make a ServerID.
func checkNames(node, disk string) string {
	if node == "" || disk == "" || strings.Contains(node, "/") || strings.Contains(disk, "/") {
		return fmt.Sprintf("%q, %q: names of nodes and disks are not empty and have no slash", node, disk)
	}
	return ""
}

// applyNodeUp lets a process in and fences all lower boots of its node. It
// returns why not.
func (m *Machine) applyNodeUp(up *shoalpb.NodeUp, eff *Effects) string {
	info := up.Node
	if refused := m.Refuse(info); refused.Reason != "" {
		return refused.Reason
	}
	known := m.nodes[info.Node]
	if known != nil && known.Up && known.Info.Boot == info.Boot {
		// The same process again; its addresses may have changed.
		if !proto.Equal(known.Info, info) {
			known.Info = info
			eff.Nodes = true
		}
		return ""
	}
	now := &Node{Info: info, Up: true}
	if known != nil {
		now.refused = known.refused
		if known.Info.Disk != info.Disk && !known.removed {
			now.refuse(known.Info.Disk)
		}
		if !known.removed {
			now.Drained, now.Leaving = known.Drained, known.Leaving
		}
	}
	now.Fence = m.fence(info.Node, info.Boot, eff)
	m.nodes[info.Node] = now
	m.raiseVersion()
	return ""
}

// refuse makes a disk one that never comes back.
func (n *Node) refuse(disk string) {
	n.refused = append(slices.Clone(n.refused), disk)
	n.refused = n.refused[max(0, len(n.refused)-refusedDisks):]
}

// Refused tells whether a disk is one that never comes back.
func (m *Machine) Refused(node, disk string) bool {
	n := m.nodes[node]
	return n != nil && slices.Contains(n.refused, disk)
}

// Refusal says why a process is not let in. The zero Refusal lets it in.
type Refusal struct {
	// Reason is in words for the operator.
	Reason string
	// Wait: the reason may pass.
	Wait bool
	// MinBoot, if not 0, is the boot that the process needs.
	MinBoot uint64
	// BadDisk: the disk has forgotten what the directory knows of it.
	BadDisk bool
}

// Refuse tells whether a NodeUp would be refused now.
func (m *Machine) Refuse(info *shoalpb.NodeInfo) Refusal {
	if m.clusterID == "" {
		return Refusal{Reason: "the cluster is not born", Wait: true}
	}
	if reason := checkNames(info.Node, info.Disk); reason != "" {
		return Refusal{Reason: reason}
	}
	if info.Version < m.version {
		return Refusal{Reason: fmt.Sprintf("this build serves cluster version %d, the cluster has %d", info.Version, m.version)}
	}
	known := m.nodes[info.Node]
	switch {
	case known == nil:
	case slices.Contains(known.refused, info.Disk) && known.removed:
		return Refusal{Reason: fmt.Sprintf("node %s was removed from the cluster with disk %s: with an empty data directory it may join as a new one", info.Node, info.Disk)}
	case slices.Contains(known.refused, info.Disk):
		return Refusal{Reason: fmt.Sprintf("disk %s of node %s was replaced by disk %s and has no place in the cluster any more", info.Disk, info.Node, known.Info.Disk)}
	case known.removed:
	case known.Info.Disk != info.Disk && known.Up:
		return Refusal{Reason: fmt.Sprintf("node %s is up with another disk, %s", info.Node, known.Info.Disk), Wait: true}
	case known.Info.Disk == info.Disk && info.Boot < known.Info.Boot:
		return Refusal{Reason: fmt.Sprintf("disk %s of node %s is rolled back: boot %d was seen, this is %d", info.Disk, info.Node, known.Info.Boot, info.Boot), BadDisk: true}
	}
	if lowest := max(1, m.in.MinBoot(info.Node)); info.Boot < lowest {
		return Refusal{Reason: fmt.Sprintf("boot %d of node %s is fenced: it needs %d or more", info.Boot, info.Node, lowest), MinBoot: lowest}
	}
	return Refusal{}
}

// applySetNode notes what an operator wants of a node. It returns why not.
func (m *Machine) applySetNode(s *shoalpb.SetNode, eff *Effects) string {
	n := m.nodes[s.Node]
	if n == nil || n.removed {
		return fmt.Sprintf("there is no node %q", s.Node)
	}
	if n.Drained != s.Drained || n.Leaving != s.Leaving {
		n.Drained, n.Leaving = s.Drained, s.Leaving
		eff.Nodes = true
	}
	return ""
}

// applyRemoveNode forgets a node that is leaving and that no placement names: its
// processes are fenced, its disk is refused for ever. It returns why not.
func (m *Machine) applyRemoveNode(r *shoalpb.RemoveNode, eff *Effects) string {
	n := m.nodes[r.Node]
	switch {
	case n == nil || n.removed:
		return fmt.Sprintf("there is no node %q", r.Node)
	case n.Info.Disk != r.Disk:
		return fmt.Sprintf("node %s has another disk, %s", r.Node, n.Info.Disk)
	case !n.Leaving: // an operator has taken it back meanwhile
		return fmt.Sprintf("node %s is not leaving", r.Node)
	}
	for i, p := range m.placement {
		for _, home := range p.Homes() {
			if node, _, _ := strings.Cut(home, "/"); node == r.Node {
				return fmt.Sprintf("node %s has a replica of shard %d", r.Node, i+1)
			}
		}
	}
	n.Up, n.Drained, n.Leaving, n.removed = false, false, false, true
	n.refuse(r.Disk)
	n.Fence = m.fence(r.Node, max(n.Info.Boot+1, m.in.MinBoot(r.Node)), eff)
	m.raiseVersion()
	return ""
}

// applyNodeDown fences a process, if the node has no other by now.
func (m *Machine) applyNodeDown(down *shoalpb.NodeDown, eff *Effects) string {
	n := m.nodes[down.Node]
	if n == nil || !n.Up || n.Info.Boot != down.Boot {
		return ""
	}
	n.Up = false
	n.Fence = m.fence(down.Node, down.Boot+1, eff)
	return ""
}

// fence fences all boots of node below boot and returns the new fence number.
func (m *Machine) fence(node string, boot uint64, eff *Effects) uint64 {
	number := m.in.FenceNumber() + 1
	m.in.Fence(number, []*shoalpb.NodeBoot{{Node: node, Boot: boot}})
	m.routes.fence(node, boot)
	eff.Fences, eff.Nodes = true, true
	return number
}

// raiseVersion sets the cluster version to what all nodes can serve. A founding
// member that never announced itself holds it back.
func (m *Machine) raiseVersion() {
	lowest := ^uint32(0)
	for _, n := range m.nodes {
		if !n.removed {
			lowest = min(lowest, n.Info.Version)
		}
	}
	if lowest != ^uint32(0) {
		m.version = max(m.version, lowest)
	}
}
