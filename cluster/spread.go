package cluster

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// runLeaders looks after this node's leaderships.
func (n *Node) runLeaders(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			n.leadOrLeave()
		case <-n.watch.stood:
			n.hand(n.steadyNodes())
		case <-ctx.Done():
			return
		}
	}
}

// leadOrLeave looks after this node's leaderships, once a second. A leader
// without a lease, or one whose copy of the directory lacks fences that others
// have, holds up everyone who needs its groups: it gives them away.
func (n *Node) leadOrLeave() {
	n.mu.RLock()
	draining := n.draining
	n.mu.RUnlock()
	if n.proc.Load() != nil && (!n.lease.valid() || n.knownFence() > n.fenceNumber()) {
		n.behind++
	} else {
		n.behind = 0
	}
	switch {
	case draining || n.behind >= 2:
		n.leave()
	case n.watch.unsteady.Load():
		n.hand(n.steadyNodes())
	case n.watch.unfit():
		n.hand(n.settledNodes())
	case n.behind == 0 && n.drained():
		n.hand(n.undrained())
	case n.behind == 0:
		n.spreadLeaders()
	}
}

// drained tells whether an operator has drained this node.
func (n *Node) drained() (drained bool) {
	n.readDirectory(func(d *directoryMachine) {
		self, _ := d.Node(n.config.NodeID)
		drained = self.Drained || self.Leaving
	})
	return drained
}

// undrained are the other nodes that are up and that no operator has drained.
func (n *Node) undrained() (nodes []string) {
	n.readDirectory(func(d *directoryMachine) {
		for _, x := range d.Nodes() {
			if x.Up && !x.Drained && !x.Leaving {
				nodes = append(nodes, x.Info.Node)
			}
		}
	})
	return nodes
}

// leave gives all leaderships away.
func (n *Node) leave() {
	for _, g := range n.allGroups() {
		if err := g.transfer(""); err != nil {
			g.log.Debug("give leadership away", "err", err)
		}
	}
}

// hand gives this node's leaderships to replicas on nodes that are fit for them;
// one that has no such replica stays.
func (n *Node) hand(fit []string) {
	for _, g := range n.allGroups() {
		r := g.raftNow.Load()
		if r == nil || r.State() != raft.Leader {
			continue
		}
		f := r.GetConfiguration()
		if f.Error() != nil {
			continue
		}
		for _, s := range f.Configuration().Servers {
			if s.ID == n.self || s.Suffrage != raft.Voter || !slices.Contains(fit, nodeOf(string(s.ID))) {
				continue
			}
			err := g.transfer(s.ID)
			if err == nil {
				break
			}
			g.log.Debug("give leadership away", "to", s.ID, "err", err)
		}
	}
}

// spreadLeaders gives the leadership of shards to their preferred replicas, the
// first of their placement, so that leaders are spread over the nodes. One at a
// time, and only to a process that has been up for a while: a leadership
// transfer costs some milliseconds without commits.
func (n *Node) spreadLeaders() {
	settled := n.settledNodes()
	for _, g := range n.allGroups() {
		if g.id == 0 || !g.leads() {
			continue
		}
		var replicas []string
		n.readDirectory(func(d *directoryMachine) { replicas = d.Placement(g.id) })
		if len(replicas) == 0 || replicas[0] == string(n.self) || !slices.Contains(settled, nodeOf(replicas[0])) {
			continue
		}
		to := replicas[0]
		g.log.Debug("gives its leadership to the preferred replica", "to", to)
		if err := g.transfer(raft.ServerID(to)); err != nil {
			g.log.Debug("leadership transfer", "to", to, "err", err)
			n.settled[nodeOf(to)] = seenUp{} // wait again before the next try
		}
		return
	}
}

// seenUp is the process of a node that was up, and since when.
type seenUp struct {
	boot  uint64
	since time.Time
}

// settledNodes are the nodes whose processes have been up for settleTime as
// this node has seen it. Only runLeaders' goroutine uses
// n.settled.
func (n *Node) settledNodes() (settled []string) {
	if n.settled == nil {
		n.settled = make(map[string]seenUp)
	}
	draining := make(map[string]bool)
	for _, m := range n.gossip.Members() {
		draining[m.Node] = m.Draining
	}
	n.readDirectory(func(d *directoryMachine) {
		for _, node := range d.Nodes() {
			name := node.Info.Node
			was := n.settled[name]
			switch {
			case !node.Up || draining[name] || node.Drained || node.Leaving:
				delete(n.settled, name)
			case was.boot != node.Info.Boot:
				n.settled[name] = seenUp{node.Info.Boot, time.Now()}
			case time.Since(was.since) > settleTime:
				settled = append(settled, name)
			}
		}
	})
	return settled
}
