package e2e

import (
	"fmt"
	"testing"

	"github.com/shoalmq/shoal/broker/packet"
)

// seeded writes a history in which all is well: two streams of ten messages,
// two subscribers of all, and one of the second stream that came late.
func seeded() *history {
	h := newHistory()
	h.open(stream{"p", "chaos/1", packet.QoS1})
	h.open(stream{"p", "chaos/2", packet.QoS2})
	all := []*subscriber{h.subscribe("s2", "chaos/+", packet.QoS2), h.subscribe("s1", "#", packet.QoS1)}
	late := h.subscribe("late", "chaos/2", packet.QoS2)
	h.suback(all[0])
	h.suback(all[1])
	for n := range 10 {
		for id := range int32(2) {
			m := h.next(id)
			h.sent(m)
			if n == 5 {
				h.suback(late)
			}
			h.acked(m)
			for _, s := range all {
				h.hand(s, m)
			}
			if n > 5 && id == 1 {
				h.hand(late, m)
			}
		}
	}
	return h
}

// hand delivers m as the broker would.
func (h *history) hand(s *subscriber, m message) {
	st := h.streams[m.stream]
	h.delivered(s, &packet.Publish{Topic: []byte(st.topic), Payload: h.payload(m), QoS: min(st.qos, s.qos)})
}

// position finds a message among a subscriber's deliveries.
func position(s *subscriber, m message) int {
	for i, d := range s.deliveries {
		if d.message == m {
			return i
		}
	}
	panic("not delivered")
}

func TestCheckerFindsWhatIsWrong(t *testing.T) {
	first, second := message{0, 4}, message{1, 4}
	remove := func(s *subscriber, m message) {
		i := position(s, m)
		s.deliveries = append(s.deliveries[:i:i], s.deliveries[i+1:]...)
	}
	for _, tc := range []struct {
		name   string
		damage func(h *history)
		want   string
	}{
		{"nothing", func(*history) {}, "[] [] [] [] 0"},
		{"one loss at QoS 1", func(h *history) { remove(h.subscribers[0], first) },
			"[s2: p number 4 (topic chaos/1, QoS 1)] [] [] [] 0"},
		{"one loss at QoS 2", func(h *history) { remove(h.subscribers[1], second) },
			"[s1: p number 4 (topic chaos/2, QoS 2)] [] [] [] 0"},
		{"loss of the last", func(h *history) { remove(h.subscribers[2], message{1, 9}) },
			"[late: p number 9 (topic chaos/2, QoS 2)] [] [] [] 0"},
		{"one duplicate", func(h *history) { h.hand(h.subscribers[0], second) },
			"[] [s2: p number 4 (topic chaos/2, QoS 2)] [] [] 0"},
		{"a repeat at QoS 1", func(h *history) { h.hand(h.subscribers[0], first) }, "[] [] [] [] 1"},
		{"a repeat of QoS 2 for a subscription of QoS 1", func(h *history) { h.hand(h.subscribers[1], second) }, "[] [] [] [] 1"},
		{"one swap", func(h *history) {
			d := h.subscribers[0].deliveries
			i, k := position(h.subscribers[0], second), position(h.subscribers[0], message{1, 5})
			d[i], d[k] = d[k], d[i]
		}, "[] [] [s2: p number 4 (topic chaos/2, QoS 2)] [] 0"},
		{"streams mixed", func(h *history) {
			d := h.subscribers[0].deliveries
			i, k := position(h.subscribers[0], first), position(h.subscribers[0], second)
			d[i], d[k] = d[k], d[i]
		}, "[] [] [] [] 0"},
		{"lost but never acknowledged", func(h *history) {
			remove(h.subscribers[0], first)
			h.published[0][4].acked = 0
		}, "[] [] [] [] 0"},
		{"sent before SUBACK", func(h *history) { h.subscribers[0].deliveries, h.subscribers[0].since = nil, h.instant }, "[] [] [] [] 0"},
		{"too low a QoS", func(h *history) {
			h.subscribers[0].deliveries[position(h.subscribers[0], second)].qos = packet.QoS1
		}, "[] [] [] [s2: p number 4 (topic chaos/2, QoS 2)] 0"},
	} {
		h := seeded()
		tc.damage(h)
		v := h.check()
		got := fmt.Sprint(v.lost, v.duplicates, v.disorder, v.wrongQoS, v.repeats)
		if got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
		if failed := v.err() != nil; failed != (len(v.lost)+len(v.duplicates)+len(v.disorder)+len(v.wrongQoS) > 0) {
			t.Errorf("%s: %v", tc.name, v.err())
		}
		if len(h.violations) > 0 {
			t.Errorf("%s: %q", tc.name, h.violations)
		}
	}
}

func TestHistoryKnowsStrangers(t *testing.T) {
	h := seeded()
	for _, p := range []packet.Publish{
		{Topic: []byte("chaos/1"), Payload: []byte("hello")},
		{Topic: []byte("chaos/1"), Payload: []byte("p 1 10")},  // never published
		{Topic: []byte("chaos/1"), Payload: []byte("q 1 1")},   // no such publisher
		{Topic: []byte("chaos/2"), Payload: []byte("p 1 1")},   // another topic
		{Topic: []byte("chaos/1"), Payload: []byte("p 1 0x1")}, // damaged
	} {
		before := len(h.violations)
		h.delivered(h.subscribers[0], &p)
		if len(h.violations) != before+1 {
			t.Errorf("%s %q was taken for one of ours", p.Topic, p.Payload)
		}
	}
}
