package e2e

import (
	"fmt"
	"strings"

	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/broker/topic"
)

// verdict is what a history shows.
type verdict struct {
	// lost: acknowledged, sent after the subscriber's SUBACK, never delivered.
	lost []finding
	// duplicates: delivered twice to a session at QoS 2.
	duplicates []finding
	// disorder: delivered for the first time after a later one of its stream.
	disorder []finding
	// wrongQoS: not at the lower of the publisher's and the subscription's QoS
	// [MQTT-3.8.4-8].
	wrongQoS []finding

	acked, delivered int
	// repeats: delivered more than once at QoS 1, which is allowed.
	repeats int
}

// finding is a message that a subscriber did not get as promised.
type finding struct {
	subscriber string
	stream     stream
	number     int32
}

func (f finding) String() string {
	return fmt.Sprintf("%s: %s number %d (topic %s, QoS %d)", f.subscriber, f.stream.publisher, f.number, f.stream.topic, f.stream.qos)
}

// check judges a history.
func (h *history) check() verdict {
	h.mu.Lock()
	defer h.mu.Unlock()
	var v verdict
	for _, stream := range h.published {
		for _, p := range stream {
			if p.acked > 0 {
				v.acked++
			}
		}
	}
	for _, s := range h.subscribers {
		h.checkSubscriber(s, &v)
	}
	return v
}

func (h *history) checkSubscriber(s *subscriber, v *verdict) {
	seen := make([][]bool, len(h.streams))
	highest := make([]int32, len(h.streams))
	for i := range seen {
		seen[i] = make([]bool, len(h.published[i]))
		highest[i] = -1
	}
	at := func(m message) finding { return finding{s.name, h.streams[m.stream], m.number} }
	for _, d := range s.deliveries {
		qos := min(s.qos, h.streams[d.stream].qos)
		if d.qos != qos {
			v.wrongQoS = append(v.wrongQoS, at(d.message))
		}
		switch {
		case seen[d.stream][d.number] && qos == packet.QoS2:
			v.duplicates = append(v.duplicates, at(d.message))
		case seen[d.stream][d.number]:
			v.repeats++
		case d.number < highest[d.stream]:
			v.disorder = append(v.disorder, at(d.message))
		}
		seen[d.stream][d.number] = true
		highest[d.stream] = max(highest[d.stream], d.number)
		v.delivered++
	}
	for id, stream := range h.published {
		if s.since == 0 || !topic.MatchOne(s.filter, h.streams[id].topic) {
			continue
		}
		for n, p := range stream {
			if p.acked > 0 && p.sent > s.since && !seen[id][n] {
				v.lost = append(v.lost, at(message{int32(id), int32(n)}))
			}
		}
	}
}

// err is nil if all promises were kept.
func (v verdict) err() error {
	var all []string
	for _, kind := range []struct {
		name     string
		findings []finding
	}{{"lost", v.lost}, {"duplicate at QoS 2", v.duplicates}, {"out of order", v.disorder}, {"at another QoS", v.wrongQoS}} {
		if len(kind.findings) > 0 {
			all = append(all, fmt.Sprintf("%d %s:", len(kind.findings), kind.name))
		}
		for i, f := range kind.findings {
			if i == maxFindings {
				all = append(all, "  ...")
				break
			}
			all = append(all, "  "+f.String())
		}
	}
	if len(all) == 0 {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(all, "\n"))
}

// maxFindings bounds what a failing test prints of each kind.
const maxFindings = 30

func (v verdict) String() string {
	return fmt.Sprintf("%d acknowledged, %d deliveries (%d repeated at QoS 1), %d lost, %d duplicates, %d out of order",
		v.acked, v.delivered, v.repeats, len(v.lost), len(v.duplicates), len(v.disorder))
}
