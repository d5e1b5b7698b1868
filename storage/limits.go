package storage

import (
	"math/bits"
	"time"
)

// Format is the newest format of the data directory this program writes and
// the newest it reads. An older program refuses a newer directory.
const Format = 1

const (
	// pageBytes is bbolt's page size, fixed so that a state file can go to a
	// node whose system has other pages.
	pageBytes = 4096

	// rowBytes is the most one row carries of an entry or a value. bbolt keeps
	// at least two rows in a leaf and rewrites up to four with the next row
	// beside them, so whole values of 100 KB would be written six times over.
	// With it two rows of the log fill exactly one page: 16 bytes of page
	// header, twice 16 of element header, 12 of key, 4 of CRC.
	rowBytes = (pageBytes-16)/2 - 16 - 12 - crcBytes

	// chunkEntries is how many entries share a bucket of the log. Truncation
	// drops buckets: one step instead of 0.8 µs for each row.
	chunkEntries = 128

	// sweepChunks is how many dropped chunks one commit frees. Freeing walks
	// their pages, and proposals of all groups wait for it.
	sweepChunks = 8

	// tailBytes is the default of LogOptions.TailBytes: what raft's replicators
	// are behind in normal times, the entries in flight.
	tailBytes = 16 << 20

	// catchUpTime is how long the log behind a copy of the state is kept after
	// the copy was read: the receiver still checks and opens it, then fetches
	// entries faster than they come.
	catchUpTime = time.Minute

	// entryOverhead is what an entry in the tail costs beside its data.
	entryOverhead = 128

	// scanRows and scanBytes bound one page of StateFile.Scan, whichever is
	// reached first: a long read transaction pins every page freed since.
	scanRows  = 256
	scanBytes = 1 << 20

	// stateFill is how full bbolt packs a leaf of a state file. Bodies come in
	// order and would be packed full, sessions change in place and would be
	// packed half.
	stateFill = 0.8

	// maxKeyBytes is the longest key of a state row. Long values are kept under
	// key + 4 bytes; bbolt takes 32 KiB.
	maxKeyBytes = 1 << 14

	// growBytes is what a file grows by beyond what it needs. Growing costs a
	// third fsync: with it one for each 4 MB of the log, none up to
	// Options.ReserveBytes; a checkpoint grows its file once at most.
	growBytes = 4 << 20

	// maxTreeDepth is deeper than any tree of two rows a page can be; it stops
	// the reading of a damaged file.
	maxTreeDepth = 64
)

// mmapBytes is the address space taken for each file. Growing the map waits for
// all read transactions, so it is taken at once; it costs no memory.
const mmapBytes = (1<<30)*(bits.UintSize/64) + (64<<20)*(1-bits.UintSize/64)
