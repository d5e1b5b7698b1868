package cluster

import (
	"cmp"
	"context"
	"slices"

	"github.com/shoalmq/shoal/cluster/directory"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// The directory's own members: every node has a replica; the first few vote.

// maxVoters bounds the directory's voters: with five, two may be down; more only
// make each of its entries dearer.
const maxVoters = 5

// votersOf is how many of n nodes vote: a fourth voter would survive nothing that
// three do not.
func votersOf(n int) int {
	switch {
	case n >= maxVoters:
		return maxVoters
	case n == 4:
		return 3
	}
	return n
}

// census is what decides about the directory's members.
type census struct {
	nodes []directory.Node
	// here are the servers of this cluster that gossip shows, of disks that may
	// come in.
	here []string
}

func (r *reconciler) census() (c census) {
	members := r.n.gossip.Members()
	r.g.read(func(m machine) {
		d := m.(*directoryMachine)
		c.nodes = d.Nodes()
		for _, m := range members {
			if m.ClusterID == d.ClusterID() && m.Disk != "" && !d.Refused(m.Node, m.Disk) {
				c.here = append(c.here, m.Node+"/"+m.Disk)
			}
		}
	})
	return c
}

func serverOf(n directory.Node) string { return n.Info.Node + "/" + n.Info.Disk }

// current tells whether a server is a member with its node's disk of today.
func (c *census) current(server string) bool {
	return slices.ContainsFunc(c.nodes, func(n directory.Node) bool { return serverOf(n) == server })
}

// voters are the servers that should vote: of nodes that stay, those that do so
// already before others. A node that is merely down keeps its vote.
func (c *census) voters(s *standing) (wanted []string) {
	type choice struct {
		server  string
		drained bool
		votes   bool
	}
	var choices []choice
	staying := 0
	for _, n := range c.nodes {
		if n.Leaving {
			continue
		}
		staying++
		if x, member := s.find(serverOf(n)); member && (x.voter || n.Up) {
			choices = append(choices, choice{x.server, n.Drained, x.voter})
		}
	}
	rank := func(b bool) int { return map[bool]int{false: 0, true: 1}[b] }
	slices.SortStableFunc(choices, func(a, b choice) int {
		return cmp.Or(cmp.Compare(rank(a.drained), rank(b.drained)), cmp.Compare(rank(b.votes), rank(a.votes)))
	})
	for _, x := range choices[:min(len(choices), votersOf(staying))] {
		wanted = append(wanted, x.server)
	}
	return wanted
}

// step is the next change of the directory's configuration, if one is due: who
// is missing comes in as a non-voter, who should vote does once it is caught up,
// and only then others lose their votes or leave.
func (c *census) step(s *standing) (what shoalpb.ReconfigureRequest_Change, server string) {
	for _, server := range c.here {
		if _, member := s.find(server); !member {
			return shoalpb.ReconfigureRequest_CHANGE_ADD_NONVOTER, server
		}
	}
	wanted := c.voters(s)
	for _, server := range wanted {
		if x, _ := s.find(server); !x.voter {
			return shoalpb.ReconfigureRequest_CHANGE_ADD_VOTER, server
		}
	}
	for _, x := range s.replicas {
		switch {
		case x.voter && !slices.Contains(wanted, x.server) && len(wanted) > 0:
			if c.current(x.server) {
				return shoalpb.ReconfigureRequest_CHANGE_DEMOTE, x.server
			}
			return shoalpb.ReconfigureRequest_CHANGE_REMOVE, x.server
		case !x.voter && !c.current(x.server) && !slices.Contains(c.here, x.server):
			return shoalpb.ReconfigureRequest_CHANGE_REMOVE, x.server
		}
	}
	return shoalpb.ReconfigureRequest_CHANGE_NONE, ""
}

// members takes one step with the directory's members, and forgets nodes that
// have left.
func (r *reconciler) members(ctx context.Context) (busy bool, err error) {
	s, err := r.g.look(ctx)
	if err != nil {
		return false, err
	}
	c := r.census()
	if what, server := c.step(s); what != shoalpb.ReconfigureRequest_CHANGE_NONE {
		return true, r.g.change(s, what, server)
	}
	for _, n := range c.nodes {
		if x, member := s.find(serverOf(n)); !n.Leaving || member && x.voter {
			continue
		}
		if r.placedOn(n.Info.Node) {
			continue
		}
		r.n.log.Info("a node has left the cluster", "node", n.Info.Node, "disk", n.Info.Disk)
		_, err := r.g.commit(ctx, &shoalpb.Proposal{RemoveNode: &shoalpb.RemoveNode{Node: n.Info.Node, Disk: n.Info.Disk}})
		return true, err
	}
	return false, nil
}

// placedOn tells whether a placement names a node.
func (r *reconciler) placedOn(node string) (named bool) {
	r.g.read(func(m machine) {
		d := m.(*directoryMachine)
		for id := uint32(1); id <= d.Shards(); id++ {
			named = named || slices.ContainsFunc(d.Placed(id).Homes(), func(home string) bool { return nodeOf(home) == node })
		}
	})
	return named
}
