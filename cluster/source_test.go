package cluster

import (
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// A group without a leader for longer than awayTimeout ends a link's queue, as its
// publisher sends all again, but not that of messages for other members of a
// Shared Subscription, which all connections share.
func TestQueuesOutliveATimeout(t *testing.T) {
	for _, keep := range []bool{false, true} {
		var owner *link
		if !keep {
			owner = &link{}
		}
		s, q := newSource(1), &commandQueue{}
		s.enqueue(q, &command{owner: owner, done: func(uint64, *shoalpb.Answer, error) {}})
		old := s.takeOld(time.Now().Add(time.Hour))
		if len(old) != 1 || s.waiting != 0 {
			t.Fatalf("keep %v: took %d, %d are waiting", keep, len(old), s.waiting)
		}
		s.enqueue(q, &command{owner: owner, done: func(uint64, *shoalpb.Answer, error) {}})
		if taken := len(s.take()) == 1; taken != keep {
			t.Errorf("keep %v: after the timeout the next command is taken: %v", keep, taken)
		}
	}
}

// A publish that has a number may be applied however late: a timeout ends its
// connection, but that has not drained before the answer.
func TestNumberedPublishIsUnsettledUntilAnswered(t *testing.T) {
	s := newSource(1)
	sink := &lostSink{}
	l := &link{p: &process{sources: []*source{nil, s}}, sink: sink}
	done := 0
	l.enqueue(1, nil, func(uint64, *shoalpb.Answer, error) { done++ })
	s.fence = func() uint64 { return 0 }
	s.flights = append(s.flights, s.build(s.take()))
	s.flights[0].commands[0].queued = time.Now().Add(-time.Hour)
	s.sent = 1
	s.expire()
	s.expire()
	if done != 0 || sink.lost != 1 {
		t.Fatalf("after the timeout: done %d times, the connection lost %d times", done, sink.lost)
	}
	s.complete(&shoalpb.BatchAnswer{})
	if done != 1 {
		t.Fatalf("answered, done %d times", done)
	}
}

type lostSink struct {
	session.Sink
	lost int
}

func (s *lostSink) Lost(error) { s.lost++ }
