package broker_test

import (
	"testing"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// TestBridge: a client of MQTT 3 whose protocol level has the bit of Mosquitto's
// bridges gets nothing back that it brought, and RETAIN as it was published; one
// without the bit is served as ever.
func TestBridge(t *testing.T) {
	for i := range 8 {
		v, durable, bridge := packet.V31+packet.Version(i&1), i&2 != 0, i&4 != 0
		n := start(t)
		pub, c := n.connect(packet.V311, "p"), n.dial(v)
		c.Connect(mqtttest.ID("b"), func(p *packet.Connect) { p.Bridge, p.CleanStart = bridge, !durable })
		c.AutoAck = true
		c.Subscribe("$share/g/shared", 1) // No Local is not for these
		c.Subscribe("#", 1)
		for qos := packet.QoS0; qos <= packet.QoS1; qos++ {
			c.Write(publish("out", "mine", qos, 1))
			copies := 0
			for _, p := range c.Ping() {
				if _, is := p.(*packet.Publish); is {
					copies++
				}
			}
			if want := map[bool]int{false: 1}[bridge]; copies != want {
				t.Errorf("%s, bridge %t: %d copies of its own message", v, bridge, copies)
			}
			p := publish("in", "theirs", qos, uint16(qos))
			p.Retain = true
			pub.Write(p)
			if got := c.ExpectPublish("in", "theirs"); got.Retain != bridge {
				t.Errorf("%s, bridge %t: %s", v, bridge, mqtttest.Describe(got))
			}
			pub.Ping()
		}
	}
}
