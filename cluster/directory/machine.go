package directory

import (
	"maps"
	"slices"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// Group is the directory's group number; shards are numbered from 1.
const Group = 0

// life is the directory's life: 1 until it is recovered from a lost majority.
const life = 1

// Machine is one replica's copy of the directory. The package comment tells what
// it holds and who may call what when.
type Machine struct {
	applied   uint64
	clusterID string
	version   uint32
	shards    uint32
	slots     []uint32 // the shard of each slot; nil before birth
	nodes     map[string]*Node
	placement []Placement // of shard i+1
	in        *stream.In
	routes    routes
	// dirty are the filters whose routes changed since the last checkpoint.
	dirty map[string]struct{}
	// frozen is the checkpoint that is being written, if any.
	frozen *Checkpoint
	// sweepPage and checkpointPage are those of limits.go, smaller in tests.
	sweepPage      int
	checkpointPage int
}

// Node is what the directory knows of a node. Info is read-only.
type Node struct {
	Info *shoalpb.NodeInfo
	// Up: the process Info.Boot is alive as far as the directory knows. A
	// founding member that never announced itself is down with boot 0.
	Up bool
	// Fence is the fence number of the last NodeUp or NodeDown of this node, 0
	// if there was none.
	Fence uint64
	// Drained and Leaving are what an operator wants: see SetNode.
	Drained, Leaving bool
	// refused are disks the node had before; they never come back.
	refused []string
	// removed: it is no member any more and only kept to be refused.
	removed bool
}

// New returns the directory of a cluster not yet born.
func New() *Machine {
	m := &Machine{
		nodes:  map[string]*Node{},
		in:     stream.NewIn(Group, life),
		routes: routes{ids: map[Source]int{}},
		dirty:  map[string]struct{}{},

		sweepPage:      sweepPage,
		checkpointPage: checkpointPage,
	}
	m.routes.touch = m.touch
	return m
}

// Applied returns the index of the last entry applied.
func (m *Machine) Applied() uint64 { return m.applied }

// ClusterID returns the cluster's id, "" before birth.
func (m *Machine) ClusterID() string { return m.clusterID }

// Version returns the cluster version: what every node can serve. It never
// falls; a node that cannot serve it is not let in.
func (m *Machine) Version() uint32 { return m.version }

// Shards returns the number of shards, 0 before birth.
func (m *Machine) Shards() uint32 { return m.shards }

// ShardOf returns the shard of a Client Identifier or a Topic Name, 0 before
// birth.
func (m *Machine) ShardOf(key string) uint32 {
	if m.slots == nil {
		return 0
	}
	return m.slots[Slot(key)]
}

// ShardOfSlot is the shard of a slot, 0 before birth.
func (m *Machine) ShardOfSlot(slot int) uint32 {
	if m.slots == nil {
		return 0
	}
	return m.slots[slot]
}

// Nodes returns all nodes in name order, without those that were removed.
func (m *Machine) Nodes() []Node {
	nodes := make([]Node, 0, len(m.nodes))
	for _, name := range slices.Sorted(maps.Keys(m.nodes)) {
		if n := m.nodes[name]; !n.removed {
			nodes = append(nodes, *n)
		}
	}
	return nodes
}

// Node returns what is known of a node that was not removed.
func (m *Machine) Node(name string) (Node, bool) {
	n, ok := m.nodes[name]
	if !ok || n.removed {
		return Node{}, false
	}
	return *n, true
}

// FenceNumber returns how many NodeUps and NodeDowns changed something.
func (m *Machine) FenceNumber() uint64 { return m.in.FenceNumber() }

// MinBoot returns the lowest boot of node that is not fenced: a process that
// announces itself needs this or more.
func (m *Machine) MinBoot(node string) uint64 { return m.in.MinBoot(node) }

// FencesSince returns what a group at fence number must be told to catch up: of
// each node that changed later its lowest boot that is not fenced, in the order
// of their last changes.
func (m *Machine) FencesSince(number uint64) []*shoalpb.NodeBoot {
	changed := map[uint64]string{}
	for name, n := range m.nodes {
		if n.Fence > number {
			changed[n.Fence] = name
		}
	}
	var fences []*shoalpb.NodeBoot
	for _, fence := range slices.Sorted(maps.Keys(changed)) {
		name := changed[fence]
		fences = append(fences, &shoalpb.NodeBoot{Node: name, Boot: m.in.MinBoot(name)})
	}
	return fences
}

// RouteIndex returns the highest number consumed of a source's route changes:
// of the process (node, boot), or of shard group if node is empty. All of them
// are visible to Match here.
func (m *Machine) RouteIndex(node string, boot uint64, group uint32) (lastK uint64) {
	return m.in.Last(node, boot, group)
}
