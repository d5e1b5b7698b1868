package cluster

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"github.com/hashicorp/raft"

	shoalpb "github.com/shoalmq/shoal/proto"
	"github.com/shoalmq/shoal/storage"
)

// fsm is raft's view of a group's machine. Its methods run on raft's apply
// goroutine, one at a time, except Persist and Release.
type fsm struct{ g *group }

var _ raft.BatchingFSM = (*fsm)(nil)

// Apply applies one entry; raft uses ApplyBatch.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies committed entries under one lock and hands on their
// effects after it. The response to a command is its []result.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	entries := make([]*shoalpb.Entry, len(logs))
	for i, l := range logs {
		f.g.logged.Add(int64(len(l.Data)))
		if l.Type == raft.LogConfiguration {
			f.g.configure(l.Index, raft.DecodeConfiguration(l.Data).Servers)
		}
		if l.Type != raft.LogCommand {
			continue
		}
		e, err := decodeEntry(l.Data)
		if err != nil {
			f.stop(l.Index, err)
		}
		entries[i] = e
	}
	f.apply(logs, entries, out)
	f.g.m.publish() // only this goroutine replaces g.m
	f.g.progress.set()
	return out
}

func (f *fsm) apply(logs []*raft.Log, entries []*shoalpb.Entry, out []any) {
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	for i, l := range logs {
		if entries[i] == nil {
			continue
		}
		results, err := f.g.m.apply(l.Index, l.Term, entries[i])
		if err != nil {
			f.g.mu.Unlock()
			defer f.g.mu.Lock() // for the deferred Unlock, when stop ends this goroutine
			f.stop(l.Index, err)
		}
		out[i] = results
	}
}

// stop ends the node: a committed entry is never skipped or half understood.
// It does not return, so that nothing is applied after it: raft's goroutine ends
// when the group is closed.
func (f *fsm) stop(index uint64, err error) {
	f.g.fatal(fmt.Errorf("apply entry %d of %s: %w", index, f.g.name, err))
	<-f.g.tasks.ctx.Done()
	runtime.Goexit()
}

func decodeEntry(data []byte) (*shoalpb.Entry, error) {
	e := &shoalpb.Entry{}
	if err := e.UnmarshalVT(data); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return e, nil
}

// Snapshot freezes the machine at the last applied index.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	return &persist{g: f.g, c: f.g.m.freeze()}, nil
}

// Restore replaces the machine by what an install has put into the state file.
func (f *fsm) Restore(rc io.ReadCloser) error {
	f.g.mux.Group(f.g.id).Retire() // this raft instance takes nothing more
	if err := rc.Close(); err != nil {
		return err
	}
	m, err := f.g.m.fresh(f.g.state.Scan) // only this goroutine replaces g.m
	if err != nil {
		return fmt.Errorf("restore %s: %w", f.g.name, err)
	}
	marker, _ := f.g.state.Marker()
	before := f.g.m.applied()
	f.g.mu.Lock()
	f.g.m = m
	m.adopted(marker.Index, marker.Term)
	if m.applied() < before {
		f.g.setBack()
	}
	f.g.mu.Unlock()
	if m.applied() < before {
		f.g.log.Warn("an install sets this replica back; it catches up from its log", "from", before, "to", m.applied())
	}
	m.publish()
	f.g.configure(marker.ConfigurationIndex, marker.Configuration.Servers)
	f.g.lastCheckpoint.Store(m.applied())
	f.g.log.Info("state installed by the leader", "index", m.applied())
	f.g.tasks.run(func(context.Context) { f.g.reopen() })
	return nil
}

// persist writes a frozen machine into the state file.
type persist struct {
	g *group
	c checkpoint
}

// Persist writes the checkpoint in one transaction with its marker.
func (p *persist) Persist(sink raft.SnapshotSink) error {
	file, ok := sink.(interface {
		Checkpoint(write func(storage.Rows) error) error
	})
	if !ok {
		return fmt.Errorf("checkpoint %s: sink of type %T", p.g.name, sink)
	}
	lock := func(f func()) {
		p.g.mu.Lock()
		defer p.g.mu.Unlock()
		f()
	}
	err := file.Checkpoint(func(rows storage.Rows) error { return p.c.write(rows, lock) })
	p.finish(err)
	if err != nil {
		return err
	}
	return sink.Close()
}

func (p *persist) finish(err error) {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	if p.c.done != nil {
		p.c.done(err)
		p.c.done = nil
	}
}

// Release ends a checkpoint that raft did not persist.
func (p *persist) Release() { p.finish(errNotPersisted) }

var errNotPersisted = fmt.Errorf("checkpoint was not persisted")
