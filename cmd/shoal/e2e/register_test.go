package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// registers are topics whose retained messages one writer each sets and clears
// in turn. Operation n of a topic publishes n, or nothing if it clears.
type registers struct {
	t     *testing.T
	nodes []string
	regs  []*register
	over  atomic.Bool
	reads atomic.Int64
	// cut counts reads whose connection died.
	cut atomic.Int64
}

// register is one topic. What its fields say is true at the time of reading.
type register struct {
	topic string
	// begun and acked are the latest operation sent and acknowledged.
	begun, acked atomic.Int64
	// seen is the highest operation that any reader has seen the effect of.
	seen atomic.Int64
}

// clears tells whether operation n clears the register.
func clears(n int64) bool { return n%4 == 0 }

// quiet is how long a reader waits for a retained message where there may be
// none.
const quiet = 300 * time.Millisecond

func newRegisters(t *testing.T, c *cluster, topics int) *registers {
	r := &registers{t: t, nodes: c.addrs()}
	for i := range topics {
		r.regs = append(r.regs, &register{topic: fmt.Sprintf("register/%d", i)})
	}
	return r
}

// write performs operations on one register until the end. Odd registers are
// written at QoS 2.
func (r *registers) write(i int, pace time.Duration) {
	reg := r.regs[i]
	qos := packet.QoS1 + packet.QoS(i%2)
	p := newPerson(r.nodes, i, packet.Connect{ClientID: fmt.Sprint("writer-", i), CleanStart: true})
	defer p.offline()
	for n := int64(1); !r.over.Load(); n++ {
		var payload []byte
		if !clears(n) {
			payload = strconv.AppendInt(nil, n, 10)
		}
		reg.begun.Store(n)
		if err := p.publish(packet.Publish{Topic: []byte(reg.topic), Payload: payload, QoS: qos, Retain: true}, nil); err != nil {
			r.t.Errorf("%s, operation %d: %v", reg.topic, n, err)
			return
		}
		reg.acked.Store(n)
		time.Sleep(pace)
	}
}

// read reads registers as new subscribers on any node, one topic or all by a
// wildcard, until the end.
func (r *registers) read(seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	for k := 0; !r.over.Load() && !r.t.Failed(); k++ {
		regs, filter := r.regs, "register/+"
		if rng.IntN(3) > 0 {
			i := rng.IntN(len(r.regs))
			regs, filter = r.regs[i:i+1], r.regs[i].topic
		}
		connect := packet.Connect{ClientID: fmt.Sprintf("reader-%d-%d", seed, k), CleanStart: true}
		if rng.IntN(2) == 0 { // a durable session, gone soon after
			connect.HasSessionExpiry, connect.SessionExpiry = true, 5
		}
		p := newPerson(r.nodes, rng.IntN(len(r.nodes)), connect)
		if err := r.readOnce(p, regs, filter, packet.QoS(rng.IntN(3))); err != nil {
			r.cut.Add(1)
		} else {
			r.reads.Add(1)
		}
		p.leave()
	}
}

// readOnce subscribes and checks what comes with RETAIN. An error says that the
// connection died: nothing was shown.
func (r *registers) readOnce(p *person, regs []*register, filter string, qos packet.QoS) error {
	if err := p.online(); err != nil {
		return err
	}
	least := map[string]int64{} // what the register must show at least
	for _, reg := range regs {
		least[reg.topic] = max(reg.acked.Load(), reg.seen.Load())
	}
	read := map[string]int64{}
	live := map[string]bool{} // published retained since: the replay leaves it out
	got := func(m *packet.Publish) {
		if m.Retain {
			r.check(string(m.Topic), m, least, read)
		} else {
			live[string(m.Topic)] = true
		}
	}
	if err := p.subscribe(got, packet.Subscription{Filter: filter, QoS: qos}); err != nil {
		return err
	}
	for begin := time.Now(); ; {
		missing := ""
		for _, reg := range regs {
			if _, ok := read[reg.topic]; !ok && !live[reg.topic] && !mayBeEmpty(least[reg.topic], reg.begun.Load()) {
				missing = reg.topic
			}
		}
		switch {
		case missing == "" && time.Since(begin) > quiet:
			return nil
		case time.Since(begin) > patience:
			r.t.Errorf("%s subscribed %s: the retained message of %s is missing: operation %d was acknowledged or seen before",
				p.connect.ClientID, filter, missing, least[missing])
			return nil
		}
		x, err := p.conn.Receive(quiet)
		switch m, ok := x.(*packet.Publish); {
		case ok:
			got(m)
		case err != nil && !errors.Is(err, mqtttest.ErrTimeout):
			return err
		}
	}
}

// mayBeEmpty tells whether a register may show nothing, from the operation that
// it must show at least to the latest begun.
func mayBeEmpty(least, begun int64) bool {
	for n := least; n <= begun; n++ {
		if n == 0 || clears(n) {
			return true
		}
	}
	return false
}

// check judges one retained message.
func (r *registers) check(topic string, m *packet.Publish, least, read map[string]int64) {
	n, err := strconv.ParseInt(string(m.Payload), 10, 64)
	before, again := read[topic]
	switch {
	case err != nil:
		r.t.Errorf("%s: retained message %q", topic, m.Payload)
	case again && n <= before:
		r.t.Errorf("%s: retained message %d after %d", topic, n, before)
	case n < least[topic]:
		r.t.Errorf("%s went back: retained message %d, but %d was acknowledged or seen before the subscription", topic, n, least[topic])
	}
	read[topic] = n
	i, _ := strconv.Atoi(topic[strings.LastIndexByte(topic, '/')+1:])
	for seen := &r.regs[i].seen; ; {
		old := seen.Load()
		if n <= old || seen.CompareAndSwap(old, n) {
			return
		}
	}
}

// TestRetainedRegister: a retained message is a register: what was acknowledged,
// or read by anyone on any node, is what later subscribers read, or something
// newer, whatever node dies or freezes.
func TestRetainedRegister(t *testing.T) {
	eachShardCount(t, func(t *testing.T, shards int) {
		run := chaosConfig(t, 3, 0)
		c := startCluster(t, shards)
		r := newRegisters(t, c, 8)
		var tasks sync.WaitGroup
		defer tasks.Wait()
		defer r.over.Store(true)
		for i := range r.regs {
			tasks.Go(func() { r.write(i, 20*time.Millisecond) })
		}
		for i := range uint64(6) {
			tasks.Go(func() { r.read(run.seed + i) })
		}
		rng := rand.New(rand.NewPCG(run.seed, 8))
		begin := time.Now()
		faults := 0
		for ; faults < run.faults || time.Since(begin) < run.least; faults++ {
			pause(rng, 500*time.Millisecond, 2*time.Second)
			n := c.nodes[rng.IntN(len(c.nodes))]
			if rng.IntN(3) == 0 {
				n.freeze()
				pause(rng, 2*time.Second, 6*time.Second)
				n.thaw()
			} else {
				n.kill()
				pause(rng, 500*time.Millisecond, 2*time.Second)
				n.start()
			}
			c.awaitReady()
			if t.Failed() {
				break
			}
		}
		reads := r.reads.Load()
		eventually(t, "reads after the last fault", func() error {
			if r.reads.Load() < reads+20 && !t.Failed() {
				return fmt.Errorf("%d", r.reads.Load()-reads)
			}
			return nil
		})
		r.over.Store(true)
		tasks.Wait()
		c.awaitEqual()
		var operations int64
		for _, reg := range r.regs {
			operations += reg.acked.Load()
		}
		t.Logf("%d faults; %d operations acknowledged; %d reads, %d more were cut off", faults, operations, r.reads.Load(), r.cut.Load())
	})
}
