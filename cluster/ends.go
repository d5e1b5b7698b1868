package cluster

import (
	"context"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/shoalmq/shoal/cluster/raftnet"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// A disk that was put back from a copy of its latest boot is found by what other
// servers know it to have had (raftnet.Ends). A server that hears it takes no part
// in that group until the group's leader has said what holds: the leader knows
// which replicas were thrown away and made anew, a peer that lags may not. If the
// leader knows the same, the disk is condemned like one whose boot has fallen.

// suspicions are the groups in which this disk may have lost entries.
type suspicions struct {
	mu     sync.Mutex
	groups map[uint32]suspicion
	wake   signal
}

// suspicion is what a peer knows this disk to have had.
type suspicion struct {
	peer  string
	known uint64
}

// raftEnds are the functions that look at this node's disk and leads.
func (n *Node) raftEnds() raftnet.Ends {
	return raftnet.Ends{Own: n.endOf, Led: n.ledTo, Short: n.suspect}
}

// endOf is where this disk ends in a group, 0 if it has no replica.
func (n *Node) endOf(id uint32) (end uint64) {
	n.mu.RLock()
	g, state := n.groups[id], n.states[id]
	n.mu.RUnlock()
	if g != nil {
		state = g.state
	}
	if state != nil {
		if m, ok := state.Marker(); ok {
			end = m.Index
		}
	}
	last, _ := n.logs.Group(id).LastIndex() // never fails
	return max(end, last)
}

// ledTo is the term in which this node leads a group, and up to where it has
// committed.
func (n *Node) ledTo(id uint32) (term, commit uint64) {
	g := n.group(id)
	if g == nil || !g.leads() {
		return 0, 0
	}
	r := g.raftNow.Load()
	commit = r.CommitIndex()
	if term = r.CurrentTerm(); term != g.term.Load() {
		return 0, 0 // the commit index may be that of a later leader
	}
	return term, commit
}

// suspect notes that a peer knows this disk to have had more of a group.
func (n *Node) suspect(id uint32, peer string, known uint64) {
	s := &n.suspicions
	s.mu.Lock()
	_, before := s.groups[id]
	if s.groups == nil {
		s.groups = make(map[uint32]suspicion)
	}
	s.groups[id] = suspicion{peer, known}
	s.mu.Unlock()
	if !before {
		n.log.Warn("this disk may have been rolled back: it keeps out of the group until the group's leader has been asked",
			"group", groupName(id), "peer", peer, "known", known, "end", n.endOf(id))
	}
	s.wake.set()
}

// runSuspicions asks the groups' leaders about this disk, again and again until
// they have answered.
func (n *Node) runSuspicions(ctx context.Context) {
	for {
		select {
		case <-n.suspicions.wake:
		case <-ctx.Done():
			return
		}
		for id, s := range n.suspicions.all() {
			switch known, err := n.knownToLeader(ctx, id); {
			case err != nil:
				n.log.Debug("ask about this disk", "group", groupName(id), "err", err)
			case known > n.endOf(id):
				_ = n.dir.Condemn(fmt.Sprintf("disk %s is rolled back: %s ends at %d, and the disk is known to have had %d committed entries (first noticed by %s)",
					n.disk, groupName(id), n.endOf(id), known, s.peer))
				return
			default:
				n.suspicions.clear(id)
				n.mux.Trust(id)
				n.log.Info("this disk has all that it had of the group", "group", groupName(id))
			}
		}
		if len(n.suspicions.all()) > 0 {
			pause(ctx, reconcileEvery)
			n.suspicions.wake.set()
		}
	}
}

// knownToLeader asks a group's leader up to which committed entry this disk is
// known to have had the group's log.
func (n *Node) knownToLeader(ctx context.Context, id uint32) (uint64, error) {
	reply, err := n.askReconfigure(ctx, id, shoalpb.ReconfigureRequest_CHANGE_LOOK, "")
	if err != nil {
		return 0, err
	}
	self, _ := standingOf(reply).find(string(n.self))
	return self.known, nil
}

func (s *suspicions) all() map[uint32]suspicion {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[uint32]suspicion, len(s.groups))
	for id, x := range s.groups {
		all[id] = x
	}
	return all
}

func (s *suspicions) clear(id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.groups, id)
}

// configure notes a committed configuration.
func (g *group) configure(index uint64, servers []raft.Server) {
	g.configured.Store(&configuration{index, servers})
	g.mux.Members(g.id, servers)
}

// termOf is the term of an entry of the log, 0 if the log does not have it.
func (g *group) termOf(index uint64) uint64 {
	var l raft.Log
	if err := g.logs.GetLog(index, &l); err != nil {
		return 0
	}
	return l.Term
}
