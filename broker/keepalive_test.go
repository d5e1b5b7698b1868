package broker_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/brokertest"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// inFakeTime runs a test with a node on pipes whose clock stands still while
// anything happens.
func inFakeTime(t *testing.T, test func(t *testing.T, n *node), change ...func(*broker.Config)) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, change...)
		n.piped = true
		n.serve(n.pipes)
		test(t, n)
		n.stop()
	})
}

// closedAfter returns how long it takes until the client's connection ends.
func closedAfter(c *mqtttest.Client) time.Duration {
	start := time.Now()
	for {
		if _, err := c.Receive(time.Hour); err != nil {
			return time.Since(start)
		}
	}
}

// TestKeepAlive: [MQTT-3.1.2-22] within a second; [MQTT-3.2.2-21].
func TestKeepAlive(t *testing.T) {
	for _, c := range []struct {
		v               packet.Version
		asked           uint16
		limit           time.Duration
		closed, atLeast time.Duration
	}{
		{packet.V311, 10, 0, 16 * time.Second, 15 * time.Second},
		{packet.V5, 10, 0, 16 * time.Second, 15 * time.Second},
		{packet.V5, 1, 0, 3 * time.Second, 1500 * time.Millisecond},
		{packet.V5, 600, 0, 901 * time.Second, 900 * time.Second},
		{packet.V5, 600, 20 * time.Second, 31 * time.Second, 30 * time.Second},
		{packet.V5, 0, 20 * time.Second, 31 * time.Second, 30 * time.Second},
		{packet.V311, 600, 20 * time.Second, 901 * time.Second, 900 * time.Second}, // cannot be told
		{packet.V5, 0, 0, time.Hour, time.Hour},                                    // the test's own limit
	} {
		inFakeTime(t, func(t *testing.T, n *node) {
			cl := n.connect(c.v, "c", mqtttest.KeepAlive(c.asked))
			if took := closedAfter(cl); took < c.atLeast || took > c.closed {
				t.Errorf("%+v: closed after %v", c, took)
			}
			cl.Close()
		}, func(config *broker.Config) { config.MaxKeepAlive = c.limit })
	}
}

// TestKeepAliveCode: DISCONNECT 0x8D.
func TestKeepAliveCode(t *testing.T) {
	inFakeTime(t, func(t *testing.T, n *node) {
		c := n.connect(packet.V5, "c", mqtttest.KeepAlive(2))
		c.ExpectDisconnect(packet.CodeKeepAliveTimeout)
	})
}

// TestKeepAliveRenewed: any packet counts.
func TestKeepAliveRenewed(t *testing.T) {
	inFakeTime(t, func(t *testing.T, n *node) {
		c := n.connect(packet.V5, "c", mqtttest.KeepAlive(10))
		for range 20 {
			time.Sleep(14 * time.Second)
			c.Publish("a", "x", 1)
		}
		if took := closedAfter(c); took < 15*time.Second || took > 16*time.Second {
			t.Errorf("closed after %v", took)
		}
	})
}

// TestKeepAliveWhileWeAreSlow: a client that is not read because its publishes
// wait for the cluster is not at fault.
func TestKeepAliveWhileWeAreSlow(t *testing.T) {
	inFakeTime(t, func(t *testing.T, n *node) {
		n.cluster.Hold(brokertest.Publish)
		c := n.connect(packet.V311, "c", mqtttest.KeepAlive(2))
		c.Write(&packet.Publish{Topic: []byte("a"), QoS: 1, PacketID: 1})
		c.Write(&packet.Publish{Topic: []byte("a"), QoS: 1, PacketID: 2})
		ping := make(chan error)
		go func() { ping <- c.SendRaw([]byte{0xC0, 0}) }()
		time.Sleep(20 * time.Second)
		n.cluster.ReleaseAll(brokertest.Publish)
		c.ExpectAck(packet.TypePuback, 1, 0)
		c.ExpectAck(packet.TypePuback, 2, 0)
		mqtttest.Expect[*packet.Pingresp](c)
		if err := <-ping; err != nil {
			t.Error(err)
		}
	}, func(c *broker.Config) { c.ReceiveMaximum = 2 })
}

// TestConnectTimeout: a connection that sends no CONNECT, or half of one.
func TestConnectTimeout(t *testing.T) {
	inFakeTime(t, func(t *testing.T, n *node) {
		for _, sent := range []int{0, 5} {
			c := n.dial(packet.V5)
			if sent > 0 {
				c.WriteRaw(connect5[:sent]...)
			}
			if took := closedAfter(c); took < 10*time.Second || took > 11*time.Second {
				t.Errorf("closed after %v", took)
			}
		}
	})
}

// TestMessageExpiry: [MQTT-3.3.2-5] [MQTT-3.3.2-6]: waiting time is deducted,
// and what has expired is not sent, also when it waits in a durable session's
// window.
func TestMessageExpiry(t *testing.T) {
	for _, durable := range []bool{false, true} {
		inFakeTime(t, func(t *testing.T, n *node) {
			sub, options := n.dial(packet.V5), []mqtttest.Option{mqtttest.ID("s"), mqtttest.ReceiveMaximum(1)}
			if durable {
				options = append(options, mqtttest.Expiry(100))
			}
			sub.Connect(options...)
			sub.Subscribe("a", 2)
			pub := n.connect(packet.V5, "p")
			for i, expiry := range []uint32{100, 3, 100} {
				pub.Write(&packet.Publish{Topic: []byte("a"), QoS: 2, PacketID: uint16(i + 1), HasExpiry: true, MessageExpiry: expiry, Payload: []byte{'0' + byte(i)}})
				pub.ExpectAck(packet.TypePubrec, uint16(i+1), 0)
			}
			first := sub.ExpectPublish("a", "0")
			time.Sleep(10 * time.Second)
			sub.Write(&packet.Ack{Type: packet.TypePubrec, PacketID: first.PacketID})
			sub.ExpectAck(packet.TypePubrel, first.PacketID, 0)
			sub.Write(&packet.Ack{Type: packet.TypePubcomp, PacketID: first.PacketID})
			third := sub.ExpectPublish("a", "2")
			if first.MessageExpiry != 100 || third.MessageExpiry != 90 {
				t.Errorf("expiry %d and %d, want 100 and 90", first.MessageExpiry, third.MessageExpiry)
			}
			if got := n.metric("shoal_messages_dropped_total", "expired"); got != 1 {
				t.Errorf("%v expired", got)
			}
			if got := n.cluster.Expired(); durable && !slices.Equal(got, []uint64{2}) {
				t.Errorf("the shard was told that %v expired", got)
			}
			sub.Close()
			pub.Close()
		})
	}
}
