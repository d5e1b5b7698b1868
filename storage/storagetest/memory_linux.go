package storagetest

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// shared is a file system in memory that every Linux has.
const shared = "/dev/shm"

// hasRoom reports whether shared is there, in memory, and with more room than all
// data directories of a test run take.
func hasRoom() bool {
	const least = 2 << 30
	var fs unix.Statfs_t
	if unix.Statfs(shared, &fs) != nil || fs.Type != unix.TMPFS_MAGIC || fs.Bavail*uint64(fs.Bsize) < least {
		return false
	}
	return unix.Access(shared, unix.W_OK) == nil && availableBytes() >= 2*least
}

// availableBytes is the memory that can be had without swapping; 0 if unknown.
func availableBytes() (bytes uint64) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for {
		var key string
		var kib uint64
		if n, err := fmt.Fscanf(f, "%s %d kB\n", &key, &kib); n < 2 || err != nil {
			return 0
		}
		if key == "MemAvailable:" {
			return kib << 10
		}
	}
}
