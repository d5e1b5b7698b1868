package raftnet

import (
	"fmt"
	"log/slog"

	"google.golang.org/grpc/codes"
)

// Boots finds disks that were rolled back: put back from a copy, they have
// forgotten votes they gave and entries they acknowledged. Each stream's hello
// tells the boot of who asks, and the highest boot that it knows of who is
// asked. A disk that is asked as if it had a higher boot than it has told, or asks
// with a lower one than is known, is rolled back, and is refused before raft
// hears anything. The functions are called for each new stream.
type Boots struct {
	// Own is the boot of this process: fsynced, before others hear of it.
	Own func() uint64
	// Told is the highest boot of this disk that others may know: Own, or, as long
	// as this process has not told anybody, the one before.
	Told func() uint64
	// Known is the highest boot that the directory knows of a server, "node/disk",
	// 0 for none.
	Known func(server string) uint64
	// RolledBack is called when a peer knows a higher boot of this disk.
	RolledBack func(known uint64)
}

// CheckBoots makes m refuse disks that were rolled back. It is called before
// anything is served or sent.
func (m *Mux) CheckBoots(b Boots) { m.boots = &b }

// bootsTo returns the boots for a hello to a server.
func (m *Mux) bootsTo(server string) (own, known uint64) {
	if m.boots == nil {
		return 0, 0
	}
	return m.boots.Own(), m.boots.Known(server)
}

// checkBoots refuses a stream if one of its ends is on a disk that was rolled
// back. An end that tells no boot is not checked.
func (m *Mux) checkBoots(h hello) error {
	if m.boots == nil {
		return nil
	}
	if h.known > m.boots.Told() {
		m.boots.RolledBack(h.known)
		return m.refuse(slog.LevelError, codes.FailedPrecondition, h.from,
			fmt.Sprintf("the disk of %s is ROLLED BACK: %s knows its boot %d, this is %d", m.self, h.from, h.known, m.boots.Own()))
	}
	if known := m.boots.Known(h.from); h.boot != 0 && h.boot < known {
		return m.refuse(slog.LevelError, codes.FailedPrecondition, h.from,
			fmt.Sprintf("the disk of %s is ROLLED BACK: its boot %d is known, this is %d", h.from, known, h.boot))
	}
	return nil
}
