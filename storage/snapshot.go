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
// node's file into it, and its Close installs that file. Open copies the file
// first, so a slow receiver pins nothing, and returns the newest checkpoint if
// there is a newer one than asked for: its meta says which.
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
	f, err := os.OpenFile(tempName(p.s.path, sendInfix), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshot %s: %w", id, err)
	}
	c := sent{f, &p.s.sends, p.s.sends.begin(index)}
	meta, err := p.s.copyTo(f, index)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		_ = c.Close()
		p.s.sends.end(c.send, true)
		return nil, nil, fmt.Errorf("open snapshot %s: %w", id, err)
	}
	return meta, c, nil
}

// copyTo writes the file as of its last checkpoint, which must be at index or
// later.
func (s *StateFile) copyTo(w io.Writer, index uint64) (*raft.SnapshotMeta, error) {
	var meta *raft.SnapshotMeta
	err := s.view(func(tx *bolt.Tx) error {
		m, err := s.markerIn(tx)
		if err != nil {
			return err
		}
		if m == nil || m.Index < index {
			return errors.New("no such snapshot")
		}
		n, err := tx.WriteTo(w)
		meta = m.meta(n)
		return err
	})
	return meta, err
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

// sent is a copy being read; it goes when it is closed.
type sent struct {
	*os.File
	sends *sends
	send  *send
}

func (f sent) Close() error {
	f.sends.end(f.send, false)
	err := os.Remove(f.Name())
	return errors.Join(f.File.Close(), err)
}

// spillFailed judges a failed write of a copy: a full disk costs the copy only,
// anything else the disk.
func (d *Dir) spillFailed(err error) error {
	if errors.Is(err, unix.ENOSPC) {
		return err
	}
	return d.health.fail(err)
}
