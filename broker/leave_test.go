package broker_test

import (
	"testing"

	"github.com/shoalmq/shoal/broker/brokertest"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// TestPublishThenDisconnect: what a client has published before DISCONNECT is
// with the Link before its session hears of the end, although the client has gone
// and nothing is settled; the answers are not sent behind DISCONNECT, and the Will is
// discarded.
func TestPublishThenDisconnect(t *testing.T) {
	publishers(t, func(t *testing.T, n *node, pub *mqtttest.Client, durable bool) {
		ops := []brokertest.Op{brokertest.Publish, brokertest.Received}
		for _, op := range ops {
			n.cluster.Hold(op)
		}
		closes := len(n.cluster.Closes())
		pub.Write(publish("a", "1", 1, 1), publish("a", "2", 2, 2), &packet.Disconnect{}, publish("a", "3", 1, 3))
		if durable {
			pub.Close()
		} else {
			pub.ExpectClosed()
		}
		n.awaitConnections(0)
		if got := n.cluster.Closes()[closes:]; len(got) != 1 || !got[0].DiscardWill {
			t.Errorf("closes %+v", got)
		}
		if got := n.cluster.Messages(); string(got[len(got)-1].Payload) != "2" {
			t.Errorf("the last message is %q", got[len(got)-1].Payload)
		}
		for _, op := range ops {
			n.cluster.ReleaseAll(op)
		}
	})
}

// TestTakeoverOfOneThatLeaves: whatever else ends the connection meanwhile, it
// has left with DISCONNECT.
func TestTakeoverOfOneThatLeaves(t *testing.T) {
	n := start(t)
	n.cluster.Hold(brokertest.Publish)
	pub := n.connect(packet.V5, "p")
	pub.Write(publish("a", "1", 1, 1), &packet.Disconnect{})
	await(t, "DISCONNECT", func() bool { return n.metric("shoal_packets_received_total", "disconnect") == 1 })
	n.connect(packet.V5, "p").ExpectNothing()
	pub.ExpectClosed()
	n.awaitConnections(1)
	if got := n.cluster.Closes(); len(got) != 1 || !got[0].DiscardWill {
		t.Errorf("closes %+v", got)
	}
	n.cluster.ReleaseAll(brokertest.Publish)
}
