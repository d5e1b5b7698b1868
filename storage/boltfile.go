package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
)

// boltFile is a bbolt file under our rules: every transaction is synchronous,
// a failed one taints the disk, a panic of bbolt is a bad disk.
type boltFile struct {
	path   string
	db     *bolt.DB
	health *health
}

// openBolt opens or makes the file. It must have passed checkFile, or be new.
func openBolt(path string, h *health, open openFunc) (*boltFile, error) {
	f := &boltFile{path: path, health: h}
	err := f.guard(func() (err error) {
		f.db, err = bolt.Open(path, 0o600, &bolt.Options{
			Timeout:         time.Second, // the directory's lock is held already
			FreelistType:    bolt.FreelistMapType,
			NoFreelistSync:  true,
			InitialMmapSize: mmapBytes,
			PageSize:        pageBytes,
			OpenFile:        open,
			NoStatistics:    true,
		})
		if err == nil {
			f.db.AllocSize = growBytes
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return f, nil
}

// update runs fn in a transaction that is durable on return. An error of fn
// leaves everything as it was; any other is the end of the disk.
func (f *boltFile) update(fn func(*bolt.Tx) error) error {
	if err := f.health.check(); err != nil {
		return err
	}
	var fnErr error
	err := f.guard(func() error {
		return f.db.Update(func(tx *bolt.Tx) error {
			if fnErr = fn(tx); fnErr == nil {
				f.health.sync(filepath.Base(f.path))
			}
			return fnErr
		})
	})
	var bad *BadDiskError
	switch {
	case errors.As(err, &bad):
		return f.health.fail(err)
	case fnErr != nil || err == nil:
		return fnErr
	}
	return f.health.fail(fmt.Errorf("write %s: %w", f.path, err))
}

// view runs fn in a read transaction. Damage found in it is the end of the disk.
func (f *boltFile) view(fn func(*bolt.Tx) error) error {
	err := f.guard(func() error { return f.db.View(fn) })
	var bad *BadDiskError
	if errors.As(err, &bad) {
		return f.health.fail(err)
	}
	return err
}

// guard turns a panic of bbolt, which asserts what it reads, and a fault in its
// map into an error.
func (f *boltFile) guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if c, ok := r.(callerPanic); ok {
			panic(c.value)
		}
		if r != nil {
			err = badDisk(f.path, "%v", r)
		}
	}()
	return fn()
}

func (f *boltFile) close() error {
	if f.db == nil {
		return nil
	}
	return f.db.Close()
}

// checkFile reads a whole file and reports each problem. check gets the rows and
// then the number of the last transaction.
func checkFile(path string, row rowFunc, bad func(problem string)) (tx uint64, ok bool) {
	file, err := os.Open(path)
	if err != nil {
		bad(err.Error())
		return 0, false
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		bad(err.Error())
		return 0, false
	}
	return readPages(file, info.Size(), row, bad)
}

// firstProblem collects the problems of a file; it keeps the first.
type firstProblem struct {
	path string
	err  error
}

func (p *firstProblem) report(problem string) {
	if p.err == nil {
		p.err = badDisk(p.path, "%s", problem)
	}
}
