package session

const (
	// packetIDs is the number of Packet Identifiers: 1 to 65,535. Two entries
	// whose seq differs by a multiple of it would share one.
	packetIDs = 65535

	// maxRecovered is how many exchanges of former connections a client may end that
	// its shard does not know any more: as many as its session can have had open.
	maxRecovered = 1024

	// minRing is the first size of a ring: most connections have a few packets
	// in flight, and idle ones have no ring at all.
	minRing = 8

	// keptRing is the largest ring kept when it has run empty, so that a burst
	// does not cost an idle connection its memory for ever. The standing window
	// (32 by default, twice that fetched) fits.
	keptRing = 128

	// fewFinished is up to how many finished entries may stand between
	// unfinished ones before it is worth closing the gaps.
	fewFinished = 16
)
