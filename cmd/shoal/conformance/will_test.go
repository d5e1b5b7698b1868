package conformance

import (
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// withWill gives a CONNECT a Will of its client; its delay is MQTT 5's.
func (s *scene) withWill(text string, qos packet.QoS, delay uint32) mqtttest.Option {
	w := &packet.Will{Topic: s.topic("w"), Payload: []byte(text), QoS: qos, DelaySeconds: delay}
	return func(p *packet.Connect) { p.Will = w }
}

// watcher is subscribed to the scene's Wills.
func (s *scene) watcher(qos packet.QoS) *mqtttest.Client {
	s.Helper()
	c := s.connect(s.other, "watcher")
	c.AutoAck = true
	c.Subscribe(s.topic("w"), qos)
	return c
}

// expectWill takes the next Will. No other one came before it.
func (s *scene) expectWill(watcher *mqtttest.Client, text string) *packet.Publish {
	s.Helper()
	p := watcher.ExpectPublish(s.topic("w"), text)
	if p.QoS == packet.QoS2 {
		watcher.ExpectAck(packet.TypePubrel, p.PacketID, 0)
	}
	return p
}

// The proof that a Will is not published is that a later one of the same client
// is the first that comes: they are decided by one shard, in order.

func TestWill(t *testing.T) {
	check(t, []rule{
		{"053 the Will is stored with the session [MQTT-3.1.2-7]", every, func(s *scene) {
			for qos := packet.QoS0; qos <= packet.QoS2; qos++ {
				watcher := s.watcher(2)
				s.connect(s.here, "c", s.withWill("gone", qos, 0)).Close()
				if p := s.expectWill(watcher, "gone"); p.QoS != qos || p.Retain || p.Dup {
					s.Errorf("got %s", mqtttest.Describe(p))
				}
				watcher.ExpectNothing()
				watcher.Disconnect()
			}
		}},
		{"054 published after any end but DISCONNECT 0x00 [MQTT-3.1.2-8]", every, func(s *scene) {
			watcher := s.watcher(1)
			ends := map[string]func(c *mqtttest.Client){
				"cut":            func(c *mqtttest.Client) { c.Close() },
				"malformed":      func(c *mqtttest.Client) { c.WriteRaw(0x36, 0) },
				"second CONNECT": func(c *mqtttest.Client) { c.Write(&packet.Connect{ClientID: s.id("c")}) },
				"silence":        func(*mqtttest.Client) {},
				"taken over": func(*mqtttest.Client) {
					s.connect(s.there, "c")
				},
			}
			for name, end := range ends {
				end(s.connect(s.here, "c", mqtttest.KeepAlive(1), s.withWill(name, 1, 0)))
				s.expectWill(watcher, name)
			}
			watcher.ExpectNothing()
		}},
		{"055 removed by DISCONNECT 0x00, published on 0x04 and above [MQTT-3.1.2-10] [MQTT-3.14.4-3]", every, func(s *scene) {
			watcher := s.watcher(1)
			s.connect(s.here, "c", s.withWill("discarded", 1, 0)).Disconnect()
			for _, code := range []packet.Code{packet.CodeDisconnectWithWill, packet.CodeUnspecifiedError, packet.CodeQuotaExceeded} {
				c := s.connect(s.here, "c", s.withWill("asked for", 1, 0))
				if s.v == packet.V5 {
					c.Write(&packet.Disconnect{Code: code})
				}
				c.Close()
				s.expectWill(watcher, "asked for")
			}
			watcher.ExpectNothing()
		}},
		{"060 no Will if the client is back in time [MQTT-3.1.3-9]", durable5, func(s *scene) {
			watcher := s.watcher(1)
			s.connect(s.here, "c", s.withWill("late", 1, 30)).Close()
			s.resume(s.there, "c", s.withWill("taken over", 1, 30))
			s.resume(s.here, "c", s.withWill("last", 1, 1)).Close()
			s.expectWill(watcher, "last")
			watcher.ExpectNothing()
		}},
		{"061 Clean Start 1 ends the session: its Will goes at once (3.1.3.2.2)", durable5, func(s *scene) {
			watcher := s.watcher(1)
			clean := func(p *packet.Connect) { p.CleanStart = true }
			s.connect(s.here, "c", s.withWill("of a session left", 1, 3600)).Close()
			s.connect(s.there, "c", clean, s.withWill("of one still open", 1, 3600))
			s.expectWill(watcher, "of a session left")
			s.connect(s.here, "c", clean)
			s.expectWill(watcher, "of one still open")
			watcher.ExpectNothing()
		}},
		{"062 the Will Delay or the session's end, whichever is first (3.1.3.2.2)", durable5, func(s *scene) {
			watcher := s.watcher(1)
			end := func(name string, expiry, delay uint32, atLeast time.Duration) {
				c := s.connect(s.here, name, mqtttest.Expiry(expiry), s.withWill(name, 1, delay))
				at := time.Now()
				c.Close()
				s.expectWill(watcher, name)
				if took := time.Since(at); took < atLeast {
					s.Errorf("%s: published after %v", name, took)
				}
			}
			end("delay", 3600, 2, 1900*time.Millisecond)
			end("session", 2, 3600, 1900*time.Millisecond)
			end("transient", 0, 3600, 0)
		}},
		{"152 DISCONNECT 0x04 with Session Expiry 0 ends the session: its Will goes at once (3.1.3.2.2, 3.14.2.2.2)", durable5, func(s *scene) {
			watcher := s.watcher(1)
			c := s.connect(s.here, "c", s.withWill("at once", 1, 3600))
			c.Write(&packet.Disconnect{Code: packet.CodeDisconnectWithWill, HasSessionExpiry: true})
			c.ExpectClosed()
			s.expectWill(watcher, "at once")
			watcher.ExpectNothing()
		}},
		{"065 all Will properties are delivered, in order, Will Delay never [MQTT-3.1.3-10] (3.1.3.2)", every5, func(s *scene) {
			properties := packet.MessageProperties{
				HasPayloadFormat: true, HasContentType: true, ContentType: "text/plain", ResponseTopic: "r/ü", CorrelationData: []byte{0, 255},
				UserProperties: []packet.UserProperty{{Key: "k", Value: "2"}, {Key: "k", Value: "1"}, {Key: "", Value: ""}, {Key: "a", Value: "ü"}},
			}
			forward := properties.AppendForward(nil)
			watcher := s.watcher(2)
			for qos := packet.QoS0; qos <= packet.QoS2; qos++ {
				will := packet.Will{Topic: s.topic("w"), Payload: []byte{}, QoS: qos, DelaySeconds: 1, HasExpiry: true, MessageExpiry: 500, Forward: forward}
				s.connect(s.here, "c", func(p *packet.Connect) { p.Will = &will }).Close()
				got := s.expectWill(watcher, "")
				if string(got.Forward) != string(forward) || !got.HasExpiry || got.MessageExpiry > 500 || got.MessageExpiry < 250 || got.QoS != qos {
					s.Errorf("got %+v", got)
				}
			}
		}},
		{"066 DISCONNECT 0x00 discards the Will, also if the client connects elsewhere at once [MQTT-3.14.4-3]", every, func(s *scene) {
			watcher := s.watcher(1)
			for i := range 20 {
				s.connect(nodes[i%3], "c", s.withWill("discarded", 1, 0)).Disconnect()
			}
			s.connect(s.here, "c", s.withWill("last", 1, 0)).Close()
			s.expectWill(watcher, "last")
			watcher.ExpectNothing()
		}},
	})
}

func TestExpiry(t *testing.T) {
	check(t, []rule{
		{"044 a session is not discarded while its connection is open [MQTT-4.1.0-1]", durable5, func(s *scene) {
			s.connect(s.here, "c", mqtttest.Expiry(1))
			time.Sleep(2500 * time.Millisecond)
			s.resume(s.there, "c") // takes the open one over
		}},
		{"045 a session is discarded when its interval has passed [MQTT-4.1.0-2]", durable5, func(s *scene) {
			c := s.connect(s.here, "c", mqtttest.Expiry(1))
			c.Subscribe(s.topic("a"), 1)
			c.Close()
			d := s.connect(s.here, "d")
			d.Subscribe(s.topic("a"), 1)
			seconds := packet.Disconnect{HasSessionExpiry: true, SessionExpiry: 1}
			d.Write(&seconds)
			d.ExpectClosed()
			time.Sleep(2500 * time.Millisecond)
			s.connect(s.there, "p").Publish(s.topic("a"), "x", 1)
			for _, name := range []string{"c", "d"} {
				c, ack := s.open(s.other, name)
				if ack.SessionPresent {
					s.Errorf("%s is still there", name)
				}
				c.ExpectNothing()
			}
		}},
		{"049 0xFFFFFFFF, and Clean Session 0 of 3.1.1, do not expire (3.1.2.11.2)", allDurable, func(s *scene) {
			s.connect(s.here, "c", mqtttest.Expiry(0xFFFFFFFF)).Close()
			time.Sleep(2500 * time.Millisecond)
			s.resume(s.there, "c")
		}},
		{"078 what has expired is not delivered [MQTT-3.3.2-5], waiting is deducted [MQTT-3.3.2-6]", durable5, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 2)
			s.leave(sub, s.there, s.topic("a"))
			for qos := packet.QoS1; qos <= packet.QoS2; qos++ {
				for i, seconds := range []uint32{1, 1000, 1, 0} {
					p := publish(s.topic("a"), string('0'+rune(i)), qos, uint16(qos))
					p.HasExpiry, p.MessageExpiry = seconds > 0, seconds
					exchange(pub, p)
				}
			}
			time.Sleep(2500 * time.Millisecond)
			sub = s.resume(s.other, "s", mqtttest.ReceiveMaximum(1))
			finish(sub, sub.ExpectPublish(s.topic("a"), "marker"))
			for range packet.QoS2 {
				long := sub.ExpectPublish(s.topic("a"), "1")
				finish(sub, long)
				if !long.HasExpiry || long.MessageExpiry > 998 || long.MessageExpiry < 500 {
					s.Errorf("expiry %d, %t", long.MessageExpiry, long.HasExpiry)
				}
				none := sub.ExpectPublish(s.topic("a"), "3")
				finish(sub, none)
				if none.HasExpiry {
					s.Errorf("expiry %d", none.MessageExpiry)
				}
			}
			sub.ExpectNothing()
		}},
		{"146 a message that is sent again says what is left of its Message Expiry [MQTT-3.3.2-6]", durable5, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 1)
			p := publish(s.topic("a"), "x", 1, 1)
			p.HasExpiry, p.MessageExpiry = true, 1000
			exchange(pub, p)
			last := sub.ExpectPublish(s.topic("a"), "x").MessageExpiry
			for turn, first := 0, last; last > first-2 && turn < 1000; turn++ {
				time.Sleep(20 * time.Millisecond)
				sub.Close()
				sub = s.resume(nodes[turn%3], "s")
				got := sub.ExpectPublish(s.topic("a"), "x")
				if !got.Dup || !got.HasExpiry || got.MessageExpiry > last {
					s.Fatalf("expiry %d after %d: %s", got.MessageExpiry, last, mqtttest.Describe(got))
				}
				last = got.MessageExpiry
			}
			if last > 998 {
				s.Errorf("still %d", last)
			}
		}},
		{"103 expiry does not break a QoS 2 exchange that was begun [MQTT-4.3.3-7] [MQTT-4.3.3-13]", durable5, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 2)
			ids := make([]uint16, 2)
			for i := range ids {
				p := publish(s.topic("a"), "x", 2, 1)
				p.HasExpiry, p.MessageExpiry = true, 1
				exchange(pub, p)
				ids[i] = sub.ExpectPublish(s.topic("a"), "x").PacketID
			}
			sub.Write(ack(packet.TypePubrec, ids[0]))
			sub.ExpectAck(packet.TypePubrel, ids[0], 0)
			time.Sleep(2500 * time.Millisecond)
			sub.Close()
			sub = s.resume(s.other, "s")
			sub.ExpectAck(packet.TypePubrel, ids[0], 0)
			again := sub.ExpectPublish(s.topic("a"), "x")
			if again.PacketID != ids[1] || !again.Dup {
				s.Errorf("got %s", mqtttest.Describe(again))
			}
			sub.Write(ack(packet.TypePubcomp, ids[0]))
			finish(sub, again)
			sub.ExpectNothing()
		}},
	})
}
