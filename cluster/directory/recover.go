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
// fence number jump over all that they can have reached. A shard that the disk has
// no replica of begins empty, and its routes go. Those of the others stay until
// the shards have told theirs anew: a message may come before that.
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
	m.dropRoutes(r.Kept)
	self := ServerID(r.Server)
	for i := range m.placement {
		m.placement[i] = Placement{Replicas: []string{self}, Version: m.placement[i].Version + 1}
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

// dropRoutes forgets the routes of the shards that begin empty.
func (m *Machine) dropRoutes(kept []uint32) {
	var filters, shares []string
	m.routes.trie.All(func(filter string, _ *targetSet) bool {
		filters = append(filters, filter)
		return true
	})
	m.routes.eachShare(func(sh *share) { shares = append(shares, sh.name) })
	for group := uint32(1); group <= m.shards; group++ {
		if slices.Contains(kept, group) {
			continue
		}
		for _, filter := range filters {
			m.routes.remove(Source{Group: group}, filter)
		}
		for _, name := range shares {
			m.routes.removeShare(Source{Group: group}, name)
		}
	}
}
