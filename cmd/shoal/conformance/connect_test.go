package conformance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

func clean(p *packet.Connect) { p.CleanStart = true }

func TestConnect(t *testing.T) {
	check(t, []rule{
		{"021 Clean Start 1 discards the session, also under an open connection [MQTT-3.1.2-4]", allDurable, func(s *scene) {
			pub, old := s.pair()
			old.Subscribe(s.topic("a"), 2)
			c, ack := s.open(s.other, "s", clean)
			old.ExpectDisconnect(packet.CodeSessionTakenOver)
			if ack.SessionPresent {
				s.Error("session present")
			}
			pub.Publish(s.topic("a"), "x", 1)
			c.ExpectNothing()
			c.Close()
			// Where the new session is durable, it is the new one that comes back.
			c, _ = s.open(s.there, "s")
			c.ExpectNothing()
		}},
		{"022 Clean Start 0 resumes, on another node [MQTT-3.1.2-5]", allDurable, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 1)
			sub.Close()
			sub = s.resume(s.other, "s")
			pub.Publish(s.topic("a"), "x", 1)
			finish(sub, sub.ExpectPublish(s.topic("a"), "x"))
		}},
		{"023 Clean Start 0 without a session makes one [MQTT-3.1.2-6]", every, func(s *scene) {
			pub, _ := s.open(s.here, "p")
			sub, ack := s.open(s.there, "s", func(p *packet.Connect) { p.CleanStart = p.CleanStart && s.v != packet.V5 })
			if ack.SessionPresent {
				s.Error("session present")
			}
			sub.Subscribe(s.topic("a"), 0)
			pub.Publish(s.topic("a"), "x", 1)
			sub.ExpectPublish(s.topic("a"), "x")
		}},
		{"024 Clean Start 1: session present 0 [MQTT-3.2.2-2]", every, func(s *scene) {
			for i, n := range nodes {
				if _, ack := s.open(n, "c", clean); ack.SessionPresent {
					s.Errorf("connection %d: session present", i)
				}
			}
		}},
		{"025 session present exactly when there is one [MQTT-3.2.2-3]", every, sessionPresent},
		{"026 a refusal has session present 0, and the session stays [MQTT-3.2.2-6]", durable5, func(s *scene) {
			s.connect(s.here, "c").Disconnect()
			c := s.dial(s.there)
			ack := c.TryConnect(mqtttest.ID(s.id("c")), mqtttest.Resume(), func(p *packet.Connect) { p.HasAuthMethod, p.AuthMethod = true, "X" })
			if !ack.Code.Failed() || ack.SessionPresent {
				s.Errorf("CONNACK %+v", ack)
			}
			c.ExpectClosed()
			s.resume(s.here, "c")
		}},
		{"027 a refusal closes [MQTT-3.2.2-7]", allTransient, func(s *scene) {
			c := s.dial(s.here)
			if ack := c.TryConnect(mqtttest.ID(strings.Repeat("x", 2000))); ack.Code != packet.CodeClientIdentifierNotValid {
				s.Errorf("CONNACK %+v", ack)
			}
			c.ExpectClosed()
		}},
		{"028 CONNACK comes before what is queued, and once [MQTT-3.2.0-1] [MQTT-3.2.0-2]", allDurable, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 1)
			sub.Close()
			for i := range 5 {
				pub.Publish(s.topic("a"), fmt.Sprint(i), 1)
			}
			sub = s.resume(s.other, "s") // fails if anything else comes first
			for i := range 5 {
				sub.ExpectPublish(s.topic("a"), fmt.Sprint(i))
			}
			sub.ExpectNothing()
		}},
		{"030 takeover: the old connection gets DISCONNECT 0x8E, on whatever node it is [MQTT-3.1.4-3]", every, func(s *scene) {
			old := s.connect(s.here, "c")
			old.Subscribe(s.topic("old"), 1)
			for _, n := range []*node{s.there, s.here, s.here, s.other} {
				c := s.connect(n, "c")
				old.ExpectDisconnect(packet.CodeSessionTakenOver)
				c.Publish(s.topic("x"), "held until the old one has drained", 1)
				old = c
			}
			old.ExpectNothing()
		}},
		{"031 nothing is processed after a refusal [MQTT-3.1.4-6]", allTransient, func(s *scene) {
			_, sub := s.pair()
			sub.Subscribe(s.topic("a"), 0)
			c := s.dial(s.here)
			c.Write(&packet.Connect{ClientID: strings.Repeat("x", 2000), CleanStart: true}, publish(s.topic("a"), "x", 0, 0), publish(s.topic("a"), "x", 1, 1))
			mqtttest.Expect[*packet.Connack](c)
			c.ExpectClosed()
			sub.ExpectNothing()
		}},
		{"032 Client Identifiers of 1 to 23 letters and digits [MQTT-3.1.3-5]", allTransient, func(s *scene) {
			const all = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			unique := strings.ReplaceAll(s.name, "-", "")
			for _, length := range []int{len(unique), 12, 23} {
				for from := 0; from < len(all); from += 20 {
					id := (unique + all[from:] + all)[:length]
					c := s.dial(s.here)
					if ack := c.Connect(mqtttest.ID(id)); ack.AssignedClientID != "" {
						s.Errorf("%q: assigned %q", id, ack.AssignedClientID)
					}
					c.Disconnect()
				}
			}
		}},
		{"033 an empty Client Identifier: a unique one is assigned and returned [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]", transient5, func(s *scene) {
			seen := map[string]bool{}
			for _, n := range append(nodes, nodes...) {
				c := s.dial(n)
				id := c.Connect().AssignedClientID
				if id == "" || seen[id] {
					s.Errorf("assigned %q, after %v", id, seen)
				}
				seen[id] = true
			}
			for id := range seen { // it is the client's from now on
				s.dial(s.here).Connect(mqtttest.ID(id))
			}
		}},
		{"034 a Client Identifier that is refused: 0x85, and the end [MQTT-3.1.3-8]", allTransient, func(s *scene) {
			refused := []mqtttest.Option{mqtttest.ID(strings.Repeat("x", 2000))}
			if s.v == packet.V311 {
				refused = append(refused, mqtttest.Resume()) // with an empty one
			}
			for _, o := range refused {
				c := s.dial(s.here)
				if ack := c.TryConnect(o); ack.Code != packet.CodeClientIdentifierNotValid {
					s.Errorf("CONNACK %s", ack.Code)
				}
				c.ExpectClosed()
			}
		}},
		{"035 after one and a half Keep Alives: 0x8D and the end [MQTT-3.1.2-22]", every, func(s *scene) {
			c := s.connect(s.here, "c", mqtttest.KeepAlive(1))
			start := time.Now()
			c.ExpectDisconnect(packet.CodeKeepAliveTimeout)
			if took := time.Since(start); took < 1400*time.Millisecond {
				s.Errorf("closed after %v", took)
			}
		}},
		{"036 no Server Keep Alive: the client's counts [MQTT-3.2.2-21] [MQTT-3.2.2-22]", transient5, func(s *scene) {
			for _, seconds := range []uint16{0, 1, 65535} {
				if _, ack := s.open(s.here, "c", mqtttest.KeepAlive(seconds)); ack.HasServerKeepAlive {
					s.Errorf("Keep Alive %d: CONNACK %+v", seconds, ack)
				}
			}
		}},
		{"037 Request Problem Information 0: no Reason String [MQTT-3.1.2-29]", transient5, func(s *scene) {
			for _, want := range []bool{false, true} {
				c := s.connect(s.here, "c", func(p *packet.Connect) { p.RequestProblemInfo = want })
				codes := packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "a/#/b"}}}
				c.Write(&codes, ack(packet.TypePubrel, 7))
				suback, pubcomp := mqtttest.Expect[*packet.Suback](c), mqtttest.Expect[*packet.Ack](c)
				if !want && (suback.ReasonString != "" || pubcomp.ReasonString != "") {
					s.Errorf("%+v, %+v", suback, pubcomp)
				}
				c.WriteRaw(0xF0, 0)
				if p := mqtttest.Expect[*packet.Disconnect](c); want && p.ReasonString == "" {
					s.Errorf("DISCONNECT %+v without a reason", p)
				}
				c.ExpectClosed()
			}
		}},
		{"038 Request Response Information 0: no Response Information [MQTT-3.1.2-28]", transient5, func(s *scene) {
			for _, want := range []bool{false, true} { // 1 may be ignored
				_, ack := s.open(s.here, "c", func(p *packet.Connect) { p.RequestResponseInfo = want })
				if ack.ResponseInfo != "" {
					s.Errorf("CONNACK %+v", ack)
				}
			}
		}},
		{"039 a Will beyond what is announced is refused [MQTT-3.2.2-12] [MQTT-3.2.2-13]", transient5, func(s *scene) {
			for qos := packet.QoS0; qos <= packet.QoS2; qos++ {
				c := s.dial(s.here)
				ack := c.TryConnect(mqtttest.ID(s.id("w")), func(p *packet.Connect) { p.Will = &packet.Will{Topic: "w", QoS: qos, Retain: true} })
				switch {
				case ack.RetainUnavailable && ack.Code == 0:
					s.Errorf("CONNACK %+v", ack)
				case ack.Code != 0 && ack.Code != packet.CodeRetainNotSupported:
					s.Errorf("CONNACK %s", ack.Code)
				}
				if c.Close(); ack.Code == 0 {
					continue
				}
				_, ack = s.open(s.here, "w", func(p *packet.Connect) { p.Will = &packet.Will{Topic: "w", QoS: qos} })
				if ack.HasMaximumQoS && ack.MaximumQoS < qos {
					s.Errorf("CONNACK %+v for a Will of QoS %d", ack, qos)
				}
			}
		}},
		{"040 no Reason String makes CONNACK too large [MQTT-3.2.2-19] [MQTT-3.2.2-20]", transient5, func(s *scene) {
			for _, limit := range []uint32{5, 0} {
				c := s.dial(s.here)
				ack := c.TryConnect(mqtttest.ID(strings.Repeat("x", 2000)), func(p *packet.Connect) { p.MaximumPacketSize = limit })
				if ack.Code != packet.CodeClientIdentifierNotValid || (ack.ReasonString == "") != (limit == 5) {
					s.Errorf("Maximum Packet Size %d: CONNACK %+v", limit, ack)
				}
			}
		}},
		{"042 an unknown Authentication Method: 0x8C; AUTH without one: 0x82 [MQTT-4.12.0-1] [MQTT-4.12.0-7]", transient5, func(s *scene) {
			c := s.dial(s.here)
			if ack := c.TryConnect(mqtttest.ID("c"), func(p *packet.Connect) { p.HasAuthMethod, p.AuthMethod = true, "SCRAM-SHA-1" }); ack.Code != packet.CodeBadAuthenticationMethod {
				s.Errorf("CONNACK %s", ack.Code)
			}
			c.ExpectClosed()
			c = s.dial(s.here)
			if ack := c.TryConnect(mqtttest.ID("c"), func(p *packet.Connect) { p.AuthData = []byte("x") }); ack.Code != packet.CodeProtocolError {
				s.Errorf("CONNACK %s", ack.Code)
			}
			c.ExpectClosed()
			c = s.connect(s.here, "c")
			c.Write(&packet.Auth{Code: packet.CodeReauthenticate})
			c.ExpectDisconnect(packet.CodeProtocolError)
		}},
	})
}

// sessionPresent goes through all that a session's next connection can find.
func sessionPresent(s *scene) {
	type step struct {
		v     packet.Version
		clean bool
		keep  bool // MQTT 5: with an expiry
		want  bool
	}
	steps := []step{
		{packet.V5, false, s.durable, false},
		{packet.V5, false, true, s.durable},
		{packet.V5, false, true, true},
		{packet.V311, false, true, true},
		{packet.V311, true, false, false}, // a Clean Session leaves nothing
		{packet.V5, false, true, false},
		{packet.V5, true, true, false}, // Clean Start leaves a new one
		{packet.V5, false, false, true},
		{packet.V5, false, false, false}, // which ended with an expiry of 0
		{packet.V311, false, true, false},
		{packet.V5, false, true, true},
	}
	var c *mqtttest.Client
	for i, st := range steps {
		n := s.here
		if s.v == packet.V311 { // each takes over from the last one, elsewhere
			n = nodes[i%len(nodes)]
		} else if c != nil {
			c.Disconnect()
		}
		c = s.as(st.v).dial(n)
		options := []mqtttest.Option{mqtttest.ID(s.id("c")), func(p *packet.Connect) { p.CleanStart = st.clean }}
		if st.keep {
			options = append(options, mqtttest.Expiry(3600))
		}
		if ack := c.Connect(options...); ack.SessionPresent != st.want {
			s.Fatalf("step %d, %+v: session present %t", i, st, ack.SessionPresent)
		}
	}
}
