package storage

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// A power cut in a transaction leaves some of its pages on the disk. The tests
// below take a file before and after each of many transactions and open every
// mixture of the two a prefix or a random choice of the changed pages makes, the
// meta page among them.
//
// Without the new meta page the file must open as before; with all pages as
// after. With the meta page and not all others the disk has lied about an fsync;
// then it must be refused, or be as before or after, never anything else.

// tear is one transaction on one file.
type tear struct {
	before, after []byte
	changed       []int // page numbers, data first, then meta: the order of writing
	metas         int   // how many of them are meta pages
}

func newTear(before, after []byte) tear {
	v := tear{before: before, after: after}
	var metas []int
	for i := 0; i*pageBytes < len(after); i++ {
		a := after[i*pageBytes : (i+1)*pageBytes]
		if i*pageBytes < len(before) && bytes.Equal(before[i*pageBytes:(i+1)*pageBytes], a) {
			continue
		}
		if i*pageBytes >= len(before) && bytes.Count(a, []byte{0}) == len(a) {
			continue
		}
		if i < 2 {
			metas = append(metas, i)
		} else {
			v.changed = append(v.changed, i)
		}
	}
	v.metas = len(metas)
	v.changed = append(v.changed, metas...)
	return v
}

// mix returns the file with the chosen pages written.
func (v tear) mix(pages []int) []byte {
	b := make([]byte, max(len(v.before), len(v.after)))
	copy(b, v.before)
	for _, p := range pages {
		copy(b[p*pageBytes:], v.after[p*pageBytes:(p+1)*pageBytes])
	}
	return b
}

// choices are the sets of pages to try.
func (v tear) choices(r *rand.Rand, random int) [][]int {
	var sets [][]int
	n := len(v.changed)
	data := v.changed[:n-v.metas]
	for i := range n + 1 {
		sets = append(sets, v.changed[:i])
	}
	for i := range data { // all but one, meta included
		sets = append(sets, append(append([]int{}, v.changed[:i]...), v.changed[i+1:]...))
	}
	sets = append(sets, v.changed[n-v.metas:]) // nothing but meta
	for range random {
		var set []int
		keep := r.Float64()
		for _, p := range v.changed {
			if r.Float64() < keep {
				set = append(set, p)
			}
		}
		sets = append(sets, set)
	}
	return sets
}

// tornResult counts what came of the images.
type tornResult struct{ old, new, refused int }

// tryTears opens each image with read, which returns all the file holds.
func tryTears(t *testing.T, v tear, sets [][]int, oldDump, newDump string, read func(file []byte) (string, error)) (res tornResult) {
	t.Helper()
	isMeta := func(p int) bool { return p < 2 }
	for _, set := range sets {
		hasMeta := len(set) > 0 && isMeta(set[len(set)-1])
		whole := len(set) == len(v.changed)
		got, err := read(v.mix(set))
		var bad *BadDiskError
		switch {
		case errors.As(err, &bad):
			res.refused++
			if !hasMeta || whole {
				t.Fatalf("pages %v of %v: refused an honest crash: %v", set, v.changed, err)
			}
		case err != nil:
			t.Fatalf("pages %v of %v: %v", set, v.changed, err)
		case got == newDump && hasMeta:
			res.new++
		case got == oldDump && !whole:
			res.old++
		default:
			t.Fatalf("pages %v of %v: neither old nor new", set, v.changed)
		}
	}
	return res
}

func TestTornCheckpoint(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path)
	s := openTestState(t, d, 4)
	file := filepath.Join(path, stateName(4))
	r := rand.New(rand.NewPCG(1, 2))
	model := map[string]int{}

	readState := func(b []byte) (string, error) {
		files := map[string][]byte{stateName(4): b}
		id, err := os.ReadFile(filepath.Join(path, identityName))
		must(t, err)
		files[identityName] = id
		d := openDir(t, lay(t, files))
		defer d.Close()
		s, err := d.OpenState(4)
		if err != nil {
			return "", err
		}
		return dumpState(t, s, "a", "at"), nil
	}

	var total tornResult
	for i := range uint64(8) {
		before, err := os.ReadFile(file)
		must(t, err)
		oldDump := dumpState(t, s, "a", "at")
		must(t, s.Checkpoint(markerAt(i+1), func(rows Rows) error {
			for range 12 {
				k := fmt.Sprintf("%02d", r.IntN(40))
				if r.IntN(3) == 0 {
					delete(model, k)
					must(t, rows.Delete("a", []byte(k)))
					continue
				}
				model[k] = r.IntN(6000)
				must(t, rows.Put("a", []byte(k), bytes.Repeat([]byte{byte(i)}, model[k])))
			}
			return rows.Put("at", []byte("index"), fmt.Append(nil, i))
		}))
		after, err := os.ReadFile(file)
		must(t, err)
		v := newTear(before, after)
		res := tryTears(t, v, v.choices(r, some(10)), oldDump, dumpState(t, s, "a", "at"), readState)
		total.old += res.old
		total.new += res.new
		total.refused += res.refused
	}
	t.Logf("%+v", total)
	if total.old == 0 || total.new == 0 || total.refused == 0 {
		t.Fatalf("not all kinds seen: %+v", total)
	}
}

func TestTornLog(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path)
	l := openTestLog(t, d)
	file := filepath.Join(path, logName)
	r := rand.New(rand.NewPCG(3, 4))

	dump := func(l *Log) string {
		return dumpGroup(t, l.Group(1)) + dumpGroup(t, l.Group(2))
	}
	readLog := func(b []byte) (string, error) {
		files := map[string][]byte{logName: b}
		id, err := os.ReadFile(filepath.Join(path, identityName))
		must(t, err)
		files[identityName] = id
		d := openDir(t, lay(t, files))
		defer d.Close()
		l, err := d.OpenLog(LogOptions{})
		if err != nil {
			return "", err
		}
		return dump(l), nil
	}
	// The identity lists the log; made before the first transaction.
	steps := []func(){
		func() { must(t, l.Group(1).StoreLogs(entries(1, 5, 1, 100))) },
		func() { must(t, l.Group(1).SetUint64([]byte("CurrentTerm"), 3)) },
		func() { must(t, l.Group(2).StoreLogs(entries(1, 100, 1, 300))) },
		func() { must(t, l.Group(1).StoreLogs(entries(6, 2, 1, 15_000))) },
		func() { must(t, l.Group(2).StoreLogs(entries(101, 60, 2, 200))) },
		func() { must(t, l.Group(1).DeleteRange(4, 7)) },
		func() { must(t, l.Group(1).StoreLogs(entries(4, 3, 2, 3000))) },
		func() { must(t, l.Group(2).DeleteRange(1, 130)) },
		func() { must(t, l.Group(1).StoreLogs(entries(7, 1, 2, 100))) },
		func() { must(t, l.Group(2).StoreLogs(entries(161, 1, 2, 100))) },
		func() { must(t, l.Group(1).Empty()) },
		func() { must(t, l.Group(1).StoreLogs(entries(50, 20, 5, 2000))) },
		func() { must(t, l.Group(1).DeleteRange(1, 55)) },
		func() { must(t, l.Group(1).StoreLogs(entries(70, 1, 5, 100))) },
		func() { must(t, l.Group(1).StoreLogs(entries(71, 1, 5, 100))) },
		func() { must(t, l.Group(1).StoreLogs(entries(72, 1, 5, 100))) },
	}
	var total tornResult
	for _, step := range steps {
		before, err := os.ReadFile(file)
		must(t, err)
		oldDump := dump(l)
		step()
		settle(t, l)
		after, err := os.ReadFile(file)
		must(t, err)
		v := newTear(before, after)
		if v.metas != 1 {
			continue // freeing space was a second transaction
		}
		res := tryTears(t, v, v.choices(r, some(10)), oldDump, dump(l), readLog)
		total.old += res.old
		total.new += res.new
		total.refused += res.refused
	}
	t.Logf("%+v", total)
	if total.old == 0 || total.new == 0 || total.refused == 0 {
		t.Fatalf("not all kinds seen: %+v", total)
	}
}

// settle waits until the committer has freed what it will.
func settle(t *testing.T, l *Log) {
	t.Helper()
	// An operation that is refused commits nothing but comes after the rest.
	for range 3 {
		if err := l.Group(99).refuse(); err == nil {
			t.Fatal("not refused")
		}
	}
}

// refuse waits for the committer and changes nothing.
func (g *GroupLog) refuse() error {
	return g.log.do(&op{group: g, edit: func(*head, *change) error { return errors.New("refused") }})
}
