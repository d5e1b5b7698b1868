package cluster

import (
	"sync/atomic"

	"github.com/shoalmq/shoal/cluster/directory"
	"github.com/shoalmq/shoal/cluster/shard"
	shoalpb "github.com/shoalmq/shoal/proto"
	"github.com/shoalmq/shoal/storage"
)

// result is what became of one proposal.
type result struct {
	batch *shoalpb.BatchAnswer
	// refused says why the directory did not take a proposal.
	refused string
}

// machine is what a group replicates, behind one face for both kinds. All
// methods but check and publish are called with group.mu held.
type machine interface {
	// apply applies one entry; an error means that the node must stop.
	apply(index, term uint64, e *shoalpb.Entry) ([]result, error)
	// check tells whether apply would understand e: what it rejects must not be
	// proposed. It needs no lock.
	check(e *shoalpb.Entry) error
	applied() uint64
	freeze() checkpoint
	// fresh returns a new machine of the same kind with the state that scan
	// reads.
	fresh(scan scanFunc) (machine, error)
	// dirty is what a checkpoint would have to write.
	dirty() (refs, bytes int)
	digest() [32]byte
	// adopted is called when the machine, restored as of the entry (index,
	// term), becomes its group's.
	adopted(index, term uint64)
	// publish hands on what the applies since the last call caused. Called by
	// the apply goroutine after group.mu is released.
	publish()
}

type scanFunc = func(bucket string, fn func(k, v []byte) error) error

// checkpoint is a machine's state frozen at one index.
type checkpoint struct {
	write func(rows storage.Rows, lock func(func())) error
	done  func(error)
}

// shardMachine is a shard's state with the effects for its leader.
type shardMachine struct {
	*shard.Machine
	config shard.Config
	eff    shard.Effects
	// leading returns the lead if this node leads the shard, else nil.
	leading func() *shardLead
	// clock is told of the time that a follower hears.
	clock *shardClock
}

func (s *shardMachine) apply(index, _ uint64, e *shoalpb.Entry) ([]result, error) {
	eff, follows, before := &s.eff, s.leading() == nil, s.Clock()
	if follows {
		eff = nil
	}
	rs, err := s.Machine.Apply(index, e, eff)
	if now := s.Clock(); follows && now > before {
		s.clock.heard(index, now)
	}
	out := make([]result, len(rs))
	for i := range rs {
		out[i].batch = rs[i].Batch
	}
	return out, err
}

func (s *shardMachine) check(e *shoalpb.Entry) error { return shard.Check(e) }

func (s *shardMachine) applied() uint64          { return s.Machine.Applied() }
func (s *shardMachine) digest() [32]byte         { return s.Machine.Digest() }
func (s *shardMachine) dirty() (refs, bytes int) { return s.DirtyRefs(), s.DirtyBytes() }

func (s *shardMachine) freeze() checkpoint {
	c := s.Machine.Freeze()
	return checkpoint{
		write: func(rows storage.Rows, lock func(func())) error { return c.Write(rows, lock) },
		done:  c.Done,
	}
}

func (s *shardMachine) fresh(scan scanFunc) (machine, error) {
	m := &shardMachine{Machine: shard.New(s.config), config: s.config, leading: s.leading, clock: s.clock}
	return m, m.Restore(scan)
}

func (s *shardMachine) adopted(uint64, uint64) {}

func (s *shardMachine) publish() {
	if l := s.leading(); l != nil {
		l.take(&s.eff)
	}
	s.eff.Reset()
}

// directoryMachine is this node's copy of the directory.
type directoryMachine struct {
	*directory.Machine
	eff  directory.Effects
	tell func(*directory.Effects, uint64)
	// gen is raised, with group.mu held, whenever Match may answer otherwise.
	gen *atomic.Uint64
	// seen is told of every entry, with group.mu held.
	seen  func(index, term uint64)
	shown uint64 // generation of the machine when gen was raised last
}

func (d *directoryMachine) apply(index, term uint64, e *shoalpb.Entry) ([]result, error) {
	rs, err := d.Machine.Apply(index, e, &d.eff)
	d.seen(index, term)
	if now := d.Generation(); now != d.shown {
		d.shown = now
		d.gen.Add(1)
	}
	out := make([]result, len(rs))
	for i := range rs {
		out[i] = result{batch: rs[i].Batch, refused: rs[i].Err}
	}
	return out, err
}

func (d *directoryMachine) check(e *shoalpb.Entry) error { return directory.Check(e) }

func (d *directoryMachine) applied() uint64          { return d.Machine.Applied() }
func (d *directoryMachine) digest() [32]byte         { return d.Machine.Digest() }
func (d *directoryMachine) dirty() (refs, bytes int) { return 0, 0 }

func (d *directoryMachine) freeze() checkpoint {
	c := d.Machine.Freeze()
	return checkpoint{
		write: func(rows storage.Rows, lock func(func())) error { return c.Write(rows, lock) },
		done:  c.Done,
	}
}

func (d *directoryMachine) fresh(scan scanFunc) (machine, error) {
	m := &directoryMachine{Machine: directory.New(), tell: d.tell, gen: d.gen, seen: d.seen}
	return m, m.Restore(scan)
}

func (d *directoryMachine) adopted(index, term uint64) {
	d.seen(index, term)
	d.gen.Add(1)
}

func (d *directoryMachine) publish() {
	d.tell(&d.eff, d.FenceNumber())
	d.eff.Reset()
}
