package shard

import (
	"fmt"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// modelRetained is the register of one topic.
type modelRetained struct {
	message *shoalpb.Message
	until   uint64
}

// retain is a message for the register that expires at until.
func (m *model) retain(msg *shoalpb.Message, until uint64) bool {
	switch {
	case len(msg.Payload) == 0 || until <= m.clock:
		delete(m.retained, msg.Topic)
	case m.retained[msg.Topic] == nil && len(m.retained) >= m.config.Retained:
		return false
	default:
		m.retained[msg.Topic] = &modelRetained{msg, until}
	}
	return true
}

// until is when a message that comes now expires.
func (m *model) until(msg *shoalpb.Message) uint64 {
	if msg.ExpiryMs == nil {
		return never
	}
	return m.clock + *msg.ExpiryMs
}

// retainIn gives a message to the register of a group; it returns the number of
// the outbox entry if that is another.
func (m *model) retainIn(group uint32, msg *shoalpb.Message, until uint64) uint64 {
	if group == m.config.Group {
		m.retain(msg, until)
		return 0
	}
	return m.push(&shoalpb.Target{Group: group}, &shoalpb.Command{Retain: &shoalpb.Retain{Message: msg}})
}

// passRetained clears what has expired.
func (m *model) passRetained() {
	for topic, r := range m.retained {
		if r.until <= m.clock {
			delete(m.retained, topic)
		}
	}
}

func (m *model) retainedLines() (lines []string) {
	for topic, r := range m.retained {
		lines = append(lines, retainedText(topic, r.message, r.until))
	}
	return lines
}

func retainedText(topic string, m *shoalpb.Message, until uint64) string {
	return fmt.Sprintf("retained %s %s q%d of %s until %d", topic, m.Payload, m.Qos, m.Publisher, until)
}

// retainedLines is the same of a Machine.
func retainedLines(t failer, m *Machine, rows memRows) (lines []string) {
	m.retained.All(func(name string, r *retained) bool {
		message := r.body.message
		if message == nil {
			message, _ = rows.message(t, r.body.seq)
		}
		lines = append(lines, retainedText(name, message, r.body.until))
		return true
	})
	return lines
}
