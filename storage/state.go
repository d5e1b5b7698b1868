package storage

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	shoalpb "github.com/shoalmq/shoal/proto"
	bolt "go.etcd.io/bbolt"
)

// Marker says which entry a state is the state after.
type Marker struct {
	// Index and Term of the last entry the state contains.
	Index, Term uint64
	// Configuration is the group's latest committed one, from the entry at
	// ConfigurationIndex.
	Configuration      raft.Configuration
	ConfigurationIndex uint64
}

// StateFile is the state of one raft group as of its last checkpoint, in one
// bbolt file:
//
//	head    ─ head   StateHead with the marker
//	r<name> ─ key    the first rowBytes of a value, its length in front
//	m<name> ─ key ‖ part, 4 bytes   the rest of a long value
//
// Rows and marker change in the same transaction, so they never differ. Buckets
// are the caller's; there may be as many as wanted. An installed file takes this
// one's place while readers wait.
type StateFile struct {
	dir   *Dir
	group uint32
	path  string

	write     sync.Mutex // held by a checkpoint or an install
	sum       uint64     // of all rows' CRCs; by the holder of write
	onInstall func(Marker) error

	marker atomic.Pointer[Marker] // nil before the first checkpoint
	sends  sends

	// mu is held by readers, also while all of the file is copied for another
	// node: only an install and Close wait for them.
	mu     sync.RWMutex
	file   *boltFile
	closed bool
}

// OpenState opens the group's state file, making it if it is missing. It may be
// open once. It reads all of the file; what is damaged is a *BadDiskError.
func (d *Dir) OpenState(group uint32) (*StateFile, error) {
	p, err := d.part(stateName(group),
		func(path string) error { return newStateFile(path, d, group) },
		func(path string) (io.Closer, error) { return openState(path, d, group) })
	if err != nil {
		return nil, fmt.Errorf("open state of group %d: %w", group, err)
	}
	return p.(*StateFile), nil
}

func newStateFile(path string, d *Dir, group uint32) error {
	f, err := openBolt(path, d.health, d.opt.OpenFile)
	if err != nil {
		return err
	}
	err = f.update(func(tx *bolt.Tx) error {
		return putStateHead(tx, &shoalpb.StateHead{Disk: d.disk, Group: group})
	})
	if cerr := f.close(); err == nil {
		err = cerr
	}
	return err
}

func openState(path string, d *Dir, group uint32) (*StateFile, error) {
	s := &StateFile{dir: d, group: group, path: path}
	s.sends = sends{now: time.Now, all: make(map[*send]struct{})}
	problem := firstProblem{path: path}
	h := checkState(path, d.disk, group, problem.report)
	if problem.err != nil {
		return nil, problem.err
	}
	if err := s.use(h); err != nil {
		return nil, err
	}
	return s, nil
}

// use opens the checked file at s.path, whose head is h.
func (s *StateFile) use(h *shoalpb.StateHead) error {
	m, err := decodeMarker(h.Marker)
	if err != nil {
		return badDisk(s.path, "marker: %v", err)
	}
	f, err := openBolt(s.path, s.dir.health, s.dir.opt.OpenFile)
	if err != nil {
		return err
	}
	s.file, s.sum = f, h.RowsSum
	s.marker.Store(m)
	return nil
}

// OnInstall sets what is called when an installed file has taken this one's
// place, before the install is reported as done. The owner empties the raft log
// there, unless it holds the marker's entry: see CheckStart. An error fails the
// install although the file is in place, so the group must then be opened anew.
// It must be set before the SnapshotStore is used.
func (s *StateFile) OnInstall(fn func(Marker) error) { s.onInstall = fn }

// Marker returns the marker of the last checkpoint or install; ok is false if
// there was none.
func (s *StateFile) Marker() (m Marker, ok bool) {
	if p := s.marker.Load(); p != nil {
		return *p, true
	}
	return Marker{}, false
}

// Checkpoint writes a new state: write changes the rows, and the marker becomes
// m, in one synchronous transaction. If write returns an error, nothing changes.
// m must be newer than the current marker (ErrOldMarker).
func (s *StateFile) Checkpoint(m Marker, write func(Rows) error) error {
	s.write.Lock()
	defer s.write.Unlock()
	f, err := s.newer(m)
	if err != nil {
		return fmt.Errorf("checkpoint group %d at %d: %w", s.group, m.Index, err)
	}
	sum := s.sum
	err = f.update(func(tx *bolt.Tx) error {
		rows := &stateTx{file: f, tx: tx, sum: sum, open: make(map[string]*stateBucket)}
		if err := rows.call(write); err != nil {
			return err
		}
		sum = rows.sum
		return putStateHead(tx, &shoalpb.StateHead{
			Disk: s.dir.disk, Group: s.group, RowsSum: sum, Marker: encodeMarker(m),
		})
	})
	if err != nil {
		return fmt.Errorf("checkpoint group %d at %d: %w", s.group, m.Index, err)
	}
	s.sum = sum
	s.marker.Store(&m)
	return nil
}

// newer returns the file if m may become its marker. The caller holds s.write.
func (s *StateFile) newer(m Marker) (*boltFile, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, ErrClosed
	}
	if m.Index == 0 {
		return nil, errors.New("a marker needs an index")
	}
	if cur := s.marker.Load(); cur != nil && m.Index <= cur.Index {
		return nil, fmt.Errorf("%w, which is at %d", ErrOldMarker, cur.Index)
	}
	return s.file, nil
}

// view runs fn in a read transaction of the current file.
func (s *StateFile) view(fn func(*bolt.Tx) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	return s.file.view(fn)
}

// Close closes the file. What is not checkpointed is in the raft log.
func (s *StateFile) Close() error {
	s.write.Lock()
	defer s.write.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.dir.forget(stateName(s.group))
	return s.file.close()
}

// putStateHead writes the head of a state file as the last thing of tx.
func putStateHead(tx *bolt.Tx, h *shoalpb.StateHead) error {
	bucket, err := tx.CreateBucketIfNotExists(headKey)
	if err != nil {
		return err
	}
	h.Format, h.Tx = Format, uint64(tx.ID())
	_, err = putRecord(bucket, checksum(headKey), h)
	return err
}

func encodeMarker(m Marker) *shoalpb.StateMarker {
	return &shoalpb.StateMarker{
		Index: m.Index, Term: m.Term,
		Configuration:      raft.EncodeConfiguration(m.Configuration),
		ConfigurationIndex: m.ConfigurationIndex,
	}
}

// decodeMarker returns nil for no marker.
func decodeMarker(p *shoalpb.StateMarker) (m *Marker, err error) {
	if p == nil {
		return nil, nil
	}
	defer func() { // raft panics on what it cannot decode
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return &Marker{
		Index: p.Index, Term: p.Term,
		Configuration:      raft.DecodeConfiguration(p.Configuration),
		ConfigurationIndex: p.ConfigurationIndex,
	}, nil
}
