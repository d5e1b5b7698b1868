package storage

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
)

// openDir opens a directory that is closed with the test.
func openDir(t testing.TB, path string) *Dir {
	t.Helper()
	return openDirWith(t, path, Options{})
}

func openDirWith(t testing.TB, path string, o Options) *Dir {
	t.Helper()
	if o.NodeID == "" {
		o.NodeID = "n1"
	}
	d, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func openTestLog(t testing.TB, d *Dir) *Log {
	t.Helper()
	l, err := d.OpenLog(LogOptions{TailBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func openTestState(t testing.TB, d *Dir, group uint32) *StateFile {
	t.Helper()
	s, err := d.OpenState(group)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// entries makes n entries from index first, of size bytes each.
func entries(first uint64, n int, term uint64, size int) []*raft.Log {
	logs := make([]*raft.Log, n)
	for i := range logs {
		data := make([]byte, size)
		for j := range data {
			data[j] = byte(int(first) + i + j + int(term))
		}
		logs[i] = &raft.Log{Index: first + uint64(i), Term: term, Type: raft.LogCommand, Data: data}
	}
	return logs
}

// image copies the files of a directory into memory.
func image(t testing.TB, path string) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	must(t, filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(path, p)
		files[rel] = b
		return err
	}))
	return files
}

// lay writes an image into a new directory and returns its path.
func lay(t testing.TB, files map[string][]byte) string {
	t.Helper()
	path := t.TempDir()
	for name, b := range files {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(path, name)), 0o700))
		writeSparse(t, filepath.Join(path, name), b)
	}
	return path
}

// writeSparse writes a file without the zeros at its end, which are most of it.
func writeSparse(t testing.TB, file string, b []byte) {
	t.Helper()
	must(t, os.WriteFile(file, bytes.TrimRight(b, "\x00"), 0o600))
	must(t, os.Truncate(file, int64(len(b))))
}

// fingerprint changes with any byte of the directory.
func fingerprint(t testing.TB, path string) string {
	t.Helper()
	h := sha256.New()
	files := image(t, path)
	for _, name := range sorted(files) {
		fmt.Fprintf(h, "%q %d\n", name, len(files[name]))
		h.Write(files[name])
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func sorted[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}

// dumpState is all a state file holds, as text.
func dumpState(t testing.TB, s *StateFile, buckets ...string) string {
	t.Helper()
	var b bytes.Buffer
	m, ok := s.Marker()
	fmt.Fprintln(&b, m.Index, m.Term, ok, m.ConfigurationIndex, m.Configuration)
	for _, name := range buckets {
		must(t, s.Scan(name, func(k, v []byte) error {
			fmt.Fprintf(&b, "%s %x %x\n", name, k, sha256.Sum256(v))
			return nil
		}))
	}
	return b.String()
}

// dumpGroup is all a group's log holds, as text.
func dumpGroup(t testing.TB, g *GroupLog) string {
	t.Helper()
	var b bytes.Buffer
	h := g.currentHead()
	fmt.Fprintln(&b, h.first, h.last, h.commit, h.stable)
	for i := h.first; i <= h.last && i > 0; i++ {
		var l raft.Log
		must(t, g.GetLog(i, &l))
		fmt.Fprintf(&b, "%d %d %d %x %x %d\n", l.Index, l.Term, l.Type, sha256.Sum256(l.Data), l.Extensions, l.AppendedAt.UnixNano())
	}
	return b.String()
}
