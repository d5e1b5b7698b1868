package storage

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// reserve gives the file blocks up to size, so that later writes cannot find
// the disk full, or, where the file system cannot, the length alone.
func reserve(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return f.Truncate(size)
	}
	return err
}
