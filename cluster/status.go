package cluster

import (
	"encoding/hex"
	"fmt"

	"github.com/hashicorp/raft"
)

// Status is a node's view of itself and the cluster, for people and their
// tools.
type Status struct {
	Node      string `json:"node"`
	Disk      string `json:"disk"`
	Boot      uint64 `json:"boot"`
	ClusterID string `json:"cluster_id"`
	Version   uint32 `json:"version"`
	Build     string `json:"build"`
	Ready     bool   `json:"ready"`
	// Reason says why the node is not ready.
	Reason string `json:"reason,omitempty"`
	// Lease tells whether the node holds a lease of the directory's leader.
	Lease bool `json:"lease"`
	// DiskFree is the free space of the data directory's file system in bytes, 0
	// if it is unknown.
	DiskFree uint64        `json:"disk_free"`
	Nodes    []NodeStatus  `json:"nodes"`
	Groups   []GroupStatus `json:"groups"`
	// Placement is where the shards' replicas should be.
	Placement []PlacementStatus `json:"placement"`
	// Slow names what has kept others waiting for more than a second, as this
	// node sees it.
	Slow []string `json:"slow,omitempty"`
	// Waiting is what keeps replicas from moving to where they should be, as the
	// directory's leader knows it; only there.
	Waiting string `json:"waiting,omitempty"`
}

// PlacementStatus is the placement of one shard.
type PlacementStatus struct {
	Group string `json:"group"`
	// Replicas are "node/disk", the preferred leader first.
	Replicas []string `json:"replicas"`
	// Version counts changes; 1 is the placement of birth.
	Version uint64 `json:"version"`
	// Joining and Leaving are the replicas that are being added and removed.
	Joining string `json:"joining,omitempty"`
	Leaving string `json:"leaving,omitempty"`
}

// NodeStatus is what the directory knows of a node.
type NodeStatus struct {
	Node string `json:"node"`
	Disk string `json:"disk"`
	Boot uint64 `json:"boot"`
	Up   bool   `json:"up"`
	// Drained and Leaving are what an operator asked for.
	Drained bool `json:"drained,omitempty"`
	Leaving bool `json:"leaving,omitempty"`
	// Build and Version are those of its latest process.
	Build   string `json:"build"`
	Version uint32 `json:"version"`
	RPC     string `json:"rpc_addr"`
	HTTP    string `json:"http_addr"`
	MQTT    string `json:"mqtt_addr"`
}

// GroupStatus is this node's replica of one raft group.
type GroupStatus struct {
	Group    string   `json:"group"`
	State    string   `json:"state"`
	Leader   string   `json:"leader"`
	Term     uint64   `json:"term"`
	Applied  uint64   `json:"applied"`
	Replicas []string `json:"replicas"`
	// Sessions, Queued, Retained and Outbox are a shard's figures.
	Sessions int `json:"sessions"`
	Queued   int `json:"queued"`
	Retained int `json:"retained"`
	Outbox   int `json:"outbox"`
}

// Status tells what this node sees.
func (n *Node) Status() Status {
	s := Status{Node: n.config.NodeID, Disk: n.disk, Boot: n.boot, ClusterID: n.clusterID(), Build: n.config.Build}
	if err := n.Ready(); err != nil {
		s.Reason = err.Error()
	}
	s.Ready = s.Reason == ""
	s.Slow = n.slow()
	s.Lease = n.lease.valid()
	if free, err := n.watch.freeBytes(); err == nil {
		s.DiskFree = free
	}
	if p := n.proc.Load(); p != nil {
		s.Boot = p.boot
	}
	if w := n.waiting.Load(); w != nil {
		s.Waiting = *w
	}
	n.readDirectory(func(d *directoryMachine) {
		s.Version = d.Version()
		for _, x := range d.Nodes() {
			s.Nodes = append(s.Nodes, NodeStatus{
				Node: x.Info.Node, Disk: x.Info.Disk, Boot: x.Info.Boot, Up: x.Up,
				Drained: x.Drained, Leaving: x.Leaving, Build: x.Info.Build, Version: x.Info.Version,
				RPC: x.Info.RpcAddr, HTTP: x.Info.HttpAddr, MQTT: x.Info.MqttAddr,
			})
		}
		for id := uint32(1); id <= d.Shards(); id++ {
			p := d.Placed(id)
			s.Placement = append(s.Placement, PlacementStatus{groupName(id), p.Replicas, p.Version, p.Joining, p.Leaving})
		}
	})
	for _, g := range n.allGroups() {
		s.Groups = append(s.Groups, g.status())
	}
	return s
}

func (g *group) status() GroupStatus {
	r := g.raftNow.Load()
	s := GroupStatus{Group: g.name, State: r.State().String(), Leader: g.leader(), Term: r.CurrentTerm(), Applied: g.applied()}
	if f := r.GetConfiguration(); f.Error() == nil {
		for _, x := range f.Configuration().Servers {
			s.Replicas = append(s.Replicas, fmt.Sprintf("%s (%s)", nodeOf(string(x.ID)), suffrage(x.Suffrage)))
		}
	}
	if g.id != 0 {
		g.read(func(m machine) {
			stats := m.(*shardMachine).Stats()
			s.Sessions, s.Queued, s.Retained, s.Outbox = stats.Sessions, stats.Queued, stats.Retained, stats.OutboxEntries
		})
	}
	return s
}

func suffrage(s raft.ServerSuffrage) string {
	if s == raft.Voter {
		return "voter"
	}
	return "non-voter"
}

// GroupDigest is a hash of one replica's complete state at one index. Replicas
// of a group that have applied the same index have the same digest; a
// difference is an alarm.
type GroupDigest struct {
	Group   string `json:"group"`
	Applied uint64 `json:"applied"`
	Digest  string `json:"digest"`
}

// Digests hashes the state of every replica on this node. It takes time in
// proportion to the state, during which a group does not apply.
func (n *Node) Digests() (list []GroupDigest) {
	for _, g := range n.allGroups() {
		g.read(func(m machine) {
			sum := m.digest()
			list = append(list, GroupDigest{g.name, m.applied(), hex.EncodeToString(sum[:])})
		})
	}
	return list
}
