package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

// step is a place in the two exchanges of a QoS 2 message at which the client
// of one side stops: it has a packet to send, and has sent it at the instant
// of the fault, or never does on this connection.
type step struct {
	subscriber bool
	packet     packet.Type
	sent       bool
}

var steps = []step{
	{false, packet.TypePublish, false}, {false, packet.TypePublish, true},
	{false, packet.TypePubrel, false}, {false, packet.TypePubrel, true},
	{true, packet.TypePubrec, false}, {true, packet.TypePubrec, true},
	{true, packet.TypePubcomp, false}, {true, packet.TypePubcomp, true},
}

// pairsPerStep spreads clients over shards.
const pairsPerStep = 4

// TestQoS2Steps: whatever dies between any two steps of a QoS 2 message, the
// message arrives once and in order when both clients resume elsewhere, and
// the exchange ends with PUBCOMP. All steps meet each fault at once, in pairs
// of clients of their own.
func TestQoS2Steps(t *testing.T) {
	eachShardCount(t, func(t *testing.T, shards int) {
		r := chaosConfig(t, 0, 0)
		rng := rand.New(rand.NewPCG(r.seed, 3))
		c := startCluster(t, shards)
		last := fmt.Sprintf("shard-%d", shards)
		for _, fault := range []struct {
			name    string
			victims func(publishers, subscribers *node) []*node
		}{
			{"the publishers' node", func(p, _ *node) []*node { return []*node{p} }},
			{"the subscribers' node", func(_, s *node) []*node { return []*node{s} }},
			{"both", func(p, s *node) []*node { return []*node{p, s} }},
			{"the leader of a shard", func(_, _ *node) []*node { return []*node{c.leader("shard-1")} }},
			{"the leader of another", func(_, _ *node) []*node { return []*node{c.leader(last)} }},
			{"all", func(_, _ *node) []*node { return c.nodes }},
		} {
			t.Run(strings.ReplaceAll(fault.name, " ", "_"), func(t *testing.T) {
				at := rng.Perm(len(c.nodes))
				publishers, subscribers := c.nodes[at[0]], c.nodes[at[1]]
				victims := fault.victims(publishers, subscribers)
				f := newSteps(t, c, rng, publishers, subscribers)
				f.reach()
				f.tasks.Go(f.sendHeld)
				time.Sleep(time.Duration(rng.IntN(8)) * time.Millisecond)
				for _, v := range victims {
					v.signal(syscall.SIGKILL)
				}
				for _, v := range victims {
					v.wait()
				}
				f.tasks.Wait()
				f.resume()
				c.start()
				f.complete()
				c.awaitReady()
			})
		}
	})
}

// stepsRun is pairs of clients around one fault.
type stepsRun struct {
	t     *testing.T
	h     *history
	pairs []*pair
	tasks sync.WaitGroup
}

// pair is a publisher and a subscriber, one of which stops at a step.
type pair struct {
	step                  step
	publisher, subscriber *client
	stream                int32
	wires                 [2]*wire // publisher's, subscriber's
	held                  packet.Packet
}

func newSteps(t *testing.T, c *cluster, rng *rand.Rand, publishers, subscribers *node) *stepsRun {
	f := &stepsRun{t: t, h: newHistory()}
	others := func(n *node) []string { // resume elsewhere: its own node is the last to be tried first
		var addrs []string
		for _, x := range c.nodes {
			if x != n {
				addrs = append(addrs, x.mqtt)
			}
		}
		rng.Shuffle(len(addrs), func(i, k int) { addrs[i], addrs[k] = addrs[k], addrs[i] })
		return append(addrs, n.mqtt)
	}
	run := rng.Uint32()
	for i := range len(steps) * pairsPerStep {
		name, topic := fmt.Sprintf("%08x-%d", run, i), fmt.Sprintf("steps/%08x/%d", run, i)
		version := []packet.Version{packet.V311, packet.V5}[i/len(steps)%2]
		p := &pair{step: steps[i%len(steps)]}
		p.publisher = newClient(f.h, clientConfig{name: "p-" + name, version: version, nodes: others(publishers), seed: rng.Uint64(), window: 10})
		p.subscriber = newClient(f.h, clientConfig{name: "s-" + name, version: version, nodes: others(subscribers), seed: rng.Uint64(), filter: topic, qos: packet.QoS2})
		p.stream = f.h.open(stream{"p-" + name, topic, packet.QoS2})
		f.pairs = append(f.pairs, p)
	}
	f.each("connect", func(p *pair) error { return p.connect(publishers, subscribers) })
	return f
}

// each runs do for every pair at the same time.
func (f *stepsRun) each(what string, do func(p *pair) error) {
	f.t.Helper()
	errs := make(chan error)
	for _, p := range f.pairs {
		go func() { errs <- do(p) }()
	}
	for range f.pairs {
		if err := <-errs; err != nil {
			f.t.Errorf("%s: %v", what, err)
		}
	}
	if f.t.Failed() {
		f.t.FailNow()
	}
}

// connect connects both and takes a first message all the way.
func (p *pair) connect(publishers, subscribers *node) (err error) {
	for i, x := range []*client{p.publisher, p.subscriber} {
		w, err := dialWire([]*node{publishers, subscribers}[i].mqtt, x.config.version)
		if err != nil {
			return err
		}
		ack, err := x.handshake(w)
		if err != nil {
			return err
		}
		if ack.Code.Failed() {
			return fmt.Errorf("CONNACK: %s", ack.Code)
		}
		if err := x.attach(w, ack); err != nil {
			return err
		}
		p.wires[i] = w
	}
	if err := p.until(1, func() bool { return p.subscriber.session.subscribe() == nil }); err != nil {
		return err
	}
	p.publisher.session.publish(p.publisher.h.next(p.stream), p.publisher.h.stream(p.stream))
	p.send(0, &p.publisher.unacked[0].Publish)
	if err := p.until(0, func() bool { return p.publisher.unfinished() == 0 }); err != nil {
		return err
	}
	return p.until(1, func() bool { return len(p.subscriber.subscription.deliveries) == 1 && len(p.subscriber.received) == 0 })
}

func (p *pair) client(side int) *client { return []*client{p.publisher, p.subscriber}[side] }

func (p *pair) send(side int, x packet.Packet) {
	p.wires[side].append(x)
	p.wires[side].flush() // a broken connection shows at the next read
}

// until serves one side's connection until done, or until it has to send what
// its step holds.
func (p *pair) until(side int, done func() bool) error {
	for !done() && p.held == nil {
		x, err := p.wires[side].next(time.Now().Add(patience))
		if err != nil {
			return err
		}
		answer, err := p.client(side).receive(x)
		if err != nil {
			return err
		}
		if answer != nil && !p.hold(side, answer) {
			p.send(side, answer)
		}
	}
	return nil
}

// hold keeps the answer back if it is the step's, for the second message.
func (p *pair) hold(side int, answer packet.Packet) bool {
	ack, ok := answer.(*packet.Ack)
	second := len(p.publisher.h.published[p.stream]) == 2
	if !ok || !second || p.step.subscriber != (side == 1) || ack.Type != p.step.packet {
		return false
	}
	p.held = answer
	return true
}

// reach brings every pair to its step with a second message.
func (f *stepsRun) reach() {
	f.t.Helper()
	for _, p := range f.pairs { // not concurrently: hold looks at all streams
		f.h.next(p.stream)
	}
	f.each("reach the step", func(p *pair) error {
		publish := p.publisher.session.publish(message{p.stream, 1}, f.h.stream(p.stream))
		if p.step.packet == packet.TypePublish {
			p.held = publish
			return nil
		}
		p.send(0, publish)
		if !p.step.subscriber {
			return p.until(0, func() bool { return false })
		}
		if err := p.until(0, func() bool { return p.publisher.unfinished() == 0 }); err != nil {
			return err
		}
		return p.until(1, func() bool { return false })
	})
}

// sendHeld sends what the steps with sent hold.
func (f *stepsRun) sendHeld() {
	for _, p := range f.pairs {
		if p.step.sent {
			side := 0
			if p.step.subscriber {
				side = 1
			}
			p.send(side, p.held)
		}
	}
}

// resume lets all clients go on, each elsewhere and with its old connection
// open if the node lives.
func (f *stepsRun) resume() {
	ctx, end := context.WithCancel(context.Background())
	f.t.Cleanup(f.tasks.Wait)
	f.t.Cleanup(end)
	for _, p := range f.pairs {
		for i, w := range p.wires {
			go abandon(w)
			p.client(i).lose()
			f.tasks.Go(func() { p.client(i).run(ctx) })
		}
	}
}

// lose forgets the connection that the test has served itself.
func (c *client) lose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wire = nil
}

// complete publishes a third message, waits for everything and judges.
func (f *stepsRun) complete() {
	f.t.Helper()
	for _, p := range f.pairs {
		if !p.publisher.publish(p.stream) {
			f.t.Fatal("a publisher has ended")
		}
	}
	for _, p := range f.pairs {
		eventually(f.t, fmt.Sprintf("publisher at %+v", p.step), p.publisher.settled)
	}
	for _, p := range f.pairs {
		eventually(f.t, fmt.Sprintf("subscriber at %+v", p.step), func() error {
			if n := f.h.count(p.subscriber.subscription); n < 3 {
				return fmt.Errorf("%d of 3 messages have arrived", n)
			}
			return p.subscriber.settled()
		})
	}
	v := f.h.check()
	if v.acked != 3*len(f.pairs) {
		f.t.Errorf("%d acknowledged, want 3 of each of %d publishers", v.acked, len(f.pairs))
	}
	if err := v.err(); err != nil {
		f.t.Error(err)
	}
	for _, x := range f.h.violations {
		f.t.Error(x)
	}
	f.t.Logf("%s; %s", v, f.h.noted())
}
