// Package storagetest is for tests that keep data directories.
package storagetest

import "os"

// InMemory has temporary directories made in memory, if the machine has room there
// and TMPDIR does not say where they belong. Call it in TestMain.
//
// It is for packages whose tests run several nodes in one process. What they test
// goes on between nodes and does not lose power, while dozens of logs on one disk
// can make a commit take seconds. Package storage and the tests of processes,
// which do lose power, stay on a real disk.
func InMemory() {
	if os.Getenv("TMPDIR") == "" && hasRoom() {
		os.Setenv("TMPDIR", shared)
	}
}
