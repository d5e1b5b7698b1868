package broker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/brokertest"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// subscriptionOps are held to keep a SUBSCRIBE, or an UNSUBSCRIBE, unanswered.
var subscriptionOps = []brokertest.Op{brokertest.AddRoute, brokertest.Subscribe, brokertest.Unsubscribe}

// eachPublisher runs a test with publishers of both classes in each version, each on
// a node of its own.
func eachPublisher(t *testing.T, test func(t *testing.T, n *node, c *mqtttest.Client, durable bool)) {
	for _, durable := range []bool{false, true} {
		t.Run(fmt.Sprintf("durable=%t", durable), func(t *testing.T) {
			versions(t, func(t *testing.T, n *node, v packet.Version) {
				if durable {
					c, _ := n.durable(v, "p")
					test(t, n, c, true)
				} else {
					test(t, n, n.connect(v, "p"), false)
				}
			})
		})
	}
}

func (n *node) hold(ops ...brokertest.Op) {
	for _, op := range ops {
		n.cluster.Hold(op)
	}
}

func (n *node) release(ops ...brokertest.Op) {
	for _, op := range ops {
		n.cluster.ReleaseAll(op)
	}
}

func subscribe(filter string, qos packet.QoS, id uint16) *packet.Subscribe {
	return &packet.Subscribe{PacketID: id, Subscriptions: []packet.Subscription{{Filter: filter, QoS: qos}}}
}

func retainedPublish(topic, payload string, qos packet.QoS, id uint16) *packet.Publish {
	p := publish(topic, payload, qos, id)
	p.Retain = true
	return p
}

// TestPublishBehindSubscribe: a PUBLISH matches the subscriptions before it on its
// connection, however long they take to be visible; PINGREQ does not wait.
func TestPublishBehindSubscribe(t *testing.T) {
	eachPublisher(t, func(t *testing.T, n *node, c *mqtttest.Client, durable bool) {
		c.AutoAck = true
		n.hold(subscriptionOps...)
		c.Write(subscribe("a", 1, 1), publish("a", "0", 0, 0), publish("a", "1", 1, 2), subscribe("b", 1, 3),
			publish("b", "2", 0, 0), &packet.Pingreq{})
		mqtttest.Expect[*packet.Pingresp](c)
		c.ExpectNothing()
		if got := n.cluster.Messages(); len(got) > 0 {
			t.Fatalf("routed before SUBACK: %v", got)
		}
		n.release(subscriptionOps...)
		want := map[string]int{"SUBACK": 2, "PUBACK": 1, "0": 1, "1": 1, "2": 1}
		order := ""
		for range 6 {
			switch p := c.Next().(type) {
			case *packet.Suback:
				want["SUBACK"]--
			case *packet.Ack:
				want[p.Type.String()]--
			case *packet.Publish:
				want[string(p.Payload)]--
				order += string(p.Payload)
			}
		}
		for what, left := range want {
			if left != 0 {
				t.Errorf("%d of %s have not come", left, what)
			}
		}
		if strings.Index(order, "2") < strings.Index(order, "0") {
			t.Errorf("messages of QoS 0 came as %s", order)
		}
		c.Disconnect()
		n.awaitConnections(0)
	})
}

// TestPublishBehindUnsubscribe: a PUBLISH does not match what was unsubscribed before
// it, and matches what was subscribed again.
func TestPublishBehindUnsubscribe(t *testing.T) {
	eachPublisher(t, func(t *testing.T, n *node, c *mqtttest.Client, durable bool) {
		c.AutoAck = true
		c.Subscribe("a", 1)
		n.hold(subscriptionOps...)
		c.Write(&packet.Unsubscribe{PacketID: 1, Filters: []string{"a"}}, publish("a", "no", 1, 2),
			subscribe("a", 0, 3), subscribe("a", 1, 4), publish("a", "yes", 1, 5))
		n.release(subscriptionOps...)
		mqtttest.Expect[*packet.Unsuback](c)
		c.ExpectAck(packet.TypePuback, 2, 0)
		for range 4 {
			p, ok := c.Next().(*packet.Publish)
			if ok && (string(p.Payload) != "yes" || p.QoS != 1) {
				t.Errorf("got %s", mqtttest.Describe(p))
			}
		}
		c.Disconnect()
		n.awaitConnections(0)
	})
}

// TestSubscribeBehindPublish: SUBSCRIBE does not match, or read, what was published
// before it and is under way.
func TestSubscribeBehindPublish(t *testing.T) {
	eachPublisher(t, func(t *testing.T, n *node, c *mqtttest.Client, durable bool) {
		ops := []brokertest.Op{brokertest.Publish, brokertest.Received, brokertest.Retain}
		for i, p := range []*packet.Publish{publish("x", "1", 1, 1), publish("x", "2", 2, 2), retainedPublish("x", "3", 0, 0)} {
			n.hold(ops...)
			c.Write(p, subscribe(fmt.Sprint("y", i), 1, 3), &packet.Pingreq{})
			mqtttest.Expect[*packet.Pingresp](c)
			c.ExpectNothing()
			n.release(ops...)
			if p.QoS > 0 {
				c.ExpectAck([]packet.Type{0, packet.TypePuback, packet.TypePubrec}[p.QoS], p.PacketID, 0)
			}
			mqtttest.Expect[*packet.Suback](c)
		}
		c.Disconnect()
		n.awaitConnections(0)
	})
}

// TestLineOutlivesConnection: what a client has sent takes effect, in its order,
// though its connection has ended: with DISCONNECT, by closing it, and by a
// takeover.
func TestLineOutlivesConnection(t *testing.T) {
	for _, end := range []string{"disconnect", "close", "takeover"} {
		t.Run(end, func(t *testing.T) {
			eachPublisher(t, func(t *testing.T, n *node, c *mqtttest.Client, durable bool) {
				n.hold(subscriptionOps...)
				closes := len(n.cluster.Closes())
				before := n.metric("shoal_packets_received_total", "publish")
				c.Write(subscribe("a", 1, 1), retainedPublish("r", end, 0, 0), subscribe("b", 1, 2), publish("x", "x", 1, 3))
				switch end {
				case "disconnect":
					c.Write(&packet.Disconnect{})
					c.Close()
				case "close":
					c.Close()
				}
				await(t, "PUBLISH", func() bool { return n.metric("shoal_packets_received_total", "publish") >= before+2 })
				if end == "takeover" {
					n.connect(packet.V5, "other")
					n.cluster.Supersede("p")
				}
				if n.cluster.RetainedMessage("r") != nil {
					t.Error("PUBLISH did not wait for SUBSCRIBE")
				}
				n.release(subscriptionOps...)
				await(t, "the session's end", func() bool { return len(n.cluster.Closes()) > closes })
				if got := n.cluster.Closes()[closes]; got.DiscardWill != (end == "disconnect") {
					t.Errorf("close %+v", got)
				}
				if m := n.cluster.RetainedMessage("r"); m == nil || string(m.Payload) != end {
					t.Errorf("%v is retained", m)
				}
				if got := n.cluster.Messages(); len(got) == 0 || got[len(got)-1].Topic != "x" {
					t.Errorf("messages %v", got)
				}
				if durable && n.cluster.Subscriptions("p") != 2 {
					t.Errorf("%d subscriptions", n.cluster.Subscriptions("p"))
				}
				n.forgetAll()
			})
		})
	}
}

// forgetAll ends all connections.
func (n *node) forgetAll() {
	n.cluster.Lose(fmt.Errorf("the test goes on"))
	n.awaitConnections(0)
}

// TestLastWords: DISCONNECT that has arrived counts, though the session was taken
// over before it was read.
func TestLastWords(t *testing.T) {
	versions(t, func(t *testing.T, n *node, v packet.Version) {
		for i := range 30 {
			first := n.connect(v, "c")
			first.Write(retainedPublish("r", fmt.Sprint(i), 0, 0), &packet.Disconnect{})
			second := n.connect(v, "c")
			await(t, "the first to end", func() bool { return len(n.cluster.Closes()) == 2*i+1 })
			if got := n.cluster.Closes()[2*i]; !got.DiscardWill {
				t.Fatalf("round %d: close %+v", i, got)
			}
			if m := n.cluster.RetainedMessage("r"); string(m.GetPayload()) != fmt.Sprint(i) {
				t.Fatalf("round %d: %v is retained", i, m)
			}
			second.Disconnect()
			n.awaitConnections(0)
		}
	})
}

// TestErrorInLine: a packet that may not come ends the connection in its turn: what
// was sent before it counts, what comes after it does not.
func TestErrorInLine(t *testing.T) {
	eachPublisher(t, func(t *testing.T, n *node, c *mqtttest.Client, durable bool) {
		n.hold(subscriptionOps...)
		c.Write(subscribe("a", 1, 1), retainedPublish("r", "before", 0, 0), publish("no/#", "x", 0, 0), retainedPublish("r", "after", 0, 0))
		n.release(subscriptionOps...)
		mqtttest.Expect[*packet.Suback](c)
		c.ExpectDisconnect(packet.CodeTopicNameInvalid)
		n.awaitConnections(0)
		if m := n.cluster.RetainedMessage("r"); string(m.GetPayload()) != "before" {
			t.Errorf("%v is retained", m)
		}
	})
}

// TestLineIsBounded: a client that sends without end behind a SUBSCRIBE is not read
// any more, and loses nothing.
func TestLineIsBounded(t *testing.T) {
	eachPublisher(t, func(t *testing.T, n *node, c *mqtttest.Client, durable bool) {
		n.hold(subscriptionOps...)
		before := n.metric("shoal_received_bytes_total")
		c.Write(subscribe("a", 0, 1))
		const count, size = 600, 16 << 10
		sent := make(chan error, 1)
		go func() {
			for i := range count {
				if err := c.Send(publish("x", fmt.Sprintf("%0*d", size, i), 1, uint16(i+1))); err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
		await(t, "the pause", func() bool {
			was := n.metric("shoal_received_bytes_total")
			time.Sleep(20 * time.Millisecond)
			return was-before > 1<<19 && n.metric("shoal_received_bytes_total") == was
		})
		if got := n.metric("shoal_received_bytes_total") - before; got > 3<<20 {
			t.Errorf("%v bytes were read", got)
		}
		n.release(subscriptionOps...)
		mqtttest.Expect[*packet.Suback](c)
		for i := range count {
			c.ExpectAck(packet.TypePuback, uint16(i+1), 0)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		n.forgetAll()
	})
}

// TestExchangesOfMQTT3: a client that begins more QoS 2 exchanges than are kept is
// not closed: PUBLISH waits until it completes some, while PUBREL, PINGREQ and
// messages of other QoS go on.
func TestExchangesOfMQTT3(t *testing.T) {
	for _, v := range []packet.Version{packet.V31, packet.V311} {
		for _, durable := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s durable=%t", v, durable), func(t *testing.T) {
				n := start(t)
				c := n.connect(v, "p")
				if durable {
					c, _ = n.durable(v, "q")
				}
				const most = 1024
				for id := uint16(1); id <= most+2; id++ {
					c.Write(publish("a", "x", 2, id))
				}
				for id := uint16(1); id <= most; id++ {
					c.ExpectAck(packet.TypePubrec, id, 0)
				}
				c.ExpectNothing()
				c.Write(ack(packet.TypePubrel, 7))
				c.ExpectAck(packet.TypePubcomp, 7, 0)
				c.ExpectAck(packet.TypePubrec, most+1, 0)
				c.Write(ack(packet.TypePubrel, 9))
				c.ExpectAck(packet.TypePubcomp, 9, 0)
				c.ExpectAck(packet.TypePubrec, most+2, 0)
				if got := len(n.cluster.Messages()); got != most+2 {
					t.Errorf("%d messages", got)
				}
			})
		}
	}
}
