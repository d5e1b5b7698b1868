package storage

import (
	"errors"
	"fmt"
)

var (
	// ErrNewerFormat refuses a directory written by a newer program.
	ErrNewerFormat = errors.New("written by a newer version")
	// ErrOtherNode refuses a directory that belongs to another node id.
	ErrOtherNode = errors.New("belongs to another node")
	// ErrLocked refuses a directory that another process uses.
	ErrLocked = errors.New("in use by another process")
	// ErrClosed refuses a call after Close.
	ErrClosed = errors.New("storage is closed")
	// ErrNotNext refuses entries that do not follow the last one.
	ErrNotNext = errors.New("entry does not follow the last one")
	// ErrHole refuses to delete entries in the middle of a log.
	ErrHole = errors.New("deleting would leave a hole")
	// ErrOldMarker refuses a checkpoint or an install that is not newer than
	// what the state file holds.
	ErrOldMarker = errors.New("not newer than the last checkpoint")
	// ErrTermFalls refuses a term, or a vote in one, below what is stored.
	ErrTermFalls = errors.New("a term never falls")
	// ErrNoServers refuses a snapshot with an empty configuration.
	ErrNoServers = errors.New("the configuration has no servers")
	// ErrStop, returned by the function given to Scan, ends the scan without
	// an error.
	ErrStop = errors.New("stop")
)

// BadDiskError says that a file of the data directory cannot be trusted: a CRC
// or the structure is wrong, something is missing, or a write has failed. The
// node must not take part in raft with it; see MoveAside.
type BadDiskError struct {
	// File is the file, by its path.
	File string
	// Reason says what is wrong with it.
	Reason string
}

func (e *BadDiskError) Error() string {
	return fmt.Sprintf("bad disk: %s: %s", e.File, e.Reason)
}

func badDisk(file, format string, args ...any) *BadDiskError {
	return &BadDiskError{File: file, Reason: fmt.Sprintf(format, args...)}
}
