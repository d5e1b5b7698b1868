package shard

import (
	"math"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// body is a stored message, shared by all queue and outbox entries that refer
// to it. What a client sees of it never changes. A million of them may wait: 48
// bytes each, with their contents in the file.
type body struct {
	message *shoalpb.Message // nil: only the file has it, see Evict
	seq     uint64           // number of the body, its key in the state file
	at      uint64           // the shard's clock when it was stored
	until   uint64           // the shard's clock when it expires, or never
	size    uint32           // contentBytes of message
	refs    int32
	sum     uint32 // contentSum, if message is nil
	inFile  fileState
	qos     uint8 // as published
	retain  bool  // as published
	marks   bodyMarks
}

// fileState says whether the state file has a body.
type fileState uint8

const (
	notInFile fileState = iota
	beingWritten
	inFile
)

// never is the time when a message expires that has no Message Expiry Interval.
const never = math.MaxUint64

// bodyMarks are what else is to be known of a body: two bits, so that it takes no
// more than 48 bytes.
type bodyMarks uint8

const (
	isRegister bodyMarks = 1 << iota // it is a retained message, which stays in memory
	isListed                         // it is in Machine.resident
)

func (b *body) is(mark bodyMarks) bool { return b.marks&mark != 0 }

// newBody makes the body of a message stored at the shard's time at.
func newBody(message *shoalpb.Message, seq, at uint64) *body {
	b := &body{message: message, seq: seq, at: at, until: never, size: uint32(contentBytes(message)),
		qos: uint8(message.Qos), retain: message.Retain}
	if message.ExpiryMs != nil {
		b.until = at + min(*message.ExpiryMs, never-at)
	}
	return b
}

// bytes is about what the message takes in memory.
func (b *body) bytes() int { return int(b.size) + messageOverhead }

// use adds a reference to the body in *b, which is made of message if there is
// none yet: a message that nobody gets is never stored.
func (m *Machine) use(b **body, message *shoalpb.Message) *body {
	if *b == nil || (*b).refs == 0 { // it made room for its own second copy
		m.bodySeq++
		*b = newBody(message, m.bodySeq, m.clock)
		m.gauges.bodies++
		m.gauges.bodyBytes += (*b).bytes()
		m.gauges.memory += (*b).bytes()
		m.file.bytes += (*b).bytes()
	}
	(*b).refs++
	m.file.refs++
	return *b
}

// drop takes a reference back.
func (m *Machine) drop(b *body) {
	b.refs--
	m.file.refs++
	if b.refs > 0 {
		return
	}
	m.gauges.bodies--
	m.gauges.bodyBytes -= b.bytes()
	if b.message != nil {
		m.gauges.memory -= b.bytes()
		if b.is(isListed) {
			m.resident.died(b)
		}
	}
	if b.inFile == inFile {
		m.file.deadBodies = append(m.file.deadBodies, b.seq)
	}
}

// contentBytes is the size of a message as a queue's limit counts it.
func contentBytes(m *shoalpb.Message) int {
	return len(m.Topic) + len(m.Payload) + len(m.Properties) + len(m.Publisher)
}
