package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// TestSubackThenPublishElsewhere: what is published on any node after SUBACK
// on another arrives.
func TestSubackThenPublishElsewhere(t *testing.T) {
	c := startCluster(t, 6)
	rounds := subackRounds{t: t, nodes: c.addrs()}
	begin := time.Now()
	rounds.run(2000)
	t.Logf("2000 rounds without faults in %v", time.Since(begin).Round(time.Millisecond))
}

// TestSubackThenPublishElsewhereWithKills: also while nodes die.
func TestSubackThenPublishElsewhereWithKills(t *testing.T) {
	r := chaosConfig(t, 0, 0)
	rng := rand.New(rand.NewPCG(r.seed, 5))
	c := startCluster(t, 6)
	rounds := subackRounds{t: t, nodes: c.addrs(), pace: 50 * time.Millisecond}
	done := make(chan struct{})
	go func() {
		defer close(done)
		rounds.run(600)
	}()
	kills := 0
	for ; ; kills++ {
		select {
		case <-done:
			t.Logf("600 rounds with %d kills; %d without a verdict", kills, rounds.void.Load())
			if kills == 0 {
				t.Error("no node was killed")
			}
			return
		case <-time.After(time.Duration(300+rng.IntN(700)) * time.Millisecond):
		}
		n := c.nodes[rng.IntN(len(c.nodes))]
		n.kill()
		pause(rng, 300*time.Millisecond, 1500*time.Millisecond)
		n.start()
		c.awaitReady()
	}
}

// subackRounds runs rounds of SUBACK here, PUBLISH there.
type subackRounds struct {
	t     *testing.T
	nodes []string
	pace  time.Duration // between the rounds of a worker
	left  atomic.Int64
	// void counts rounds that show nothing, because the connection of a
	// transient subscriber died.
	void atomic.Int64
}

// subackWorkers are half durable, half transient.
const subackWorkers = 10

func (r *subackRounds) run(rounds int) {
	r.left.Store(int64(rounds))
	var workers sync.WaitGroup
	for i := range subackWorkers {
		w := &subackWorker{subackRounds: r, name: fmt.Sprintf("suback-%d", i), durable: i%2 == 0,
			version: []packet.Version{packet.V5, packet.V311}[i/2%2], home: i % len(r.nodes)}
		workers.Go(func() {
			defer w.close()
			for n := 0; r.left.Add(-1) >= 0 && !r.t.Failed(); n++ {
				w.round(n)
				time.Sleep(r.pace)
			}
		})
	}
	workers.Wait()
}

// subackWorker is a subscriber and a publisher on different nodes, as long as
// there are two.
type subackWorker struct {
	*subackRounds
	name                  string
	durable               bool
	version               packet.Version
	home                  int
	subscriber, publisher *mqtttest.Conn
	id                    uint16
}

func (w *subackWorker) close() {
	for _, c := range []*mqtttest.Conn{w.subscriber, w.publisher} {
		if c != nil {
			c.Close()
		}
	}
}

// errVoid: a transient subscriber's connection died in the round.
var errVoid = errors.New("the connection died")

// round subscribes, publishes, and waits for the message. Every filter serves
// two rounds, with an UNSUBSCRIBE between: routes also go and come back.
func (w *subackWorker) round(n int) {
	topic := fmt.Sprintf("%s/%d", w.name, n/2)
	filter := topic
	if n/2%2 == 1 {
		filter = topic + "/#"
	}
	payload := fmt.Sprintf("round %d", n)
	err := w.subscribe(filter)
	if err == nil {
		err = w.publish(topic, payload)
	}
	if err == nil {
		err = w.await(payload)
	}
	if err == nil && n%2 == 0 {
		err = w.unsubscribe(filter)
	}
	switch {
	case errors.Is(err, errVoid):
		w.void.Add(1)
		w.left.Add(1)
	case err != nil:
		w.t.Errorf("%s (durable: %t, MQTT %s), round %d, topic %s: %v", w.name, w.durable, w.version, n, topic, err)
	}
}

// connect dials the nodes in turn from the i-th until one takes the client.
func (w *subackWorker) connect(i int, p packet.Connect) (*mqtttest.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p.RequestProblemInfo = true
	for ; ctx.Err() == nil; i++ {
		c, err := mqtttest.Dial(w.nodes[i%len(w.nodes)], w.version, dialTimeout)
		if err == nil {
			c.AutoAck = true
			if ack, err := c.Connect(p, connackTimeout); err == nil && ack.Code == packet.CodeSuccess {
				return c, nil
			}
			c.Close()
		}
		time.Sleep(backoffLeast)
	}
	return nil, errors.New("no node takes the client")
}

// ask sends a packet of the subscriber and waits for its answer; a durable one
// does so again on a new connection.
func (w *subackWorker) ask(p packet.Packet, answered func(packet.Packet) bool) error {
	for again := false; ; again = true {
		if w.subscriber == nil {
			var err error
			if w.subscriber, err = w.connect(w.home, packet.Connect{ClientID: w.name, CleanStart: !w.durable,
				HasSessionExpiry: w.durable, SessionExpiry: 3600}); err != nil {
				return err
			}
			if again && !w.durable {
				return errVoid
			}
		}
		if p != nil {
			w.subscriber.Send(p) // if it fails, so does Receive
		}
		err := w.receive(answered)
		if err == nil || errors.Is(err, mqtttest.ErrTimeout) {
			return err
		}
		w.subscriber.Close()
		w.subscriber = nil
	}
}

// receive waits for a packet; a nil error says that it came.
func (w *subackWorker) receive(wanted func(packet.Packet) bool) error {
	for end := time.Now().Add(patience); ; {
		p, err := w.subscriber.Receive(time.Until(end))
		if err != nil {
			return err
		}
		if wanted(p) {
			return nil
		}
	}
}

func (w *subackWorker) next() uint16 {
	w.id = w.id%1000 + 1
	return w.id
}

func (w *subackWorker) subscribe(filter string) error {
	id := w.next()
	err := w.ask(&packet.Subscribe{PacketID: id, Subscriptions: []packet.Subscription{{Filter: filter, QoS: packet.QoS1}}},
		func(p packet.Packet) bool {
			ack, ok := p.(*packet.Suback)
			return ok && ack.PacketID == id && ack.Codes[0] == packet.CodeGrantedQoS1
		})
	if err != nil {
		return fmt.Errorf("no SUBACK: %w", err)
	}
	return nil
}

func (w *subackWorker) unsubscribe(filter string) error {
	id := w.next()
	err := w.ask(&packet.Unsubscribe{PacketID: id, Filters: []string{filter}}, func(p packet.Packet) bool {
		ack, ok := p.(*packet.Unsuback)
		return ok && ack.PacketID == id
	})
	if err != nil {
		return fmt.Errorf("no UNSUBACK: %w", err)
	}
	return nil
}

// await waits for a message that was acknowledged.
func (w *subackWorker) await(payload string) error {
	err := w.ask(nil, func(p packet.Packet) bool {
		m, ok := p.(*packet.Publish)
		return ok && string(m.Payload) == payload
	})
	if err != nil {
		return fmt.Errorf("missed: %w", err)
	}
	return nil
}

// publish publishes at QoS 1 on another node until it is acknowledged.
func (w *subackWorker) publish(topic, payload string) error {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if w.publisher == nil {
			var err error
			if w.publisher, err = w.connect(w.home+1, packet.Connect{ClientID: w.name + "-publisher", CleanStart: true}); err != nil {
				return err
			}
		}
		id := w.next()
		w.publisher.Send(&packet.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: packet.QoS1, PacketID: id})
		p, err := w.publisher.Receive(patience)
		if ack, ok := p.(*packet.Ack); ok && ack.PacketID == id {
			if ack.Code.Failed() {
				return fmt.Errorf("PUBACK: %s", ack.Code)
			}
			return nil
		}
		if errors.Is(err, mqtttest.ErrTimeout) {
			return fmt.Errorf("no PUBACK: %w", err)
		}
		w.publisher.Close()
		w.publisher = nil
	}
	return errors.New("no PUBACK")
}
