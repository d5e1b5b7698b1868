package cluster

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// Overview is the whole cluster as one node can put it together: what the
// directory says, and what every node that can be reached says of itself.
type Overview struct {
	ClusterID string   `json:"cluster_id"`
	Version   uint32   `json:"version"`
	Members   []Member `json:"members"`
	Shards    []Shard  `json:"shards"`
	// Waiting is what keeps replicas from moving to where they should be, "" if
	// nothing does.
	Waiting string `json:"waiting,omitempty"`
}

// Member is one node of the cluster.
type Member struct {
	Node string `json:"node"`
	Disk string `json:"disk"`
	Boot uint64 `json:"boot"`
	// State is up, down or silent: up as far as the directory knows, but it did
	// not answer.
	State string `json:"state"`
	// Wish is what an operator wants of it: drained, leaving, or "".
	Wish    string `json:"wish,omitempty"`
	Build   string `json:"build"`
	Version uint32 `json:"version"`
	Ready   bool   `json:"ready"`
	// Reason says why it is not ready.
	Reason string `json:"reason,omitempty"`
	// Lease and DiskFree (bytes, 0 if unknown) are what the node says itself.
	Lease    bool   `json:"lease"`
	DiskFree uint64 `json:"disk_free"`
	// Leads counts shards, Replicas those placed on it.
	Leads    int    `json:"leads"`
	Replicas int    `json:"replicas"`
	MQTT     string `json:"mqtt_addr"`
	HTTP     string `json:"http_addr"`
}

// Shard is one shard with its replicas.
type Shard struct {
	Shard    string    `json:"shard"`
	Leader   string    `json:"leader"`
	Replicas []Replica `json:"replicas"`
	// Sessions, Queued, Retained and Outbox are the leader's figures.
	Sessions int `json:"sessions"`
	Queued   int `json:"queued"`
	Retained int `json:"retained"`
	Outbox   int `json:"outbox"`
}

// Replica is one replica of a shard, as its node tells.
type Replica struct {
	Node string `json:"node"`
	Disk string `json:"disk"`
	// State is leader, follower, another of raft's words, or unknown.
	State string `json:"state"`
	// Change is joining or leaving while the replica is being moved.
	Change string `json:"change,omitempty"`
	// Behind is how many entries it lacks of what the leader has applied.
	Behind uint64 `json:"behind"`
}

// Member returns a member by its name, nil if there is none.
func (o *Overview) Member(node string) *Member {
	for i := range o.Members {
		if o.Members[i].Node == node {
			return &o.Members[i]
		}
	}
	return nil
}

// overviewTimeout bounds the wait for nodes that do not answer.
const overviewTimeout = 2 * time.Second

// Overview asks all nodes at once.
func (n *Node) Overview(ctx context.Context) Overview {
	own := n.Status()
	o := Overview{ClusterID: own.ClusterID, Version: own.Version}
	said := n.askStatus(ctx, own)
	for _, s := range said {
		if s.Waiting != "" {
			o.Waiting = s.Waiting
		}
	}
	for _, x := range own.Nodes {
		o.Members = append(o.Members, member(x, own, said))
	}
	for _, p := range own.Placement {
		o.Shards = append(o.Shards, shardOverview(p, said))
	}
	for i, m := range o.Members {
		for _, s := range o.Shards {
			if s.Leader == m.Node {
				o.Members[i].Leads++
			}
		}
	}
	return o
}

// askStatus returns what each node that answers says, by name.
func (n *Node) askStatus(parent context.Context, own Status) map[string]Status {
	ctx, cancel := context.WithTimeout(parent, overviewTimeout)
	defer cancel()
	said := map[string]Status{own.Node: own}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, x := range own.Nodes {
		if x.Node == own.Node || !x.Up {
			continue
		}
		wg.Go(func() {
			peer, err := n.peer(x.Node)
			if err != nil {
				return
			}
			reply, err := peer.Hello(ctx, &shoalpb.HelloRequest{ClusterId: own.ClusterID})
			var s Status
			if err != nil || json.Unmarshal(reply.Status, &s) != nil {
				return
			}
			mu.Lock()
			said[x.Node] = s
			mu.Unlock()
		})
	}
	wg.Wait()
	return said
}

func member(x NodeStatus, own Status, said map[string]Status) Member {
	m := Member{Node: x.Node, Disk: x.Disk, Boot: x.Boot, State: "down", Build: x.Build, Version: x.Version, MQTT: x.MQTT, HTTP: x.HTTP}
	s, answers := said[x.Node]
	switch {
	case x.Up && answers:
		m.State, m.Ready, m.Reason = "up", s.Ready, s.Reason
		m.Lease, m.DiskFree = s.Lease, s.DiskFree
	case x.Up:
		m.State = "silent"
	}
	switch {
	case x.Leaving:
		m.Wish = "leaving"
	case x.Drained:
		m.Wish = "drained"
	}
	for _, p := range own.Placement {
		if slices.ContainsFunc(append([]string{p.Joining}, p.Replicas...), func(r string) bool { return nodeOf(r) == x.Node }) {
			m.Replicas++
		}
	}
	return m
}

func shardOverview(p PlacementStatus, said map[string]Status) Shard {
	s := Shard{Shard: p.Group}
	groups := map[string]GroupStatus{}
	for node, status := range said {
		for _, g := range status.Groups {
			if g.Group == p.Group {
				groups[node] = g
			}
		}
	}
	var term, applied uint64
	for node, g := range groups {
		// One that was deposed may not know it yet.
		if g.State == raft.Leader.String() && g.Term > term {
			s.Leader, term, applied = node, g.Term, g.Applied
			s.Sessions, s.Queued, s.Retained, s.Outbox = g.Sessions, g.Queued, g.Retained, g.Outbox
		}
	}
	homes := p.Replicas
	if p.Joining != "" {
		homes = append(slices.Clone(homes), p.Joining)
	}
	for _, home := range homes {
		node, disk, _ := strings.Cut(home, "/")
		r := Replica{Node: node, Disk: disk, State: "unknown"}
		if g, ok := groups[node]; ok && said[node].Disk == disk {
			r.State = strings.ToLower(g.State)
			r.Behind = applied - min(applied, g.Applied)
		}
		switch home {
		case p.Joining:
			r.Change = "joining"
		case p.Leaving:
			r.Change = "leaving"
		}
		s.Replicas = append(s.Replicas, r)
	}
	return s
}
