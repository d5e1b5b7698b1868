package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// TestRetainedReplay: a wildcard subscription gets the retained message of every
// topic, each once, while others publish, without stalling them.
func TestRetainedReplay(t *testing.T) {
	topics := 5_000
	if os.Getenv("SHOAL_CHAOS") == "long" {
		topics = 100_000
	}
	c := startCluster(t, 6)
	begin := time.Now()
	retainMany(t, c, topics)
	t.Logf("%d topics retained in %v", topics, time.Since(begin).Round(time.Millisecond))

	var over atomic.Bool
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer over.Store(true)
	var slowest atomic.Int64
	tasks.Go(func() { publishMeanwhile(t, c, &over, &slowest, topics) })

	for i, kind := range []string{"transient", "durable"} {
		for _, n := range c.nodes {
			connect := packet.Connect{ClientID: fmt.Sprintf("replay-%s-%s", kind, n.name), CleanStart: true,
				HasSessionExpiry: i == 1, SessionExpiry: uint32(i * 600)}
			p := newPerson([]string{n.mqtt}, 0, connect)
			slowest.Store(0)
			begin := time.Now()
			live := replayAll(t, p, topics)
			t.Logf("%s subscriber on node %s: all in %v, with %d live ones; the slowest PUBACK meanwhile %v", kind, n.name,
				time.Since(begin).Round(time.Millisecond), live, time.Duration(slowest.Load()).Round(time.Millisecond))
			p.leave()
		}
	}
}

// passing is the payload of messages that are not retained.
const passing = "passing"

// retainMany sets the retained message of each topic, over some connections.
func retainMany(t *testing.T, c *cluster, topics int) {
	const writers = 8
	var tasks sync.WaitGroup
	defer tasks.Wait()
	for w := range writers {
		tasks.Go(func() {
			p := newPerson(c.addrs(), w, packet.Connect{ClientID: fmt.Sprint("retain-", w), CleanStart: true})
			if err := p.online(); err != nil {
				t.Error(err)
				return
			}
			defer p.offline()
			const window = 500
			waiting := 0
			await := func(most int) bool {
				for waiting > most {
					x, err := p.conn.Receive(patience)
					if err != nil {
						t.Error(err)
						return false
					}
					if ack, ok := x.(*packet.Ack); ok {
						if ack.Code.Failed() {
							t.Errorf("PUBACK: %s", ack.Code)
							return false
						}
						waiting--
					}
				}
				return true
			}
			for i := w; i < topics; i += writers {
				p.conn.Send(&packet.Publish{Topic: fmt.Appendf(nil, "replay/%d/%d", i%97, i), Payload: fmt.Append(nil, i), QoS: packet.QoS1, Retain: true, PacketID: p.next()})
				if waiting++; !await(window) {
					return
				}
			}
			await(0)
		})
	}
}

// publishMeanwhile publishes retained and other messages, one after the other.
func publishMeanwhile(t *testing.T, c *cluster, over *atomic.Bool, slowest *atomic.Int64, topics int) {
	p := newPerson(c.addrs(), 1, packet.Connect{ClientID: "meanwhile", CleanStart: true})
	defer p.offline()
	rng := rand.New(rand.NewPCG(1, 2))
	for n := 0; !over.Load(); n++ {
		i := rng.IntN(topics)
		m := packet.Publish{Topic: fmt.Appendf(nil, "replay/%d/%d", i%97, i), Payload: fmt.Append(nil, i), QoS: packet.QoS1, Retain: n%2 == 0}
		if !m.Retain {
			m.Payload = []byte(passing)
		}
		begin := time.Now()
		if err := p.publish(m, nil); err != nil {
			t.Errorf("publish during replays: %v", err)
			return
		}
		slowest.Store(max(slowest.Load(), int64(time.Since(begin))))
	}
}

// replayAll subscribes to everything and returns when every topic has come, how
// many live messages came among them.
func replayAll(t *testing.T, p *person, topics int) (live int) {
	t.Helper()
	if err := p.online(); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool, topics)
	retained := make(map[string]bool, topics)
	got := func(m *packet.Publish) {
		topic := string(m.Topic)
		if string(m.Payload) == passing {
			live++
			return
		}
		seen[topic] = true
		if !m.Retain { // live, and retained: the replay leaves it out from now on
			live++
			return
		}
		if retained[topic] {
			t.Errorf("%s: the retained message of %s came twice", p.connect.ClientID, topic)
		}
		retained[topic] = true
	}
	if err := p.subscribe(got, packet.Subscription{Filter: "replay/#", QoS: packet.QoS1}); err != nil {
		t.Fatal(err)
	}
	for last := time.Now(); len(seen) < topics; {
		x, err := p.conn.Receive(time.Second)
		switch m, ok := x.(*packet.Publish); {
		case ok:
			n := len(seen)
			if got(m); len(seen) > n {
				last = time.Now()
			}
		case errors.Is(err, mqtttest.ErrTimeout):
		case err != nil:
			t.Fatalf("%s after %d topics: %v", p.connect.ClientID, len(seen), err)
		}
		if time.Since(last) > patience {
			t.Fatalf("%s: %d of %d topics, and for %v no more", p.connect.ClientID, len(seen), topics, patience)
		}
	}
	return live
}
