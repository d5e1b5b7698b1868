package broker_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/brokertest"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
	shoalpb "github.com/shoalmq/shoal/proto"
)

const share = "$share/g/a/+"

// expectOne expects one message and acknowledges it.
func expectOne(t *testing.T, c *mqtttest.Client, payload string, qos packet.QoS) {
	t.Helper()
	p := c.ExpectPublish("a/b", payload)
	if p.QoS != qos {
		t.Errorf("QoS %d, want %d", p.QoS, qos)
	}
	if p.QoS == 1 {
		c.Write(ack(packet.TypePuback, p.PacketID))
	}
}

// TestSharedTurns: one member gets a message, each in turn, at the lower of two
// QoS ([MQTT-4.8.2-3]); who has a plain subscription too gets another copy.
func TestSharedTurns(t *testing.T) {
	versions(t, func(t *testing.T, n *node, v packet.Version) {
		var members []*mqtttest.Client
		for i := range 3 {
			c := n.connect(v, fmt.Sprint("m", i))
			c.SubscribeAll(packet.Subscription{Filter: share, QoS: packet.QoS(min(i, 1))})
			members = append(members, c)
		}
		pub := n.connect(v, "p")
		for _, qos := range []packet.QoS{0, 1} {
			for range 3 {
				pub.Publish("a/b", "x", qos)
			}
			for i, c := range members {
				expectOne(t, c, "x", min(qos, packet.QoS(i)))
				c.ExpectNothing()
			}
		}
		members[0].Subscribe("a/b", 0)
		for range 3 {
			pub.Publish("a/b", "y", 0)
		}
		for range 4 {
			expectOne(t, members[0], "y", 0)
		}
		members[0].ExpectNothing()
		expectOne(t, members[1], "y", 0)
		expectOne(t, members[2], "y", 0)
		members[0].Unsubscribe(share, "a/b")
		members[1].Unsubscribe(share)
		for range 3 {
			pub.Publish("a/b", "z", 0)
			expectOne(t, members[2], "z", 0)
		}
		members[0].ExpectNothing()
		members[1].ExpectNothing()
	})
}

// TestSharedBusy: a member whose Receive Maximum is used up gets nothing while
// others take messages.
func TestSharedBusy(t *testing.T) {
	n := start(t)
	busy := n.dial(packet.V5)
	busy.Connect(mqtttest.ID("busy"), mqtttest.ReceiveMaximum(1))
	other := n.connect(packet.V5, "other")
	busy.Subscribe(share, 1)
	pub := n.connect(packet.V5, "p")
	pub.Publish("a/b", "stuck", 1)
	busy.ExpectPublish("a/b", "stuck")
	other.Subscribe(share, 1)
	for i := range 10 {
		pub.Publish("a/b", fmt.Sprint(i), 1)
		expectOne(t, other, fmt.Sprint(i), 1)
	}
	busy.ExpectNothing()
}

// TestSharedLeft: what a member has not finished when its connection ends goes to
// others: QoS 1, and QoS 2 that was not sent ([MQTT-4.8.2-5]).
func TestSharedLeft(t *testing.T) {
	n := start(t)
	c := n.dial(packet.V5)
	c.Connect(mqtttest.ID("c"), mqtttest.ReceiveMaximum(3))
	c.Subscribe(share, 2)
	c.Subscribe("plain", 1)
	pub := n.connect(packet.V5, "p")
	for i, qos := range []packet.QoS{2, 1, 1, 1, 2} {
		pub.Publish("a/b", fmt.Sprint(i), qos)
	}
	pub.Publish("plain", "no", 1)
	for i := range 3 {
		p := c.ExpectPublish("a/b", fmt.Sprint(i))
		if i == 2 {
			c.Write(ack(packet.TypePuback, p.PacketID))
			c.ExpectPublish("a/b", "3")
		}
	}
	c.Ping()
	c.Disconnect()
	want := []string{"1", "3", "4"}
	var got []string
	for end := time.Now().Add(mqtttest.Timeout); !slices.Equal(got, want) && time.Now().Before(end); time.Sleep(time.Millisecond) {
		got = nil
		for _, r := range n.cluster.Redispatched() {
			if r.Share == share {
				got = append(got, string(r.Message.Payload))
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q go to others, want %q", got, want)
	}
}

// TestSharedUnsubscribed: what was not sent goes to others when a member
// unsubscribes; what was stays.
func TestSharedUnsubscribed(t *testing.T) {
	n := start(t)
	c := n.dial(packet.V5)
	c.Connect(mqtttest.ID("c"), mqtttest.ReceiveMaximum(1))
	c.Subscribe(share, 2)
	c.Subscribe("plain", 1)
	pub := n.connect(packet.V5, "p")
	for i, qos := range []packet.QoS{1, 1, 2} {
		pub.Publish("a/b", fmt.Sprint(i), qos)
		pub.Publish("plain", fmt.Sprint(i), 1)
	}
	p := c.ExpectPublish("a/b", "0")
	c.Unsubscribe(share)
	if got := n.cluster.Redispatched(); len(got) != 2 || string(got[0].Message.Payload)+string(got[1].Message.Payload) != "12" {
		t.Errorf("%v go to others", got)
	}
	c.Write(ack(packet.TypePuback, p.PacketID))
	for i := range 3 {
		p = c.ExpectPublish("plain", fmt.Sprint(i))
		c.Write(ack(packet.TypePuback, p.PacketID))
	}
	c.ExpectNothing()
}

// TestSharedNobody: a pick that meets no member goes back, unless it is QoS 0;
// and nothing else is delivered of a message that is for a member alone.
func TestSharedNobody(t *testing.T) {
	n := start(t)
	c := n.connect(packet.V5, "c")
	c.Subscribe("a/b", 1)
	for qos := range uint32(3) {
		m := &shoalpb.Message{Topic: "a/b", Qos: qos, Payload: []byte("x")}
		n.broker.Deliver(m, []*shoalpb.Pick{{Share: share, Only: true}})
	}
	c.ExpectNothing()
	if got := n.cluster.Redispatched(); len(got) != 2 || got[0] != (brokertest.Redispatched{Share: share, Message: got[0].Message}) {
		t.Errorf("%v went back", got)
	}
}
