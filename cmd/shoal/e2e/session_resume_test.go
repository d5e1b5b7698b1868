package e2e

import (
	"fmt"
	"testing"

	"github.com/shoalmq/shoal/broker/packet"
)

// TestClientResumesAsTheStandardSays: the chaos tests are worth as much as the
// client that they trust.
func TestClientResumesAsTheStandardSays(t *testing.T) {
	for _, tc := range []struct {
		present bool
		want    string
	}{
		// MQTT 5 §4.4: PUBREL in the order of PUBREC, PUBLISH in their order, with
		// DUP and the same identifiers.
		{true, "[PUBREL 4 PUBREL 2 PUBLISH 1 dup PUBLISH 5 dup]"},
		// Without a session they are new; what the broker has answered is its own.
		{false, "[PUBLISH 1 PUBLISH 5]"},
	} {
		h := newHistory()
		s := newSession("p", h)
		streams := [2]int32{h.open(stream{"p", "t", packet.QoS1}), h.open(stream{"p", "t", packet.QoS2})}
		for _, qos := range []int{1, 2, 1, 2, 2} { // identifiers 1 to 5
			id := streams[qos-1]
			s.publish(h.next(id), h.stream(id))
		}
		for _, ack := range []packet.Ack{
			{Type: packet.TypePuback, PacketID: 3},
			{Type: packet.TypePubrec, PacketID: 4},
			{Type: packet.TypePubrec, PacketID: 2},
		} {
			if _, err := s.receive(&ack); err != nil {
				t.Fatal(err)
			}
		}
		if got := fmt.Sprint(described(s.resume(tc.present))); got != tc.want {
			t.Errorf("session present %t: %s, want %s", tc.present, got, tc.want)
		}
		if len(h.violations) > 0 {
			t.Errorf("session present %t: %q", tc.present, h.violations)
		}
	}
}

func described(packets []packet.Packet) (all []string) {
	for _, p := range packets {
		switch p := p.(type) {
		case *packet.Ack:
			all = append(all, fmt.Sprint(p.Type, " ", p.PacketID))
		case *packet.Publish:
			dup := ""
			if p.Dup {
				dup = " dup"
			}
			all = append(all, fmt.Sprint("PUBLISH ", p.PacketID, dup))
		}
	}
	return all
}

// TestClientSeesWhatABrokerMustNotDo: each of these must be told, or a chaos
// test would pass over it.
func TestClientSeesWhatABrokerMustNotDo(t *testing.T) {
	publish := func(id uint16, n int, dup bool) *packet.Publish {
		return &packet.Publish{Topic: []byte("t"), QoS: packet.QoS2, PacketID: id, Dup: dup, Payload: fmt.Appendf(nil, "p 2 %d", n)}
	}
	for _, tc := range []struct {
		name       string
		packets    []packet.Packet
		deliveries int
		bad        bool
	}{
		{"again before PUBREL", []packet.Packet{publish(1, 0, false), publish(1, 0, true)}, 1, false},
		{"again without DUP", []packet.Packet{publish(1, 0, false), publish(1, 0, false)}, 1, true},
		{"another message with an identifier in use", []packet.Packet{publish(1, 0, false), publish(1, 1, true)}, 1, true},
		{"again after PUBREL", []packet.Packet{publish(1, 0, false), &packet.Ack{Type: packet.TypePubrel, PacketID: 1}, publish(1, 0, true)}, 2, false},
		{"unknown PUBACK", []packet.Packet{&packet.Ack{Type: packet.TypePuback, PacketID: 9}}, 0, true},
		{"unknown PUBREC", []packet.Packet{&packet.Ack{Type: packet.TypePubrec, PacketID: 9}}, 0, true},
		{"unknown PUBCOMP", []packet.Packet{&packet.Ack{Type: packet.TypePubcomp, PacketID: 9}}, 0, true},
		{"CONNACK again", []packet.Packet{&packet.Connack{}}, 0, true},
		{"wrong SUBACK", []packet.Packet{&packet.Suback{PacketID: 9, Codes: []packet.Code{2}}}, 0, true},
	} {
		h := newHistory()
		id := h.open(stream{"p", "t", packet.QoS2})
		h.next(id)
		h.next(id)
		s := newSession("s", h)
		s.subscription = h.subscribe("s", "t", packet.QoS2)
		for _, p := range tc.packets {
			if _, err := s.receive(p); err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
		}
		if n := h.count(s.subscription); n != tc.deliveries {
			t.Errorf("%s: %d deliveries, want %d", tc.name, n, tc.deliveries)
		}
		if bad := len(h.violations) > 0; bad != tc.bad {
			t.Errorf("%s: violations %q", tc.name, h.violations)
		}
	}
}
