//go:build unix

package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const lockName = "lock"

// lockDir takes the directory for this process. With create false the lock file
// must exist and nothing is written, not even this process's pid.
func lockDir(dir string, create bool) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	flag, how := os.O_RDONLY, unix.LOCK_SH
	if create {
		flag, how = os.O_RDWR|os.O_CREATE, unix.LOCK_EX
	}
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	defer f.Close()
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	buf := make([]byte, 20)
	n, _ := f.ReadAt(buf, 0)
	if pid := strings.TrimSpace(string(buf[:n])); pid != "" {
		return nil, fmt.Errorf("lock %s: %w (pid %s)", dir, ErrLocked, pid)
	}
	return nil, fmt.Errorf("lock %s: %w", dir, ErrLocked)
}

// writePid says who holds the lock. Nothing depends on it.
func writePid(lock *os.File) {
	if lock.Truncate(0) == nil {
		_, _ = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
}

// FreeBytes returns what an unprivileged process may still write to the file
// system that holds path.
func FreeBytes(path string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, fmt.Errorf("read free space of %s: %w", path, err)
	}
	return uint64(s.Bavail) * uint64(s.Bsize), nil
}
