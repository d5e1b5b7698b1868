package e2e

import (
	"fmt"
	"testing"
	"time"
)

// library is somebody else's MQTT client, behind the few verbs that these
// tests need. It does not reconnect by itself.
type library interface {
	// through is the transport of connect: TCP if it is not called.
	through(d door) error
	// connect connects to host:port; a session that is not clean is durable.
	connect(addr, name string, clean bool) (present bool, err error)
	subscribe(filter string, qos byte) (granted byte, err error)
	// publish returns when the exchange of the QoS is complete.
	publish(m received) error
	// will is what connect is to leave with the server.
	will(m received) error
	disconnect() error
	// cut ends the connection without DISCONNECT, and the library with it.
	cut()
	// messages has what arrives, in order.
	messages() <-chan received
	// lost is closed when the connection has ended.
	lost() <-chan struct{}
	// close ends the library.
	close()
}

// received is a message that arrived, or one to publish.
type received struct {
	topic, payload string
	qos            byte
	retain         bool
}

type libraryKind struct {
	name string
	open func(t *testing.T, version string) library
	// versions that it speaks.
	versions []string
}

// libraries are constructors by name. They fail or skip the test when the
// library is missing.
var libraries = []libraryKind{
	{"python3-paho-mqtt", openPython, []string{"3.1.1", "5"}},
	{"npm-mqtt", openNode, []string{"3.1.1", "5"}},
	{"paho.mqtt.golang", func(*testing.T, string) library { return newPahoV3() }, []string{"3.1.1"}},
	{"paho.golang", func(*testing.T, string) library { return newPahoV5() }, []string{"5"}},
}

// TestRealClients: other people's clients, each pair on two nodes.
func TestRealClients(t *testing.T) {
	c := startCluster(t, 6)
	for _, lib := range libraries {
		for _, version := range lib.versions {
			t.Run(lib.name+"/"+version, func(t *testing.T) {
				open := func() library {
					x := lib.open(t, version)
					t.Cleanup(x.close)
					return x
				}
				open() // where it is missing, this test is skipped, not one inside
				name := lib.name + "-" + version
				t.Run("QoS", func(t *testing.T) { realQoS(t, c, name, open) })
				t.Run("offline", func(t *testing.T) { realOffline(t, c, name, open) })
				t.Run("takeover", func(t *testing.T) { realTakeover(t, c, name, open) })
				t.Run("retained", func(t *testing.T) { realRetained(t, c, name, open) })
				t.Run("Will", func(t *testing.T) { realWill(t, c, name, open) })
				t.Run("shared", func(t *testing.T) { realShared(t, c, name, open) })
			})
		}
	}
	t.Run("mosquitto-clients", func(t *testing.T) { mosquitto(t, c) })
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// connected connects and checks Session Present.
func connected(t *testing.T, x library, addr, name string, clean, present bool) {
	t.Helper()
	got, err := x.connect(addr, name, clean)
	if err != nil || got != present {
		t.Fatalf("connect %s: session present %t, %v; want %t", name, got, err, present)
	}
}

func subscribed(t *testing.T, x library, filter string, qos byte) {
	t.Helper()
	if granted, err := x.subscribe(filter, qos); err != nil || granted != qos {
		t.Fatalf("subscribe %s: granted %d, %v; want %d", filter, granted, err, qos)
	}
}

// expect takes the next message. Of an earlier one at QoS 0 there may be more,
// see untilDelivered.
func expect(t *testing.T, x library, want received) {
	t.Helper()
	for {
		select {
		case got := <-x.messages():
			if got == want {
				return
			}
			if got.qos > 0 || got.topic == want.topic {
				t.Fatalf("got %+v, want %+v", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("nothing came, want %+v", want)
		}
	}
}

// realQoS: every QoS published meets every QoS subscribed.
func realQoS(t *testing.T, c *cluster, name string, open func() library) {
	publisher := open()
	connected(t, publisher, c.nodes[0].mqtt, name+"-publisher", true, false)
	for granted := byte(0); granted <= 2; granted++ {
		s := open()
		connected(t, s, c.nodes[1].mqtt, fmt.Sprint(name, granted), true, false)
		filter := fmt.Sprintf("real/%s/%d/+", name, granted)
		subscribed(t, s, filter, granted)
		for qos := byte(0); qos <= 2; qos++ {
			m := received{topic: fmt.Sprintf("real/%s/%d/%d", name, granted, qos), payload: "hello", qos: min(qos, granted)}
			sent := m
			sent.qos = qos
			if m.qos == 0 {
				// QoS 0 promises nothing about a route that is new: until it is
				// everywhere the message may go nowhere.
				untilDelivered(t, publisher, s, m, sent)
				continue
			}
			must(t, publisher.publish(sent))
			expect(t, s, m)
		}
		must(t, s.disconnect())
	}
}

// untilDelivered publishes until the first message arrives.
func untilDelivered(t *testing.T, publisher, s library, m, published received) {
	t.Helper()
	sent := 0
	eventually(t, "QoS 0 message", func() error {
		must(t, publisher.publish(published))
		sent++
		select {
		case got := <-s.messages():
			if got == m {
				return nil
			}
			return fmt.Errorf("got %+v, want %+v", got, m)
		case <-time.After(time.Second):
			return fmt.Errorf("%d sent, none came", sent)
		}
	})
}

// realOffline: a durable session gets what came while it was away, in order,
// on a third node.
func realOffline(t *testing.T, c *cluster, name string, open func() library) {
	id, topic := name+"-durable", "real/"+name+"/offline"
	s := open()
	connected(t, s, c.nodes[0].mqtt, id, false, false)
	subscribed(t, s, topic, 2)
	must(t, s.disconnect())

	publisher := open()
	connected(t, publisher, c.nodes[1].mqtt, name+"-publisher", true, false)
	const each = 10
	for qos := byte(1); qos <= 2; qos++ {
		for i := range each {
			must(t, publisher.publish(received{topic: topic, payload: fmt.Sprint(i), qos: qos}))
		}
	}
	s = open()
	connected(t, s, c.nodes[2].mqtt, id, false, true)
	next := [3]int{}
	for range 2 * each { // QoS 1 and 2 are not ordered against each other
		select {
		case got := <-s.messages():
			if want := fmt.Sprint(next[got.qos]); got.topic != topic || got.payload != want {
				t.Fatalf("got %+v, want payload %s", got, want)
			}
			next[got.qos]++
		case <-time.After(patience):
			t.Fatalf("got %v of %d each", next[1:], each)
		}
	}
	must(t, s.disconnect())
}

// realTakeover: the same Client Identifier on another node ends the first
// connection, and the session goes on there.
func realTakeover(t *testing.T, c *cluster, name string, open func() library) {
	id, topic := name+"-moving", "real/"+name+"/takeover"
	first, second, publisher := open(), open(), open()
	connected(t, first, c.nodes[0].mqtt, id, false, false)
	subscribed(t, first, topic, 1)
	connected(t, publisher, c.nodes[2].mqtt, name+"-publisher", true, false)
	one, two := received{topic: topic, payload: "one", qos: 1}, received{topic: topic, payload: "two", qos: 1}
	must(t, publisher.publish(one))
	expect(t, first, one)
	connected(t, second, c.nodes[1].mqtt, id, false, true)
	select {
	case <-first.lost():
	case <-time.After(patience):
		t.Fatal("the first connection is still open")
	}
	must(t, publisher.publish(two))
	for { // the first's PUBACK may have come too late
		got := <-second.messages()
		if got == one {
			continue
		}
		if got != two {
			t.Fatalf("got %+v, want %+v", got, two)
		}
		break
	}
	must(t, second.disconnect())
}
