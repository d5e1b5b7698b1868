package raftnet

import "time"

const (
	// streamWindowBytes lets a pipeline of 4 MiB requests run without waiting
	// for window updates over a link of 10 ms and 6 Gbit/s.
	streamWindowBytes = 8 << 20
	// connWindowBytes is four streams' worth: several groups catching up at once.
	connWindowBytes = 32 << 20
	// maxMessageBytes holds one entry with the largest MQTT packet (256 MiB)
	// and what wraps it.
	maxMessageBytes = 288 << 20
	// maxAppendBytes bounds the entries of one request, except that a single
	// larger entry travels alone. It keeps one request well below the stream's
	// window, and far from the 64 entries × 512 KiB that raft would send.
	maxAppendBytes = 4 << 20
	// snapshotChunkBytes is large against the cost of a frame (1 µs), small
	// against the time other streams of the connection wait for it.
	snapshotChunkBytes = 256 << 10
	// referenceBytes: data of this length or more is referenced by a frame,
	// shorter data is copied into it, which is cheaper than one more buffer.
	referenceBytes = 1 << 10
	// pipelineDepth is how many AppendEntries of a pipeline are unanswered at
	// once. Deeper pipelines carry fewer entries each and gain nothing.
	pipelineDepth = 2
	// idleStreams are kept for each (peer, Class): heartbeat and one vote.
	idleStreams = 2
	// maxRefusalsLogged bounds the memory of peers already logged about.
	maxRefusalsLogged = 1024
)

const (
	// controlTimeout is longer than any election timeout in use: an answer
	// later than this helps nobody.
	controlTimeout = 2 * time.Second
	// abstainTime is longer than others take to elect a leader if they can: two
	// election timeouts, and once more for a split vote.
	abstainTime = 3 * time.Second
	// appendTimeout allows a follower's disk to stall for some seconds.
	appendTimeout = 10 * time.Second
	// chunkTimeout is the longest a snapshot may stand still.
	chunkTimeout = 30 * time.Second
	// installTimeout is the longest a receiver may work on a whole snapshot
	// after its last byte. Death of the peer is noticed by the connection.
	installTimeout = 10 * time.Minute

	// dialTimeout bounds one attempt, name resolution and TLS included.
	dialTimeout = 2 * time.Second
	// reconnectMin and reconnectMax bound the pause between dials: a node that
	// restarts is reached within a second.
	reconnectMin = 50 * time.Millisecond
	reconnectMax = time.Second
	// deadAfter is how long sent bytes or TCP keep-alives may stay
	// unacknowledged by the peer's kernel before the connection is dead.
	deadAfter = 3 * time.Second
	// pingEvery and pingTimeout find peers whose kernel lives but whose
	// process does not answer. 10 s is the least that gRPC clients allow.
	pingEvery   = 10 * time.Second
	pingTimeout = 5 * time.Second
	// serverPingEvery is shorter: servers may ping as often as they like.
	serverPingEvery = 5 * time.Second
)
