package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/shoalmq/shoal/cluster/directory"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// reconciler brings replicas to where they should be. It runs on the directory's
// leader, makes one move at a time, and keeps nothing that its successor needs:
// what is under way stands in the placements and the groups' configurations.
//
// A move of a shard, each step seen to be done before the next:
//
//	Place{joining, leaving}    the joining node opens an empty replica
//	ADD_NONVOTER joining       it gets the log, or an install and the log
//	ADD_VOTER joining          once it is caught up
//	REMOVE leaving
//	Place{replicas}            the leaving node throws its replica away
//
// Nothing is begun and no step is taken while another replica of the group is
// down or behind; so one more failure is survived at any moment at which one was
// before. A move whose joining process dies is given up.
type reconciler struct {
	n *Node
	g *group // the directory
	// up is since when processes have been up, as seen here.
	up map[string]seenUp
	// spread: an operator wants loads to be spread now.
	spread bool
	// began is when the move under way was first seen; waiting is what it was
	// last seen to wait for.
	began   time.Time
	waiting string
}

func newReconciler(n *Node, g *group) *reconciler {
	return &reconciler{n: n, g: g, up: make(map[string]seenUp)}
}

func (r *reconciler) run(ctx context.Context) {
	defer r.n.waiting.Store(nil)
	for ctx.Err() == nil {
		busy, err := r.round(ctx)
		r.wait(err)
		every := reconcileEvery
		switch {
		case busy && err != nil:
			every = waitEvery
		case busy:
			every = moveEvery
		}
		t := time.NewTimer(every)
		select {
		case <-t.C:
		case <-r.n.rebalance:
			r.spread = true
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// wait notes what the reconciler waits for: for the log when it changes, for
// Status always.
func (r *reconciler) wait(err error) {
	text := ""
	if err != nil && !errors.Is(err, context.Canceled) {
		text = err.Error()
	}
	if text != r.waiting && text != "" {
		r.n.log.Info("a change of replicas waits", "for", text)
	}
	r.waiting = text
	r.n.waiting.Store(&text)
}

// round takes at most one step with the directory's own members and one with a
// shard. busy tells that more may follow at once; an error is what it waits for.
func (r *reconciler) round(ctx context.Context) (busy bool, err error) {
	if busy, err = r.members(ctx); err != nil {
		err = fmt.Errorf("directory: %w", err)
	}
	var moving uint32
	var placed directory.Placement
	var plan []*shoalpb.Place
	settled := r.settled()
	r.g.read(func(m machine) {
		d := m.(*directoryMachine)
		for id := d.Shards(); id > 0; id-- {
			if p := d.Placed(id); p.Moving() {
				moving, placed = id, p
			}
		}
		if moving == 0 {
			plan = d.Plan(func(node string) bool { return r.spread || slices.Contains(settled, node) })
		}
	})
	switch {
	case moving != 0:
		if r.began.IsZero() {
			r.began = time.Now()
		}
		if stuck := r.advance(ctx, moving, placed); stuck != nil {
			err = errors.Join(err, fmt.Errorf("%s, %s: %w", groupName(moving), moveText(placed.Joining, placed.Leaving), stuck))
		}
		return true, err
	case len(plan) > 0:
		begun, stuck := r.begin(ctx, plan)
		return busy || begun, errors.Join(err, stuck)
	}
	r.spread = false
	return busy, err
}

func moveText(joining, leaving string) string {
	switch {
	case joining == "":
		return "removing " + leaving
	case leaving == "":
		return "adding " + joining
	}
	return "replacing " + leaving + " by " + joining
}

// begin starts the first move of a plan that can be made now.
func (r *reconciler) begin(ctx context.Context, plan []*shoalpb.Place) (begun bool, err error) {
	for _, move := range plan {
		if move.Joining != "" || move.Leaving != "" {
			var s *standing
			if s, err = r.look(ctx, move.Group); err == nil {
				err = healthyBut(s, move.Leaving)
			}
			if err != nil {
				err = fmt.Errorf("%s, %s: %w", groupName(move.Group), moveText(move.Joining, move.Leaving), err)
				continue
			}
			r.n.log.Info("a replica moves", "group", groupName(move.Group), "joining", move.Joining, "leaving", move.Leaving)
		}
		return true, r.place(ctx, move)
	}
	return false, err
}

// healthyBut is nil if all replicas but those named are alive and caught up.
func healthyBut(s *standing, servers ...string) error {
	if ill := s.ill(servers...); len(ill) > 0 {
		return fmt.Errorf("%v of its replicas must be alive and caught up first", ill)
	}
	return nil
}

func (r *reconciler) step(ctx context.Context, what string) { r.n.step(ctx, what) }

// step tells tests what comes next.
func (n *Node) step(ctx context.Context, what string) {
	if h := n.config.Net; h != nil && h.Step != nil {
		h.Step(ctx, what)
	}
}

// place proposes a change of placement. One that came too late is no error: the
// next round sees what there is.
func (r *reconciler) place(ctx context.Context, p *shoalpb.Place) error {
	r.step(ctx, "place")
	refused, err := r.g.commit(ctx, &shoalpb.Proposal{Place: p})
	if refused != "" {
		r.n.log.Info("a change of placement was refused", "group", groupName(p.Group), "reason", refused)
	}
	return err
}

// advance takes the next step of the move of a shard; nil if it was taken.
func (r *reconciler) advance(ctx context.Context, id uint32, p directory.Placement) error {
	s, err := r.look(ctx, id)
	if err != nil {
		return err
	}
	joining, joined := s.find(p.Joining)
	_, remains := s.find(p.Leaving)
	end := func(replicas []string) error {
		err := r.place(ctx, &shoalpb.Place{Group: id, Version: p.Version, Replicas: replicas})
		if err == nil {
			r.n.log.Info("a move has ended", "group", groupName(id), "replicas", replicas, "took", time.Since(r.began).Round(time.Millisecond))
			r.began = time.Time{}
		}
		return err
	}
	switch {
	case p.Joining != "" && joining.voter && !remains:
		return end(p.Finished())
	case p.Joining != "" && !r.alive(p.Joining):
		if joined {
			return r.change(ctx, id, shoalpb.ReconfigureRequest_CHANGE_REMOVE, p.Joining)
		}
		return end(p.Replicas)
	case p.Joining != "" && !joined:
		if err := healthyBut(s, p.Leaving); err != nil {
			return err
		}
		return r.change(ctx, id, shoalpb.ReconfigureRequest_CHANGE_ADD_NONVOTER, p.Joining)
	case p.Joining != "" && !joining.voter:
		if err := healthyBut(s, p.Leaving); err != nil {
			return err
		}
		return r.change(ctx, id, shoalpb.ReconfigureRequest_CHANGE_ADD_VOTER, p.Joining)
	case remains:
		if err := healthyBut(s, p.Leaving); err != nil {
			return err
		}
		return r.change(ctx, id, shoalpb.ReconfigureRequest_CHANGE_REMOVE, p.Leaving)
	}
	return end(p.Finished())
}

// alive tells whether a joining server can still take its replica: the process
// with that disk is up and the node stays.
func (r *reconciler) alive(server string) (ok bool) {
	r.g.read(func(m machine) {
		n, known := m.(*directoryMachine).Node(nodeOf(server))
		ok = known && n.Up && !n.Leaving && n.Info.Node+"/"+n.Info.Disk == server
	})
	return ok
}

// settled are the nodes whose processes have been up for settleTime, as this
// leader has seen it.
func (r *reconciler) settled() (settled []string) {
	r.g.read(func(m machine) {
		for _, n := range m.(*directoryMachine).Nodes() {
			name := n.Info.Node
			switch was := r.up[name]; {
			case !n.Up:
				delete(r.up, name)
			case was.boot != n.Info.Boot:
				r.up[name] = seenUp{n.Info.Boot, time.Now()}
			case time.Since(was.since) > settleTime:
				settled = append(settled, name)
			}
		}
	})
	return settled
}

func (r *reconciler) look(ctx context.Context, id uint32) (*standing, error) {
	reply, err := r.n.askReconfigure(ctx, id, shoalpb.ReconfigureRequest_CHANGE_LOOK, "")
	if err != nil {
		return nil, err
	}
	return standingOf(reply), nil
}

func (r *reconciler) change(ctx context.Context, id uint32, what shoalpb.ReconfigureRequest_Change, server string) error {
	r.step(ctx, what.String())
	_, err := r.n.askReconfigure(ctx, id, what, server)
	return err
}

// askReconfigure asks a group's leader, wherever it is, for a change.
func (n *Node) askReconfigure(ctx context.Context, id uint32, what shoalpb.ReconfigureRequest_Change, server string) (*shoalpb.ReconfigureReply, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req := &shoalpb.ReconfigureRequest{Group: id, Change: what, Server: server}
	reply := n.reconfigure(ctx, req)
	if reply.NotLeader {
		var err error
		reply, err = askLeader(ctx, n, id, func(ctx context.Context, p shoalpb.PeerClient) (*shoalpb.ReconfigureReply, error) {
			return p.Reconfigure(ctx, req)
		})
		if err != nil {
			return nil, err
		}
	}
	if reply.Error != "" {
		return nil, errors.New(reply.Error)
	}
	return reply, nil
}
