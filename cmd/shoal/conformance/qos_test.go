package conformance

import (
	"fmt"
	"testing"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

func TestQoS(t *testing.T) {
	check(t, []rule{
		{"091 Packet Identifiers of the server are not 0 and not in use [MQTT-2.2.1-4]", every, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 2)
			used := map[uint16]bool{}
			const window = 32
			for i := range window {
				pub.Publish(s.topic("a"), fmt.Sprint(i), packet.QoS(1+i%2))
				p := sub.ExpectPublish(s.topic("a"), fmt.Sprint(i))
				if p.PacketID == 0 || used[p.PacketID] {
					s.Fatalf("identifier %d after %v", p.PacketID, used)
				}
				used[p.PacketID] = true
			}
		}},
		{"092 the answer is that of the QoS, with the same identifier [MQTT-3.3.4-1] [MQTT-2.2.1-5]", every, func(s *scene) {
			pub, sub := s.pair()
			for _, filter := range []string{"", s.topic("a")} { // to nobody, and to somebody
				if filter != "" {
					sub.Subscribe(filter, 0)
				}
				for _, id := range []uint16{1, 256, 65535} {
					pub.Write(publish(s.topic("a"), "0", 0, 0), publish(s.topic("a"), "1", 1, id))
					pub.ExpectAck(packet.TypePuback, id, 0)
					pub.Write(publish(s.topic("a"), "2", 2, id))
					pub.ExpectAck(packet.TypePubrec, id, 0)
					pub.Write(ack(packet.TypePubrel, id))
					pub.ExpectAck(packet.TypePubcomp, id, 0)
				}
			}
			pub.ExpectNothing()
		}},
		{"093 a client beyond the Receive Maximum: 0x93, before the close [MQTT-3.3.4-7]", every5, func(s *scene) {
			pub, connack := s.open(s.here, "p")
			most := int(connack.ReceiveMaximum)
			if most == 0 || most > 10_000 {
				s.Skipf("Receive Maximum %d", most)
			}
			for id := 1; id <= most; id++ {
				pub.Write(publish(s.topic("a"), "x", 2, uint16(id)))
			}
			for id := 1; id <= most; id++ {
				pub.ExpectAck(packet.TypePubrec, uint16(id), 0)
			}
			pub.Write(publish(s.topic("a"), "x", 1, uint16(most+1)))
			pub.ExpectDisconnect(packet.CodeReceiveMaximumExceeded)
		}},
		{"094 Receive Maximum: the rest is queued, in order [MQTT-3.3.4-9] [MQTT-4.9.0-2]", every5, func(s *scene) {
			pub, sub := s.pair(mqtttest.ReceiveMaximum(3))
			sub.Subscribe(s.topic("a"), 1)
			const count = 100
			for i := range count {
				pub.Publish(s.topic("a"), fmt.Sprint(i), 1)
			}
			var flight []*packet.Publish
			for i := range count {
				flight = append(flight, sub.ExpectPublish(s.topic("a"), fmt.Sprint(i)))
				if len(flight) == 3 {
					if i%10 == 2 {
						sub.ExpectNothing()
					}
					finish(sub, flight[0])
					flight = flight[1:]
				}
			}
			sub.ExpectNothing()
		}},
		{"095 the other packets go on at zero quota [MQTT-3.3.4-10] [MQTT-4.9.0-3]", every5, func(s *scene) {
			pub, sub := s.pair(mqtttest.ReceiveMaximum(1))
			sub.Subscribe(s.topic("a"), 1)
			pub.Publish(s.topic("a"), "1", 1)
			pub.Publish(s.topic("a"), "2", 1)
			p := sub.ExpectPublish(s.topic("a"), "1")
			sub.ExpectNothing() // PINGRESP
			sub.Subscribe(s.topic("b"), 0)
			sub.Publish(s.topic("x"), "", 2)
			sub.Unsubscribe(s.topic("b"))
			finish(sub, p)
			sub.ExpectPublish(s.topic("a"), "2")
		}},
		{"096 quota comes back with PUBACK, PUBCOMP and PUBREC >= 0x80, not with PUBREC [MQTT-4.9.0-1]", every5, func(s *scene) {
			pub, sub := s.pair(mqtttest.ReceiveMaximum(1))
			sub.Subscribe(s.topic("a"), 2)
			for i, qos := range []packet.QoS{1, 2, 2, 1} {
				pub.Publish(s.topic("a"), fmt.Sprint(i), qos)
			}
			id := func(text string) uint16 { return sub.ExpectPublish(s.topic("a"), text).PacketID }
			sub.Write(ack(packet.TypePuback, id("0")))
			first := id("1")
			sub.Write(ack(packet.TypePubrec, first))
			sub.ExpectAck(packet.TypePubrel, first, 0)
			sub.ExpectNothing()
			sub.Write(ack(packet.TypePubcomp, first))
			sub.Write(&packet.Ack{Type: packet.TypePubrec, PacketID: id("2"), Code: packet.CodeQuotaExceeded})
			id("3")
		}},
		{"098 after PUBACK the identifier is new [MQTT-4.3.2-5]", every, func(s *scene) {
			pub, sub := s.pair()
			sub.AutoAck = true
			sub.Subscribe(s.topic("a"), 1)
			for i := range 5 {
				p := publish(s.topic("a"), fmt.Sprint(i), 1, 7)
				p.Dup = i > 2
				pub.Write(p)
				pub.ExpectAck(packet.TypePuback, 7, 0)
				sub.ExpectPublish(s.topic("a"), fmt.Sprint(i))
			}
		}},
		{"099 a repeated QoS 2 PUBLISH before PUBREL: PUBREC again, delivered once [MQTT-4.3.3-10]", every, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 2)
			p := publish(s.topic("a"), "x", 2, 9)
			for range 3 {
				pub.Write(p)
				pub.ExpectAck(packet.TypePubrec, 9, 0)
				p.Dup = true
			}
			finish(sub, sub.ExpectPublish(s.topic("a"), "x"))
			pub.Write(ack(packet.TypePubrel, 9))
			pub.ExpectAck(packet.TypePubcomp, 9, 0)
			sub.ExpectNothing()
		}},
		{"099 a repeated QoS 2 PUBLISH over reconnects to other nodes is delivered once [MQTT-4.3.3-10]", allDurable, qos2OverNodes},
		{"100 PUBREL always gets PUBCOMP, 0x92 if unknown, and the connection stays [MQTT-4.3.3-11]", every, func(s *scene) {
			pub := s.connect(s.here, "p")
			for range 2 {
				pub.Write(ack(packet.TypePubrel, 5))
				pub.ExpectAck(packet.TypePubcomp, 5, s.code5(packet.CodePacketIdentifierNotFound))
			}
			pub.ExpectNothing()
			if s.durable { // the first may be the repeat of one whose PUBCOMP was lost
				pub = s.resume(s.there, "p")
				pub.Write(ack(packet.TypePubrel, 5))
				pub.ExpectAck(packet.TypePubcomp, 5, 0)
				pub.Write(ack(packet.TypePubrel, 5))
				pub.ExpectAck(packet.TypePubcomp, 5, s.code5(packet.CodePacketIdentifierNotFound))
			}
		}},
		{"101 PUBREC gets PUBREL with the same identifier [MQTT-4.3.3-4]", every, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 2)
			for i := range 3 {
				pub.Publish(s.topic("a"), fmt.Sprint(i), 2)
				finish(sub, sub.ExpectPublish(s.topic("a"), fmt.Sprint(i)))
			}
			sub.ExpectNothing()
		}},
		{"102 after PUBREL no PUBLISH again: a resumed session gets PUBREL [MQTT-4.3.3-6]", allDurable, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 2)
			pub.Publish(s.topic("a"), "x", 2)
			id := sub.ExpectPublish(s.topic("a"), "x").PacketID
			sub.Write(ack(packet.TypePubrec, id))
			sub.ExpectAck(packet.TypePubrel, id, 0)
			for _, n := range []*node{s.other, s.there, s.here} {
				sub.Close()
				sub = s.resume(n, "s")
				sub.ExpectAck(packet.TypePubrel, id, 0)
				sub.ExpectNothing()
			}
			sub.Write(ack(packet.TypePubcomp, id))
			sub.ExpectNothing()
		}},
		{"104 PUBACK or PUBREC >= 0x80: not sent again, the identifier is free [MQTT-4.3.3-9] [MQTT-4.4.0-2]", every5, func(s *scene) {
			pub, sub := s.pair(mqtttest.ReceiveMaximum(1))
			sub.Subscribe(s.topic("a"), 2)
			for qos, answer := range map[packet.QoS]packet.Type{1: packet.TypePuback, 2: packet.TypePubrec} {
				pub.Publish(s.topic("a"), "x", qos)
				p := sub.ExpectPublish(s.topic("a"), "x")
				sub.Write(&packet.Ack{Type: answer, PacketID: p.PacketID, Code: packet.CodeUnspecifiedError})
				sub.ExpectNothing()
			}
			if s.durable {
				sub.Disconnect()
				sub = s.resume(s.there, "s", mqtttest.ReceiveMaximum(1))
			}
			sub.ExpectNothing()
			pub.Publish(s.topic("a"), "y", 1)
			sub.ExpectPublish(s.topic("a"), "y")
		}},
		{"105 after PUBCOMP the identifier is new [MQTT-4.3.3-12]", every, func(s *scene) {
			pub, sub := s.pair()
			sub.Subscribe(s.topic("a"), 2)
			for i := range 4 {
				pub.Write(publish(s.topic("a"), fmt.Sprint(i), 2, 9))
				pub.ExpectAck(packet.TypePubrec, 9, 0)
				pub.Write(ack(packet.TypePubrel, 9))
				pub.ExpectAck(packet.TypePubcomp, 9, 0)
				finish(sub, sub.ExpectPublish(s.topic("a"), fmt.Sprint(i)))
			}
		}},
		{"106 on resume what is unacknowledged comes again, in order, with its identifiers, and not otherwise [MQTT-4.4.0-1] [MQTT-4.6.0-1]", allDurable, resend},
		{"108 order of each publisher, topic and QoS, over nodes [MQTT-4.6.0-5] [MQTT-4.6.0-6]", every, order},
		{"109 acknowledgements of nothing do no harm", every, func(s *scene) {
			c := s.connect(s.here, "c")
			c.Write(ack(packet.TypePuback, 3), ack(packet.TypePubcomp, 4))
			c.ExpectNothing()
			c.Write(ack(packet.TypePubrec, 5))
			c.ExpectAck(packet.TypePubrel, 5, s.code5(packet.CodePacketIdentifierNotFound))
		}},
		{"111 Reason Strings and User Properties do not make packets too large; those of a PUBLISH are not echoed [MQTT-3.4.2-2] [MQTT-3.4.2-3]", every5, func(s *scene) {
			c := s.connect(s.here, "c", func(p *packet.Connect) { p.MaximumPacketSize = 20 })
			mine := packet.MessageProperties{UserProperties: []packet.UserProperty{{Key: "k", Value: "v"}}}
			c.Write(&packet.Publish{Topic: []byte(s.topic("a")), QoS: 1, PacketID: 1, Forward: mine.AppendForward(nil)})
			if p := mqtttest.Expect[*packet.Ack](c); len(p.UserProperties) > 0 {
				s.Errorf("PUBACK %+v", p)
			}
			if codes := c.SubscribeAll(packet.Subscription{Filter: "a/#/b"}); !codes[0].Failed() {
				s.Errorf("SUBACK %v", codes)
			}
			c.WriteRaw(0xF0, 0)
			if p := mqtttest.Expect[*packet.Disconnect](c); len(p.Append(nil, packet.V5)) > 20 {
				s.Errorf("DISCONNECT %+v", p)
			}
		}},
		{"112 delivered QoS is the lower of published and granted [MQTT-3.8.4-8]", every, func(s *scene) {
			pub, sub := s.pair()
			for granted := packet.QoS0; granted <= packet.QoS2; granted++ {
				sub.Subscribe(s.topic("+"), granted)
				for published := packet.QoS0; published <= packet.QoS2; published++ {
					text := fmt.Sprintf("%d of %d", published, granted)
					pub.Publish(s.topic("b"), text, published)
					p := sub.ExpectPublish(s.topic("b"), text)
					if p.QoS != min(granted, published) || p.Dup || p.Retain {
						s.Errorf("got %s", mqtttest.Describe(p))
					}
					finish(sub, p)
				}
			}
			sub.ExpectNothing()
		}},
	})
}

// qos2OverNodes repeats each step of an exchange on another node.
func qos2OverNodes(s *scene) {
	sub := s.connect(s.there, "s")
	sub.Subscribe(s.topic("a"), 2)
	early := s.as(packet.V311)
	early.durable = false
	witness := early.connect(s.other, "w") // and to a transient one
	witness.Subscribe(s.topic("a"), 2)
	pub := s.connect(nodes[0], "p")
	p := publish(s.topic("a"), "x", 2, 9)
	for i := range 5 {
		pub.Write(p)
		pub.ExpectAck(packet.TypePubrec, 9, 0)
		pub.Close()
		pub = s.resume(nodes[(i+1)%3], "p")
		p.Dup = true
	}
	for i := range 2 { // a client repeats PUBREL that has not seen PUBCOMP
		pub.Write(ack(packet.TypePubrel, 9))
		pub.ExpectAck(packet.TypePubcomp, 9, 0)
		pub.Close()
		pub = s.resume(nodes[i], "p")
	}
	for _, c := range []*mqtttest.Client{sub, witness} {
		finish(c, c.ExpectPublish(s.topic("a"), "x"))
		c.ExpectNothing()
	}
	p.Dup, p.Payload = false, []byte("y") // the identifier is free
	pub.Write(p)
	pub.ExpectAck(packet.TypePubrec, 9, 0)
	finish(sub, sub.ExpectPublish(s.topic("a"), "y"))
}

func resend(s *scene) {
	pub, sub := s.pair()
	sub.Subscribe(s.topic("a"), 2)
	ids := make([]uint16, 6)
	for i, qos := range []packet.QoS{1, 2, 2, 1, 2, 1} {
		pub.Publish(s.topic("a"), fmt.Sprint(i), qos)
		ids[i] = sub.ExpectPublish(s.topic("a"), fmt.Sprint(i)).PacketID
	}
	sub.Write(ack(packet.TypePubrec, ids[1]), ack(packet.TypePubrec, ids[4]))
	sub.ExpectAck(packet.TypePubrel, ids[1], 0)
	sub.ExpectAck(packet.TypePubrel, ids[4], 0)
	sub.Write(ack(packet.TypePuback, ids[3]))
	sub.ExpectNothing() // a connection does not repeat itself
	s.leave(sub, s.there, s.topic("a"))
	for _, n := range []*node{s.other, s.here} {
		sub = s.resume(n, "s")
		sub.ExpectAck(packet.TypePubrel, ids[1], 0)
		sub.ExpectAck(packet.TypePubrel, ids[4], 0)
		for _, i := range []int{0, 2, 5} {
			if p := sub.ExpectPublish(s.topic("a"), fmt.Sprint(i)); !p.Dup || p.PacketID != ids[i] {
				s.Errorf("got %s, want identifier %d", mqtttest.Describe(p), ids[i])
			}
		}
		sub.ExpectPublish(s.topic("a"), "marker")
		sub.ExpectNothing()
		sub.Close()
	}
}

// order has one publisher move from node to node, all its messages in flight at
// once, and a subscriber that may be slower.
func order(s *scene) {
	pub, sub := s.pair(mqtttest.ReceiveMaximum(5))
	sub.AutoAck = true
	sub.Subscribe(s.topic("a"), 2)
	const count = 60 // on each node
	for turn, n := range []*node{s.here, s.other, s.there} {
		if turn > 0 {
			pub = s.connect(n, "p")
		}
		for i := range count {
			pub.Write(publish(s.topic("a"), fmt.Sprintf("%d-%03d", turn, i), packet.QoS(1+i%2), uint16(i+1)))
		}
		for range count + count/2 { // PUBACK, or PUBREC and PUBCOMP
			p := mqtttest.Expect[*packet.Ack](pub)
			if p.Code.Failed() {
				s.Fatalf("got %s", mqtttest.Describe(p))
			}
			if p.Type == packet.TypePubrec {
				pub.Write(ack(packet.TypePubrel, p.PacketID))
			}
		}
	}
	var last [3]string
	for got := 0; got < 3*count; {
		p, ok := sub.Next().(*packet.Publish)
		if !ok {
			continue
		}
		got++
		if text := string(p.Payload); text <= last[p.QoS] {
			s.Fatalf("QoS %d: %s after %s", p.QoS, text, last[p.QoS])
		} else {
			last[p.QoS] = text
		}
	}
	for _, p := range sub.Ping() {
		if _, message := p.(*packet.Publish); message {
			s.Errorf("got %s beyond all", mqtttest.Describe(p))
		}
	}
}
