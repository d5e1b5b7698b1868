package cluster

import shoalpb "github.com/shoalmq/shoal/proto"

// volatiles is a queue of QoS 0 messages on their way to another node, bounded
// in bytes. The zero value is empty. Not safe for concurrent use.
type volatiles struct {
	list  []volatileMessage
	bytes int
}

// volatileMessage is a message and the Shared Subscriptions it was picked for.
type volatileMessage struct {
	m     *shoalpb.Message
	picks []*shoalpb.Pick
}

// split makes the fields of a request.
func split(list []volatileMessage) (messages []*shoalpb.Message, picks []*shoalpb.MessagePick) {
	for i, v := range list {
		messages = append(messages, v.m)
		picks = appendPicks(picks, i, v.picks)
	}
	return messages, picks
}

// add queues m, or reports false if there is no room.
func (v *volatiles) add(m *shoalpb.Message, picks []*shoalpb.Pick) bool {
	size := messageBytes(m)
	if v.bytes+size > volatileBytes && len(v.list) > 0 {
		return false
	}
	v.list = append(v.list, volatileMessage{m, picks})
	v.bytes += size
	return true
}

// take removes up to a batch, at least one if there is any.
func (v *volatiles) take() []volatileMessage {
	size, n := 0, 0
	for n < len(v.list) && (n == 0 || size+messageBytes(v.list[n].m) <= batchBytes) {
		size += messageBytes(v.list[n].m)
		n++
	}
	taken := v.list[:n:n]
	if v.list, v.bytes = v.list[n:], v.bytes-size; len(v.list) == 0 {
		v.list = nil
	}
	return taken
}

// messageBytes is about what m takes on the wire and in memory.
func messageBytes(m *shoalpb.Message) int {
	return len(m.GetTopic()) + len(m.GetPayload()) + len(m.GetProperties()) + 64
}
