package conformance

import (
	"fmt"
	"testing"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// takeoverRounds is how often a client changes its connection in each variant
// and for each pair of nodes.
const takeoverRounds = 10

// TestTakeoverAsksFirst: what the former connection has sent, and its Will, take
// effect before CONNACK (MQTT 5 §3.1.4).
func TestTakeoverAsksFirst(t *testing.T) {
	check(t, []rule{
		{"521 DISCONNECT says how long the session lasts to a CONNECT that follows at once", durable5, func(s *scene) {
			for i := range 2 * takeoverRounds {
				to := []*node{s.here, s.there}[i%2]
				for expiry, present := range map[uint32]bool{0: false, 100: true} {
					id := fmt.Sprint("c", i, "-", expiry)
					old, next := s.connect(s.here, id), s.dial(to)
					old.Write(&packet.Disconnect{HasSessionExpiry: true, SessionExpiry: expiry})
					ack := next.Connect(mqtttest.ID(s.id(id)), mqtttest.Resume(), mqtttest.Expiry(3600))
					if ack.SessionPresent != present {
						s.Errorf("round %d: Session Present %v after a DISCONNECT with Session Expiry %d", i, ack.SessionPresent, expiry)
					}
					next.Write(&packet.Disconnect{HasSessionExpiry: true})
				}
			}
		}},
		{"522 the Will of a connection that is taken over comes before what the next one publishes", every, func(s *scene) {
			for i := range 2 * takeoverRounds {
				to := []*node{s.here, s.there}[i%2]
				topic, id := s.topic("lwt", fmt.Sprint(i)), fmt.Sprint("c", i)
				watch := s.connect(s.other, "watch"+id)
				watch.Subscribe(topic, packet.QoS(i%2))
				s.connect(s.here, id, lastWill(topic, "Offline"))
				next := s.connect(to, id)
				next.Write(retainedPublish(topic, "Online", 1, 1))
				next.ExpectAck(packet.TypePuback, 1, 0)
				if got := s.messages(watch, "Online"); len(got) != 1 || got[0] != "Offline" {
					s.Errorf("round %d: subscribers got %q before Online", i, got)
				}
				if got := s.register(s.other, topic); got != "Online" {
					s.Errorf("round %d: %q is retained", i, got)
				}
				watch.Close()
				next.Write(&packet.Disconnect{})
			}
		}},
		{"523 a DISCONNECT that was sent before the takeover discards the Will", every, func(s *scene) {
			for i := range takeoverRounds {
				topic, id := s.topic("lwt", fmt.Sprint(i)), fmt.Sprint("c", i)
				watch := s.connect(s.other, "watch"+id)
				watch.Subscribe(topic, 1)
				old, next := s.connect(s.here, id, lastWill(topic, "Offline")), s.dial(s.there)
				old.Write(publish(topic, "last words", 1, 1), &packet.Disconnect{})
				next.Connect(append([]mqtttest.Option{mqtttest.ID(s.id(id))}, s.class()...)...)
				next.Write(publish(topic, "Online", 1, 1))
				if got := s.messages(watch, "Online"); len(got) != 1 || got[0] != "last words" {
					s.Errorf("round %d: subscribers got %q before Online", i, got)
				}
				watch.Close()
				next.Write(&packet.Disconnect{})
			}
		}},
		{"524 a Will with a delay is not sent if the session goes on, and before CONNACK if it ends", durable5, func(s *scene) {
			topic := s.topic("lwt")
			watch := s.connect(s.other, "watch")
			watch.Subscribe(topic, 1)
			delayed := func(p *packet.Connect) {
				lastWill(topic, "Offline")(p)
				p.Will.DelaySeconds = 300
			}
			s.connect(s.here, "c", delayed)
			old := s.resume(s.there, "c", delayed) // taken over while it is connected
			old.Close()
			next := s.resume(s.here, "c", delayed) // and while it is not
			next.Write(publish(topic, "Online", 1, 1))
			if got := s.messages(watch, "Online"); len(got) != 0 {
				s.Errorf("subscribers got %q of a session that goes on", got)
			}
			next.ExpectAck(packet.TypePuback, 1, 0)
			next.Close()
			next = s.connect(s.there, "c", clean)
			next.Write(publish(topic, "Online", 1, 1))
			if got := s.messages(watch, "Online"); len(got) != 1 || got[0] != "Offline" {
				s.Errorf("subscribers got %q of a session that has ended", got)
			}
		}},
	})
}

// lastWill is a retained Will of QoS 1.
func lastWill(topic, payload string) mqtttest.Option {
	return func(p *packet.Connect) {
		p.Will = &packet.Will{Topic: topic, Payload: []byte(payload), QoS: 1, Retain: true}
	}
}
