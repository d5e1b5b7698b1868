package topic

const (
	// MaxBytes is the length of the longest Topic Name or Filter: the wire
	// gives strings two bytes of length ([MQTT-4.7.3-3]).
	MaxBytes = 65535

	// MaxLevels is the number of levels a Topic Name or Filter may have. The
	// standard sets no limit but leaves it to the server; without one a single
	// packet could make 65,536 nodes of a Trie and a recursion as deep. Real
	// hierarchies have fewer than twenty.
	MaxLevels = 128

	// fewChildren is up to how many children a node of a Trie searches one by
	// one: as fast as hashing a level, and eight pointers instead of a map,
	// which an inner node with one child (most of them) must not pay for.
	fewChildren = 8

	// maxRun is the length of the ordered pieces that a wide node keeps its
	// children in: inserting moves at most 2 KB of pointers, and a node with a
	// million children has about ten thousand pieces to search in.
	maxRun = 256
)
