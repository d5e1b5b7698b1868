package storage

import (
	"errors"
	"fmt"
	"os"

	shoalpb "github.com/shoalmq/shoal/proto"
	bolt "go.etcd.io/bbolt"
)

// sink takes one checkpoint or one install. Raft uses it from one goroutine.
type sink struct {
	s      *StateFile
	marker Marker
	spill  *os.File // what an install has received
	done   bool     // the checkpoint is written
}

func (k *sink) ID() string { return snapshotID(k.marker) }

func (k *sink) Checkpoint(write func(Rows) error) error {
	if k.spill != nil {
		return errors.New("checkpoint: the sink holds an install")
	}
	if err := k.s.Checkpoint(k.marker, write); err != nil {
		return err
	}
	k.done = true
	return nil
}

func (k *sink) Write(b []byte) (int, error) {
	if k.spill == nil {
		f, err := k.s.dir.opt.OpenFile(tempName(k.s.path, tmpInfix), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err != nil {
			return 0, fmt.Errorf("receive snapshot: %w", k.s.dir.spillFailed(err))
		}
		k.spill = f
	}
	n, err := k.spill.Write(b)
	if err != nil {
		return n, fmt.Errorf("receive snapshot: %w", k.s.dir.spillFailed(err))
	}
	return n, nil
}

// Cancel throws away what was received. A checkpoint stays.
func (k *sink) Cancel() error {
	if k.spill == nil {
		return nil
	}
	name := k.spill.Name()
	err := k.spill.Close()
	k.spill = nil
	return errors.Join(err, os.Remove(name))
}

// Close installs what was received.
func (k *sink) Close() error {
	switch {
	case k.done:
		return nil
	case k.spill == nil:
		return errors.New("close snapshot: nothing was written")
	}
	err := k.s.install(k.spill, k.marker)
	if err == nil {
		k.spill = nil
		return nil
	}
	_ = k.Cancel()
	return fmt.Errorf("install snapshot %s: %w", k.ID(), err)
}

// install puts the received file in place of the current one.
func (s *StateFile) install(spill *os.File, m Marker) error {
	s.write.Lock()
	defer s.write.Unlock()
	if same, err := s.installed(m); err != nil || same {
		if err == nil {
			err = errors.Join(spill.Close(), os.Remove(spill.Name()))
		}
		if err != nil {
			return err
		}
		return s.tellOwner(m)
	}
	if err := spill.Sync(); err != nil {
		return s.dir.health.fail(err)
	}
	s.dir.opt.step("install received")
	h, err := s.adopt(spill.Name(), m)
	if err != nil {
		return err
	}
	if err := spill.Close(); err != nil {
		return s.dir.health.fail(err)
	}
	s.dir.opt.step("install before rename")
	if err := s.swap(spill.Name(), h); err != nil {
		return s.dir.health.fail(err)
	}
	s.dir.opt.step("install after rename")
	return s.tellOwner(m)
}

// installed reports whether the file is at m already: the answer to the first
// install was lost. Then there is nothing to do, and refusing would let the
// leader try for ever.
func (s *StateFile) installed(m Marker) (same bool, err error) {
	if cur, ok := s.Marker(); ok && cur.Index == m.Index && cur.Term == m.Term {
		return true, nil
	}
	_, err = s.newer(m)
	return false, err
}

func (s *StateFile) tellOwner(m Marker) error {
	if s.onInstall == nil {
		return nil
	}
	return s.onInstall(m)
}

// adopt checks a received file and makes it one of this disk.
func (s *StateFile) adopt(path string, m Marker) (*shoalpb.StateHead, error) {
	var problem error
	h := checkState(path, "", s.group, func(p string) {
		if problem == nil {
			problem = errors.New("received file: " + p)
		}
	})
	if problem != nil {
		return nil, problem
	}
	got := h.Marker
	if got == nil || got.Index != m.Index || got.Term != m.Term {
		return nil, fmt.Errorf("received file is at %d-%d", got.GetIndex(), got.GetTerm())
	}
	if _, err := decodeMarker(got); err != nil {
		return nil, fmt.Errorf("received file: %w", err)
	}
	f, err := openBolt(path, s.dir.health, s.dir.opt.OpenFile)
	if err != nil {
		return nil, err
	}
	h.Disk = s.dir.disk
	err = f.update(func(tx *bolt.Tx) error { return putStateHead(tx, h) })
	return h, errors.Join(err, f.close())
}

// swap renames the file to the current one's name while readers wait. If it
// fails the state file cannot be used any more.
func (s *StateFile) swap(path string, h *shoalpb.StateHead) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.file.close(); err != nil {
		return err
	}
	if err := renameDurably(path, s.path); err != nil {
		return err
	}
	return s.use(h)
}
