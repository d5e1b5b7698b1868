package storage

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// openFunc opens a file as os.OpenFile does.
type openFunc func(name string, flag int, perm os.FileMode) (*os.File, error)

// Parts of the names of files that are only being made. They are removed when
// the directory is opened.
const (
	tmpInfix  = ".tmp-"
	sendInfix = ".send-"
)

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// tempName returns an unused name beside path.
func tempName(path, infix string) string {
	return path + infix + randomHex(6)
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// makeDir creates a directory and those above it, each durable in its parent.
func makeDir(path string) error {
	info, err := os.Stat(path)
	if err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is not a directory", path)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(path)
	if err := makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// replaceFile gives the file the contents: on return durable, at a crash the
// old or the new ones.
func replaceFile(open openFunc, path string, contents []byte) error {
	tmp := tempName(path, tmpInfix)
	f, err := open(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(contents)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = renameDurably(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
	}
	return err
}

// renameDurably renames within one directory; the file's contents are durable
// already.
func renameDurably(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// removeLeftovers removes files that were being made at a crash.
func removeLeftovers(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if !ours(name) || !(strings.Contains(name, tmpInfix) || strings.Contains(name, sendInfix)) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// ours reports whether a name in the data directory is one this package gives,
// the lock and what was moved aside excepted.
func ours(name string) bool {
	base, _, _ := strings.Cut(name, tmpInfix)
	base, _, _ = strings.Cut(base, sendInfix)
	return base == identityName || base == logName || base == taintName ||
		strings.HasPrefix(base, statePrefix) && strings.HasSuffix(base, stateSuffix)
}
