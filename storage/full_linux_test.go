package storage

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// A disk that fills up ends the process, and loses nothing: when there is room
// again all that was stored is there and the disk is trusted.
func TestFullDisk(t *testing.T) {
	path := t.TempDir()
	if err := unix.Mount("none", path, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("a file system of its own needs the right to mount: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	filler := filepath.Join(path, "filler")
	must(t, os.WriteFile(filler, make([]byte, 2<<20), 0o600))

	var fatal error
	d := openDirWith(t, path, Options{OnFatal: func(err error) { fatal = err }})
	g := openTestLog(t, d).Group(1)
	must(t, g.SetUint64(keyCurrentTerm, 4))
	stored := uint64(0)
	var err error
	for err == nil {
		if err = g.StoreLogs(entries(stored+1, 5, 4, 3000)); err == nil {
			stored += 5
		}
	}
	if !errors.Is(err, unix.ENOSPC) || !errors.Is(fatal, unix.ENOSPC) || stored == 0 {
		t.Fatalf("%d stored, %v, fatal %v", stored, err, fatal)
	}
	if err := g.SetUint64(keyCurrentTerm, 5); !errors.Is(err, unix.ENOSPC) {
		t.Fatal("a write after the failed one: ", err)
	}
	_ = d.Close()
	must(t, os.Remove(filler))

	d = openDir(t, path)
	g = openTestLog(t, d).Group(1)
	last, _ := g.LastIndex()
	term, _ := g.GetUint64(keyCurrentTerm)
	if last != stored || term != 4 {
		t.Fatalf("%d entries of %d, term %d", last, stored, term)
	}
	var l raft.Log
	must(t, g.GetLog(last, &l))
	must(t, g.StoreLogs(entries(stored+1, 5, 4, 3000)))
	must(t, d.Close())
	must(t, Verify(path, func(file, problem string) { t.Error(file, problem) }))
}
