package directory

import (
	"fmt"
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
	m.placement = Place(b.Shards, Replicas, b.Members)
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
func (m *Machine) applyNodeUp(info *shoalpb.NodeInfo, eff *Effects) string {
	if refused := m.refuse(info); refused != "" {
		return refused
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
	m.nodes[info.Node] = &Node{Info: info, Up: true, Fence: m.fence(info.Node, info.Boot, eff)}
	m.raiseVersion()
	return ""
}

// refuse returns why the process that info tells of must not be let in.
func (m *Machine) refuse(info *shoalpb.NodeInfo) string {
	if m.clusterID == "" {
		return "the cluster is not born"
	}
	if refused := checkNames(info.Node, info.Disk); refused != "" {
		return refused
	}
	if info.Version < m.version {
		return fmt.Sprintf("this build serves cluster version %d, the cluster has %d", info.Version, m.version)
	}
	known := m.nodes[info.Node]
	switch {
	case known == nil:
	case known.Info.Disk != info.Disk && known.Up:
		return fmt.Sprintf("node %s is up with another disk, %s", info.Node, known.Info.Disk)
	case known.Info.Disk == info.Disk && info.Boot < known.Info.Boot:
		return fmt.Sprintf("disk %s of node %s is rolled back: boot %d was seen, this is %d", info.Disk, info.Node, known.Info.Boot, info.Boot)
	}
	if lowest := max(1, m.in.MinBoot(info.Node)); info.Boot < lowest {
		return fmt.Sprintf("boot %d of node %s is fenced: it needs %d or more", info.Boot, info.Node, lowest)
	}
	return ""
}

// applyNodeDown fences a process, if the node has no other by now.
func (m *Machine) applyNodeDown(down *shoalpb.NodeDown, eff *Effects) {
	n := m.nodes[down.Node]
	if n == nil || !n.Up || n.Info.Boot != down.Boot {
		return
	}
	n.Up = false
	n.Fence = m.fence(down.Node, down.Boot+1, eff)
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
		lowest = min(lowest, n.Info.Version)
	}
	m.version = max(m.version, lowest)
}
