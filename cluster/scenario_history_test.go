package cluster

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/shoalmq/shoal/broker/topic"
)

// history is what clients did and saw in a run, in the order of one clock: the
// time of the run in nanoseconds, never the same twice. It is safe for concurrent
// use.
type history struct {
	mu       sync.Mutex
	clock    int64
	messages []*told
	subs     []*interest
	events   []event
}

// never is later than all ticks of a history.
const never = math.MaxInt64

// now is the next tick. Called with mu held.
func (h *history) now() int64 {
	h.clock = max(h.clock+1, sinceStart().Nanoseconds())
	return h.clock
}

var start = time.Now()

// sinceStart is the time of everything that runs log.
func sinceStart() time.Duration { return time.Since(start) }

// at prints a tick.
func at(tick int64) string {
	if tick == never {
		return "never"
	}
	return fmt.Sprintf("%.3fs", time.Duration(tick).Seconds())
}

// told is a message that was published.
type told struct {
	publisher string
	topic     string
	qos       uint32
	number    int   // of its publisher
	from      int64 // before it was handed over
	acked     int64 // after its last acknowledgement came, never if none did
}

func (m *told) payload() string { return fmt.Sprintf("%s:%d", m.publisher, m.number) }

func (m *told) String() string {
	return fmt.Sprintf("%s (topic %s, QoS %d, published at %s, acknowledged at %s)", m.payload(), m.topic, m.qos, at(m.from), at(m.acked))
}

// interest is a subscription, all of them with QoS 2.
type interest struct {
	subscriber string
	filter     string
	asked      int64 // before SUBSCRIBE
	acked      int64 // after SUBACK, never if it did not come
	leaves     int64 // before UNSUBSCRIBE, or before the end of a transient one
	left       int64 // after UNSUBACK
}

func (s *interest) String() string {
	return fmt.Sprintf("%s asked at %s, acknowledged at %s, leaves at %s, left at %s", s.filter, at(s.asked), at(s.acked), at(s.leaves), at(s.left))
}

func (h *history) publishes(publisher, topic string, qos uint32, number int) *told {
	m := &told{publisher: publisher, topic: topic, qos: qos, number: number, acked: never}
	h.mu.Lock()
	defer h.mu.Unlock()
	m.from = h.now()
	h.messages = append(h.messages, m)
	return m
}

func (h *history) acked(m *told) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m.acked = h.now()
}

func (h *history) subscribes(subscriber, filter string) *interest {
	s := &interest{subscriber: subscriber, filter: filter, acked: never, leaves: never, left: never}
	h.mu.Lock()
	defer h.mu.Unlock()
	s.asked = h.now()
	h.subs = append(h.subs, s)
	return s
}

func (h *history) subscribed(s *interest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.acked = h.now()
}

// leaves tells that all subscriptions of a filter may end from now on.
func (h *history) leaves(subscriber, filter string) { h.leavesAt(subscriber, filter, never) }

// leavesAt is leaves for what became known later than it was so.
func (h *history) leavesAt(subscriber, filter string, at int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at = min(at, h.now())
	for _, s := range h.subs {
		if s.subscriber == subscriber && s.filter == filter {
			s.leaves = min(s.leaves, at)
		}
	}
}

// left tells that they all have ended.
func (h *history) left(subscriber, filter string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.now()
	for _, s := range h.subs {
		if s.subscriber == subscriber && s.filter == filter {
			s.left = min(s.left, at)
		}
	}
}

// check compares what a subscriber got with what it must and may get: nothing
// acknowledged is lost, nothing comes that was not subscribed, QoS 2 once, and
// first deliveries of each publisher, topic and QoS in order.
func (h *history) check(subscriber string, got []string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	count := make(map[string]int, len(got))
	first := make(map[string]int, len(got))
	for i, payload := range got {
		if count[payload]++; count[payload] == 1 {
			first[payload] = i
		}
	}
	before := make(map[string][]*told) // got, by publisher, topic and QoS
	for _, m := range h.messages {
		n := count[m.payload()]
		must, may := h.due(subscriber, m)
		switch {
		case must && n == 0:
			lacks := fmt.Sprintf("%s lacks %v; subscribed: %v", subscriber, m, h.interests(subscriber, m))
			return lateError(func() string { return lacks + h.around(subscriber, m) })
		case !may && n > 0:
			return fmt.Errorf("%s got %v, which it had not subscribed: %v", subscriber, m, h.interests(subscriber, m))
		case m.qos == 2 && n > 1:
			return fmt.Errorf("%s got %v %d times", subscriber, m, n)
		case n == 0:
			continue
		}
		key := fmt.Sprint(m.publisher, m.topic, m.qos)
		for _, b := range before[key] {
			if first[b.payload()] > first[m.payload()] && h.steady(subscriber, b, m) {
				return fmt.Errorf("%s got %v before %v; subscribed: %v", subscriber, m, b, h.interests(subscriber, m))
			}
		}
		before[key] = append(before[key], m)
	}
	return nil
}

// steady tells whether one subscription of a subscriber matched b from before it
// was published until m was acknowledged. Without that, b may have found no
// subscription the first time, and one when it was sent again, after m.
func (h *history) steady(subscriber string, b, m *told) bool {
	for _, s := range h.subs {
		if s.subscriber == subscriber && topic.MatchOne(s.filter, m.topic) && s.acked < b.from && m.acked < s.leaves {
			return true
		}
	}
	return false
}

// interests are the subscriptions that match m.
func (h *history) interests(subscriber string, m *told) (list []*interest) {
	for _, s := range h.subs {
		if s.subscriber == subscriber && topic.MatchOne(s.filter, m.topic) {
			list = append(list, s)
		}
	}
	return list
}

// due tells whether a subscriber must, and whether it may get m.
func (h *history) due(subscriber string, m *told) (must, may bool) {
	for _, s := range h.subs {
		if s.subscriber != subscriber || !topic.MatchOne(s.filter, m.topic) {
			continue
		}
		must = must || (s.acked < m.from && m.acked < s.leaves)
		may = may || (s.asked < m.acked && m.from < s.left)
	}
	return must, may
}

// summary tells what a run consisted of, so that an empty one is noticed.
func (h *history) summary() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	names := make(map[string]bool)
	for _, s := range h.subs {
		names[s.subscriber] = true
	}
	twice, owed := 0, 0
	for _, m := range h.messages {
		if m.qos == 2 {
			twice++
		}
		for name := range names {
			if must, _ := h.due(name, m); must {
				owed++
			}
		}
	}
	return fmt.Sprintf("%d messages (%d of QoS 2), %d subscribers, %d deliveries owed", len(h.messages), twice, len(names), owed)
}
