package cluster

import (
	"testing"
	"time"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// A group without a leader for longer than awayTimeout ends a link's queue, as its
// publisher sends all again, but not that of messages for other members of a
// Shared Subscription, which all connections share.
func TestQueuesOutliveATimeout(t *testing.T) {
	for _, keep := range []bool{false, true} {
		s, q := newSource(1), &commandQueue{}
		s.enqueue(q, &command{keep: keep, done: func(uint64, *shoalpb.Answer, error) {}})
		old := s.takeOld(time.Now().Add(time.Hour))
		if len(old) != 1 || s.waiting != 0 {
			t.Fatalf("keep %v: took %d, %d are waiting", keep, len(old), s.waiting)
		}
		s.enqueue(q, &command{keep: keep, done: func(uint64, *shoalpb.Answer, error) {}})
		if taken := len(s.take()) == 1; taken != keep {
			t.Errorf("keep %v: after the timeout the next command is taken: %v", keep, taken)
		}
	}
}
