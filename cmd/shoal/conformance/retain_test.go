package conformance

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/cluster/directory"
)

// sentinels are retained messages of topics that come last in their shards, one
// in each: a replay that has brought them all has brought everything.
const sentinels = shards

// sentinels returns their topics' last levels.
func (s *scene) sentinels() (list []string) {
	var found [shards]bool
	for i := 0; len(list) < shards; i++ {
		name := fmt.Sprintf("zz%04d", i)
		// Slots go to shards in turn: see directory.Slots.
		if at := &found[directory.Slot(s.topic("r", name))%shards]; !*at {
			*at = true
			list = append(list, name)
		}
	}
	return list
}

// retain publishes a retained message. One of QoS 0 is only sure to be one when
// one of QoS 1 follows it on the same connection and topic.
func (s *scene) retain(c *mqtttest.Client, topic, payload string, qos packet.QoS) {
	s.Helper()
	p := publish(s.topic("r", topic), payload, qos, uint16(qos))
	p.Retain = true
	exchange(c, p)
}

// keep makes the sentinels of a scene.
func (s *scene) keep(c *mqtttest.Client) {
	s.Helper()
	for _, name := range s.sentinels() {
		s.retain(c, name, "sentinel", 1)
	}
}

// replayed takes packets until all the sentinels are there, and returns the
// other retained messages, by topic. There must be one of each.
func (s *scene) replayed(c *mqtttest.Client) map[string]*packet.Publish {
	s.Helper()
	got := map[string]*packet.Publish{}
	seen := 0
	take := func(x packet.Packet) {
		p, ok := x.(*packet.Publish)
		if !ok { // an acknowledgement of QoS 2
			return
		}
		name := strings.TrimPrefix(string(p.Topic), s.topic("r")+"/")
		if got[name] != nil {
			s.Fatalf("%s comes twice", name)
		}
		if !p.Retain || p.Dup {
			s.Errorf("got %s", mqtttest.Describe(p))
		}
		if got[name] = p; string(p.Payload) == "sentinel" {
			seen++
		}
	}
	for seen < sentinels {
		take(c.Next())
	}
	for _, p := range c.Ping() { // QoS 0 and 1 are not ordered against each other
		take(p)
	}
	for _, name := range s.sentinels() {
		delete(got, name)
	}
	return got
}

// replay subscribes a new session of the scene's class to everything retained,
// and returns it.
func (s *scene) replay(qos packet.QoS) map[string]*packet.Publish {
	s.Helper()
	c := s.connect(s.there, fmt.Sprint("replay", scenes.Add(1)))
	defer c.Close()
	c.AutoAck = true
	c.Subscribe(s.topic("r", "#"), qos)
	return s.replayed(c)
}

// expectRetained checks what a replay brought.
func (s *scene) expectRetained(got map[string]*packet.Publish, want map[string]string) {
	s.Helper()
	for name, p := range got {
		if want[name] != string(p.Payload) || want[name] == "" {
			s.Errorf("%s: got %s", name, mqtttest.Describe(p))
		}
	}
	for name := range want {
		if got[name] == nil {
			s.Errorf("%s: no retained message", name)
		}
	}
}

func TestRetained(t *testing.T) {
	check(t, []rule{
		{"070 a retained message replaces the one before [MQTT-3.3.1-5], and is there for new subscriptions", every, func(s *scene) {
			pub := s.connect(s.here, "p")
			s.keep(pub)
			for published := packet.QoS1; published <= packet.QoS2; published++ {
				for before := packet.QoS0; before <= packet.QoS2; before++ {
					s.retain(pub, "a", "before", before)
					s.retain(pub, "a", "now", published)
					for granted := packet.QoS0; granted <= packet.QoS2; granted++ {
						got := s.replay(granted)
						s.expectRetained(got, map[string]string{"a": "now"})
						if p := got["a"]; p != nil && p.QoS != min(granted, published) {
							s.Errorf("QoS %d, published %d, granted %d", p.QoS, published, granted)
						}
					}
				}
			}
		}},
		{"070 a retained message of QoS 0", every, func(s *scene) {
			pub := s.connect(s.here, "p")
			s.keep(pub)
			s.retain(pub, "a", "x", 0)
			for end := time.Now().Add(mqtttest.Timeout); ; { // it is not acknowledged
				if got := s.replay(1); got["a"] != nil {
					s.expectRetained(got, map[string]string{"a": "x"})
					return
				}
				if time.Now().After(end) {
					s.Fatal("it is not retained")
				}
			}
		}},
		{"071 an empty retained message clears, is delivered, is not stored [MQTT-3.3.1-6] [MQTT-3.3.1-7]", every, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("#"), 2)
			s.keep(pub)
			for range sentinels {
				finish(sub, mqtttest.Expect[*packet.Publish](sub))
			}
			for qos := packet.QoS0; qos <= packet.QoS2; qos++ {
				for _, text := range []string{"x", ""} {
					s.retain(pub, "a", text, qos)
					p := sub.ExpectPublish(s.topic("r", "a"), text)
					if p.QoS != qos || p.Retain {
						s.Errorf("got %s", mqtttest.Describe(p))
					}
					finish(sub, p)
				}
				if qos == 0 {
					s.retain(pub, "a", "", 1)
					finish(sub, sub.ExpectPublish(s.topic("r", "a"), ""))
				}
				s.expectRetained(s.replay(1), nil)
			}
		}},
		{"072 RETAIN 0 leaves the retained message alone [MQTT-3.3.1-8]", every, func(s *scene) {
			pub := s.connect(s.here, "p")
			s.keep(pub)
			s.retain(pub, "a", "kept", 1)
			for qos := packet.QoS0; qos <= packet.QoS2; qos++ {
				pub.Publish(s.topic("r", "a"), "live", qos)
				pub.Publish(s.topic("r", "a"), "", qos)
				pub.Publish(s.topic("r", "b"), "live", qos)
			}
			s.expectRetained(s.replay(0), map[string]string{"a": "kept"})
		}},
		{"073 Retain Handling 0, 1, 2 [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]", every5, func(s *scene) {
			pub, sub := s.pair()
			sub.AutoAck = true
			s.keep(pub)
			s.retain(pub, "a", "x", 1)
			for i, step := range []struct {
				filter   string
				handling byte
				sent     bool
			}{
				{"#", 2, false}, {"#", 1, false}, {"#", 0, true}, {"#", 0, true}, {"#", 2, false}, {"#", 1, false},
				{"+", 1, true}, {"+", 1, false}, {"+", 0, true},
			} {
				id := uint32(i + 1)
				sub.SubscribeWith(packet.Subscribe{SubscriptionID: id, Subscriptions: []packet.Subscription{{Filter: s.topic("r", step.filter), QoS: 2, RetainHandling: step.handling}}})
				if !step.sent {
					sub.ExpectNothing()
					continue
				}
				got := s.replayed(sub)
				s.expectRetained(got, map[string]string{"a": "x"})
				if p := got["a"]; p != nil && !slices.Equal(p.SubscriptionIDs, []uint32{id}) {
					s.Errorf("step %d: identifiers %v", i, p.SubscriptionIDs)
				}
			}
		}},
		{"073 subscribing again brings retained messages again [MQTT 3.1.1: MQTT-3.8.4-3]", v311 | transient | durable, func(s *scene) {
			pub, sub := s.pair()
			sub.AutoAck = true
			s.keep(pub)
			for range 3 {
				sub.Subscribe(s.topic("r", "#"), 1)
				s.expectRetained(s.replayed(sub), nil)
			}
		}},
		{"115 replaced with Retain Handling 0 a subscription gets retained messages again [MQTT-3.8.4-4]", every5, func(s *scene) {
			pub, sub := s.pair()
			sub.AutoAck = true
			s.keep(pub)
			s.retain(pub, "a", "1", 1)
			for i := range 3 {
				sub.Subscribe(s.topic("r", "#"), packet.QoS(i))
				s.expectRetained(s.replayed(sub), map[string]string{"a": fmt.Sprint(i + 1)})
				next := publish(s.topic("r", "a"), fmt.Sprint(i+2), 1, 9)
				next.Retain = true
				exchange(pub, next)
				for string(mqtttest.Expect[*packet.Publish](sub).Payload) != fmt.Sprint(i+2) {
				}
			}
		}},
		{"117 No Local holds for retained messages too [MQTT-3.8.3-3]", every5, func(s *scene) {
			pub, sub := s.pair()
			s.keep(pub)
			s.retain(sub, "own", "x", 1)
			s.retain(pub, "other", "x", 1)
			sub.AutoAck = true
			sub.SubscribeAll(packet.Subscription{Filter: s.topic("r", "#"), QoS: 1, NoLocal: true})
			s.expectRetained(s.replayed(sub), map[string]string{"other": "x"})
		}},
		{"119 overlapping subscriptions get their retained messages each [MQTT-3.3.4-5]", every5, func(s *scene) {
			pub, sub := s.pair()
			sub.AutoAck = true
			s.keep(pub)
			for i, f := range append([]string{"#", "+"}, s.sentinels()[:2]...) {
				id := uint32(i + 1)
				sub.SubscribeWith(packet.Subscribe{SubscriptionID: id, Subscriptions: []packet.Subscription{{Filter: s.topic("r", f), QoS: 1}}})
				want := sentinels
				if i > 1 {
					want = 1
				}
				for range want {
					if p := mqtttest.Expect[*packet.Publish](sub); !slices.Equal(p.SubscriptionIDs, []uint32{id}) || !p.Retain {
						s.Errorf("%s: got %+v", f, p)
					}
				}
			}
			sub.ExpectNothing()
		}},
		{"052 retained messages that are owed are state of the session (4.1)", allDurable, func(s *scene) {
			pub := s.connect(s.here, "p")
			s.keep(pub)
			want := map[string]string{}
			for i := range 100 {
				want[fmt.Sprint(i)] = fmt.Sprint("x", i)
				s.retain(pub, fmt.Sprint(i), fmt.Sprint("x", i), 1)
			}
			c := s.connect(s.there, "s")
			c.Subscribe(s.topic("r", "#"), 1)
			c.Close()
			got := map[string]string{}
			c = s.resume(s.other, "s")
			c.AutoAck = true
			for len(got) < len(want)+sentinels {
				p := mqtttest.Expect[*packet.Publish](c)
				if got[string(p.Topic)] != "" {
					s.Fatalf("%s comes twice", p.Topic)
				}
				got[string(p.Topic)] = string(p.Payload)
			}
			for name, text := range want {
				if got[s.topic("r", name)] != text {
					s.Errorf("%s: got %q", name, got[s.topic("r", name)])
				}
			}
			c.ExpectNothing()
		}},
		{"058 Will Retain [MQTT-3.1.2-14] [MQTT-3.1.2-15]", every, func(s *scene) {
			pub := s.connect(s.here, "p")
			s.keep(pub)
			watcher := s.connect(s.other, "watcher")
			watcher.AutoAck = true
			watcher.Subscribe(s.topic("r", "w", "#"), 1)
			for _, retain := range []bool{true, false} {
				will := packet.Will{Topic: s.topic("r", "w", fmt.Sprint(retain)), Payload: []byte("gone"), QoS: 1, Retain: retain}
				s.connect(s.here, "c", func(p *packet.Connect) { p.Will = &will }).Close()
				if p := watcher.ExpectPublish(will.Topic, "gone"); p.Retain {
					s.Errorf("got %s", mqtttest.Describe(p))
				}
			}
			for end := time.Now().Add(mqtttest.Timeout); ; { // nobody is told when it is retained
				got := s.replay(1)
				if got["w/true"] != nil || time.Now().After(end) {
					s.expectRetained(got, map[string]string{"w/true": "gone"})
					return
				}
			}
		}},
		{"078 a retained message that has expired is not delivered, waiting is deducted [MQTT-3.3.2-5] [MQTT-3.3.2-6]", every5, func(s *scene) {
			pub := s.connect(s.here, "p")
			s.keep(pub)
			for name, seconds := range map[string]uint32{"short": 1, "long": 1000} {
				for qos := packet.QoS1; qos <= packet.QoS2; qos++ {
					p := publish(s.topic("r", fmt.Sprint(name, qos)), "x", qos, 1)
					p.Retain, p.HasExpiry, p.MessageExpiry = true, true, seconds
					exchange(pub, p)
				}
			}
			time.Sleep(2500 * time.Millisecond)
			got := s.replay(2)
			s.expectRetained(got, map[string]string{"long1": "x", "long2": "x"})
			for _, p := range got {
				if !p.HasExpiry || p.MessageExpiry > 998 || p.MessageExpiry < 500 {
					s.Errorf("%s: expiry %d", p.Topic, p.MessageExpiry)
				}
			}
		}},
	})
}
