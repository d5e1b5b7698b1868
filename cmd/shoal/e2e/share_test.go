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

// shareRun is one group of a Shared Subscription, its publishers, and what its
// members got.
type shareRun struct {
	t       *testing.T
	c       *cluster
	members []*shareMember
	over    atomic.Bool // for members
	stop    atomic.Bool // for publishers

	mu    sync.Mutex
	acked map[string]bool
	got   map[string]int
}

type shareMember struct {
	name    string
	durable bool
	count   int // of messages, guarded by shareRun.mu
}

// startShare starts members, on the nodes in turn, and returns when all have
// their SUBACK.
func startShare(t *testing.T, c *cluster, name string, durable []bool, tasks *sync.WaitGroup) *shareRun {
	t.Helper()
	s := &shareRun{t: t, c: c, acked: map[string]bool{}, got: map[string]int{}}
	var ready sync.WaitGroup
	for i, d := range durable {
		m := &shareMember{name: fmt.Sprintf("%s-member-%d", name, i), durable: d}
		s.members = append(s.members, m)
		ready.Add(1)
		tasks.Go(func() { s.member(m, i, "$share/"+name+"/"+name+"/+", sync.OnceFunc(ready.Done)) })
	}
	ready.Wait()
	return s
}

// member receives until the end, over as many connections as that takes.
func (s *shareRun) member(m *shareMember, at int, filter string, ready func()) {
	defer ready()
	connect := packet.Connect{ClientID: m.name, ReceiveMaximum: 20}
	if m.durable {
		connect.HasSessionExpiry, connect.SessionExpiry = true, 3600
	}
	p := newPerson(s.c.addrs(), at, connect)
	defer p.leave()
	take := func(x *packet.Publish) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.got[string(x.Payload)]++
		m.count++
	}
	subscribed := false
	for !s.over.Load() {
		if p.conn == nil {
			if err := p.online(); err != nil {
				s.t.Errorf("%s: %v", m.name, err)
				return
			}
			subscribed = subscribed && p.present
		}
		if !subscribed {
			if err := p.subscribe(take, packet.Subscription{Filter: filter, QoS: packet.QoS1}); err != nil {
				p.offline()
				continue
			}
			subscribed = true
			ready()
		}
		x, err := p.conn.Receive(time.Second)
		switch x, ok := x.(*packet.Publish); {
		case ok:
			take(x)
		case errors.Is(err, mqtttest.ErrTimeout):
			p.conn.Send(&packet.Pingreq{})
		case err != nil:
			p.offline()
		}
	}
}

// publish publishes numbered messages until the end.
func (s *shareRun) publish(name string, i int, pace time.Duration) {
	p := newPerson(s.c.addrs(), i, packet.Connect{ClientID: fmt.Sprintf("%s-publisher-%d", name, i), CleanStart: true})
	defer p.offline()
	for n := 0; !s.stop.Load(); n++ {
		payload := fmt.Sprintf("%d/%d", i, n)
		if err := p.publish(packet.Publish{Topic: []byte(name + "/" + strconv.Itoa(n%10)), Payload: []byte(payload), QoS: packet.QoS1}, nil); err != nil {
			s.t.Errorf("publish %s: %v", payload, err)
			return
		}
		s.mu.Lock()
		s.acked[payload] = true
		s.mu.Unlock()
		time.Sleep(pace)
	}
}

func (s *shareRun) ackedNow() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.acked)
}

// await waits until every acknowledged message has reached a member.
func (s *shareRun) await() {
	s.t.Helper()
	eventually(s.t, "acknowledged messages at members", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		missing, example := 0, ""
		for payload := range s.acked {
			if s.got[payload] == 0 {
				missing++
				example = payload
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d are missing, %s for one", missing, len(s.acked), example)
		}
		return nil
	})
}

// repeats counts messages that members got more than once.
func (s *shareRun) repeats() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, times := range s.got {
		n += times - 1
	}
	return n
}

func (s *shareRun) balance() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var counts []string
	for _, m := range s.members {
		counts = append(counts, fmt.Sprint(m.count))
	}
	return strings.Join(counts, " ")
}

// shareGroups are the kinds of groups: which members are durable.
var shareGroups = map[string][]bool{
	"durable":   {true, true, true, true, true, true},
	"transient": {false, false, false, false, false, false},
	"mixed":     {true, false, true, false, true, false},
}

// TestSharedSubscriptions: without faults each message reaches one member, and
// the members get about the same number.
func TestSharedSubscriptions(t *testing.T) {
	c := startCluster(t, 6)
	for name, durable := range shareGroups {
		t.Run(name, func(t *testing.T) {
			var tasks sync.WaitGroup
			s := startShare(t, c, name, durable, &tasks)
			var publishers sync.WaitGroup
			for i := range 6 {
				publishers.Go(func() { s.publish(name, i, time.Millisecond) })
			}
			eventually(t, "messages", func() error {
				if n := s.ackedNow(); n < 1200 {
					return fmt.Errorf("%d acknowledged", n)
				}
				return nil
			})
			s.stop.Store(true)
			publishers.Wait()
			s.await()
			s.over.Store(true)
			tasks.Wait()
			t.Logf("%d acknowledged; members got %s", s.ackedNow(), s.balance())
			if n := s.repeats(); n > 0 {
				t.Errorf("%d messages reached a second member", n)
			}
			s.checkBalance()
		})
	}
}

// checkBalance: members that can get the messages get some.
func (s *shareRun) checkBalance() {
	some := false
	for _, m := range s.members {
		some = some || m.durable
	}
	for _, m := range s.members {
		if fair := len(s.acked) / len(s.members); m.durable == some && m.count < fair/3 {
			s.t.Errorf("%s got %d messages of %d", m.name, m.count, len(s.acked))
		}
	}
}

// TestSharedSubscriptionsWithKills: every acknowledged message of QoS 1 reaches
// a member, whatever node dies. Messages die with the node of a transient
// member that had them, so only groups of durable members are under kill -9.
func TestSharedSubscriptionsWithKills(t *testing.T) {
	t.Parallel()
	run := chaosConfig(t, 3, 500)
	c := startCluster(t, 6)
	var tasks, publishers sync.WaitGroup
	s := startShare(t, c, "killed", shareGroups["durable"], &tasks)
	for i := range 6 {
		publishers.Go(func() { s.publish("killed", i, 5*time.Millisecond) })
	}
	rng := rand.New(rand.NewPCG(run.seed, 9))
	begin := time.Now()
	kills := 0
	for ; kills < run.faults || s.ackedNow() < run.acked || time.Since(begin) < run.least; kills++ {
		pause(rng, 500*time.Millisecond, 2*time.Second)
		n := c.nodes[rng.IntN(len(c.nodes))]
		n.kill()
		pause(rng, 500*time.Millisecond, 2*time.Second)
		n.start()
		c.awaitReady()
		if t.Failed() {
			break
		}
	}
	s.stop.Store(true)
	publishers.Wait()
	s.await()
	s.over.Store(true)
	tasks.Wait()
	c.awaitEqual()
	t.Logf("%d kills; %d acknowledged; %d repeated; members got %s", kills, s.ackedNow(), s.repeats(), s.balance())
}
