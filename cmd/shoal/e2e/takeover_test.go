package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// takeovers are clients that hop from node to node without ever saying goodbye:
// each connection goes on publishing until the broker ends it.
type takeovers struct {
	t       *testing.T
	nodes   []string
	over    atomic.Bool
	hops    atomic.Int64 // with a CONNACK
	slowest atomic.Int64 // CONNACK, in nanoseconds
	old     sync.WaitGroup
}

// hopper is one Client Identifier.
type hopper struct {
	*takeovers
	name    string
	durable bool
	hop     int64 // of the present connection
}

// holdAtMost is how long the newcomer's publishes may have to wait for the end
// of connections on dead nodes (P7: 7 s), with room for a busy machine.
const holdAtMost = 30 * time.Second

func (h *hopper) topic() string { return "takeover/" + h.name }

// run hops until the end. The last connection says DISCONNECT, and ends its
// session.
func (h *hopper) run(seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 10))
	connect := packet.Connect{ClientID: h.name, HasSessionExpiry: h.durable, SessionExpiry: 3600}
	if !h.durable {
		connect.SessionExpiry = 0
	}
	for !h.over.Load() && !h.t.Failed() {
		p := newPerson(h.nodes, rng.IntN(len(h.nodes)), connect)
		begin := time.Now()
		if err := p.online(); err != nil {
			h.t.Errorf("%s, hop %d: %v", h.name, h.hop, err)
			return
		}
		h.slowest.Store(max(h.slowest.Load(), int64(time.Since(begin))))
		h.hop++
		h.hops.Add(1)
		// The first message is acknowledged when no older connection can send
		// anything any more.
		p.conn.Send(&packet.Publish{Topic: []byte(h.topic()), Payload: fmt.Appendf(nil, "%d 0", h.hop), QoS: packet.QoS1, PacketID: 1})
		p.conn.AutoAck = false
		if !h.acknowledged(p) {
			p.offline()
			continue
		}
		h.old.Go(func() { h.linger(p.conn, h.hop) })
	}
	connect.CleanStart, connect.HasSessionExpiry, connect.SessionExpiry = true, false, 0
	p := newPerson(h.nodes, 0, connect)
	if err := p.online(); err != nil {
		h.t.Errorf("%s: %v", h.name, err)
	}
	p.leave()
}

// acknowledged waits for the first PUBACK. False says that the connection died.
func (h *hopper) acknowledged(p *person) bool {
	for end := time.Now().Add(holdAtMost); ; {
		x, err := p.conn.Receive(time.Until(end))
		switch ack, ok := x.(*packet.Ack); {
		case ok && ack.Type == packet.TypePuback:
			return true
		case errors.Is(err, mqtttest.ErrTimeout):
			h.t.Errorf("%s, hop %d: its first publish was held for %v", h.name, h.hop, holdAtMost)
			return false
		case err != nil:
			return false
		}
	}
}

// linger goes on publishing on a connection until the broker has closed it.
func (h *hopper) linger(c *mqtttest.Conn, hop int64) {
	defer c.Close()
	for i, end := 1, time.Now().Add(patience); ; i++ {
		c.Send(&packet.Publish{Topic: []byte(h.topic()), Payload: fmt.Appendf(nil, "%d %d", hop, i), QoS: packet.QoS1, PacketID: uint16(i%60000 + 1)})
		_, err := c.Receive(5 * time.Millisecond)
		switch {
		case err != nil && !errors.Is(err, mqtttest.ErrTimeout):
			return
		case time.Now().After(end):
			h.t.Errorf("%s: hop %d is still connected after %v", h.name, hop, patience)
			return
		}
	}
}

// takeoverWatch is a durable subscriber that sees in which order the hops of
// each client were accepted.
type takeoverWatch struct {
	t    *testing.T
	hop  map[string]int64
	seen atomic.Int64
}

func (w *takeoverWatch) take(m *packet.Publish) {
	var hop, number int64
	topic := string(m.Topic)
	if _, err := fmt.Sscanf(string(m.Payload), "%d %d", &hop, &number); err != nil {
		w.t.Errorf("%s: payload %q", topic, m.Payload)
	}
	if before := w.hop[topic]; hop < before && !m.Dup {
		w.t.Errorf("%s: a message of hop %d was accepted after one of hop %d", strings.TrimPrefix(topic, "takeover/"), hop, before)
	}
	w.hop[topic] = max(w.hop[topic], hop)
	w.seen.Add(1)
}

// run keeps the subscriber's session connected until the test ends.
func (w *takeoverWatch) run(p *person, over *atomic.Bool) {
	for !over.Load() {
		if err := p.online(); err != nil {
			w.t.Error(err)
			return
		}
		x, err := p.conn.Receive(time.Second)
		switch m, ok := x.(*packet.Publish); {
		case ok:
			w.take(m)
		case errors.Is(err, mqtttest.ErrTimeout):
			p.conn.Send(&packet.Pingreq{})
		case err != nil:
			p.offline()
		}
	}
}

// TestTakeoversWithKills: whatever node dies, the cluster never accepts anything
// from a connection after it has accepted something from its successor, and
// when all is over no row of the registry is left.
func TestTakeoversWithKills(t *testing.T) {
	run := chaosConfig(t, 3, 0)
	hops := int64(1000)
	if os.Getenv("SHOAL_CHAOS") == "long" {
		hops = 100_000
	}
	c := startCluster(t, 6)
	h := &takeovers{t: t, nodes: c.addrs()}
	watch := &takeoverWatch{t: t, hop: map[string]int64{}}
	observer := newPerson(c.addrs(), 0, packet.Connect{ClientID: "takeover-watch", HasSessionExpiry: true, SessionExpiry: 3600})
	if err := observer.online(); err != nil {
		t.Fatal(err)
	}
	if err := observer.subscribe(watch.take, packet.Subscription{Filter: "takeover/+", QoS: packet.QoS1}); err != nil {
		t.Fatal(err)
	}
	var over atomic.Bool
	var watching, hopping sync.WaitGroup
	watching.Go(func() { watch.run(observer, &over) })
	for i := range 16 {
		x := &hopper{takeovers: h, name: fmt.Sprint("hopper-", i), durable: i%2 == 0}
		hopping.Go(func() { x.run(run.seed + uint64(i)) })
	}
	rng := rand.New(rand.NewPCG(run.seed, 11))
	kills := 0
	for ; kills < run.faults || h.hops.Load() < hops; kills++ {
		pause(rng, 500*time.Millisecond, 2*time.Second)
		n := c.nodes[rng.IntN(len(c.nodes))]
		n.kill()
		pause(rng, 300*time.Millisecond, 2*time.Second)
		n.start()
		c.awaitReady()
		if t.Failed() {
			break
		}
	}
	h.over.Store(true)
	hopping.Wait()
	h.old.Wait()
	c.heal()
	over.Store(true)
	watching.Wait()
	observer.leave()
	end := newPerson(c.addrs(), 0, packet.Connect{ClientID: "takeover-watch", CleanStart: true})
	if err := end.online(); err != nil {
		t.Fatal(err)
	}
	end.leave()
	t.Logf("%d takeovers, %d kills, slowest CONNACK %v, %d messages seen", h.hops.Load(), kills,
		time.Duration(h.slowest.Load()).Round(time.Millisecond), watch.seen.Load())
	eventually(t, "an empty registry", func() error {
		for _, n := range c.nodes {
			s, err := n.status()
			if err != nil {
				return err
			}
			for _, g := range s.Groups {
				if g.Sessions > 0 {
					return fmt.Errorf("node %s: %s has %d sessions", n.name, g.Group, g.Sessions)
				}
			}
		}
		return nil
	})
	c.awaitEqual()
}
