package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

// load is clients at work on a cluster: on every node a durable subscriber at
// QoS 1, one at QoS 2, and a publisher that numbers a stream of each QoS. They
// connect to their node first and to any when that fails.
type load struct {
	t                       testing.TB
	c                       *cluster
	h                       *history
	publishers, subscribers []*client
	streams                 [][2]int32 // of each publisher, QoS 1 and 2
	tasks                   sync.WaitGroup
	publishing              sync.WaitGroup
	stop                    context.CancelFunc // of publishing
}

// loadConfig says what clients are like.
type loadConfig struct {
	seed   uint64
	window int           // of each publisher
	pace   time.Duration // between two messages of a publisher, 0 for none
	// patient leaves a client of each kind waiting on a silent connection for
	// ever, as clients without keep alive do.
	patient bool
}

// startLoad returns when all subscribers have their SUBACK and publishing has
// begun. Everything ends with the test.
func startLoad(t testing.TB, c *cluster, lc loadConfig) *load {
	t.Helper()
	l := &load{t: t, c: c, h: newHistory()}
	rng := rand.New(rand.NewPCG(lc.seed, 1))
	ctx, end := context.WithCancel(context.Background())
	t.Cleanup(l.tasks.Wait)
	t.Cleanup(end)
	nodes := c.addrs()
	for i := range nodes {
		at := append(append([]string{}, nodes[i:]...), nodes[:i]...)
		plan := func(name string) clientConfig {
			cc := clientConfig{name: fmt.Sprintf("%s-%d", name, i), version: packet.V5, nodes: at, seed: rng.Uint64(),
				window: lc.window, lowest: i == 1, silence: time.Duration(1500+rng.IntN(2500)) * time.Millisecond}
			if i == 0 {
				cc.version = packet.V311
				if lc.patient {
					cc.silence = 0
				}
			}
			return cc
		}
		p := newClient(l.h, plan("publisher"))
		l.publishers = append(l.publishers, p)
		topic := fmt.Sprintf("chaos/%d", i)
		l.streams = append(l.streams, [2]int32{
			l.h.open(stream{p.config.name, topic, packet.QoS1}), l.h.open(stream{p.config.name, topic, packet.QoS2}),
		})
		for qos := packet.QoS1; qos <= packet.QoS2; qos++ {
			cc := plan(fmt.Sprintf("subscriber-qos%d", qos))
			cc.filter, cc.qos = []string{"chaos/#", "chaos/+", "+/+"}[i], qos
			if i == 2 {
				cc.receiveMaximum = 7
			}
			l.subscribers = append(l.subscribers, newClient(l.h, cc))
		}
	}
	for _, x := range l.all() {
		l.tasks.Go(func() { x.run(ctx) })
	}
	for _, s := range l.subscribers {
		eventually(t, "subscribers", s.subscribed)
	}
	publish, stop := context.WithCancel(ctx)
	l.stop = stop
	l.publishing.Go(func() { l.restless(publish, rng) })
	for i, p := range l.publishers {
		l.publishing.Go(func() { l.publish(publish, p, l.streams[i], lc.pace) })
	}
	return l
}

func (l *load) all() []*client { return append(append([]*client{}, l.publishers...), l.subscribers...) }

// lagMost is how far subscribers may fall behind before publishers wait: well
// below the limit of a session's queue, beyond which messages are dropped and
// counted.
const lagMost = 20_000

// publish sends alternately at QoS 1 and 2.
func (l *load) publish(ctx context.Context, p *client, streams [2]int32, pace time.Duration) {
	next := time.Now()
	for i := 0; ctx.Err() == nil && p.publish(streams[i%2]); i++ {
		for ctx.Err() == nil && l.h.lag() > lagMost {
			time.Sleep(10 * time.Millisecond)
		}
		if next = next.Add(pace); pace > 0 {
			time.Sleep(time.Until(next))
		}
	}
}

// restless has clients change their node now and then, half of them while the
// old connection is open: takeovers.
func (l *load) restless(ctx context.Context, rng *rand.Rand) {
	all := l.all()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(100+rng.IntN(600)) * time.Millisecond):
		}
		if x := all[rng.IntN(len(all))]; rng.IntN(2) == 0 {
			x.move()
		} else {
			x.leave()
		}
	}
}

// finish ends publishing, waits until everything that was sent is answered and
// everything owed is delivered, and judges. The cluster must be whole.
func (l *load) finish() verdict {
	l.t.Helper()
	l.stop()
	l.publishing.Wait()
	for _, p := range l.publishers {
		eventually(l.t, "answers to the publisher", p.settled)
	}
	l.drain()
	// What a broker repeats, it repeats on a new connection.
	for _, s := range l.subscribers {
		s.move()
	}
	l.settle()
	v := l.h.check()
	l.t.Logf("%s; %s", v, l.h.noted())
	for _, n := range l.c.nodes {
		if dropped := n.metric("shoal_shard_messages_dropped_total"); dropped > 0 {
			l.t.Errorf("node %s counts %v messages dropped by a limit", n.name, dropped)
		}
	}
	if err := v.err(); err != nil {
		l.t.Error(err)
	}
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	if n := len(l.h.violations); n > 0 {
		l.t.Errorf("%d violations:\n  %s", n, strings.Join(l.h.violations[:min(n, maxFindings)], "\n  "))
	}
	return v
}

// drain waits as long as deliveries come.
func (l *load) drain() {
	l.t.Helper()
	least, since := -1, time.Now()
	for {
		v := l.h.check()
		if len(v.lost) == 0 {
			return
		}
		if least < 0 || len(v.lost) < least {
			least, since = len(v.lost), time.Now()
		}
		if time.Since(since) > patience {
			l.t.Errorf("%d deliveries are owed, and for %v none came; %s", len(v.lost), patience, l.progress())
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// settle waits until no queue of the cluster holds anything and every client
// has heard from the broker after that.
func (l *load) settle() {
	l.t.Helper()
	eventually(l.t, "empty queues", func() error {
		for _, n := range l.c.nodes {
			s, err := n.status()
			if err != nil {
				return err
			}
			for _, g := range s.Groups {
				if g.Queued > 0 || g.Outbox > 0 {
					return fmt.Errorf("%s on node %s: %d queued, %d in the outbox", g.Group, n.name, g.Queued, g.Outbox)
				}
			}
		}
		return nil
	})
	for _, x := range l.all() {
		eventually(l.t, "client", x.probe())
		eventually(l.t, "client", x.settled)
	}
}

// progress says in a line where the clients are.
func (l *load) progress() string {
	var all []string
	for _, x := range l.all() {
		if err := x.settled(); err != nil {
			all = append(all, err.Error())
		}
	}
	return strings.Join(all, "; ")
}

// ackedNow counts the messages that the broker owns.
func (l *load) ackedNow() int { return l.h.check().acked }

// probe asks the broker for a PINGRESP and returns what waits for it.
func (c *client) probe() func() error {
	var w *wire
	var before int
	return func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case c.wire == nil:
			return errors.New(c.config.name + " is not connected")
		case c.wire != w:
			w, before = c.wire, c.pongs
			w.append(&packet.Pingreq{})
			return errors.Join(w.flush(), errors.New(c.config.name+" has not got PINGRESP"))
		case c.pongs == before:
			return errors.New(c.config.name + " has not got PINGRESP")
		}
		return nil
	}
}
