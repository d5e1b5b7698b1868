package storage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

func markerAt(index uint64) Marker {
	return Marker{
		Index: index, Term: index/10 + 1, ConfigurationIndex: 1,
		Configuration: raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: "n1/x", Address: "n1/x"}}},
	}
}

func TestCheckpointIsDurable(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path)
	s := openTestState(t, d, 4)
	if _, ok := s.Marker(); ok {
		t.Fatal("a marker before the first checkpoint")
	}
	big := bytes.Repeat([]byte("0123456789"), 20_000)
	must(t, s.Checkpoint(markerAt(10), func(r Rows) error {
		must(t, r.Put("a", []byte("k1"), []byte("v1")))
		must(t, r.Put("a", []byte("k2"), big))
		must(t, r.Put("b", []byte("k1"), nil))
		must(t, r.Delete("b", []byte("none")))
		return r.Put("a", []byte("k3"), []byte("gone"))
	}))
	must(t, s.Checkpoint(markerAt(20), func(r Rows) error {
		must(t, r.Delete("a", []byte("k3")))
		return r.Put("a", []byte("k1"), []byte("v2"))
	}))
	want := dumpState(t, s, "a", "b", "c")
	must(t, d.Close())
	if err := s.Checkpoint(markerAt(30), func(Rows) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if _, err := s.Read("a", []byte("k1")); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}

	s = openTestState(t, openDir(t, path), 4)
	if got := dumpState(t, s, "a", "b", "c"); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	if m, ok := s.Marker(); !ok || fmt.Sprint(m) != fmt.Sprint(markerAt(20)) {
		t.Fatal(m)
	}
	for _, tt := range []struct{ bucket, key, want string }{{"a", "k1", "v2"}, {"a", "k2", string(big)}, {"b", "k1", ""}} {
		v, err := s.Read(tt.bucket, []byte(tt.key))
		if err != nil || v == nil || string(v) != tt.want {
			t.Errorf("%s %s: %.20q %v", tt.bucket, tt.key, v, err)
		}
	}
	for _, tt := range [][2]string{{"a", "k3"}, {"none", "k"}} {
		if v, err := s.Read(tt[0], []byte(tt[1])); v != nil || err != nil {
			t.Errorf("%s: %q %v", tt, v, err)
		}
	}
}

func TestCheckpointThatFailsChangesNothing(t *testing.T) {
	d := openDir(t, t.TempDir())
	s := openTestState(t, d, 4)
	put := func(r Rows) error { return r.Put("a", []byte("k"), []byte("v")) }
	must(t, s.Checkpoint(markerAt(10), put))
	before := dumpState(t, s, "a")

	mine := errors.New("mine")
	tests := []struct {
		name  string
		m     Marker
		write func(Rows) error
		want  error
	}{
		{"older", markerAt(9), put, ErrOldMarker},
		{"equal", markerAt(10), put, ErrOldMarker},
		{"index 0", Marker{}, put, nil},
		{"the caller's error", markerAt(11), func(r Rows) error { must(t, r.Delete("a", []byte("k"))); return mine }, mine},
		{"empty key", markerAt(11), func(r Rows) error { return r.Put("a", nil, nil) }, nil},
		{"no bucket name", markerAt(11), func(r Rows) error { return r.Put("", []byte("k"), nil) }, nil},
		{"an error not passed on", markerAt(11), func(r Rows) error { _ = r.Put("", []byte("k"), nil); return nil }, nil},
	}
	for _, tt := range tests {
		err := s.Checkpoint(tt.m, tt.write)
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	func() {
		defer func() {
			if r := recover(); r != "the caller's" {
				t.Errorf("recovered %v", r)
			}
		}()
		_ = s.Checkpoint(markerAt(11), func(Rows) error { panic("the caller's") })
	}()
	if got := dumpState(t, s, "a"); got != before || d.Failed() != nil {
		t.Fatalf("got %s, want %s, %v", got, before, d.Failed())
	}
	must(t, s.Checkpoint(markerAt(11), put))
}

func TestScan(t *testing.T) {
	s := openTestState(t, openDir(t, t.TempDir()), 4)
	const n = 3*scanRows + 7
	must(t, s.Checkpoint(markerAt(10), func(r Rows) error {
		for i := range n {
			must(t, r.Put("a", fmt.Appendf(nil, "%05d", i), bytes.Repeat([]byte{byte(i)}, i%7*1000)))
		}
		return nil
	}))
	i := 0
	must(t, s.Scan("a", func(k, v []byte) error {
		if string(k) != fmt.Sprintf("%05d", i) || !bytes.Equal(v, bytes.Repeat([]byte{byte(i)}, i%7*1000)) {
			t.Fatalf("row %d: %s", i, k)
		}
		i++
		return nil
	}))
	if i != n {
		t.Fatalf("%d rows", i)
	}
	var got []string
	must(t, s.ScanFrom("a", []byte("00100x"), func(k, _ []byte) error {
		got = append(got, string(k))
		if len(got) == 2 {
			return ErrStop
		}
		return nil
	}))
	if strings.Join(got, " ") != "00101 00102" {
		t.Fatal(got)
	}
	mine := errors.New("mine")
	if err := s.Scan("a", func(_, _ []byte) error { return mine }); err != mine {
		t.Fatal(err)
	}
	must(t, s.Scan("none", func(_, _ []byte) error { return mine }))
}

func TestStateAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path, err := os.MkdirTemp("", "state")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(path)
		var d *Dir
		var s *StateFile
		open := func() {
			if d, err = Open(path, Options{NodeID: "n"}); err != nil {
				t.Fatal(err)
			}
			if s, err = d.OpenState(1); err != nil {
				t.Fatal(err)
			}
		}
		open()
		defer func() { _ = d.Close() }()
		model := map[string][]byte{}
		index := uint64(0)
		key := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a'}), 1, 5) // parts of values share prefixes with keys
		t.Repeat(map[string]func(*rapid.T){
			"checkpoint": func(t *rapid.T) {
				index++
				abort := rapid.IntRange(0, 4).Draw(t, "abort") == 0
				next := map[string][]byte{}
				for k, v := range model {
					next[k] = v
				}
				err := s.Checkpoint(markerAt(index), func(r Rows) error {
					for range rapid.IntRange(0, 8).Draw(t, "n") {
						k := key.Draw(t, "key")
						if rapid.IntRange(0, 2).Draw(t, "delete") == 0 {
							delete(next, string(k))
							if err := r.Delete("b", k); err != nil {
								t.Fatal(err)
							}
							continue
						}
						v := bytes.Repeat([]byte{byte(index)}, rapid.SampledFrom([]int{0, 1, rowBytes - 1, rowBytes, rowBytes + 1, 5 * rowBytes, 5*rowBytes + 9}).Draw(t, "size"))
						next[string(k)] = v
						if err := r.Put("b", k, v); err != nil {
							t.Fatal(err)
						}
					}
					if abort {
						return errors.New("abort")
					}
					return nil
				})
				if (err != nil) != abort {
					t.Fatal(err)
				}
				if !abort {
					model = next
				}
			},
			"reopen": func(t *rapid.T) {
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				open()
			},
			"": func(t *rapid.T) {
				want := sorted(model)
				if err := s.Scan("b", func(k, v []byte) error {
					if len(want) == 0 || string(k) != want[0] || !bytes.Equal(v, model[want[0]]) {
						t.Fatalf("%x", k)
					}
					want = want[1:]
					return nil
				}); err != nil || len(want) > 0 {
					t.Fatal(err, want)
				}
			},
		})
		_ = d.Close()
		open() // checks all of the file
	})
}

// Readers, checkpoints, copies and installs of one file at once.
func TestStateAtOnce(t *testing.T) {
	donor := openTestState(t, openDir(t, t.TempDir()), 4)
	d := openDir(t, t.TempDir())
	s := openTestState(t, d, 4)
	fill := func(m Marker) func(Rows) error {
		return func(r Rows) error {
			for i := range 50 {
				if err := r.Put("a", []byte{byte(i)}, bytes.Repeat([]byte{byte(m.Index)}, 100*i)); err != nil {
					return err
				}
			}
			return nil
		}
	}
	must(t, s.Checkpoint(markerAt(1), fill(markerAt(1))))
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := s.Scan("a", func(k, v []byte) error {
					if len(v) != 100*int(k[0]) || len(v) > 0 && v[0] != v[len(v)-1] {
						return fmt.Errorf("row %x", k)
					}
					return nil
				}); err != nil {
					t.Error(err)
					return
				}
				if _, err := s.Read("a", []byte{7}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := uint64(2); i < 20; i++ {
		m := markerAt(i)
		wg.Go(func() {
			_, err := d.NextBoot()
			other, err2 := d.OpenState(100 + uint32(i))
			if err != nil || err2 != nil || other.Close() != nil {
				t.Error(err, err2)
			}
		})
		if i%3 != 0 {
			must(t, s.Checkpoint(m, fill(m)))
			continue
		}
		must(t, donor.Checkpoint(m, fill(m)))
		must(t, sendInstall(donor, s, m))
	}
	close(stop)
	wg.Wait()
}

// TestReadAll reads some keys at once: in order, without those that are not
// there.
func TestReadAll(t *testing.T) {
	s := openTestState(t, openDir(t, t.TempDir()), 4)
	long := bytes.Repeat([]byte("0123456789"), 2000)
	must(t, s.Checkpoint(markerAt(10), func(r Rows) error {
		must(t, r.Put("b", []byte("1"), []byte("one")))
		must(t, r.Put("b", []byte("3"), long))
		return r.Put("b", []byte("4"), nil)
	}))
	keys := [][]byte{[]byte("0"), []byte("1"), []byte("2"), []byte("3"), []byte("4"), []byte("1")}
	got := map[int]string{}
	must(t, s.ReadAll("b", keys, func(i int, value []byte) error {
		got[i] = string(value)
		return nil
	}))
	want := map[int]string{1: "one", 3: string(long), 4: "", 5: "one"}
	if len(got) != len(want) {
		t.Fatalf("%d values, not %d", len(got), len(want))
	}
	for i, v := range want {
		if g, ok := got[i]; !ok || g != v {
			t.Errorf("key %s: %.20q", keys[i], g)
		}
	}
	must(t, s.ReadAll("none", keys, func(int, []byte) error { return errors.New("called") }))
	failed := errors.New("failed")
	if err := s.ReadAll("b", keys, func(int, []byte) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("error %v", err)
	}
	must(t, s.Close())
	if err := s.ReadAll("b", keys, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
