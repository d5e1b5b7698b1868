package conformance

import (
	"fmt"
	"testing"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// orderRounds is how often a race of packets in one write is run for each
// version, class and pair of nodes.
const orderRounds = 6

// register reads the retained message of a topic from a node, "" if there is none.
func (s *scene) register(n *node, topic string) string {
	s.Helper()
	s = s.as(packet.V5)
	s.durable = false
	c := s.connect(n, fmt.Sprintf("reader%d", scenes.Add(1)))
	defer c.Close()
	// The retained messages of the second filter follow those of the first.
	end := s.topic("end of retained")
	c.Write(retainedPublish(end, "end", 1, 1), subscribe(2, topic), subscribe(3, end))
	if got := s.messages(c, "end"); len(got) > 0 {
		return got[len(got)-1]
	}
	return ""
}

// goes writes packets at once and ends the connection from this side.
func (s *scene) goes(c *mqtttest.Client, packets ...packet.Packet) {
	s.Helper()
	c.Write(packets...)
	c.Close()
}

func retainedPublish(topic, payload string, qos packet.QoS, id uint16) *packet.Publish {
	p := publish(topic, payload, qos, id)
	p.Retain = true
	return p
}

func subscribe(id uint16, filters ...string) *packet.Subscribe {
	p := &packet.Subscribe{PacketID: id}
	for _, f := range filters {
		p.Subscriptions = append(p.Subscriptions, packet.Subscription{Filter: f, QoS: 1})
	}
	return p
}

// until takes packets until holds says that one is the last, and answers
// messages of QoS 1.
func (s *scene) until(c *mqtttest.Client, holds func(p packet.Packet) bool) {
	s.Helper()
	for {
		p := c.Next()
		if m, ok := p.(*packet.Publish); ok && m.QoS == packet.QoS1 {
			c.Write(ack(packet.TypePuback, m.PacketID))
		}
		if holds(p) {
			return
		}
	}
}

// messages takes what comes until PUBLISH with the payload last, and returns the
// payloads before it.
func (s *scene) messages(c *mqtttest.Client, last string) (got []string) {
	s.Helper()
	s.until(c, func(p packet.Packet) bool {
		m, ok := p.(*packet.Publish)
		if !ok {
			return false
		}
		got = append(got, string(m.Payload))
		return string(m.Payload) == last
	})
	return got[:len(got)-1]
}

// TestOrder: the effects of a connection's packets appear in the order in which
// they were sent, though all come in one write and the client goes at once.
func TestOrder(t *testing.T) {
	check(t, []rule{
		{"501 a retained message of QoS 0 and DISCONNECT: the newest is kept, an empty one clears", every, func(s *scene) {
			topic := s.topic("r")
			for i := range orderRounds {
				want := fmt.Sprint("new", i)
				s.goes(s.connect(s.here, "p"), retainedPublish(topic, "old", 0, 0), retainedPublish(topic, want, 0, 0), &packet.Disconnect{})
				s.eventually(func() bool { return s.register(s.there, topic) == want })
			}
			s.goes(s.connect(s.here, "p"), retainedPublish(topic, "", 0, 0), &packet.Disconnect{})
			s.eventually(func() bool { return s.register(s.other, topic) == "" })
		}},
		{"502 a retained message of each QoS, and the end without DISCONNECT", every, func(s *scene) {
			topic := s.topic("r")
			for i := range orderRounds {
				want := fmt.Sprint(i)
				s.goes(s.connect(s.here, "p"), retainedPublish(topic, want, packet.QoS(i%3), 1))
				s.eventually(func() bool { return s.register(s.there, topic) == want })
			}
		}},
		{"503 SUBSCRIBE and PUBLISH: one's own message comes", every, func(s *scene) {
			for i := range orderRounds {
				c := s.connect(nodes[i%3], fmt.Sprint("c", i))
				a, b := s.topic("a", fmt.Sprint(i)), s.topic("b", fmt.Sprint(i))
				c.Write(subscribe(1, a), publish(a, "0", 0, 0), publish(a, "1", 1, 1), subscribe(2, b), publish(b, "last", 1, 2))
				if got := s.messages(c, "last"); len(got) != 2 {
					s.Errorf("round %d: got %q", i, got)
				}
				c.Close()
			}
		}},
		{"504 SUBSCRIBE of many filters and PUBLISH to the last", every, func(s *scene) {
			var filters []string
			for i := range 300 {
				filters = append(filters, s.topic("m", fmt.Sprint(i), "+"))
			}
			c := s.connect(s.here, "c")
			c.Write(subscribe(1, filters...), publish(s.topic("m", "299", "x"), "last", 0, 0))
			s.messages(c, "last")
		}},
		{"505 SUBSCRIBE to the reply and PUBLISH of the request: the reply comes", every, func(s *scene) {
			server := s.connect(s.there, "server")
			server.Subscribe(s.topic("request", "+"), 1)
			for i := range orderRounds {
				c := s.connect(s.here, fmt.Sprint("c", i))
				c.Write(subscribe(1, s.topic("reply", fmt.Sprint(i))), publish(s.topic("request", fmt.Sprint(i)), fmt.Sprint(i), packet.QoS(i%2), 1))
				if got := s.messages(server, fmt.Sprint(i)); len(got) > 0 {
					s.Errorf("the server got %q before %d", got, i)
				}
				server.Write(publish(s.topic("reply", fmt.Sprint(i)), "reply", 0, 0))
				s.messages(c, "reply")
				c.Close()
			}
		}},
		{"506 UNSUBSCRIBE and PUBLISH: nothing comes", every, func(s *scene) {
			c := s.connect(s.here, "c")
			c.Subscribe(s.topic("z"), 1)
			for i := range orderRounds {
				a := s.topic("a", fmt.Sprint(i))
				last := fmt.Sprint("last", i)
				c.Write(subscribe(1, a), &packet.Unsubscribe{PacketID: 2, Filters: []string{a}}, publish(a, "no", packet.QoS(i%2), 1), publish(s.topic("z"), last, packet.QoS(i%2), 2))
				if got := s.messages(c, last); len(got) > 0 {
					s.Errorf("round %d: got %q", i, got)
				}
			}
		}},
		{"507 SUBSCRIBE with QoS 0 and again with QoS 1: a message of QoS 1 comes with it", every, func(s *scene) {
			for i := range orderRounds {
				a := s.topic("a", fmt.Sprint(i))
				c := s.connect(s.here, fmt.Sprint("c", i))
				zero := subscribe(1, a)
				zero.Subscriptions[0].QoS = 0
				c.Write(zero, subscribe(2, a), publish(a, "last", 1, 1))
				s.until(c, func(p packet.Packet) bool {
					m, ok := p.(*packet.Publish)
					if ok && m.QoS != packet.QoS1 {
						s.Errorf("round %d: got %s", i, mqtttest.Describe(m))
					}
					return ok
				})
				c.Close()
			}
		}},
		{"508 SUBSCRIBE of a durable session and DISCONNECT, or the end without: the subscription stands", allDurable, func(s *scene) {
			pub := s.connect(s.there, "p")
			for i := range orderRounds {
				id := fmt.Sprint("c", i)
				a := s.topic("a", fmt.Sprint(i))
				packets := []packet.Packet{subscribe(1, a), &packet.Disconnect{}}
				c := s.connect(s.here, id)
				if i%2 == 0 {
					s.goes(c, packets...)
				} else {
					s.goes(c, packets[0])
				}
				// The session is back when what it sent has taken effect.
				c = s.resume(s.other, id)
				s.eventually(func() bool {
					pub.Publish(a, "x", packet.QoS1)
					for _, p := range c.Ping() {
						if _, ok := p.(*packet.Publish); ok {
							return true
						}
					}
					return false
				})
				c.Close()
			}
		}},
		{"509 a retained message and SUBSCRIBE: that value comes once, with RETAIN 1, and no older one", every, func(s *scene) {
			for i := range orderRounds {
				a := s.topic("a", fmt.Sprint(i))
				c := s.connect(s.here, fmt.Sprint("c", i))
				c.Write(retainedPublish(a, "old", 0, 0), retainedPublish(a, "new", packet.QoS(i%3), 1), subscribe(1, a), subscribe(2, s.topic("z", fmt.Sprint(i))),
					publish(s.topic("z", fmt.Sprint(i)), "last", 0, 0))
				seen, last := 0, false
				s.until(c, func(p packet.Packet) bool {
					m, ok := p.(*packet.Publish)
					switch {
					case !ok:
					case string(m.Payload) == "last":
						last = true
					default:
						seen++
						if string(m.Payload) != "new" || !m.Retain || seen > 1 {
							s.Errorf("round %d: got %s", i, mqtttest.Describe(m))
						}
					}
					return seen > 0 && last
				})
				c.Close()
			}
		}},
	})
}
