package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Options of a data directory.
type Options struct {
	// NodeID is the node's stable name, required.
	NodeID string
	// ReserveBytes is what OpenLog makes the log file at least.
	ReserveBytes int64
	// OnFatal is called once, at the first write or fsync that fails or the
	// first row read that is damaged, with the error that all later writes
	// get. It must not block and must not call this package. May be nil.
	OnFatal func(error)
	// Logger gets state changes; nil for none.
	Logger *slog.Logger
	// OpenFile opens the files that are written; nil for os.OpenFile. Tests
	// keep the file and break it.
	OpenFile func(name string, flag int, perm os.FileMode) (*os.File, error)
	// BeforeSync is called before each transaction of a file is made durable;
	// nil for nothing. Tests make a slow disk of it, or one that hangs.
	BeforeSync func(file string)

	// step is called between the steps a crash may separate.
	step func(name string)
}

// Dir is an open, locked data directory.
type Dir struct {
	path   string
	opt    Options
	log    *slog.Logger
	lock   *os.File
	health *health
	disk   string // the disk id, which never changes

	mu     sync.Mutex
	id     Identity
	parts  map[string]io.Closer // open files, by name
	closed bool
}

// Open opens the data directory at path for the node, making it if it is
// missing. It fails without changing anything if another process uses it
// (ErrLocked), another node owns it (ErrOtherNode), a newer program wrote it
// (ErrNewerFormat) or it cannot be trusted (*BadDiskError).
func Open(path string, o Options) (*Dir, error) {
	if o.NodeID == "" {
		return nil, errors.New("open data directory: no node id")
	}
	if o.OpenFile == nil {
		o.OpenFile = os.OpenFile
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.step == nil {
		o.step = func(string) {}
	}
	if err := makeDir(path); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	lock, err := lockDir(path, true)
	if err != nil {
		return nil, err
	}
	d := &Dir{
		path: path, opt: o, log: o.Logger.With("component", "storage"), lock: lock,
		health: &health{dir: path, onFatal: o.OnFatal, beforeSync: o.BeforeSync},
		parts:  make(map[string]io.Closer),
	}
	if err := d.load(); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	writePid(lock)
	return d, nil
}

// load reads the identity, or makes one for an empty directory.
func (d *Dir) load() error {
	id, err := readIdentity(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := removeLeftovers(d.path); err != nil {
			return fmt.Errorf("remove leftovers: %w", err)
		}
		id = newIdentity(d.opt.NodeID)
		d.disk = id.DiskID
		d.log.Info("new data directory", "path", d.path, "disk", id.DiskID)
		return d.save(id)
	}
	if err != nil {
		return err
	}
	if id.NodeID != d.opt.NodeID {
		return fmt.Errorf("%s %w: %q, not %q", d.path, ErrOtherNode, id.NodeID, d.opt.NodeID)
	}
	if reason := readTaint(d.path); reason != "" {
		return badDisk(filepath.Join(d.path, taintName), "%s", reason)
	}
	for _, name := range id.Files {
		if _, err := os.Stat(filepath.Join(d.path, name)); err != nil {
			return badDisk(filepath.Join(d.path, name), "missing: %v", err)
		}
	}
	d.id, d.disk = id, id.DiskID
	return removeLeftovers(d.path)
}

// readIdentity returns fs.ErrNotExist if the directory has never been used.
func readIdentity(dir string) (Identity, error) {
	file := filepath.Join(dir, identityName)
	b, err := os.ReadFile(file)
	if err == nil {
		return decodeIdentity(file, b)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return Identity{}, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Identity{}, err
	}
	for _, e := range entries {
		if base := e.Name(); base == logName || base == taintName || isStateName(base) {
			return Identity{}, badDisk(file, "missing, but %s is there", base)
		}
	}
	return Identity{}, fs.ErrNotExist
}

// save makes an identity durable, then current. The caller holds d.mu or has
// the only reference.
func (d *Dir) save(id Identity) error {
	if err := d.health.check(); err != nil {
		return err
	}
	b, err := id.encode()
	if err != nil {
		return fmt.Errorf("encode identity: %w", err)
	}
	d.opt.step("identity before")
	d.health.sync(identityName)
	if err := replaceFile(d.opt.OpenFile, filepath.Join(d.path, identityName), b); err != nil {
		return d.health.fail(fmt.Errorf("write identity: %w", err))
	}
	d.opt.step("identity after")
	d.id = id
	return nil
}

// change saves the identity as edit changes it.
func (d *Dir) change(edit func(*Identity)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	id := d.id.clone()
	edit(&id)
	return d.save(id)
}

// Path returns the directory's path.
func (d *Dir) Path() string { return d.path }

// Identity returns a copy of the identity.
func (d *Dir) Identity() Identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.id.clone()
}

// NextBoot begins a new life of the node: durably one above the last.
func (d *Dir) NextBoot() (uint64, error) {
	var boot uint64
	err := d.change(func(id *Identity) {
		id.Boot++
		boot = id.Boot
	})
	if err != nil {
		return 0, err
	}
	return boot, nil
}

// RaiseBoot durably makes the boot lowest, unless it is higher already, and
// returns it: another disk of the node has had the lower ones.
func (d *Dir) RaiseBoot(lowest uint64) (uint64, error) {
	var boot uint64
	err := d.change(func(id *Identity) {
		id.Boot = max(id.Boot, lowest)
		boot = id.Boot
	})
	if err != nil {
		return 0, err
	}
	return boot, nil
}

// Condemn ends the use of the directory for ever: the next Open finds a bad disk.
// It returns the error that all later writes get.
func (d *Dir) Condemn(reason string) error {
	return d.health.fail(badDisk(d.path, "%s", reason))
}

// SetPromise durably promises to found a cluster with exactly these servers, or
// with nil that the promise is void.
func (d *Dir) SetPromise(members []string) error {
	return d.change(func(id *Identity) { id.Promise = slices.Clone(members) })
}

// SetBirth durably makes the disk a part of the cluster.
func (d *Dir) SetBirth(clusterID string, shards int) error {
	return d.change(func(id *Identity) { id.ClusterID, id.Shards = clusterID, shards })
}

// Failed returns the error that has tainted the disk, or nil.
func (d *Dir) Failed() error { return d.health.check() }

// Close closes the files still open and gives the directory free.
func (d *Dir) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	parts := make([]io.Closer, 0, len(d.parts))
	for _, p := range d.parts {
		parts = append(parts, p)
	}
	d.mu.Unlock()

	var errs []error
	for _, p := range parts {
		errs = append(errs, p.Close())
	}
	errs = append(errs, d.lock.Close())
	return errors.Join(errs...)
}
