//go:build unix && !linux

package storage

import "os"

// reserve gives the file its length. Blocks are not reserved on this system.
func reserve(f *os.File, size int64) error {
	return f.Truncate(size)
}
