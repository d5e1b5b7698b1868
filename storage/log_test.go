package storage

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

var fixedTime = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

func TestEntryIsStoredInFull(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path)
	g := openTestLog(t, d).Group(1)
	var logs []*raft.Log
	for i, n := range []int{0, 1, rowBytes - entryHeader - 1, rowBytes - entryHeader, rowBytes - entryHeader + 1, 2 * rowBytes, 200_000} {
		l := entries(uint64(i+1), 1, 3, n)[0]
		if n == 0 {
			l.Data, l.Type = nil, raft.LogNoop
		}
		if i%2 == 1 {
			l.Extensions, l.AppendedAt = []byte("more"), fixedTime.Local()
		}
		logs = append(logs, l)
	}
	must(t, g.StoreLogs(logs))
	check := func(g *GroupLog) {
		t.Helper()
		for _, want := range logs {
			var got raft.Log
			must(t, g.GetLog(want.Index, &got))
			if !got.AppendedAt.Equal(want.AppendedAt) {
				t.Fatalf("entry %d: time %v, want %v", want.Index, got.AppendedAt, want.AppendedAt)
			}
			got.AppendedAt = want.AppendedAt
			if !reflect.DeepEqual(&got, want) {
				t.Fatalf("entry %d differs", want.Index)
			}
		}
		var l raft.Log
		for _, i := range []uint64{0, uint64(len(logs)) + 1} {
			if err := g.GetLog(i, &l); !errors.Is(err, raft.ErrLogNotFound) {
				t.Fatalf("entry %d: %v", i, err)
			}
		}
	}
	check(g)
	must(t, d.Close())
	check(openTestLog(t, openDir(t, path)).Group(1))
}

func TestLogRefusesHoles(t *testing.T) {
	g := openTestLog(t, openDir(t, t.TempDir())).Group(1)
	must(t, g.StoreLogs(entries(5, 10, 1, 10))) // 5 to 14
	for _, first := range []uint64{1, 5, 14, 16} {
		if err := g.StoreLogs(entries(first, 1, 1, 10)); !errors.Is(err, ErrNotNext) {
			t.Errorf("store %d: %v", first, err)
		}
	}
	two := append(entries(15, 1, 1, 10), entries(17, 1, 1, 10)...)
	if err := g.StoreLogs(two); !errors.Is(err, ErrNotNext) {
		t.Errorf("store 15 and 17: %v", err)
	}
	if err := g.DeleteRange(6, 13); !errors.Is(err, ErrHole) {
		t.Errorf("delete the middle: %v", err)
	}
	before := dumpGroup(t, g)
	must(t, g.DeleteRange(1, 4))
	must(t, g.DeleteRange(15, 90))
	must(t, g.DeleteRange(9, 8))
	if dumpGroup(t, g) != before {
		t.Error("changed by deleting nothing")
	}
}

func TestCommitIndexComesWithEntries(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path)
	g := openTestLog(t, d).Group(1)
	expect := func(want uint64) {
		t.Helper()
		if got, _ := g.GetCommitIndex(); got != want {
			t.Fatalf("commit index %d, want %d", got, want)
		}
	}
	must(t, g.StageCommitIndex(90))
	expect(0)
	must(t, g.StoreLogs(entries(1, 5, 1, 10)))
	expect(5)
	must(t, g.StageCommitIndex(3)) // a new leader knows less; what is committed stays so
	must(t, g.StoreLogs(entries(6, 5, 1, 10)))
	expect(5)
	must(t, g.StageCommitIndex(8))
	must(t, d.Close())
	d = openDir(t, path)
	g = openTestLog(t, d).Group(1)
	expect(5)
	must(t, g.StageCommitIndex(9))
	must(t, g.StoreLogs(entries(11, 1, 1, 10)))
	expect(9)
	must(t, g.DeleteRange(8, 11))
	expect(7)
	must(t, g.Empty())
	expect(0)
	must(t, g.StoreLogs(entries(40, 1, 1, 10)))
	expect(0)
}

func TestEmptyKeepsStableValues(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path)
	l := openTestLog(t, d)
	g := l.Group(2)
	must(t, g.SetUint64([]byte("CurrentTerm"), 7))
	must(t, g.Set([]byte("LastVoteCand"), []byte("n1/x")))
	must(t, g.StoreLogs(entries(1, 300, 1, 10)))
	must(t, l.EmptyGroup(2))
	must(t, d.Close())
	g = openTestLog(t, openDir(t, path)).Group(2)
	term, err := g.GetUint64([]byte("CurrentTerm"))
	vote, err2 := g.Get([]byte("LastVoteCand"))
	last, _ := g.LastIndex()
	if term != 7 || string(vote) != "n1/x" || err != nil || err2 != nil || last != 0 {
		t.Fatal(term, vote, err, err2, last)
	}
	if v, err := g.Get([]byte("none")); v != nil || err != nil {
		t.Fatal(v, err)
	}
	if v, err := g.GetUint64([]byte("none")); v != 0 || err != nil {
		t.Fatal(v, err)
	}
	if _, err := g.GetUint64([]byte("LastVoteCand")); err == nil {
		t.Fatal("a name is no number")
	}
}

// Chunks that hold no entry any more leave the file.
func TestTruncationFreesSpace(t *testing.T) {
	l := openTestLog(t, openDir(t, t.TempDir()))
	g := l.Group(1)
	next := uint64(1)
	for range 60 {
		must(t, g.StoreLogs(entries(next, 64, 1, 2000)))
		next += 64
	}
	must(t, g.DeleteRange(1, next-65))
	must(t, l.Close())
	eng := l.eng.(*boltLog)
	if n := len(eng.groups[1].chunks); n > 2+sweepChunks*4 {
		t.Fatalf("%d chunks are left", n)
	}
	// Given time, all of it goes.
	l = openTestLog(t, l.dir)
	g = l.Group(1)
	for i := range uint64(12) {
		must(t, g.SetUint64([]byte("x"), i))
	}
	must(t, l.Close())
	if n := len(l.eng.(*boltLog).groups[1].chunks); n > 2 {
		t.Fatalf("%d chunks are left", n)
	}
}

// Several groups store, truncate, vote and read at once.
func TestGroupsAtOnce(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path)
	l := openTestLog(t, d)
	const groups, rounds = 6, 40
	var wg, readers sync.WaitGroup
	stop := make(chan struct{})
	for id := range uint32(groups) {
		g := l.Group(id)
		wg.Go(func() { // raft's main loop
			for i := range uint64(rounds) {
				_ = g.StageCommitIndex(i * 10)
				if err := g.StoreLogs(entries(i*10+1, 10, 1, 700)); err != nil {
					t.Error(err)
				}
				if i%7 == 0 {
					if err := g.SetUint64([]byte("CurrentTerm"), i); err != nil {
						t.Error(err)
					}
				}
			}
		})
		wg.Go(func() { // its snapshots
			for i := range uint64(rounds) {
				last, _ := g.LastIndex()
				if err := g.DeleteRange(1, min(i*4, last/2)); err != nil {
					t.Error(err)
				}
			}
		})
		readers.Go(func() { // a replicator
			for i := uint64(1); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				first, _ := g.FirstIndex()
				last, _ := g.LastIndex()
				if i < first || i > last {
					i = first
				}
				var e raft.Log
				err := g.GetLog(i, &e)
				if err != nil && !errors.Is(err, raft.ErrLogNotFound) || err == nil && e.Index != i {
					t.Errorf("entry %d is %d: %v", i, e.Index, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	readers.Wait()
	var before []string
	for id := range uint32(groups) {
		before = append(before, dumpGroup(t, l.Group(id)))
	}
	must(t, d.Close())
	if err := l.Group(1).StoreLogs(entries(9999, 1, 1, 1)); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	l = openTestLog(t, openDir(t, path))
	for id := range uint32(groups) {
		if dumpGroup(t, l.Group(id)) != before[id] {
			t.Errorf("group %d differs after opening", id)
		}
	}
}

func TestTailIsBounded(t *testing.T) {
	g := openTestLog(t, openDir(t, t.TempDir())).Group(1)
	for i := range uint64(40) {
		must(t, g.StoreLogs(entries(i*10+1, 10, 1, 1000)))
		if g.tail.bytes > g.tail.limit {
			t.Fatalf("%d bytes in memory, above %d", g.tail.bytes, g.tail.limit)
		}
	}
	must(t, g.DeleteRange(395, 400))
	must(t, g.DeleteRange(1, 390))
	if len(g.tail.logs) != 4 || g.tail.bytes != 4*(1000+entryOverhead) {
		t.Fatal(len(g.tail.logs), g.tail.bytes)
	}
	must(t, g.Empty())
	if g.tail.logs != nil || g.tail.bytes != 0 {
		t.Fatal(g.tail)
	}
	must(t, g.StoreLogs(entries(900, 1, 1, 1<<20)))
	if g.tail.find(900) == nil {
		t.Fatal("the newest entry is not in memory")
	}
}

func TestReserve(t *testing.T) {
	path := t.TempDir()
	d := openDirWith(t, path, Options{ReserveBytes: 9 << 20})
	openTestLog(t, d)
	info, err := os.Stat(filepath.Join(path, logName))
	if err != nil || info.Size() < 9<<20 {
		t.Fatal(info, err)
	}
}

// TestTrailing counts the last entries that take no more than so many bytes: of
// those in memory and of those that are not, over chunks, and never none.
func TestTrailing(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path)
	g := openTestLog(t, d).Group(1)
	const size = 10_000
	must(t, g.StoreLogs(entries(5, 2*chunkEntries, 1, size)))
	check := func(g *GroupLog) {
		t.Helper()
		for _, want := range []struct {
			bytes         int
			most, entries uint64
		}{
			{0, 100, 1},
			{size + entryHeader, 100, 1},
			{2*(size+entryHeader) - 1, 100, 1},
			{2 * (size + entryHeader), 100, 2},
			{chunkEntries * (size + entryHeader), 1000, chunkEntries},
			{1 << 30, 1000, 2 * chunkEntries},
			{1 << 30, 200, 200},
		} {
			if got, err := g.Trailing(want.bytes, want.most); err != nil || got != want.entries {
				t.Errorf("%d bytes, at most %d: %d entries, %v; not %d", want.bytes, want.most, got, err, want.entries)
			}
		}
	}
	check(g)
	must(t, d.Close())
	d = openDir(t, path)
	g = openTestLog(t, d).Group(1)
	check(g)
	must(t, g.StoreLogs(entries(5+2*chunkEntries, 3, 1, size))) // in memory
	if got, err := g.Trailing(10*(size+entryHeader), 100); err != nil || got != 10 {
		t.Errorf("%d entries, %v", got, err)
	}
	must(t, g.DeleteRange(5, 5+2*chunkEntries))
	if got, err := g.Trailing(1<<30, 100); err != nil || got != 2 {
		t.Errorf("%d entries, %v", got, err)
	}
	if got, err := g.log.Group(2).Trailing(1<<30, 100); err != nil || got != 1 {
		t.Errorf("of an empty log: %d entries, %v", got, err)
	}
}
