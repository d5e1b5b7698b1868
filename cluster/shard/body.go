package shard

import shoalpb "github.com/shoalmq/shoal/proto"

// body is a stored message, shared by all queue and outbox entries that refer
// to it. It never changes but for the count of references.
type body struct {
	message *shoalpb.Message
	seq     uint64 // number of the body, its key in the state file
	at      uint64 // the shard's clock when it was stored
	refs    int32
	inFile  fileState
}

// fileState says whether the state file has a body.
type fileState uint8

const (
	notInFile fileState = iota
	beingWritten
	inFile
)

// use adds a reference to the body in *b, which is made of message if there is
// none yet: a message that nobody gets is never stored.
func (m *Machine) use(b **body, message *shoalpb.Message) *body {
	if *b == nil {
		m.bodySeq++
		*b = &body{message: message, seq: m.bodySeq, at: m.clock}
		m.gauges.bodies++
		m.gauges.bodyBytes += messageBytes(message)
		m.file.bytes += messageBytes(message)
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
	m.gauges.bodyBytes -= messageBytes(b.message)
	if b.inFile == inFile {
		m.file.deadBodies = append(m.file.deadBodies, b.seq)
	}
}

// messageBytes is what a message takes: its contents and about what Go adds.
func messageBytes(m *shoalpb.Message) int {
	const overhead = 200
	return len(m.Topic) + len(m.Payload) + len(m.Properties) + len(m.Publisher) + overhead
}
