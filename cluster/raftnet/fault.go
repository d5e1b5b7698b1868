package raftnet

import "context"

// Kind is the kind of a raft message.
type Kind uint8

// The kinds of raft messages. Their numbers are on the wire.
const (
	KindHeartbeat Kind = iota + 1
	KindAppend
	KindVote
	KindPreVote
	KindTimeoutNow
	KindSnapshot
)

func (k Kind) String() string {
	names := [...]string{"?", "heartbeat", "append", "vote", "pre-vote", "timeout-now", "snapshot"}
	if int(k) < len(names) {
		return names[k]
	}
	return "?"
}

// Message describes one raft message to a Fault.
type Message struct {
	// From and To are "node/disk".
	From, To string
	Group    uint32
	Kind     Kind
	// Answer is set for the answer to a request of Kind.
	Answer bool
}

// Fault is a network that can be cut, slowed and held, for tests. Pass blocks
// as long as a message is delayed or held (at most until ctx is done, when the
// caller has given up), and an error drops the message. Requests pass after their sending time has been taken and before they
// are sent, answers after they have arrived at the asking side and before
// anyone sees them. Pass is called concurrently; messages that are held while
// others pass are thereby reordered.
type Fault interface {
	Pass(ctx context.Context, m Message) error
}
