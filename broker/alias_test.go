package broker_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// TestSentAliases: [MQTT-3.1.2-26] [MQTT-3.1.2-27] [MQTT-3.3.2-11]: whatever the
// client's maximum, it can tell the topic of each message, and topics that come
// often come as aliases. Packets that an alias would make too large come without.
func TestSentAliases(t *testing.T) {
	for _, expiry := range []uint32{0, 100} { // transient and durable sessions
		n := start(t)
		pub := n.connect(packet.V5, "p")
		run := 0
		rapid.Check(t, func(rt *rapid.T) {
			run++
			most := uint16(rapid.IntRange(0, 5).Draw(rt, "maximum"))
			limit := uint32(rapid.SampledFrom([]int{0, 20, 22, 24, 26, 28}).Draw(rt, "maximum packet size"))
			sub := n.connect(packet.V5, "sub", mqtttest.Expiry(expiry), func(p *packet.Connect) { p.TopicAliasMaximum, p.MaximumPacketSize = most, limit })
			defer sub.Close()
			sub.AutoAck = true
			filter := fmt.Sprint(run)
			sub.Subscribe(filter+"/#", 1)
			known := map[uint16]string{}
			for range rapid.IntRange(1, 40).Draw(rt, "messages") {
				topic := fmt.Sprint(filter, "/topic", rapid.IntRange(0, 6).Draw(rt, "topic"))
				qos := packet.QoS(rapid.IntRange(0, 1).Draw(rt, "qos"))
				pub.Publish(topic, "payload", qos)
				pub.Ping()
				for _, p := range sub.Ping() {
					p := p.(*packet.Publish)
					name := string(p.Topic)
					switch {
					case p.HasAlias && (p.TopicAlias > most || p.TopicAlias == 0):
						rt.Fatalf("alias %d of %d", p.TopicAlias, most)
					case name == "":
						name = known[p.TopicAlias]
					case p.HasAlias:
						known[p.TopicAlias] = name
					}
					if name != topic {
						rt.Fatalf("got %s, %q, want %q", mqtttest.Describe(p), name, topic)
					}
				}
			}
		})
		sub := n.connect(packet.V5, "sub", mqtttest.Expiry(expiry), func(p *packet.Connect) { p.TopicAliasMaximum = 1000 })
		sub.Subscribe("often/#", 0)
		for i := range 100 {
			pub.Publish(fmt.Sprintf("often/%d", i%3), "", 0)
			pub.Publish(fmt.Sprintf("often/once/%d", i), "", 0)
		}
		pub.Ping()
		short := 0
		for _, p := range sub.Ping() {
			if p := p.(*packet.Publish); len(p.Topic) == 0 {
				short++
			}
		}
		if short != 97 {
			t.Errorf("%d of 200 came with an alias alone", short)
		}
	}
}
