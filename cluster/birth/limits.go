package birth

import "time"

const (
	// helloTimeout bounds one question. Members are asked one after the other,
	// and a set is complete only when all answer.
	helloTimeout = time.Second
	// pause between rounds when nothing wakes the node: promises and births of
	// others are not announced.
	pause = 250 * time.Millisecond
	// maxMembers bounds a set that a peer proposes; raft groups of more voters
	// make no sense.
	maxMembers = 15
)
