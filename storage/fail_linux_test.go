package storage

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// breaker keeps the files that were opened, to break them later: another device
// is put under the descriptor, so that the system itself fails the calls.
type breaker struct {
	mu    sync.Mutex
	files map[string]*os.File
}

func (b *breaker) open(name string, flag int, perm os.FileMode) (*os.File, error) {
	f, err := os.OpenFile(name, flag, perm)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.files[filepath.Base(name)] = f
	return f, err
}

// breakFile puts the device under the file: with /dev/full each write finds no
// space, with /dev/zero, open for reading only, each fails, with /dev/null each
// fsync.
func (b *breaker) breakFile(t *testing.T, name, device string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	flag := os.O_RDWR
	if device == "/dev/zero" {
		flag = os.O_RDONLY
	}
	dev, err := os.OpenFile(device, flag, 0)
	must(t, err)
	defer dev.Close()
	must(t, unix.Dup3(int(dev.Fd()), int(b.files[name].Fd()), unix.O_CLOEXEC))
}

func TestFirstFailureIsTheLast(t *testing.T) {
	for _, tt := range []struct{ name, file, device string }{
		{"log full", logName, "/dev/full"},
		{"log write", logName, "/dev/zero"},
		{"log fsync", logName, "/dev/null"},
		{"state write", stateName(1), "/dev/full"},
		{"state fsync", stateName(1), "/dev/null"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := t.TempDir()
			b := &breaker{files: make(map[string]*os.File)}
			var mu sync.Mutex
			var fatal []error
			d := openDirWith(t, path, Options{OpenFile: b.open, OnFatal: func(err error) {
				mu.Lock()
				defer mu.Unlock()
				fatal = append(fatal, err)
			}})
			g := openTestLog(t, d).Group(1)
			s := openTestState(t, d, 1)
			// A file that needs to grow fails before it writes.
			must(t, s.Checkpoint(markerAt(1), putAt(markerAt(1))))
			must(t, s.Checkpoint(markerAt(2), putAt(markerAt(2))))
			must(t, g.StoreLogs(entries(1, 20, 1, 5000)))
			must(t, g.DeleteRange(1, 20))
			must(t, g.StoreLogs(entries(1, 2, 1, 50)))

			b.breakFile(t, tt.file, tt.device)
			var first error
			if tt.file == logName {
				first = g.StoreLogs(entries(3, 1, 1, 10))
			} else {
				first = s.Checkpoint(markerAt(3), putAt(markerAt(3)))
			}
			if first == nil {
				t.Fatal("no error")
			}
			if last, _ := g.LastIndex(); last != 2 {
				t.Errorf("the log ends at %d", last)
			}
			if m, _ := s.Marker(); m.Index != 2 {
				t.Errorf("the marker is at %d", m.Index)
			}
			failed := d.Failed()
			if failed == nil || !errors.Is(first, failed) {
				t.Fatalf("first %v, failed %v", first, failed)
			}
			// Everything that writes is refused with that error.
			_, bootErr := d.NextBoot()
			sinkErr := createSink(s, markerAt(4)).(CheckpointSink).Checkpoint(putAt(markerAt(4)))
			for i, err := range []error{
				g.StoreLogs(entries(3, 1, 1, 10)), g.Empty(), g.SetUint64([]byte("t"), 1), g.DeleteRange(1, 1),
				s.Checkpoint(markerAt(4), putAt(markerAt(4))), sinkErr, bootErr, d.SetBirth("c", 1),
			} {
				if !errors.Is(err, failed) {
					t.Errorf("write %d: %v", i, err)
				}
			}
			mu.Lock()
			if len(fatal) != 1 || fatal[0] != failed {
				t.Errorf("OnFatal got %v", fatal)
			}
			mu.Unlock()
			_ = d.Close()
			if errors.Is(failed, unix.ENOSPC) {
				g = openTestLog(t, openDir(t, path)).Group(1)
				must(t, g.StoreLogs(entries(3, 1, 1, 10)))
				return
			}
			var bad *BadDiskError
			if _, err := Open(path, Options{NodeID: "n1"}); !errors.As(err, &bad) || !strings.Contains(bad.Reason, tt.file) {
				t.Fatal(err)
			}
		})
	}
}

func TestFailedIdentityWrite(t *testing.T) {
	path := t.TempDir()
	broken := false
	d := openDirWith(t, path, Options{OpenFile: func(name string, flag int, perm os.FileMode) (*os.File, error) {
		if broken {
			return os.OpenFile("/dev/full", os.O_WRONLY, 0)
		}
		return os.OpenFile(name, flag, perm)
	}})
	if _, err := d.NextBoot(); err != nil {
		t.Fatal(err)
	}
	broken = true
	if _, err := d.NextBoot(); err == nil || d.Identity().Boot != 1 {
		t.Fatal(err, d.Identity())
	}
	broken = false
	if _, err := d.NextBoot(); err == nil || d.Failed() == nil {
		t.Fatal("the disk is trusted again")
	}
}

// A full disk while another node's state is received costs the copy, not the
// disk.
func TestNoSpaceForInstall(t *testing.T) {
	from := openTestState(t, openDir(t, t.TempDir()), 4)
	must(t, from.Checkpoint(markerAt(7), putAt(markerAt(7))))
	full := false
	d := openDirWith(t, t.TempDir(), Options{OpenFile: func(name string, flag int, perm os.FileMode) (*os.File, error) {
		f, err := os.OpenFile(name, flag, perm)
		if full && err == nil {
			_ = f.Close()
			fd, err := unix.Open("/dev/full", unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			return os.NewFile(uintptr(fd), name), nil // its only owner: two would close it twice
		}
		return f, err
	}})
	to := openTestState(t, d, 4)
	full = true
	if err := sendInstall(from, to, markerAt(7)); !errors.Is(err, unix.ENOSPC) || d.Failed() != nil {
		t.Fatal(err, d.Failed())
	}
	full = false
	must(t, sendInstall(from, to, markerAt(7)))
}
