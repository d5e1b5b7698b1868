package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestScenarioRandom lets clients open, move, subscribe, publish and go while
// nodes are killed and started, frozen and cut off, one at a time, and sometimes
// all are killed at once. SHOAL_TEST_SEED repeats the choices of a run (not its
// timing), SHOAL_TEST_SECONDS sets its length.
func TestScenarioRandom(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		nodes, parts int
		seconds      uint64
	}{{3, 1, 12}, {3, 6, 12}, {5, 4, 8}} {
		t.Run(fmt.Sprintf("%d nodes, %d shards", test.nodes, test.parts), func(t *testing.T) {
			t.Parallel()
			seed := fromEnv(t, "SHOAL_TEST_SEED", rand.Uint64N(1<<32))
			if os.Getenv("SHOAL_CHAOS") == "long" {
				test.seconds = 60
			}
			span := time.Duration(fromEnv(t, "SHOAL_TEST_SECONDS", test.seconds)) * time.Second
			t.Logf("SHOAL_TEST_SEED=%d", seed)
			r := newRun(t, test.nodes, test.parts, seed)
			r.trouble(t.Context(), span)
			r.finish()
			t.Log(r.h.summary())
		})
	}
}

func fromEnv(t *testing.T, name string, otherwise uint64) uint64 {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// run is a random run.
type run struct {
	t        *testing.T
	c        *testCluster
	h        *history
	seed     uint64
	born     time.Duration // before the cluster
	devices  []*device
	visitors []*visitor
	mortals  []*mortal
	watcher  *device         // of their Wills
	over     context.Context // no one begins anything more
	stop     context.CancelFunc
	failed   context.Context // no one waits any more
	tasks    sync.WaitGroup
}

func newRun(t *testing.T, size, parts int, seed uint64) *run {
	born := bootTime()
	r := &run{t: t, born: born, c: newScenario(t, size, parts), h: &history{}, seed: seed}
	failed, fail := context.WithCancel(context.Background())
	r.failed = failed
	r.over, r.stop = context.WithCancel(failed)
	t.Cleanup(func() { fail(); r.tasks.Wait() })
	r.startMortals()
	for i := range 6 {
		d := newDevice(r.c, fmt.Sprint("device-", i))
		d.tell = func(format string, args ...any) { r.h.note(d.id, format, args...) }
		r.devices = append(r.devices, d)
		r.tasks.Go(func() { r.live(d, r.rng(i)) })
	}
	for i, name := range r.c.names {
		v := &visitor{r: r, name: name}
		r.visitors = append(r.visitors, v)
		r.tasks.Go(func() { v.live(r.rng(100 + i)) })
	}
	return r
}

// rng is the source of choices of one part of the run.
func (r *run) rng(stream int) *rand.Rand { return rand.New(rand.NewPCG(r.seed, uint64(stream))) }

func (r *run) anyNode(rng *rand.Rand) string { return r.c.names[rng.IntN(len(r.c.names))] }

func anyTopic(rng *rand.Rand) string { return fmt.Sprint("t/", rng.IntN(4)) }

func anyFilter(rng *rand.Rand) string {
	filters := []string{"t/0", "t/1", "t/2", "t/3", "t/+", "#"}
	return filters[rng.IntN(len(filters))]
}

// live is what a device does all the time.
func (r *run) live(d *device, rng *rand.Rand) {
	for number := 0; r.over.Err() == nil; {
		if !d.connected() {
			d.connect(r.anyNode(rng))
		}
		switch k := rng.IntN(20); {
		case k < 10:
			for n := rng.IntN(8); n > 0 && d.unfinished() < 30; n-- {
				number++
				r.publish(d, anyTopic(rng), 1+rng.Uint32N(2), number)
			}
		case k < 13:
			filter := anyFilter(rng)
			s := r.h.subscribes(d.id, filter)
			if d.subscribe(filter, 2) == nil {
				r.h.subscribed(s)
			}
		case k < 15:
			filter := anyFilter(rng)
			r.h.leaves(d.id, filter)
			if d.unsubscribe(filter) == nil {
				r.h.left(d.id, filter)
			}
		case k == 15:
			d.connect(r.anyNode(rng)) // a takeover
		case k == 16:
			d.hangUp()
		}
		pause(r.over, time.Duration(rng.IntN(40))*time.Millisecond)
	}
}

func (r *run) publish(d *device, topic string, qos uint32, number int) {
	m := r.h.publishes(d.id, topic, qos, number)
	sent := d.publish(topic, qos, m.payload())
	r.tasks.Go(func() {
		select {
		case <-sent.acked:
			r.h.acked(m)
		case <-r.failed.Done():
		}
	})
}

// trouble does one thing after the other to nodes and links.
func (r *run) trouble(ctx context.Context, span time.Duration) {
	rng := r.rng(1000)
	for end := time.Now().Add(span); time.Now().Before(end) && ctx.Err() == nil; {
		pause(ctx, time.Duration(rng.IntN(1500))*time.Millisecond)
		name := r.anyNode(rng)
		long := time.Duration(rng.IntN(6000)) * time.Millisecond
		switch k := rng.IntN(10); {
		case k < 4:
			r.kill(name)
			if rng.IntN(3) == 0 {
				pause(ctx, long)
			}
			r.c.start(name)
		case k == 4:
			for _, name := range r.c.names {
				r.kill(name)
			}
			for _, i := range rng.Perm(len(r.c.names)) {
				r.c.start(r.c.names[i])
			}
		case k == 5:
			r.disturb(name, func() { r.c.net.freeze(name); pause(ctx, long); r.c.net.rejoin(name) })
		case k == 6:
			r.disturb(name, func() { r.c.net.isolate(name); pause(ctx, long); r.c.net.rejoin(name) })
		case k == 7:
			other := r.anyNode(rng)
			if other == name {
				continue
			}
			r.disturb(other, func() {})
			r.disturb(name, func() { r.c.net.cut(name, other); pause(ctx, long); r.c.net.join(name, other) })
		default:
			r.moveLeader(rng.Uint32N(uint32(r.c.parts+1)), name)
		}
	}
}

func (r *run) kill(name string) {
	r.disturb(name, func() { r.c.kill(name) })
}

// disturb does something after which nothing is promised to those who are
// connected at a node.
func (r *run) disturb(name string, how func()) {
	for _, v := range r.visitors {
		if v.name == name {
			v.leaves()
		}
	}
	for _, m := range r.mortals {
		m.trouble(name)
	}
	r.t.Logf("%6.2fs trouble at %s", sinceStart().Seconds(), name)
	r.h.note("", "trouble at %s", name)
	how()
	r.h.note("", "trouble at %s is over", name)
}

// moveLeader gives the leadership of a group to a node, if that works.
func (r *run) moveLeader(group uint32, name string) {
	to := r.c.node(name).self
	for _, n := range r.c.up() {
		if g := n.group(group); g != nil && g.leads() && n.config.NodeID != name {
			g.raftNow.Load().LeadershipTransferToServer(to, raft.ServerAddress(to))
		}
	}
}

// finish ends all trouble, has everything completed and checks what came.
func (r *run) finish() {
	r.c.net.heal()
	r.c.ready()
	r.stop()
	for _, d := range r.devices {
		eventually(r.t, d.id+" is served to the end", func() error {
			if !d.connected() {
				r.c.must(d.stay(r.c.names...))
			}
			if n := d.unfinished(); n > 0 {
				return fmt.Errorf("%d messages are not acknowledged", n)
			}
			return nil
		})
	}
	r.tasks.Wait()
	r.finishMortals()
	r.checkClocks()
	for _, d := range r.devices {
		eventually(r.t, d.id, func() error {
			if !d.connected() { // a slow machine may lose its connection again
				r.c.must(d.stay(r.c.names...))
			}
			got, faults := d.payloads()
			if len(faults) > 0 {
				r.t.Fatalf("%s: %q", d.id, faults)
			}
			if err := r.h.check(d.id, got); err != nil {
				return lateError(func() string { return err.Error() + "\n" + d.explain() })
			}
			return nil
		})
	}
	for _, v := range r.visitors {
		v.leaves()
		for i, guest := range v.seen {
			if err := r.h.check(v.ids[i], guest.in.payloads()); err != nil {
				r.t.Error(err)
			}
		}
	}
	r.c.settled()
	for _, d := range r.devices { // what came after is checked, too
		got, _ := d.payloads()
		r.c.must(r.h.check(d.id, got))
	}
}
