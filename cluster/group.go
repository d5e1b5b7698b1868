package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/shoalmq/shoal/cluster/raftnet"
	"github.com/shoalmq/shoal/storage"
)

// group is this node's replica of one raft group: group 0 is the directory,
// 1 to P are the shards.
type group struct {
	id    uint32
	name  string
	log   *slog.Logger
	fatal func(error)
	took  func(time.Duration) // told how long each committed entry of this leader took

	mu sync.RWMutex // guards m and what it holds: apply exclusively, reads shared
	m  machine

	raftNow atomic.Pointer[raft.Raft]
	trans   atomic.Pointer[raftnet.Transport]
	logs    *storage.GroupLog
	state   *storage.StateFile
	mux     *raftnet.Mux
	self    raft.ServerID
	// election is Config.ElectionTimeout.
	election time.Duration

	batcher *batcher
	// clock is the estimate of a shard's clock; nil for the directory.
	clock *shardClock
	// format is that of the entries that this node writes.
	format func() uint32
	tasks  *tasks
	// term is the term this node leads and is ready to serve, 0 if it does not.
	term atomic.Uint64
	// lead starts what runs while this node leads the group; it ends with the
	// context it is given and is waited for by the returned function.
	lead func(ctx context.Context, term uint64) (wait func())
	// setBack is told, with mu held, when the machine has been replaced by an
	// older state: nobody has read that yet, and nobody can read the newer one
	// any more.
	setBack func()
	// lastCheckpoint is the index of the last completed checkpoint.
	lastCheckpoint atomic.Uint64
	// leaderMoved wakes when this replica hears of another leader.
	leaderMoved *broadcast
	// muted wakes when this node has been muted, or is so no more.
	muted *broadcast
	// progress wakes spread when something was applied.
	progress   signal
	dirtySince atomic.Int64
	// logged counts the bytes of the entries applied since the last checkpoint.
	logged atomic.Int64
	// loaded counts messages read back from the state file.
	loaded atomic.Uint64

	// life guards the change of raft instances and closed.
	life   sync.Mutex
	closed bool
	// unwatch ends watchLeadership of the current instance.
	unwatch func()
	// over is closed when the current instance has ended.
	over atomic.Pointer[chan struct{}]

	// configured is the latest committed configuration that was applied here.
	configured atomic.Pointer[configuration]
	// changing is held by a change of the configuration.
	changing sync.Mutex
}

// configuration is a committed configuration of a group, and the index of its
// entry: raft tells neither of its latest one.
type configuration struct {
	index   uint64
	servers []raft.Server
}

// openGroup restores the group's state and starts its raft instance. If
// founders is not nil and the group has no state, it is bootstrapped with them.
func openGroup(g *group, founders []raft.Server, fresh func(scanFunc) (machine, error)) error {
	marker, has := g.state.Marker()
	if err := storage.CheckStart(g.logs, marker, has); err != nil {
		return fmt.Errorf("open %s: %w", g.name, err)
	}
	m, err := fresh(g.state.Scan)
	if err != nil {
		return fmt.Errorf("restore %s: %w", g.name, err)
	}
	g.m = m
	m.adopted(marker.Index, marker.Term)
	m.publish()
	g.configure(marker.ConfigurationIndex, marker.Configuration.Servers)
	g.lastCheckpoint.Store(marker.Index)
	g.batcher = newBatcher()
	g.batcher.format = g.format
	g.batcher.took = g.took
	if g.clock != nil {
		g.batcher.stamp = g.clock.now
		if g.clock.old, err = g.logs.LastIndex(); err != nil {
			return fmt.Errorf("open %s: %w", g.name, err)
		}
	}
	g.state.OnInstall(g.installed)
	g.logs.KeepFor(g.state) // what stands behind a copy that is being sent stays
	g.life.Lock()           // an install may come at once and want to reopen
	err = g.startRaft(founders)
	g.life.Unlock()
	if err != nil {
		return fmt.Errorf("start raft of %s: %w", g.name, err)
	}
	g.tasks.run(func(ctx context.Context) { g.batcher.run(ctx, g.apply) })
	g.tasks.run(g.batcher.complete)
	return nil
}

func (g *group) config(notify chan bool) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = g.self
	c.HeartbeatTimeout = g.election
	c.ElectionTimeout = g.election
	// Nothing is read by raft's lease (see Transport.Confirm of raftnet), so it may last as long
	// as followers wait: a leader that was not heard for half of that would only
	// cause an election.
	c.LeaderLeaseTimeout = g.election
	c.CommitTimeout = commitTimeout
	c.MaxAppendEntries = 64
	c.TrailingLogs = trailingEntries
	// Checkpoints are asked for by checkpointer, by what has changed.
	c.SnapshotInterval = time.Hour
	c.SnapshotThreshold = 1 << 40
	c.NoSnapshotRestoreOnStart = true
	// Not RestoreCommittedLogs: raft 1.8 then skips the configuration entries
	// up to the restored commit index, and a restarted server knows no peers.
	c.NoLegacyTelemetry = true
	c.ShutdownOnRemove = false
	c.NotifyCh = notify
	c.Logger = raftLogger(g.log)
	return c
}

// startRaft opens the raft instance; also again after an install.
func (g *group) startRaft(founders []raft.Server) error {
	notify := make(chan bool, 16)
	c := g.config(notify)
	trans := g.mux.Group(g.id)
	snaps := g.state.SnapshotStore()
	if err := g.bootstrap(founders); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	r, err := raft.NewRaft(c, &fsm{g}, g.logs, g.logs, snaps, trans)
	if err != nil {
		return err
	}
	over := make(chan struct{})
	g.over.Store(&over)
	g.trans.Store(trans)
	g.raftNow.Store(r)
	r.RegisterObserver(raft.NewObserver(nil, false, func(o *raft.Observation) bool {
		if l, ok := o.Data.(raft.LeaderObservation); ok {
			g.log.Info("leader", "now", nodeOf(string(l.LeaderID)))
			g.leaderMoved.broadcast()
		}
		return false
	}))
	watch := newTasks(g.tasks.ctx)
	g.unwatch = watch.wait
	watch.run(func(ctx context.Context) { g.watchLeadership(ctx, r, notify) })
	return nil
}

// raft's name for the term among the stable values.
var keyCurrentTerm = []byte("CurrentTerm")

// bootstrap gives a group without any entry its first one, the configuration of
// its founders. It may be cut off anywhere and done again, which
// raft.BootstrapCluster may not: a term without an entry makes it refuse.
func (g *group) bootstrap(founders []raft.Server) error {
	last, err := g.logs.LastIndex()
	if err != nil {
		return err
	}
	if _, has := g.state.Marker(); founders == nil || has || last > 0 {
		return nil
	}
	term, err := g.logs.GetUint64(keyCurrentTerm)
	if err != nil {
		return err
	}
	if term == 0 {
		if err := g.logs.SetUint64(keyCurrentTerm, 1); err != nil {
			return err
		}
	}
	return g.logs.StoreLog(&raft.Log{
		Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(raft.Configuration{Servers: founders}),
	})
}

// watchLeadership turns raft's notices into leads, one after the other, until
// r ends. It always drains notify: raft blocks writing to it. While this node is
// muted there is no lead: those whom it served are told, and go elsewhere.
func (g *group) watchLeadership(ctx context.Context, r *raft.Raft, notify <-chan bool) {
	var stop func()
	end := func() {
		if stop != nil {
			g.term.Store(0)
			stop()
			g.term.Store(0) // the lead may have begun to serve meanwhile
			stop = nil
		}
	}
	defer end()
	leads := false
	for {
		muted := g.muted.next()
		switch {
		case g.mux.Muted():
			end()
		case leads && stop == nil:
			stop = g.startLead(ctx, r)
		}
		select {
		case leads = <-notify:
			end()
		case <-muted:
		case <-ctx.Done():
			return
		}
	}
}

// startLead begins a lead in the background: it serves once everything that
// was committed before is applied here.
func (g *group) startLead(parent context.Context, r *raft.Raft) (stop func()) {
	t := newTasks(parent)
	t.run(func(ctx context.Context) {
		term := r.CurrentTerm()
		if err := g.barrier(r); err != nil || ctx.Err() != nil || r.CurrentTerm() != term {
			return
		}
		g.mux.Settle(g.id, g.termOf)
		g.log.Info("leads", "term", term)
		wait := g.lead(ctx, term)
		g.term.Store(term)
		<-ctx.Done()
		wait()
	})
	return t.wait
}

// spread follows each entry that nothing follows by itself with a barrier, so
// that followers learn at once that it is committed: raft tells them only with
// the next entry, or after commitTimeout. Used for the directory, whose copies
// everywhere are waited for.
func (g *group) spread(ctx context.Context) {
	var told uint64
	for {
		select {
		case <-g.progress:
		case <-ctx.Done():
			return
		}
		r := g.raftNow.Load()
		if applied := g.applied(); applied > told && r.LastIndex() <= applied {
			told = applied
			if err := g.barrier(r); err != nil {
				g.log.Debug("spread the commit index", "err", err)
			}
		}
	}
}

// apply gives an encoded entry to raft, if this node leads the group.
func (g *group) apply(data []byte) (future, error) {
	r, over := g.raftNow.Load(), *g.over.Load()
	if r == nil || r.State() != raft.Leader {
		return future{}, errNotLeader
	}
	return future{r.Apply(data, 0), over}, nil
}

// barrier waits until everything committed before is applied here.
func (g *group) barrier(r *raft.Raft) error {
	over := *g.over.Load()
	_, err := future{r.Barrier(0), over}.wait()
	return err
}

// future is raft's, with a way out: raft 1.8 leaves futures unanswered that wait
// for the machine when it is shut down.
type future struct {
	raft.Future
	over <-chan struct{}
}

// wait returns the outcome; the response is nil if there is none.
func (f future) wait() (response any, err error) {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err = <-done:
	case <-f.over:
		return nil, raft.ErrRaftShutdown
	}
	if a, ok := f.Future.(raft.ApplyFuture); ok && err == nil {
		response = a.Response()
	}
	return response, err
}

// leads reports whether this node leads the group and is ready to serve it. One
// whose disk hangs does not lead, whatever its raft instance takes itself for.
func (g *group) leads() bool { return g.term.Load() != 0 && !g.mux.Muted() }

// leader is the node that this replica takes for the leader, "" if none. While
// this node is muted its raft instance hears nothing, and may be stopped in a
// write: it knows nothing.
func (g *group) leader() string {
	r := g.raftNow.Load()
	if r == nil || g.mux.Muted() {
		return ""
	}
	_, id := r.LeaderWithID()
	return nodeOf(string(id))
}

// confirm waits until a quorum has answered requests of this term that were
// sent after the call, so that no other leader can have committed before it.
func (g *group) confirm(ctx context.Context) error {
	r, term := g.raftNow.Load(), g.term.Load()
	if term == 0 {
		return errNotLeader
	}
	f := r.GetConfiguration()
	if err := f.Error(); err != nil {
		return err
	}
	var voters []raft.ServerAddress
	for _, s := range f.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			voters = append(voters, s.Address)
		}
	}
	nudge := func() { r.VerifyLeader() }
	if err := g.trans.Load().Confirm(ctx, term, voters, raft.ServerAddress(g.self), nudge); err != nil {
		return err
	}
	// This server counts as one that answered: it must not have voted for
	// another leader itself since it began to lead.
	if r.CurrentTerm() != term {
		return errNotLeader
	}
	return nil
}

// propose queues an encoded proposal; see batcher.
func (g *group) propose(ctx context.Context, p *proposal) bool {
	return g.batcher.propose(ctx, p)
}

// read calls f with the machine held still.
func (g *group) read(f func(m machine)) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	f(g.m)
}

func (g *group) applied() uint64 {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.m.applied()
}

// installed is called by the state file when a leader's copy has replaced it:
// the log is kept if it fits the marker, else emptied, and raft is started anew, because its own memory of the log is not that of a follower that jumped
// (hashicorp/raft issues 697 and 704).
func (g *group) installed(m storage.Marker) error {
	return storage.CheckStart(g.logs, m, true)
}

// reopen restarts raft after an install.
func (g *group) reopen() {
	g.life.Lock()
	defer g.life.Unlock()
	if g.closed {
		return
	}
	// A question through raft's main loop: when it is answered, so is the
	// install, which the leader would do again otherwise. The answer itself is no.
	_ = g.raftNow.Load().VerifyLeader().Error()
	if err := g.stopRaft(); err != nil {
		g.log.Warn("stop raft after an install", "err", err)
	}
	if err := g.startRaft(nil); err != nil {
		g.fatal(fmt.Errorf("restart raft of %s after an install: %w", g.name, err))
	}
}

// checkpoint writes what has changed to the state file and truncates the log.
func (g *group) checkpoint() error {
	r := g.raftNow.Load()
	applied := g.applied()
	if applied <= g.lastCheckpoint.Load() {
		return nil
	}
	logged := g.logged.Load()
	if err := g.boundTrailing(r); err != nil {
		return err
	}
	err := r.Snapshot().Error()
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		err = nil
	}
	if err == nil {
		g.lastCheckpoint.Store(applied)
		g.dirtySince.Store(0)
		g.logged.Add(-logged)
	}
	return err
}

// boundTrailing has the next checkpoint leave no more of the log than
// trailingEntries and trailingBytes allow.
func (g *group) boundTrailing(r *raft.Raft) error {
	entries, err := g.logs.Trailing(trailingBytes, trailingEntries)
	if err != nil {
		return fmt.Errorf("measure the log of %s: %w", g.name, err)
	}
	c := r.ReloadableConfig()
	c.TrailingLogs = entries
	return r.ReloadConfig(c)
}

// checkpointDue tells whether enough has changed since the last checkpoint;
// dirtyLimit is how many bytes of new messages are enough.
func (g *group) checkpointDue(now time.Time, dirtyLimit int) bool {
	var applied uint64
	var refs, bytes int
	g.read(func(m machine) {
		applied = m.applied()
		refs, bytes = m.dirty()
	})
	behind := applied - min(applied, g.lastCheckpoint.Load())
	if behind == 0 {
		return false
	}
	since := g.dirtySince.Load()
	if since == 0 {
		g.dirtySince.Store(now.UnixNano())
		return false
	}
	return g.logged.Load() >= checkpointLog || refs >= checkpointRefs || bytes >= dirtyLimit || behind >= checkpointEntries ||
		now.UnixNano()-since >= int64(checkpointIdle)
}

// close stops the group; stores stay open. Closing again does nothing.
func (g *group) close() error {
	g.tasks.stop()
	g.life.Lock()
	var err error
	if !g.closed {
		g.closed = true
		err = g.stopRaft()
	}
	g.life.Unlock()
	g.tasks.wait()
	return err
}

// stopRaft ends the current instance, and with it whatever waits for it.
func (g *group) stopRaft() error {
	f := g.raftNow.Load().Shutdown()
	// raft closes the transport only after its goroutines have ended, and one of
	// them may be waiting for a peer.
	g.trans.Load().Close()
	err := f.Error()
	close(*g.over.Load())
	g.unwatch()
	return err
}

// transfer gives the leadership away if this node has it: to a voter, or with
// "" to the one that is furthest. raft 1.8 leaves the question unanswered if its
// lead ends, or its main loop stands, under it: the wait is bounded.
func (g *group) transfer(to raft.ServerID) error {
	r := g.raftNow.Load()
	if r == nil || r.State() != raft.Leader {
		return nil
	}
	var f raft.Future
	if to == "" {
		f = r.LeadershipTransfer()
	} else {
		f = r.LeadershipTransferToServer(to, raft.ServerAddress(to))
	}
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	t := time.NewTimer(transferElections * g.election)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-t.C:
		return errors.New("leadership transfer: no answer")
	case <-g.tasks.ctx.Done():
		return raft.ErrRaftShutdown
	}
}
