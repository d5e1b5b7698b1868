package e2e

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// The kinds of clients with wills, in turn.
const (
	willAtOnce   = iota // no delay
	willLater           // a delay, and the client stays away
	willRetained        // no delay, retained
	willBack            // a delay, and the client is back in time
	willLeft            // DISCONNECT before the node dies
	willKinds
)

// willDelay is longer than it takes all clients to come back.
const willDelay = 20 * time.Second

// wills are clients that are all connected to one node.
type wills struct {
	t       *testing.T
	clients []*person
}

func willTopic(i int) string { return fmt.Sprintf("will/%d", i) }

// connectWills connects clients with wills to a node, durable and transient.
func connectWills(t *testing.T, addr string, count int) *wills {
	t.Helper()
	w := &wills{t: t, clients: make([]*person, count)}
	var tasks sync.WaitGroup
	for part := range 8 {
		tasks.Go(func() {
			for i := part; i < count; i += 8 {
				kind := i % willKinds
				will := &packet.Will{Topic: willTopic(i), Payload: fmt.Append(nil, i), QoS: packet.QoS(1 + i%2), Retain: kind == willRetained}
				c := packet.Connect{ClientID: fmt.Sprint("mortal-", i), CleanStart: true, Will: will}
				if kind == willLater || kind == willBack {
					will.DelaySeconds = uint32(willDelay / time.Second)
				}
				// A will is due with the end of its session at the latest: a
				// delay makes sense only with a durable one.
				if kind == willLater || kind == willBack || i/willKinds%2 == 0 {
					c.HasSessionExpiry, c.SessionExpiry = true, 3600
				}
				p := newPerson([]string{addr}, 0, c)
				if err := p.online(); err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				w.clients[i] = p
			}
		})
	}
	tasks.Wait()
	return w
}

// leave has those say DISCONNECT that leave cleanly.
func (w *wills) leave() {
	for i, p := range w.clients {
		if i%willKinds == willLeft {
			p.leave()
		}
	}
}

// back has those connect again that come back in time, to other nodes.
func (w *wills) back(nodes []string) {
	var tasks sync.WaitGroup
	for part := range 8 {
		tasks.Go(func() {
			for i := part; i < len(w.clients); i += 8 {
				if i%willKinds != willBack {
					continue
				}
				p := w.clients[i]
				p.offline()
				p.nodes, p.connect.CleanStart = nodes, false
				if err := p.online(); err != nil {
					w.t.Errorf("client %d: %v", i, err)
				} else if !p.present {
					w.t.Errorf("client %d: its session is gone", i)
				}
			}
		})
	}
	tasks.Wait()
}

// TestWillsOfKilledNode: each will that is due leaves once when a node dies, and
// none of those whose clients came back in time, or left cleanly.
func TestWillsOfKilledNode(t *testing.T) {
	count := 200
	if os.Getenv("SHOAL_CHAOS") == "long" {
		count = 1000
	}
	c := startCluster(t, 6)
	observers := []*willObserver{}
	for i, n := range []*node{c.nodes[0], c.nodes[2]} {
		o := observeWills(t, n, fmt.Sprint("observer-", i), packet.QoS(1+i))
		observers = append(observers, o)
	}
	w := connectWills(t, c.nodes[1].mqtt, count)
	if t.Failed() {
		return
	}
	w.leave()
	awaitLeft(t, c.nodes[1])
	c.nodes[1].kill()
	begin := time.Now()
	w.back([]string{c.nodes[0].mqtt, c.nodes[2].mqtt})
	t.Logf("clients that come back were there after %v", time.Since(begin).Round(time.Millisecond))
	if late := time.Since(begin); late > willDelay-5*time.Second {
		t.Skipf("they came back %v after the kill: too late to show anything with a delay of %v", late, willDelay)
	}
	due := map[string]bool{}
	for i := range count {
		if kind := i % willKinds; kind != willBack && kind != willLeft {
			due[willTopic(i)] = true
		}
	}
	for i, o := range observers {
		o.await(due)
		t.Logf("observer %d has all %d after %v", i, len(due), time.Since(begin).Round(time.Millisecond))
	}
	c.nodes[1].start()
	c.awaitReady()
	for _, o := range observers {
		o.stop()
		for topic, n := range o.got {
			if !due[topic] {
				t.Errorf("%s: the will of %s was not due", o.p.connect.ClientID, topic)
			} else if n > 1 && o.qos == packet.QoS2 && topicNumber(topic)%2 == 1 {
				t.Errorf("%s: the will of %s came %d times", o.p.connect.ClientID, topic, n)
			}
		}
	}
	retainedWills(t, c, count)
	c.awaitEqual()
}

// awaitLeft waits until the shards know who has left a node. DISCONNECT has no
// answer, but the CONNACKs of later clients of all shards come behind it.
func awaitLeft(t *testing.T, n *node) {
	t.Helper()
	open := -1.0
	eventually(t, "the connections that were left to end", func() error {
		was := open
		if open = n.metric("shoal_connections"); open != was {
			return fmt.Errorf("%v connections", open)
		}
		return nil
	})
	for i := range 100 {
		p := newPerson([]string{n.mqtt}, 0, packet.Connect{ClientID: fmt.Sprint("behind-", i), CleanStart: true})
		if err := p.online(); err != nil {
			t.Fatal(err)
		}
		p.leave()
	}
}

func topicNumber(topic string) (i int) {
	fmt.Sscanf(topic, "will/%d", &i)
	return i
}

// retainedWills checks that the retained ones, and no others, are in registers.
func retainedWills(t *testing.T, c *cluster, count int) {
	t.Helper()
	p := newPerson(c.addrs(), 1, packet.Connect{ClientID: "after", CleanStart: true})
	if err := p.online(); err != nil {
		t.Fatal(err)
	}
	defer p.offline()
	want := map[string]bool{}
	for i := willRetained; i < count; i += willKinds {
		want[willTopic(i)] = true
	}
	got := func(m *packet.Publish) {
		if !want[string(m.Topic)] || !m.Retain {
			t.Errorf("unexpected %s", mqtttest.Describe(m))
		}
		delete(want, string(m.Topic))
	}
	if err := p.subscribe(got, packet.Subscription{Filter: "will/#", QoS: packet.QoS1}); err != nil {
		t.Fatal(err)
	}
	for len(want) > 0 {
		x, err := p.conn.Receive(patience)
		if err != nil {
			t.Fatalf("%d retained wills are missing: %v", len(want), err)
		}
		if m, ok := x.(*packet.Publish); ok {
			got(m)
		}
	}
}

// willObserver is a subscriber to all wills that counts what it gets.
type willObserver struct {
	t    *testing.T
	p    *person
	qos  packet.QoS
	mu   sync.Mutex
	got  map[string]int
	done chan struct{}
}

func observeWills(t *testing.T, n *node, name string, qos packet.QoS) *willObserver {
	t.Helper()
	o := &willObserver{t: t, qos: qos, got: map[string]int{}, done: make(chan struct{})}
	o.p = newPerson([]string{n.mqtt}, 0, packet.Connect{ClientID: name, HasSessionExpiry: true, SessionExpiry: 3600})
	if err := o.p.online(); err != nil {
		t.Fatal(err)
	}
	take := func(m *packet.Publish) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.got[string(m.Topic)]++
	}
	if err := o.p.subscribe(take, packet.Subscription{Filter: "will/#", QoS: qos}); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(o.done)
		for {
			x, err := o.p.conn.Receive(time.Second)
			if err != nil && !errors.Is(err, mqtttest.ErrTimeout) {
				return
			}
			if m, ok := x.(*packet.Publish); ok {
				take(m)
			}
			if err != nil {
				o.p.conn.Send(&packet.Pingreq{})
			}
		}
	}()
	t.Cleanup(o.stop)
	return o
}

func (o *willObserver) stop() {
	o.p.conn.Close()
	<-o.done
}

// await waits until all that is due has come.
func (o *willObserver) await(due map[string]bool) {
	o.t.Helper()
	eventually(o.t, "wills at "+o.p.connect.ClientID, func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		missing := 0
		for topic := range due {
			if o.got[topic] == 0 {
				missing++
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d have not come", missing, len(due))
		}
		return nil
	})
}
