package storage

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// snapshots is the state file as raft sees it: a store of one snapshot, the last
// checkpoint.
type snapshots struct{ s *StateFile }

// SnapshotStore returns the file as raft's store of snapshots.
//
// A sink from Create is used in one of two ways. The FSM's Persist asserts it to
// CheckpointSink and calls Checkpoint; or raft copies the bytes of another
// node's file into it, and its Close installs that file. Open returns the newest
// checkpoint if there is a newer one than asked for: its meta says which. Reading
// fails if there is a newer one still when it begins.
func (s *StateFile) SnapshotStore() raft.SnapshotStore { return snapshots{s} }

// CheckpointSink is what a sink made by Create is besides a raft.SnapshotSink.
type CheckpointSink interface {
	// Checkpoint is StateFile.Checkpoint with the marker given to Create. Close
	// then has nothing left to do.
	Checkpoint(write func(Rows) error) error
}

func snapshotID(m Marker) string { return fmt.Sprintf("%d-%d", m.Index, m.Term) }

func (m Marker) meta(size int64) *raft.SnapshotMeta {
	return &raft.SnapshotMeta{
		Version: raft.SnapshotVersionMax, ID: snapshotID(m), Index: m.Index, Term: m.Term,
		Configuration: m.Configuration, ConfigurationIndex: m.ConfigurationIndex, Size: size,
	}
}

// Create refuses a configuration without servers: raft asks for such a snapshot
// when it does not know its own configuration, and a server started from it
// would be of no group, with the entries that say otherwise truncated.
func (p snapshots) Create(_ raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if len(configuration.Servers) == 0 {
		return nil, fmt.Errorf("create snapshot at %d: %w", index, ErrNoServers)
	}
	m := Marker{Index: index, Term: term, Configuration: configuration.Clone(), ConfigurationIndex: configurationIndex}
	return &sink{s: p.s, marker: m}, nil
}

func (p snapshots) List() ([]*raft.SnapshotMeta, error) {
	var list []*raft.SnapshotMeta
	err := p.s.view(func(tx *bolt.Tx) error {
		m, err := p.s.markerIn(tx)
		if err == nil && m != nil {
			list = append(list, m.meta(tx.Size()))
		}
		return err
	})
	return list, err
}

func (p snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	var index, term uint64
	if _, err := fmt.Sscanf(id, "%d-%d", &index, &term); err != nil {
		return nil, nil, fmt.Errorf("open snapshot %q: %w", id, err)
	}
	c := &sent{s: p.s, send: p.s.sends.begin(index)}
	err := p.s.view(func(tx *bolt.Tx) error {
		m, err := p.s.markerIn(tx)
		if err != nil {
			return err
		}
		if m == nil || m.Index < index {
			return errors.New("no such snapshot")
		}
		c.meta = m.meta(tx.Size())
		return nil
	})
	if err != nil {
		_ = c.Close()
		return nil, nil, fmt.Errorf("open snapshot %s: %w", id, err)
	}
	return c.meta, c, nil
}

// copyTo writes the file as of its last checkpoint, which must be the one of
// meta.
func (s *StateFile) copyTo(w io.Writer, meta *raft.SnapshotMeta) error {
	return s.view(func(tx *bolt.Tx) error {
		m, err := s.markerIn(tx)
		if err != nil {
			return err
		}
		if m == nil || m.Index != meta.Index || m.Term != meta.Term || tx.Size() != meta.Size {
			return errMovedOn
		}
		_, err = tx.WriteTo(w)
		return err
	})
}

// markerIn returns the marker as of the transaction, nil if there is none.
func (s *StateFile) markerIn(tx *bolt.Tx) (*Marker, error) {
	problem := firstProblem{path: s.path}
	c := stateCheck{bad: problem.report}
	if b := tx.Bucket(headKey); b != nil {
		c.row([]string{string(headKey)}, headKey, b.Get(headKey))
	}
	if problem.err != nil {
		return nil, problem.err
	}
	if c.head == nil {
		return nil, badDisk(s.path, "the head is missing")
	}
	return decodeMarker(c.head.Marker)
}

// errMovedOn: raft tries again with the newer one.
var errMovedOn = errors.New("there is a newer checkpoint already")

// sent is a snapshot being read. The file is copied at the first Read, so that
// it is not copied for peers that cannot be reached, nor for an FSM that has it
// already; and into another file, so that a slow receiver pins no pages. Raft
// uses it from one goroutine.
type sent struct {
	s    *StateFile
	meta *raft.SnapshotMeta
	send *send
	copy *os.File // nil before the first Read
	err  error    // of making the copy
}

func (c *sent) Read(b []byte) (int, error) {
	if c.copy == nil && c.err == nil {
		c.err = c.make()
	}
	if c.err != nil {
		return 0, c.err
	}
	return c.copy.Read(b)
}

func (c *sent) make() error {
	f, err := os.OpenFile(tempName(c.s.path, sendInfix), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("copy state: %w", err)
	}
	c.copy = f
	if err := c.s.copyTo(f, c.meta); err != nil {
		return fmt.Errorf("copy state: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("copy state: %w", err)
	}
	return nil
}

// Close may be called twice: by an FSM's Restore and by raft.
func (c *sent) Close() error {
	if c.err == os.ErrClosed {
		return nil
	}
	c.s.sends.end(c.send, c.copy == nil || c.err != nil)
	c.err = os.ErrClosed
	if c.copy == nil {
		return nil
	}
	err := os.Remove(c.copy.Name())
	return errors.Join(c.copy.Close(), err)
}

// spillFailed judges a failed write of a copy: a full disk costs the copy only,
// anything else the disk.
func (d *Dir) spillFailed(err error) error {
	if errors.Is(err, unix.ENOSPC) {
		return err
	}
	return d.health.fail(err)
}
