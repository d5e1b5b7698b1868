package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// A group's leader changes its raft configuration when the directory's leader
// asks it to (reconcile.go), one server at a time (Raft §4.1 of the thesis), and
// only as long as a quorum of what results is alive and caught up.

// replica is a server of a group as its leader knows it.
type replica struct {
	server string
	voter  bool
	// matched is up to where its log is known to agree with the leader's.
	matched uint64
	silent  time.Duration
	// known is the highest committed entry that its disk is known to have had.
	known uint64
}

// standing is how a group is, as its leader knows it.
type standing struct {
	index    uint64 // of the configuration
	last     uint64 // of the leader's log
	replicas []replica
}

// healthy tells whether a replica is alive and caught up.
func (s *standing) healthy(r replica) bool {
	return r.silent < aliveTimeout && r.matched+caughtUpEntries >= s.last
}

func (s *standing) find(server string) (replica, bool) {
	for _, r := range s.replicas {
		if r.server == server {
			return r, true
		}
	}
	return replica{}, false
}

// ill are the replicas that are not healthy, those named left out.
func (s *standing) ill(but ...string) (list []string) {
	for _, r := range s.replicas {
		if !slices.Contains(but, r.server) && !s.healthy(r) {
			list = append(list, r.server)
		}
	}
	return list
}

// quorum tells whether, with server made a voter or none, a quorum of voters is
// healthy.
func (s *standing) quorum(server string, voter bool) error {
	voters, healthy := 0, 0
	for _, r := range s.replicas {
		if r.server == server && !voter || r.server != server && !r.voter {
			continue
		}
		voters++
		if s.healthy(r) {
			healthy++
		}
	}
	if voters == 0 || healthy < voters/2+1 {
		return fmt.Errorf("of the %d voters there would be, %d are alive and caught up", voters, healthy)
	}
	return nil
}

var errChanging = errors.New("the group's configuration is being changed")

// look tells how the group is: its configuration is committed, and no later
// leader existed when look was called.
func (g *group) look(ctx context.Context) (*standing, error) {
	r, term := g.raftNow.Load(), g.term.Load()
	if term == 0 {
		return nil, errNotLeader
	}
	c := g.configured.Load()
	latest := r.GetConfiguration()
	if err := latest.Error(); err != nil {
		return nil, err
	}
	if !slices.Equal(latest.Configuration().Servers, c.servers) {
		return nil, errChanging
	}
	if err := g.confirm(ctx); err != nil {
		return nil, err
	}
	s := &standing{index: c.index, last: r.LastIndex()}
	for _, x := range c.servers {
		p := replica{server: string(x.ID), voter: x.Suffrage == raft.Voter, matched: s.last}
		if x.ID != g.self {
			p.matched, p.silent = g.trans.Load().Progress(term, x.Address)
			p.known = g.mux.Known(g.id, string(x.ID))
		}
		s.replicas = append(s.replicas, p)
	}
	return s, nil
}

// reconfigure is the leader's side of a Reconfigure.
func (n *Node) reconfigure(ctx context.Context, req *shoalpb.ReconfigureRequest) *shoalpb.ReconfigureReply {
	g := n.group(req.Group)
	if g == nil || !g.leads() {
		return &shoalpb.ReconfigureReply{NotLeader: true, Leader: n.hint(req.Group)}
	}
	s, err := g.look(ctx)
	if err == nil && req.Change != shoalpb.ReconfigureRequest_CHANGE_LOOK {
		err = g.change(s, req.Change, req.Server)
	}
	switch {
	case errors.Is(err, errNotLeader) || errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipLost):
		return &shoalpb.ReconfigureReply{NotLeader: true}
	case err != nil:
		return &shoalpb.ReconfigureReply{Error: err.Error()}
	}
	return s.reply()
}

func (s *standing) reply() *shoalpb.ReconfigureReply {
	r := &shoalpb.ReconfigureReply{Last: s.last}
	for _, voters := range []bool{true, false} {
		for _, p := range s.replicas {
			if p.voter != voters {
				continue
			}
			r.Matched = append(r.Matched, p.matched)
			r.Known = append(r.Known, p.known)
			heard := uint64(math.MaxUint64)
			if p.silent < math.MaxInt64 {
				heard = uint64(p.silent.Milliseconds())
			}
			r.HeardMs = append(r.HeardMs, heard)
			if voters {
				r.Voters = append(r.Voters, p.server)
			} else {
				r.Nonvoters = append(r.Nonvoters, p.server)
			}
		}
	}
	return r
}

// standingOf reads a reply.
func standingOf(r *shoalpb.ReconfigureReply) *standing {
	s := &standing{last: r.Last}
	for i, server := range slices.Concat(r.Voters, r.Nonvoters) {
		p := replica{server: server, voter: i < len(r.Voters), silent: math.MaxInt64}
		if i < len(r.Matched) && i < len(r.HeardMs) {
			p.matched = r.Matched[i]
			if r.HeardMs[i] < math.MaxInt64/uint64(time.Millisecond) {
				p.silent = time.Duration(r.HeardMs[i]) * time.Millisecond
			}
		}
		if i < len(r.Known) {
			p.known = r.Known[i]
		}
		s.replicas = append(s.replicas, p)
	}
	return s
}

// change makes one change. One that was made already is no error.
func (g *group) change(s *standing, what shoalpb.ReconfigureRequest_Change, server string) error {
	if !g.changing.TryLock() {
		return errChanging
	}
	defer g.changing.Unlock()
	id, addr := raft.ServerID(server), raft.ServerAddress(server)
	now, member := s.find(server)
	r := g.raftNow.Load()
	switch what {
	case shoalpb.ReconfigureRequest_CHANGE_ADD_NONVOTER:
		if member {
			return nil
		}
		g.trans.Load().Unmatch(addr)
		return g.changed(what, server, r.AddNonvoter(id, addr, s.index, 0))
	case shoalpb.ReconfigureRequest_CHANGE_ADD_VOTER:
		switch {
		case member && now.voter:
			return nil
		case !member:
			return fmt.Errorf("%s is not a member of the group", server)
		case !s.healthy(now):
			return fmt.Errorf("%s is not caught up yet", server)
		}
		if err := s.quorum(server, true); err != nil {
			return err
		}
		return g.changed(what, server, r.AddVoter(id, addr, s.index, 0))
	case shoalpb.ReconfigureRequest_CHANGE_REMOVE, shoalpb.ReconfigureRequest_CHANGE_DEMOTE:
		return g.reduce(s, what, server)
	case shoalpb.ReconfigureRequest_CHANGE_TRANSFER:
		return g.handOver(s, server)
	}
	return fmt.Errorf("unknown change %v", what)
}

// reduce takes a server its vote, or removes it. A leader hands the leadership
// over first: its successor is asked again.
func (g *group) reduce(s *standing, what shoalpb.ReconfigureRequest_Change, server string) error {
	now, member := s.find(server)
	demote := what == shoalpb.ReconfigureRequest_CHANGE_DEMOTE
	switch {
	case !member || demote && !now.voter:
		return nil
	case server == string(g.self):
		if err := g.handOver(s, ""); err != nil {
			return err
		}
		return errNotLeader
	}
	if now.voter {
		if err := s.quorum(server, false); err != nil {
			return err
		}
	}
	r := g.raftNow.Load()
	if demote {
		return g.changed(what, server, r.DemoteVoter(raft.ServerID(server), s.index, 0))
	}
	return g.changed(what, server, r.RemoveServer(raft.ServerID(server), s.index, 0))
}

// handOver gives the leadership to a voter, to any healthy one if server is "".
func (g *group) handOver(s *standing, server string) error {
	for _, x := range s.replicas {
		if x.server == string(g.self) || !x.voter || !s.healthy(x) || server != "" && x.server != server {
			continue
		}
		return g.transfer(raft.ServerID(x.server)) // whose wait is bounded
	}
	return errors.New("no other voter is alive and caught up")
}

// changed waits until a change is committed.
func (g *group) changed(what shoalpb.ReconfigureRequest_Change, server string, f raft.IndexFuture) error {
	_, err := future{f, *g.over.Load()}.wait()
	if err == nil {
		g.log.Info("configuration changed", "change", what.String(), "server", server)
	}
	return err
}
