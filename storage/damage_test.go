package storage

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	shoalpb "github.com/shoalmq/shoal/proto"
	bolt "go.etcd.io/bbolt"
)

// sampleDir makes a directory with some of everything and returns its path and
// what it holds.
func sampleDir(t *testing.T) (path, dump string) {
	t.Helper()
	path = t.TempDir()
	d := openDir(t, path)
	l := openTestLog(t, d)
	must(t, l.Group(1).SetUint64([]byte("CurrentTerm"), 3))
	must(t, l.Group(1).StoreLogs(entries(1, 140, 1, 900)))
	must(t, l.Group(1).StoreLogs(entries(141, 2, 1, 9000)))
	must(t, l.Group(2).StoreLogs(entries(7, 30, 1, 100)))
	must(t, l.Group(1).DeleteRange(1, 10))
	s := openTestState(t, d, 1)
	for i := range uint64(9) {
		must(t, s.Checkpoint(markerAt(i+1), putAt(markerAt(i+1))))
	}
	dump = dumpAll(t, l, s)
	must(t, d.Close())
	return path, dump
}

func dumpAll(t *testing.T, l *Log, s *StateFile) string {
	return dumpGroup(t, l.Group(1)) + dumpGroup(t, l.Group(2)) + dumpState(t, s, "a", "at")
}

// readAll opens a directory and returns what it holds.
func readAll(t *testing.T, path string) (string, error) {
	d, err := Open(path, Options{NodeID: "n1"})
	if err != nil {
		return "", err
	}
	defer d.Close()
	l, err := d.OpenLog(LogOptions{})
	if err != nil {
		return "", err
	}
	s, err := d.OpenState(1)
	if err != nil {
		return "", err
	}
	return dumpAll(t, l, s), nil
}

// problems returns what Verify finds.
func problems(t *testing.T, path string) (found []string) {
	t.Helper()
	must(t, Verify(path, func(file, problem string) { found = append(found, file+": "+problem) }))
	return found
}

// A flipped bit anywhere is found by Verify and by opening, which names the file,
// or it is where nothing is stored and the contents are the same.
func TestFlippedBits(t *testing.T) {
	path, want := sampleDir(t)
	if found := problems(t, path); len(found) != 0 {
		t.Fatal(found)
	}
	r := rand.New(rand.NewPCG(5, 6))
	for _, name := range []string{logName, stateName(1), identityName} {
		file := filepath.Join(path, name)
		good, err := os.ReadFile(file)
		must(t, err)
		used := bytes.TrimRight(good, "\x00")
		found := 0
		flips := some(150)
		for range flips {
			b := bytes.Clone(good)
			at := r.IntN(len(used))
			b[at] ^= 1 << r.IntN(8)
			writeSparse(t, file, b)
			ps := problems(t, path)
			got, err := readAll(t, path)
			var bad *BadDiskError
			switch {
			case len(ps) > 0 && errors.As(err, &bad) && bad.File == file && strings.HasPrefix(ps[0], name):
				found++
			case len(ps) == 0 && err == nil && got == want:
			default:
				t.Fatalf("%s, byte %d (page %d, offset %d): Verify says %q, opening %v, same contents %v",
					name, at, at/pageBytes, at%pageBytes, ps, err, got == want)
			}
		}
		t.Logf("%s: %d of %d flips found", name, found, flips)
		if found < flips/3 {
			t.Errorf("%s: only %d of %d flips found", name, found, flips)
		}
		writeSparse(t, file, good)
	}
}

// Every row that a walk of ours sees, bbolt sees too: flipping any bit of a row
// is found, without exception.
func TestEveryRowIsCovered(t *testing.T) {
	path, _ := sampleDir(t)
	r := rand.New(rand.NewPCG(7, 8))
	for _, name := range []string{logName, stateName(1)} {
		file := filepath.Join(path, name)
		good, err := os.ReadFile(file)
		must(t, err)
		var rows [][]byte
		_, ok := checkFile(file, func(_ []string, k, v []byte) {
			rows = append(rows, append(bytes.Clone(k), v...))
		}, func(p string) { t.Fatal(p) })
		if !ok || len(rows) < 20 {
			t.Fatal(len(rows))
		}
		for i := 0; i < len(rows); i += 1 + len(rows)/60 {
			// A page no longer used may hold an older copy; flip them all.
			b := bytes.Clone(good)
			bit := r.IntN(len(rows[i]) * 8)
			n := 0
			for at := 0; ; n++ {
				next := bytes.Index(good[at:], rows[i])
				if next < 0 {
					break
				}
				b[at+next+bit/8] ^= 1 << (bit % 8)
				at += next + len(rows[i])
			}
			if n == 0 {
				t.Fatalf("row %d is not in the file", i)
			}
			writeSparse(t, file, b)
			if len(problems(t, path)) == 0 {
				t.Fatalf("%s, row %d, bit %d: not found", name, i, bit)
			}
		}
		writeSparse(t, file, good)
	}
}

// Flips in the headers of pages, which say how many rows there are and how many
// pages they take, and in those of elements.
func TestFlippedHeaders(t *testing.T) {
	path, want := sampleDir(t)
	r := rand.New(rand.NewPCG(9, 10))
	for _, name := range []string{logName, stateName(1)} {
		file := filepath.Join(path, name)
		good, err := os.ReadFile(file)
		must(t, err)
		live := livePages(t, file)
		if len(live) < 15 {
			t.Fatal("only pages ", live)
		}
		for _, page := range live {
			bits := []int{64, 65, 80, 81, 83, 96, 98, 128, 161, 193, 225}
			r.Shuffle(len(bits), func(i, j int) { bits[i], bits[j] = bits[j], bits[i] })
			for _, bit := range bits[:some(4)] {
				b := bytes.Clone(good)
				b[page*pageBytes+bit/8] ^= 1 << (bit % 8)
				writeSparse(t, file, b)
				found := false
				verifyFile(path, name, "", func(string) { found = true })
				if found {
					continue
				}
				if got, err := readAll(t, path); err != nil || got != want || bit < 128 {
					t.Fatalf("%s, page %d, bit %d: not found; opening %v", name, page, bit, err)
				}
			}
		}
		writeSparse(t, file, good)
	}
}

// livePages are the pages in use, each run of them by its first.
func livePages(t *testing.T, file string) (live []int) {
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	p := &pageReader{r: f, row: func([]string, []byte, []byte) {}, bad: func(s string) { t.Fatal(s) }}
	m, err := p.metas()
	must(t, err)
	p.high, p.seen = m.high, make([]uint64, m.high/64+1)
	p.page(m.root, nil, span{}, 0)
	var id [8]byte
	for i := range m.high {
		_, err := f.ReadAt(id[:], int64(i)*pageBytes)
		must(t, err)
		if p.seen[i/64]&(1<<(i%64)) != 0 && order.Uint64(id[:]) == i {
			live = append(live, int(i))
		}
	}
	return live
}

// Rows, buckets and groups that are gone without a trace in the pages, as a page
// of an earlier time in place of its successor leaves them: the sums tell.
func TestMissingRowsDoNotAddUp(t *testing.T) {
	for _, tt := range []struct {
		name, file, says string
		remove           func(tx *bolt.Tx) error
	}{
		{"row of an entry", logName, "group 1: the rows do not add up", func(tx *bolt.Tx) error {
			return tx.Bucket(groupBucket(1)).Bucket(chunkKey(0)).Delete(rowKey(9, 0)) // below first
		}},
		{"last entry", logName, "entries between 11 and 142 are missing", func(tx *bolt.Tx) error {
			b := tx.Bucket(groupBucket(1)).Bucket(chunkKey(1))
			for i := range uint32(10) {
				must(t, b.Delete(rowKey(142, i)))
			}
			return nil
		}},
		{"entry in the middle", logName, "entries between 11 and 142 are missing", func(tx *bolt.Tx) error {
			return tx.Bucket(groupBucket(1)).Bucket(chunkKey(0)).Delete(rowKey(99, 0))
		}},
		{"group", logName, "heads do not add up", func(tx *bolt.Tx) error { return tx.DeleteBucket(groupBucket(2)) }},
		{"head of a group", logName, "group 2: the head is missing", func(tx *bolt.Tx) error {
			return tx.Bucket(groupBucket(2)).Delete(headKey)
		}},
		{"head of the log", logName, "the head is missing", func(tx *bolt.Tx) error { return tx.DeleteBucket(headKey) }},
		{"state row", stateName(1), "the rows do not add up", func(tx *bolt.Tx) error {
			return tx.Bucket(rowsBucket("a")).Delete([]byte{1})
		}},
		{"part of a value", stateName(1), "parts of values", func(tx *bolt.Tx) error {
			return tx.Bucket(moreBucket("a")).Delete(partKey([]byte{29}, 1))
		}},
		{"head of the state", stateName(1), "the head is missing", func(tx *bolt.Tx) error { return tx.DeleteBucket(headKey) }},
		{"nothing but the time", stateName(1), "pages of transaction", func(*bolt.Tx) error { return nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path, _ := sampleDir(t)
			forge(t, filepath.Join(path, tt.file), tt.says != "pages of transaction", tt.remove)
			found := strings.Join(problems(t, path), "\n")
			_, err := readAll(t, path)
			var bad *BadDiskError
			if !strings.Contains(found, tt.says) || !errors.As(err, &bad) {
				t.Fatalf("%q does not say %q; opening %v", found, tt.says, err)
			}
		})
	}
}

// forge changes a file behind our back; with fix the head follows the number of
// the transaction.
func forge(t *testing.T, file string, fix bool, change func(*bolt.Tx) error) {
	t.Helper()
	f, err := openBolt(file, &health{}, os.OpenFile)
	must(t, err)
	defer f.close()
	must(t, f.update(func(tx *bolt.Tx) error {
		must(t, change(tx))
		b := tx.Bucket(headKey)
		if b == nil || !fix {
			return nil
		}
		payload, _ := openRow(checksum(headKey), headKey, b.Get(headKey))
		if filepath.Base(file) != logName {
			h := new(shoalpb.StateHead)
			must(t, h.UnmarshalVT(payload))
			return putStateHead(tx, h)
		}
		h := new(shoalpb.LogHead)
		must(t, h.UnmarshalVT(payload))
		h.Tx = uint64(tx.ID())
		_, err := putRecord(b, checksum(headKey), h)
		return err
	}))
}

// A row damaged under an open file is found when it is read, ends the disk and
// is told once.
func TestDamageUnderAnOpenFile(t *testing.T) {
	path := t.TempDir()
	var fatal []error
	d := openDirWith(t, path, Options{OnFatal: func(err error) { fatal = append(fatal, err) }})
	l, err := d.OpenLog(LogOptions{TailBytes: 1})
	must(t, err)
	g := l.Group(1)
	logs := entries(1, 3, 1, 500)
	must(t, g.StoreLogs(logs))
	must(t, g.StoreLogs(entries(4, 1, 1, 10)))

	file := filepath.Join(path, logName)
	b, err := os.ReadFile(file)
	must(t, err)
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	must(t, err)
	for from := 0; ; { // older copies in free pages too
		i := bytes.Index(b[from:], logs[1].Data)
		if i < 0 {
			break
		}
		from += i + 100
		_, err = f.WriteAt([]byte{^b[from]}, int64(from))
		must(t, err)
	}
	must(t, f.Close())

	var out raft.Log
	must(t, g.GetLog(1, &out))
	var bad *BadDiskError
	err = g.GetLog(2, &out)
	if !errors.As(err, &bad) || bad.File != file {
		t.Fatal(err)
	}
	if err := g.StoreLogs(entries(5, 1, 1, 10)); !errors.As(err, &bad) {
		t.Fatal(err)
	}
	_ = g.GetLog(2, &out)
	if len(fatal) != 1 || !errors.As(fatal[0], &bad) {
		t.Fatal(fatal)
	}
	must(t, d.Close())
	if _, err := Open(path, Options{NodeID: "n1"}); !errors.As(err, &bad) || !strings.Contains(bad.Reason, "entry 2") {
		t.Fatal(err)
	}
}

func TestVerifyNamesWhatIsMissing(t *testing.T) {
	path, _ := sampleDir(t)
	must(t, os.Remove(filepath.Join(path, stateName(1))))
	writeTaint(path, "it broke")
	before := fingerprint(t, path)
	found := strings.Join(problems(t, path), "\n")
	if fingerprint(t, path) != before {
		t.Error("Verify has changed something")
	}
	for _, want := range []string{"state-1.db: missing", "tainted: it broke"} {
		if !strings.Contains(found, want) {
			t.Errorf("%q does not say %q", found, want)
		}
	}
	if err := Verify(t.TempDir(), nil); err == nil {
		t.Error("verified a directory that is not ours")
	}
}

// A log of another disk, or an old copy of this disk's, is not taken for its own.
func TestFileOfAnotherDisk(t *testing.T) {
	a, _ := sampleDir(t)
	b, _ := sampleDir(t)
	for _, name := range []string{logName, stateName(1)} {
		theirs, err := os.ReadFile(filepath.Join(a, name))
		must(t, err)
		mine, err := os.ReadFile(filepath.Join(b, name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(b, name), theirs, 0o600))
		if _, err := readAll(t, b); err == nil || !strings.Contains(err.Error(), "is of disk") {
			t.Errorf("%s: %v", name, err)
		}
		must(t, os.WriteFile(filepath.Join(b, name), mine, 0o600))
	}
}
