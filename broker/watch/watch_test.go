package watch

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestWatch: a change of any kind is seen, once; a load that fails is told once
// and tried until it succeeds, whether or not the file changes.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	write := func(name, content string, at int) {
		t.Helper()
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, time.Time{}, time.Unix(int64(at), 0)); err != nil {
			t.Fatal(err)
		}
	}
	write(path, "one", 1)
	var log bytes.Buffer
	w := New(slog.New(slog.NewTextHandler(&log, nil)))
	var got []string
	locked := false
	load := func() error {
		b, err := os.ReadFile(path)
		if err == nil && string(b) == "bad" {
			err = errors.New("line 1: bad")
		}
		if locked {
			err = errors.New("permission denied")
		}
		got = append(got, string(b))
		return err
	}
	if err := w.Add("passwords", []string{path, filepath.Join(dir, "other")}, load); err != nil {
		t.Fatal(err)
	}
	expect := func(what string, want ...string) {
		t.Helper()
		got = nil
		w.Look()
		w.Look()
		if strings.Join(got, ",") != strings.Join(want, ",") {
			t.Errorf("%s: loaded %q, want %q", what, got, want)
		}
	}
	expect("nothing")
	write(path, "two", 2)
	expect("another time, the same size", "two")
	write(path, "three", 2)
	expect("another size, the same time", "three")
	write(filepath.Join(dir, "new"), "fives", 2)
	if err := os.Rename(filepath.Join(dir, "new"), path); err != nil {
		t.Fatal(err)
	}
	expect("renamed over, the same size and time", "fives")
	write(path, "bad", 3)
	expect("bad", "bad", "bad")
	if strings.Count(log.String(), "line 1: bad") != 1 || !strings.Contains(log.String(), "passwords") {
		t.Errorf("log: %s", log.String())
	}
	locked = true
	write(path, "seven", 4)
	expect("what may not be read", "seven", "seven")
	locked = false
	expect("what may be read again, unchanged", "seven")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect("gone", "", "")
	write(path, "three", 2)
	expect("back", "three")
	write(filepath.Join(dir, "other"), "x", 2)
	expect("the other file", "three")
	if err := New(slog.Default()).Add("x", nil, func() error { return errors.New("no") }); err == nil {
		t.Error("an error at the start is not told")
	}
}
