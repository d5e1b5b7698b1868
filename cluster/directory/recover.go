package directory

import (
	"maps"
	"slices"

	shoalpb "github.com/shoalmq/shoal/proto"
	"google.golang.org/protobuf/proto"
)

// applyRecover makes this copy the directory of a new cluster of one node: the
// majority is lost for good. It returns why not.
//
// Nothing of the lost nodes may count again, and they may have gone on after this
// copy was made. So the cluster has a new id, which they refuse; boots and the
// fence number jump over all that they can have reached; all routes are dropped,
// since the recovered shards tell theirs anew. A shard that the disk has no
// replica of begins empty.
func (m *Machine) applyRecover(r *shoalpb.Recover, eff *Effects) string {
	if m.clusterID == "" {
		return "the cluster is not born"
	}
	m.clusterID = r.ClusterId
	m.in.Adopt(m.shards)
	m.in.Jump(recoverJump)
	for _, name := range slices.Sorted(maps.Keys(m.nodes)) {
		n := m.nodes[name]
		n.Up, n.Drained, n.Leaving = false, false, false
		if name != r.Server.Node && !n.removed {
			n.removed = true
			n.refuse(n.Info.Disk)
		}
		boot := m.in.MinBoot(name) + recoverJump
		if name == r.Server.Node {
			boot = max(m.in.MinBoot(name), 1)
		}
		n.Fence = m.fence(name, boot, eff)
	}
	m.keep(r.Server)
	m.dropRoutes()
	self := ServerID(r.Server)
	for i := range m.placement {
		p := &m.placement[i]
		if slices.Contains(r.Kept, uint32(i+1)) {
			*p = Placement{Replicas: []string{self}, Version: p.Version + 1}
		} else {
			*p = Placement{Replicas: []string{self}, Version: 1, Founders: []string{self}}
		}
	}
	eff.Nodes = true
	return ""
}

// keep makes server the disk of its node, whatever has become of it.
func (m *Machine) keep(server *shoalpb.NodeDisk) {
	n := m.nodes[server.Node]
	if n == nil {
		n = &Node{Info: &shoalpb.NodeInfo{Node: server.Node, Disk: server.Disk, Version: m.version}}
		m.nodes[server.Node] = n
	}
	n.refused = slices.DeleteFunc(slices.Clone(n.refused), func(disk string) bool { return disk == server.Disk })
	if n.Info.Disk != server.Disk {
		n.refuse(n.Info.Disk)
		info := proto.Clone(n.Info).(*shoalpb.NodeInfo)
		info.Disk, info.Boot = server.Disk, 0
		n.Info = info
	}
	n.removed = false
}

// dropRoutes forgets all routes.
func (m *Machine) dropRoutes() {
	m.routes.trie.All(func(filter string, _ *targetSet) bool { m.touch(filter); return true })
	m.routes.eachShare(func(sh *share) { m.touch(sh.name) })
	m.routes = routes{ids: map[Source]int{}, generation: m.routes.generation + 1, touch: m.touch}
}
