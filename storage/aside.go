package storage

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const asidePrefix = "aside-"

// MoveAside moves all files of a bad disk into a new directory beside them,
// aside-<at>, with a file that says why, and returns its path. Nothing is
// erased. The next Open makes a new disk, which is another raft server: see the
// package comment for who may decide that. No process may have the directory
// open. If a crash cuts it short, the next Open refuses and MoveAside moves the
// rest.
func MoveAside(path string, at time.Time, reason string) (string, error) {
	lock, err := lockDir(path, true)
	if err != nil {
		return "", fmt.Errorf("move aside: %w", err)
	}
	defer lock.Close()

	aside, err := makeAside(path, asidePrefix+at.UTC().Format("20060102T150405Z"))
	if err != nil {
		return "", fmt.Errorf("move aside: %w", err)
	}
	if err := replaceFile(os.OpenFile, filepath.Join(aside, "reason"), []byte(reason+"\n")); err != nil {
		return "", fmt.Errorf("move aside: %w", err)
	}
	// The identity first: without it what is left is refused.
	if err := moveFile(path, aside, identityName); err != nil {
		return "", fmt.Errorf("move aside: %w", err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", fmt.Errorf("move aside: %w", err)
	}
	for _, e := range entries {
		if !ours(e.Name()) {
			continue
		}
		if err := moveFile(path, aside, e.Name()); err != nil {
			return "", fmt.Errorf("move aside: %w", err)
		}
	}
	return aside, nil
}

// makeAside makes the directory, under the first free name.
func makeAside(path, name string) (string, error) {
	for i := 0; ; i++ {
		aside := filepath.Join(path, name)
		if i > 0 {
			aside = fmt.Sprintf("%s-%d", aside, i)
		}
		err := os.Mkdir(aside, 0o700)
		if err == nil {
			return aside, syncDir(path)
		}
		if !os.IsExist(err) {
			return "", err
		}
	}
}

// moveFile moves a file durably; a missing one is no error.
func moveFile(from, to, name string) error {
	err := os.Rename(filepath.Join(from, name), filepath.Join(to, name))
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := syncDir(to); err != nil {
		return err
	}
	return syncDir(from)
}
