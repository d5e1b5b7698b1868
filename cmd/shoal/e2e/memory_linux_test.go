package e2e

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

// TestShortOfMemory: clients that subscribe and do not read, and publishers for
// each of them, would take ten times the memory that a node may use. It sheds,
// closes the slowest, goes on serving who reads, and has enough again.
func TestShortOfMemory(t *testing.T) {
	const limit = 96 << 20
	c := newCluster(t, 3, t.TempDir())
	a := c.byName("a")
	a.flags = append(a.flags, fmt.Sprintf("--memory-limit=%d", limit))
	c.start()
	c.awaitReady()
	connect := func(id string) *wire {
		w, err := dialWire(a.mqtt, packet.V5)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		w.append(&packet.Connect{ClientID: id, CleanStart: true})
		w.flush()
		if p, err := w.next(time.Now().Add(patience)); err != nil || p.(*packet.Connack).Code.Failed() {
			t.Fatalf("connect %s: %v %v", id, p, err)
		}
		return w
	}
	subscribe := func(w *wire, filter string) {
		w.append(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: filter, QoS: packet.QoS1}}})
		w.flush()
		if p, err := w.next(time.Now().Add(patience)); err != nil {
			t.Fatalf("subscribe %s: %v %v", filter, p, err)
		}
	}
	good := connect("good")
	subscribe(good, "good")
	body := []byte(strings.Repeat("x", 64<<10))
	var published atomic.Int64
	var floods []*wire
	for i := range 60 {
		subscribe(connect(fmt.Sprintf("slow-%d", i)), fmt.Sprintf("slow/%d", i))
		floods = append(floods, connect(fmt.Sprintf("flood-%d", i)))
	}
	for i, w := range floods {
		topic := fmt.Sprintf("slow/%d", i)
		go io.Copy(io.Discard, w.Conn)
		go func() {
			for id := uint16(1); id < 1000; id++ { // as fast as it is read
				w.append(&packet.Publish{Topic: []byte(topic), QoS: packet.QoS1, PacketID: id, Payload: body})
				if w.flush() != nil {
					return
				}
				published.Add(1)
			}
		}()
	}
	rss := rssBytes(t, a.pid())
	eventually(t, "the slowest are closed", func() error {
		c.failIfEnded()
		rss = max(rss, rssBytes(t, a.pid()))
		if n := a.metric("shoal_memory_clients_closed_total"); n < 5 {
			return fmt.Errorf("%v closed, level %v, %v of %v bytes", n, a.metric("shoal_memory_level"), a.metric("shoal_memory_used_bytes"), limit)
		}
		return nil
	})
	if a.metric("shoal_memory_publishers_paused_total") == 0 {
		t.Error("no publisher was paused")
	}
	pub := connectSoon(t, a)
	for i := range 5 {
		pub.append(&packet.Publish{Topic: []byte("good"), QoS: packet.QoS1, PacketID: uint16(i + 1), Payload: []byte("hello")})
		pub.flush()
		p, err := good.next(time.Now().Add(patience))
		if m, ok := p.(*packet.Publish); !ok || string(m.Payload) != "hello" {
			t.Fatalf("the good client got %v, %v", p, err)
		}
		good.append(&packet.Ack{Type: packet.TypePuback, PacketID: p.(*packet.Publish).PacketID})
		good.flush()
	}
	t.Logf("%d MiB published, resident at most %d MiB, limit %d MiB, %v closed", published.Load()*64>>10, rss>>20, limit>>20, a.metric("shoal_memory_clients_closed_total"))
	if rss > 3*limit { // the maps of data files count too
		t.Errorf("resident %d MiB", rss>>20)
	}
	eventually(t, "there is enough memory again", func() error {
		c.failIfEnded()
		if l := a.metric("shoal_memory_level"); l > 0 {
			return fmt.Errorf("level %v", l)
		}
		return nil
	})
}

// connectSoon connects as soon as the node takes a client.
func connectSoon(t testing.TB, n *node) *wire {
	var w *wire
	eventually(t, "a client is taken", func() error {
		var err error
		if w, err = dialWire(n.mqtt, packet.V5); err != nil {
			return err
		}
		w.append(&packet.Connect{ClientID: "late", CleanStart: true})
		w.flush()
		p, err := w.next(time.Now().Add(patience))
		if err != nil {
			return err
		}
		if code := p.(*packet.Connack).Code; code.Failed() {
			w.Close()
			return fmt.Errorf("CONNACK %s", code)
		}
		return nil
	})
	t.Cleanup(func() { w.Close() })
	return w
}
