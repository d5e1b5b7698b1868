package storage

import (
	"fmt"

	"github.com/hashicorp/raft"
)

// CheckStart makes a group's log fit its state before raft is started, and in
// an install before that is reported as done. has is false if there is no
// marker; then m counts as index 0.
//
// A log that holds the marker's entry is kept, also one that begins right behind
// it. One that ends at or below the marker, or has an entry of another term
// there, is emptied: an install was cut short, and what it has replaced is in
// the state. One that begins later has lost entries: *BadDiskError. Damaged and
// missing entries were found by OpenLog.
func CheckStart(log *GroupLog, m Marker, has bool) error {
	if !has {
		m = Marker{}
	}
	h := log.currentHead()
	switch {
	case h.last == 0 || h.first == m.Index+1:
		return nil
	case h.first > m.Index:
		return badDisk(log.log.path, "the log of group %d begins at %d, its state ends at %d", log.id, h.first, m.Index)
	case h.last < m.Index:
		return log.Empty()
	}
	var l raft.Log
	if err := log.GetLog(m.Index, &l); err != nil {
		return fmt.Errorf("check log of group %d: %w", log.id, err)
	}
	if l.Term != m.Term {
		return log.Empty()
	}
	return nil
}
