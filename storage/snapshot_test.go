package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func createSink(s *StateFile, m Marker) raft.SnapshotSink {
	k, err := s.SnapshotStore().Create(1, m.Index, m.Term, m.Configuration, m.ConfigurationIndex, nil)
	if err != nil {
		panic(err)
	}
	return k
}

// sendInstall does what raft does with a leader's and a follower's store.
func sendInstall(from, to *StateFile, m Marker) error {
	meta, r, err := from.SnapshotStore().Open(snapshotID(m))
	if err != nil {
		return err
	}
	defer r.Close()
	if meta.Index != m.Index || meta.Term != m.Term {
		return fmt.Errorf("meta %+v", meta)
	}
	sink := createSink(to, m)
	n, err := io.Copy(sink, r)
	if err != nil || n != meta.Size {
		_ = sink.Cancel()
		return fmt.Errorf("%d of %d bytes: %w", n, meta.Size, err)
	}
	return sink.Close()
}

// putAt is a checkpoint with a row that tells its index, and some to fill pages.
func putAt(m Marker) func(Rows) error {
	return func(r Rows) error {
		for i := range uint64(30) {
			if i%3 == m.Index%3 {
				if err := r.Put("a", []byte{byte(i)}, bytes.Repeat([]byte{byte(m.Index)}, int(i*300))); err != nil {
					return err
				}
			}
		}
		return r.Put("at", []byte("index"), fmt.Append(nil, m.Index))
	}
}

func TestSnapshotStoreIsTheCheckpoint(t *testing.T) {
	s := openTestState(t, openDir(t, t.TempDir()), 4)
	store := s.SnapshotStore()
	if list, err := store.List(); err != nil || len(list) != 0 {
		t.Fatal(list, err)
	}
	if _, _, err := store.Open("5-1"); err == nil {
		t.Fatal("opened nothing")
	}
	m := markerAt(5)
	k := createSink(s, m)
	must(t, k.(CheckpointSink).Checkpoint(putAt(m)))
	must(t, k.Close())
	list, err := store.List()
	if err != nil || len(list) != 1 || list[0].Index != 5 || list[0].Term != 1 || list[0].ID != k.ID() || list[0].Version != 1 ||
		list[0].ConfigurationIndex != 1 || len(list[0].Configuration.Servers) != 1 {
		t.Fatalf("%+v %v", list, err)
	}

	// Persist runs beside an install: an older one must fail.
	for _, old := range []uint64{4, 5} {
		k = createSink(s, markerAt(old))
		if err := k.(CheckpointSink).Checkpoint(putAt(markerAt(old))); !errors.Is(err, ErrOldMarker) {
			t.Fatal(err)
		}
		must(t, k.Cancel())
	}
	if err := createSink(s, markerAt(6)).Close(); err == nil {
		t.Fatal("closed a sink with nothing in it")
	}
	// Who asks for an older one gets the current one, and is told so.
	meta, r, err := store.Open("3-1")
	must(t, err)
	must(t, r.Close())
	if meta.Index != 5 {
		t.Fatalf("%+v", meta)
	}
	if _, _, err := store.Open("6-1"); err == nil {
		t.Fatal("opened one that is not there")
	}
}

func TestInstall(t *testing.T) {
	from := openTestState(t, openDir(t, t.TempDir()), 4)
	path := t.TempDir()
	d := openDir(t, path)
	to := openTestState(t, d, 4)
	var told []uint64
	to.OnInstall(func(m Marker) error { told = append(told, m.Index); return nil })
	must(t, to.Checkpoint(markerAt(3), putAt(markerAt(3))))
	must(t, from.Checkpoint(markerAt(7), putAt(markerAt(7))))
	must(t, sendInstall(from, to, markerAt(7)))
	want := dumpState(t, from, "a", "at")
	if got := dumpState(t, to, "a", "at"); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	must(t, sendInstall(from, to, markerAt(7))) // again: the answer was lost
	if fmt.Sprint(told) != "[7 7]" {
		t.Fatal(told)
	}

	// It goes on as its own.
	must(t, to.Checkpoint(markerAt(8), putAt(markerAt(8))))
	must(t, from.Checkpoint(markerAt(8), putAt(markerAt(8))))
	must(t, d.Close())
	d = openDir(t, path)
	to = openTestState(t, d, 4)
	if got, want := dumpState(t, to, "a", "at"), dumpState(t, from, "a", "at"); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	// Older ones and ones of other terms do not go backwards.
	must(t, to.Checkpoint(markerAt(9), putAt(markerAt(9))))
	if err := sendInstall(from, to, markerAt(8)); !errors.Is(err, ErrOldMarker) {
		t.Fatal(err)
	}
	if files, _ := filepath.Glob(filepath.Join(path, "*.*-*")); len(files) != 0 {
		t.Fatal("left over: ", files)
	}
	must(t, d.Close())
	must(t, Verify(path, func(file, problem string) { t.Error(file, problem) }))
}

func TestInstallRefusesWhatIsNotIt(t *testing.T) {
	from := openTestState(t, openDir(t, t.TempDir()), 4)
	other := openTestState(t, openDir(t, t.TempDir()), 5)
	m := markerAt(7)
	must(t, from.Checkpoint(m, putAt(m)))
	must(t, other.Checkpoint(m, putAt(m)))
	read := func(s *StateFile) []byte {
		_, r, err := s.SnapshotStore().Open(snapshotID(m))
		must(t, err)
		defer r.Close()
		b, err := io.ReadAll(r)
		must(t, err)
		return b
	}
	good := read(from)
	flipped := bytes.Clone(good)
	flipped[bytes.Index(flipped, bytes.Repeat([]byte{7}, 300))+200] ^= 1
	tests := []struct {
		name, says string
		b          []byte
		m          Marker
	}{
		{"flipped bit", "CRC", flipped, m},
		{"cut short", "pages need", good[:len(good)-pageBytes], m},
		{"nothing of ours", "page 0", []byte("hello"), m},
		{"other group", "of group 5", read(other), m},
		{"other index", "is at 7-1", good, markerAt(8)},
		{"other term", "is at 7-1", good, Marker{Index: 7, Term: 9, Configuration: m.Configuration}},
	}
	path := t.TempDir()
	d := openDir(t, path)
	to := openTestState(t, d, 4)
	to.OnInstall(func(Marker) error { t.Error("told the owner"); return nil })
	must(t, to.Checkpoint(markerAt(3), putAt(markerAt(3))))
	before, bytesBefore := dumpState(t, to, "a", "at"), fingerprint(t, path)
	for _, tt := range tests {
		k := createSink(to, tt.m)
		_, err := k.Write(tt.b)
		must(t, err)
		if err := k.Close(); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	k := createSink(to, m)
	_, err := k.Write(good)
	must(t, err)
	must(t, k.Cancel())
	if dumpState(t, to, "a", "at") != before || d.Failed() != nil || fingerprint(t, path) != bytesBefore {
		t.Fatal("something has changed", d.Failed())
	}
}

// A crash between any two steps of an install: the node starts with the old
// state and its log, or with the leader's state and a log that fits it.
func TestCrashInInstall(t *testing.T) {
	for _, tt := range []struct {
		name       string
		last, term uint64
		wantLast   uint64 // after the install
	}{
		{"log behind", 20, 1, 0},
		{"log ahead, other term", 90, 4, 0},
		{"log ahead, same term", 90, 8, 90},
		{"no log", 0, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from := openTestState(t, openDir(t, t.TempDir()), 4)
			m := markerAt(70) // of term 8
			must(t, from.Checkpoint(m, putAt(m)))

			path := t.TempDir()
			var images []map[string][]byte
			shoot := func(string) { images = append(images, image(t, path)) }
			d := openDirWith(t, path, Options{step: func(s string) {
				if strings.HasPrefix(s, "install") {
					shoot(s)
				}
			}})
			g := openTestLog(t, d).Group(4)
			to := openTestState(t, d, 4)
			to.OnInstall(func(m Marker) error {
				err := CheckStart(g, m, true)
				shoot("log fits")
				return err
			})
			must(t, to.Checkpoint(markerAt(3), putAt(markerAt(3))))
			if tt.last > 0 {
				must(t, g.StoreLogs(entries(1, 3, 1, 100)))
				must(t, g.StoreLogs(entries(4, int(tt.last-3), tt.term, 100)))
			}
			oldState, oldLog := dumpState(t, to, "a", "at"), dumpGroup(t, g)
			must(t, sendInstall(from, to, m))
			newState, newLog := dumpState(t, to, "a", "at"), dumpGroup(t, g)
			if newState != dumpState(t, from, "a", "at") {
				t.Fatal("not the leader's state")
			}
			if last, _ := g.LastIndex(); last != tt.wantLast {
				t.Fatalf("log ends at %d, want %d", last, tt.wantLast)
			}
			shoot("done")
			if len(images) != 5 {
				t.Fatalf("%d steps", len(images))
			}
			for i, files := range images {
				d := openDir(t, lay(t, files))
				g, s := openTestLog(t, d).Group(4), openTestState(t, d, 4)
				at, ok := s.Marker()
				must(t, CheckStart(g, at, ok))
				state, log := dumpState(t, s, "a", "at"), dumpGroup(t, g)
				if i < 2 && (state != oldState || log != oldLog) || i >= 2 && (state != newState || log != newLog) {
					t.Errorf("step %d: neither old nor new", i)
				}
				must(t, d.Close())
			}
		})
	}
}

func TestCheckStart(t *testing.T) {
	m := Marker{Index: 50, Term: 3, Configuration: markerAt(50).Configuration}
	tests := []struct {
		name        string
		first, last uint64
		term        uint64
		none        bool // no marker
		keep, bad   bool
	}{
		{name: "no log, no marker", none: true, keep: true},
		{name: "whole log, no marker", first: 1, last: 9, term: 1, none: true, keep: true},
		{name: "log begins at 2, no marker", first: 2, last: 9, term: 1, none: true, bad: true},
		{name: "no log", keep: true},
		{name: "holds the marker", first: 20, last: 90, term: 3, keep: true},
		{name: "ends with the marker", first: 20, last: 50, term: 3, keep: true},
		{name: "begins with the marker", first: 50, last: 60, term: 3, keep: true},
		{name: "begins behind the marker", first: 51, last: 90, term: 9, keep: true},
		{name: "begins later", first: 52, last: 90, term: 9, bad: true},
		{name: "ends below the marker", first: 1, last: 49, term: 3},
		{name: "another term there", first: 20, last: 90, term: 2},
		{name: "another term at its end", first: 20, last: 50, term: 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := openTestLog(t, openDir(t, t.TempDir())).Group(1)
			if tt.last > 0 {
				must(t, g.StoreLogs(entries(tt.first, int(tt.last-tt.first+1), tt.term, 10)))
			}
			before := dumpGroup(t, g)
			err := CheckStart(g, m, !tt.none)
			var bad *BadDiskError
			if tt.bad != errors.As(err, &bad) || !tt.bad && err != nil {
				t.Fatal(err)
			}
			if tt.bad && !strings.HasSuffix(bad.File, logName) {
				t.Fatal(bad.File)
			}
			last, _ := g.LastIndex()
			if tt.keep || tt.bad {
				if dumpGroup(t, g) != before {
					t.Fatal("the log has changed")
				}
			} else if last != 0 {
				t.Fatal("the log was not emptied")
			}
		})
	}
}

func TestRemoveState(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path)
	s := openTestState(t, d, 4)
	must(t, s.Checkpoint(markerAt(3), putAt(markerAt(3))))
	if err := d.RemoveState(4); err == nil {
		t.Fatal("removed an open file")
	}
	must(t, s.Close())
	must(t, d.RemoveState(4))
	must(t, d.RemoveState(4))
	if _, err := os.Stat(filepath.Join(path, stateName(4))); !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if _, ok := openTestState(t, d, 4).Marker(); ok {
		t.Fatal("a removed state is back")
	}
}

// Raft can be made to snapshot without knowing its configuration; a server that
// starts from such a file has forgotten its group.
func TestSnapshotWithoutServers(t *testing.T) {
	d := openDir(t, t.TempDir())
	s := openTestState(t, d, 1)
	m := markerAt(5)
	_, err := s.SnapshotStore().Create(1, m.Index, m.Term, raft.Configuration{}, m.ConfigurationIndex, nil)
	if !errors.Is(err, ErrNoServers) {
		t.Fatal(err)
	}
	if _, has := s.Marker(); has {
		t.Fatal("a marker")
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// A copy that takes long holds up neither a checkpoint nor readers.
func TestSlowCopy(t *testing.T) {
	d := openDir(t, t.TempDir())
	s := openTestState(t, d, 1)
	put := func(value string) func(Rows) error {
		return func(r Rows) error { return r.Put("b", []byte("k"), []byte(value)) }
	}
	must(t, s.Checkpoint(markerAt(5), put("old")))
	started, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	list, err := s.SnapshotStore().List()
	must(t, err)
	copied := make(chan error)
	go func() {
		copied <- s.copyTo(writerFunc(func(b []byte) (int, error) {
			once.Do(func() { close(started) })
			<-goOn
			return len(b), nil
		}), list[0])
	}()
	<-started
	must(t, s.Checkpoint(markerAt(6), put("new")))
	read := make(chan error)
	go func() {
		v, err := s.Read("b", []byte("k"))
		if m, _ := s.Marker(); err == nil && (string(v) != "new" || m.Index != 6) {
			err = fmt.Errorf("read %q at %d", v, m.Index)
		}
		read <- err
	}()
	must(t, <-read)
	close(goOn)
	must(t, <-copied)
}

// The log behind a copy stays until its receiver has had time to catch up.
func TestLogBehindCopyStays(t *testing.T) {
	d := openDir(t, t.TempDir())
	g, s := openTestLog(t, d).Group(1), openTestState(t, d, 1)
	clock := time.Now()
	s.sends.now = func() time.Time { return clock }
	g.KeepFor(s)
	must(t, g.StoreLogs(entries(1, 100, 2, 10)))
	m := markerAt(50)
	must(t, s.Checkpoint(m, putAt(m)))
	truncated := func(to, first uint64) {
		t.Helper()
		must(t, g.DeleteRange(1, to))
		if got, _ := g.FirstIndex(); got != first {
			t.Errorf("the log begins at %d, not %d", got, first)
		}
		var l raft.Log
		if err := g.GetLog(first-1, &l); err != nil || l.Index != first-1 || l.Term != 2 {
			t.Errorf("before the first: %+v, %v", l, err)
		}
		if err := g.GetLog(first-2, &l); err != raft.ErrLogNotFound {
			t.Error(err)
		}
	}
	truncated(20, 21)
	_, copied, err := s.SnapshotStore().Open(snapshotID(m))
	must(t, err)
	_, err = copied.Read(make([]byte, 10))
	must(t, err)
	m = markerAt(80)
	must(t, s.Checkpoint(m, putAt(m)))
	truncated(70, 50)
	clock = clock.Add(time.Hour)
	truncated(70, 50)
	must(t, copied.Close())
	must(t, copied.Close())
	truncated(80, 50)
	clock = clock.Add(catchUpTime + 1)
	truncated(80, 81)
	// A conflict is cut all the same.
	_, copied, err = s.SnapshotStore().Open(snapshotID(m))
	must(t, err)
	defer copied.Close()
	must(t, g.DeleteRange(90, 100))
	if last, _ := g.LastIndex(); last != 89 {
		t.Error(last)
	}
	if _, _, err := s.SnapshotStore().Open("999-1"); err == nil {
		t.Error("opened what is not there")
	}
	if n := len(s.sends.all); n != 1 {
		t.Errorf("%d copies are under way", n)
	}
	must(t, copied.Close()) // never read: there is nobody to wait for
	if n := len(s.sends.all); n != 0 {
		t.Errorf("%d copies are under way", n)
	}
}

// A copy is made when it is first read, and is then of the checkpoint its meta
// told of.
func TestCopyIsMadeWhenRead(t *testing.T) {
	path := t.TempDir()
	s := openTestState(t, openDir(t, path), 1)
	open := func() io.ReadCloser {
		t.Helper()
		m, _ := s.Marker()
		_, r, err := s.SnapshotStore().Open(snapshotID(m))
		must(t, err)
		return r
	}
	copies := func() int {
		files, _ := filepath.Glob(filepath.Join(path, "*"+sendInfix+"*"))
		return len(files)
	}
	must(t, s.Checkpoint(markerAt(5), putAt(markerAt(5))))
	early, late := open(), open()
	if copies() != 0 {
		t.Error("copied before it is read")
	}
	_, err := early.Read(make([]byte, 10))
	must(t, err)
	if copies() != 1 {
		t.Error("not copied")
	}
	must(t, s.Checkpoint(markerAt(6), putAt(markerAt(6))))
	if _, err := io.Copy(io.Discard, early); err != nil {
		t.Error(err)
	}
	for range 2 {
		if _, err := late.Read(make([]byte, 10)); !errors.Is(err, errMovedOn) {
			t.Error(err)
		}
	}
	must(t, early.Close())
	must(t, late.Close())
	if _, err := early.Read(make([]byte, 10)); err == nil {
		t.Error("read after Close")
	}
	if n := copies(); n != 0 {
		t.Errorf("%d copies are left", n)
	}
}
