package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

const taintName = "tainted"

// health remembers the first failure of a directory, on disk too if it can.
type health struct {
	dir     string
	onFatal func(error)
	// beforeSync is Options.BeforeSync.
	beforeSync func(file string)

	mu  sync.Mutex
	err error
}

// fail ends the use of the directory, taints it unless the disk was only full,
// and returns the error that all later writes get.
func (h *health) fail(err error) error {
	h.mu.Lock()
	if h.err != nil {
		defer h.mu.Unlock()
		return h.err
	}
	h.err = fmt.Errorf("disk failed: %w", err)
	failed := h.err
	h.mu.Unlock()

	if !diskFull(err) {
		writeTaint(h.dir, failed.Error())
	}
	if h.onFatal != nil {
		h.onFatal(failed)
	}
	return failed
}

// sync is called before a file is made durable.
func (h *health) sync(file string) {
	if h.beforeSync != nil {
		h.beforeSync(file)
	}
}

// diskFull reports whether the system refused to take bytes for want of space.
// Then nothing is in doubt: what was to be written is not there, as after a
// crash, and what was there was not touched. An fsync that fails so, and it may
// on some file systems, is as bad as any.
func diskFull(err error) bool {
	var at *fs.PathError
	return errors.As(err, &at) && (at.Op == "write" || at.Op == "open") &&
		(errors.Is(at.Err, syscall.ENOSPC) || errors.Is(at.Err, syscall.EDQUOT))
}

// check returns the first failure, or nil.
func (h *health) check() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// writeTaint does what a failing disk allows.
func writeTaint(dir, reason string) {
	f, err := os.OpenFile(filepath.Join(dir, taintName), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return
	}
	_, _ = f.WriteString(reason + "\n")
	_ = f.Sync()
	_ = f.Close()
	_ = syncDir(dir)
}

// readTaint returns why the directory is tainted, or "".
func readTaint(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, taintName))
	switch {
	case os.IsNotExist(err):
		return ""
	case err != nil || len(b) == 0:
		return "an earlier write failed"
	}
	return string(b[:min(len(b), 1000)])
}
