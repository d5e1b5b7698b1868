package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Verify reads all of the data directory at path and reports each problem with
// the file it is in. It changes nothing. An error says that it could not do so;
// ErrLocked, that a node is running there.
func Verify(path string, report func(file, problem string)) error {
	lock, err := lockDir(path, false)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	defer lock.Close()

	if reason := readTaint(path); reason != "" {
		report(taintName, reason)
	}
	id, err := readIdentity(path)
	var bad *BadDiskError
	switch {
	case errors.As(err, &bad):
		report(identityName, bad.Reason)
	case errors.Is(err, fs.ErrNotExist):
		report(identityName, "missing")
	case err != nil:
		return fmt.Errorf("verify: %w", err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	var seen []string
	for _, e := range entries {
		name := e.Name()
		verifyFile(path, name, id.DiskID, func(problem string) { report(name, problem) })
		seen = append(seen, name)
	}
	for _, name := range id.Files {
		if !slices.Contains(seen, name) {
			report(name, "missing")
		}
	}
	return nil
}

// verifyFile checks a file if it is a log or a state file.
func verifyFile(dir, name, disk string, bad func(problem string)) {
	path := filepath.Join(dir, name)
	if name == logName {
		checkLog(path, disk, bad)
	} else if group, ok := parseStateName(name); ok {
		checkState(path, disk, group, bad)
	}
}
