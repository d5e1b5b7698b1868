package storage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestIdentityIsDurable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d := openDir(t, path)
	first := d.Identity()
	if first.DiskID == "" || first.Nonce == "" || first.Boot != 0 || first.ClusterID != "" {
		t.Fatalf("new identity: %+v", first)
	}
	for want := uint64(1); want <= 3; want++ {
		if boot, err := d.NextBoot(); err != nil || boot != want {
			t.Fatalf("boot %d, %v", boot, err)
		}
	}
	must(t, d.SetPromise([]string{"n1/x", "n2/y"}))
	must(t, d.SetBirth("c1", 6))
	want := d.Identity()
	must(t, d.Close())

	d = openDir(t, path)
	if got := d.Identity(); !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	if want.DiskID != first.DiskID || want.Boot != 3 || len(want.Promise) != 2 || want.Shards != 6 {
		t.Fatalf("%+v", want)
	}
	must(t, d.SetPromise(nil))
	if d.Identity().Promise != nil {
		t.Fatal("promise not void")
	}
	must(t, d.Close())
	if _, err := d.NextBoot(); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestTwoDirectoriesAreTwoDisks(t *testing.T) {
	a, b := openDir(t, t.TempDir()), openDir(t, t.TempDir())
	if a.Identity().DiskID == b.Identity().DiskID || a.Identity().Nonce == b.Identity().Nonce {
		t.Fatal("same ids")
	}
}

// rewriteIdentity changes the stored identity as an outsider would.
func rewriteIdentity(t *testing.T, path string, edit func(*Identity)) {
	t.Helper()
	file := filepath.Join(path, identityName)
	b, err := os.ReadFile(file)
	must(t, err)
	line, _, _ := bytes.Cut(b, []byte("\n"))
	var id Identity
	must(t, json.Unmarshal(line, &id))
	edit(&id)
	b, err = id.encode()
	must(t, err)
	must(t, os.WriteFile(file, b, 0o600))
}

func TestRefusalChangesNothing(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, path string)
		node  string
		want  error // or, if nil, a *BadDiskError with the reason
		says  string
	}{
		{name: "other node", node: "n2", want: ErrOtherNode, says: `"n1", not "n2"`},
		{name: "newer format", want: ErrNewerFormat, says: "format 2", spoil: func(t *testing.T, path string) {
			rewriteIdentity(t, path, func(id *Identity) { id.Format = 2 })
		}},
		{name: "identity damaged", says: "CRC does not match", spoil: func(t *testing.T, path string) {
			b, err := os.ReadFile(filepath.Join(path, identityName))
			must(t, err)
			b[len(b)/2] ^= 4
			must(t, os.WriteFile(filepath.Join(path, identityName), b, 0o600))
		}},
		{name: "identity cut", says: "CRC does not match", spoil: func(t *testing.T, path string) {
			must(t, os.Truncate(filepath.Join(path, identityName), 20))
		}},
		{name: "identity gone", says: "missing, but log.db is there", spoil: func(t *testing.T, path string) {
			must(t, os.Remove(filepath.Join(path, identityName)))
		}},
		{name: "log gone", says: "log.db: missing", spoil: func(t *testing.T, path string) {
			must(t, os.Remove(filepath.Join(path, logName)))
		}},
		{name: "state gone", says: "state-3.db: missing", spoil: func(t *testing.T, path string) {
			must(t, os.Remove(filepath.Join(path, stateName(3))))
		}},
		{name: "tainted", says: "it broke", spoil: func(t *testing.T, path string) {
			writeTaint(path, "it broke")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := t.TempDir()
			d := openDir(t, path)
			openTestLog(t, d)
			openTestState(t, d, 3)
			must(t, d.Close())
			// A leftover must stay too.
			must(t, os.WriteFile(filepath.Join(path, "log.db.tmp-1"), []byte("x"), 0o600))
			if tt.spoil != nil {
				tt.spoil(t, path)
			}
			if tt.node == "" {
				tt.node = "n1"
			}
			before := fingerprint(t, path)
			_, err := Open(path, Options{NodeID: tt.node})
			var bad *BadDiskError
			if tt.want != nil && !errors.Is(err, tt.want) || tt.want == nil && !errors.As(err, &bad) {
				t.Fatalf("got %v", err)
			}
			if !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), path) {
				t.Fatalf("%q does not say %q and the path", err, tt.says)
			}
			if fingerprint(t, path) != before {
				t.Fatal("the directory has changed")
			}
		})
	}
}

func TestSecondOpenerIsRefused(t *testing.T) {
	path := t.TempDir()
	openDir(t, path)
	before := fingerprint(t, path)
	_, err := Open(path, Options{NodeID: "n1"})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) || !strings.Contains(err.Error(), path) {
		t.Fatal(err)
	}
	if err := Verify(path, func(string, string) {}); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	if _, err := MoveAside(path, fixedTime, "x"); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	if fingerprint(t, path) != before {
		t.Fatal("the directory has changed")
	}
}

func TestLeftoversAreRemoved(t *testing.T) {
	path := t.TempDir()
	must(t, openDir(t, path).Close())
	for _, name := range []string{"identity.tmp-1", "log.db.tmp-2", "state-4.db.tmp-3", "state-4.db.send-5", "lost+found", "my.tmp-6"} {
		must(t, os.WriteFile(filepath.Join(path, name), []byte("x"), 0o600))
	}
	openDir(t, path)
	var left []string
	for _, name := range sorted(image(t, path)) {
		if strings.Contains(name, "tmp") || strings.Contains(name, "send") {
			left = append(left, name)
		}
	}
	if len(left) != 1 || left[0] != "my.tmp-6" {
		t.Fatal(left)
	}
}

// Every step of making directory and files, cut short by a crash: the directory
// opens and works, and never has less than was reported.
func TestCrashWhileMaking(t *testing.T) {
	var images []map[string][]byte
	var boots []uint64
	var boot uint64
	path := t.TempDir()
	d := openDirWith(t, path, Options{step: func(string) {
		images = append(images, image(t, path))
		boots = append(boots, boot)
	}})
	boot, err := d.NextBoot()
	must(t, err)
	must(t, openTestLog(t, d).Group(1).StoreLogs(entries(1, 2, 1, 10)))
	must(t, openTestState(t, d, 7).Close())
	must(t, d.RemoveState(7))
	if len(images) < 12 {
		t.Fatalf("only %d steps", len(images))
	}
	for i, files := range images {
		crashed := lay(t, files)
		d := openDir(t, crashed)
		if got, err := d.NextBoot(); err != nil || got <= boots[i] {
			t.Fatalf("step %d: boot %d after %d, %v", i, got, boots[i], err)
		}
		openTestLog(t, d)
		openTestState(t, d, 7)
		must(t, d.Close())
	}
}

func TestMoveAside(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path)
	openTestLog(t, d)
	openTestState(t, d, 3)
	old := d.Identity()
	must(t, d.Close())
	writeTaint(path, "it broke")
	files := image(t, path)

	aside, err := MoveAside(path, fixedTime, "for a test")
	must(t, err)
	if filepath.Base(aside) != "aside-20260102T030405Z" {
		t.Fatal(aside)
	}
	moved := image(t, aside)
	for _, name := range []string{identityName, logName, stateName(3), taintName} {
		if !bytes.Equal(moved[name], files[name]) {
			t.Errorf("%s is not what it was", name)
		}
	}
	if string(moved["reason"]) != "for a test\n" {
		t.Errorf("reason %q", moved["reason"])
	}
	d = openDir(t, path)
	if d.Identity().DiskID == old.DiskID {
		t.Fatal("same disk")
	}
	must(t, d.Close())
	again, err := MoveAside(path, fixedTime, "again")
	if err != nil || again != aside+"-1" {
		t.Fatal(again, err)
	}
}

func TestFreeBytes(t *testing.T) {
	n, err := FreeBytes(t.TempDir())
	if err != nil || n == 0 {
		t.Fatal(n, err)
	}
	if _, err := FreeBytes(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Fatal("no error")
	}
}

func TestPartsAreOpenOnce(t *testing.T) {
	d := openDir(t, t.TempDir())
	l, s := openTestLog(t, d), openTestState(t, d, 1)
	if _, err := d.OpenLog(LogOptions{}); err == nil {
		t.Error("the log is open twice")
	}
	if _, err := d.OpenState(1); err == nil {
		t.Error("the state is open twice")
	}
	must(t, l.Close())
	must(t, s.Close())
	openTestLog(t, d)
	openTestState(t, d, 1)
	must(t, d.Close())
	must(t, d.Close())
	if _, err := d.OpenState(2); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}
