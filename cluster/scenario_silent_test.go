package cluster

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/cluster/raftnet"
)

// homes are the nodes that have a replica of a shard, away the others.
func (c *testCluster) homes(shard uint32) (homes, away []string) {
	for _, name := range c.names {
		if c.node(name).has(shard) {
			homes = append(homes, name)
		} else {
			away = append(away, name)
		}
	}
	return homes, away
}

// A shard's leader falls silent while clients are on nodes without a replica of
// the shard (scenario 51): its disk hangs, it is frozen, or it is cut off from the
// shard's other replicas and not from the clients' nodes. Whatever goes to the
// shard goes on at its next leader while the former one is still silent.
func TestScenarioSilentLeader(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		// silence makes the shard's leader silent; replicas are the other ones.
		silence func(c *testCluster, leader string, replicas []string)
	}{
		{"disk hangs", func(c *testCluster, leader string, _ []string) { c.disk(leader).hang() }},
		{"frozen", func(c *testCluster, leader string, _ []string) { c.net.freeze(leader) }},
		{"cut off from the shard", func(c *testCluster, leader string, replicas []string) {
			for _, other := range replicas {
				c.net.cut(leader, other)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			x := newSilence(t)
			test.silence(x.c, x.leader, x.homes[1:])
			x.goesOn()
			x.c.healDisks()
			x.c.net.heal()
			x.c.ready()
		})
	}
}

// All streams of a node follow when one of them has found a leader silent, or when
// its process is fenced. So each kind is tried alone, too, with a leader that keeps
// its lease.
func TestScenarioSilentLeaderOneStream(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		goes func(x *silence)
	}{
		{"feed", func(x *silence) {
			pub := x.c.node(x.homes[1]).open(x.t, "near", true, 0)
			x.muffle()
			pub.publish("a/b", 1, "to the feed")
			eventually(x.t, "the delivery", func() error {
				if got, _ := x.sub.payloads(); len(got) != 2 {
					return fmt.Errorf("got %q", got)
				}
				return nil
			})
		}},
		{"outbox", func(x *silence) {
			x.muffle()
			x.pub.completes(x.pub.publish("a/b", 2, "by the outbox"), x.away...)
		}},
		{"batches", func(x *silence) {
			x.muffle()
			x.pub.completes(x.pub.publish("a/b", 1, "by a batch"), x.away...)
		}},
		{"retained", func(x *silence) {
			x.c.net.freeze(x.leader) // pages wait for every process that has a lease
			if got, err := x.c.node(x.away[0]).registers(x.topic); err != nil || got[x.topic] != "value" {
				x.t.Errorf("registers are %v, %v", got, err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			x := newSilence(t)
			began := time.Now()
			elected := make(chan time.Duration, 1)
			go func() {
				for !x.isElected() {
					pause(t.Context(), retryDelay)
				}
				elected <- time.Since(began)
			}()
			test.goes(x)
			x.prompt(wait(t, "another leader", elected), time.Since(began))
			x.c.net.heal()
			x.c.ready()
		})
	}
}

// silence is a cluster of five whose shard 1 has all it needs on three nodes,
// and clients on the other two; shard 2 is led by one of those.
type silence struct {
	t      *testing.T
	c      *testCluster
	leader string   // of shard 1
	homes  []string // with a replica of shard 1, the leader first
	away   []string // without a replica of shard 1; only the second has a feed of it
	sub    *device  // its session is in shard 1
	pub    *device  // its session is in shard 2
	dying  *client  // its session, with a Will, is in shard 1
	topic  string   // its register is in shard 1
}

func newSilence(t *testing.T) *silence {
	c := newScenario(t, 5, 2)
	t.Cleanup(c.healDisks) // before the cluster is closed
	x := &silence{t: t, c: c, topic: c.topicIn(1, "kept")}
	x.homes, x.away = c.homes(1)
	x.leader = x.homes[0]
	c.lead(0, x.away[0])
	c.lead(1, x.leader)
	theirs, _ := c.homes(2)
	for _, name := range x.away {
		if slices.Contains(theirs, name) {
			c.lead(2, name) // so that its outbox goes to a shard without a replica there
			break
		}
	}
	x.sub = newDevice(c, c.clientIn(1, "sub"))
	c.must(x.sub.stay(x.away[1]))
	c.must(x.sub.subscribe("a/#", 2))
	c.must(x.sub.subscribe("will/#", 1))
	c.must(x.sub.subscribe("$share/g/s/#", 1))
	x.pub = newDevice(c, c.clientIn(2, "pub"))
	c.must(x.pub.stay(x.away[0]))
	x.dying = c.node(x.away[1]).openWith(t, willOf(c.clientIn(1, "dying"), 0, 3600, false), nil)
	w := c.node(x.away[0]).open(t, "w", true, 0)
	w.retain(map[string]string{x.topic: "value"})
	wait(t, "PUBACK", x.pub.publish("a/b", 1, "before").acked)
	x.sub.expect("before")
	return x
}

// muffle holds all that goes between the shard's leader and the clients' nodes, and
// takes the shard's quorum from it. It keeps its lease: nobody fences it.
func (x *silence) muffle() {
	x.t.Helper()
	x.c.lead(0, x.homes[1])
	x.c.net.filter(func(m raftnet.Message) (<-chan struct{}, bool) {
		return nil, m.Group == 1 && (nodeOf(m.From) == x.leader || nodeOf(m.To) == x.leader)
	})
	for _, name := range x.away {
		x.c.net.hold(x.leader, name)
	}
}

// goesOn checks all that goes to the shard: messages of QoS 1 and of QoS 2 to
// PUBCOMP, a Will, a message that a member of a Shared Subscription left, pages of
// retained messages, a CONNECT.
func (x *silence) goesOn() {
	x.t.Helper()
	began := time.Now()
	took := func(what string) {
		x.t.Logf("%s after %v", what, time.Since(began).Round(10*time.Millisecond))
	}
	at := x.c.node(x.away[1])
	boot := at.proc.Load().boot
	one := x.pub.publish("a/b", 1, "QoS 1")
	two := x.pub.publish("a/b", 2, "QoS 2")
	go x.dying.link.Close(session.CloseRequest{})
	at.Redispatch("$share/g/s/#", message("s/1", 1, "left"))
	pages := make(chan error, 1)
	go func() {
		got, err := at.registers("#")
		if err == nil && got[x.topic] != "value" {
			err = fmt.Errorf("registers are %v", got)
		}
		pages <- err
	}()
	x.elected()
	elected := time.Since(began)
	took("next leader")
	x.pub.completes(one, x.away...)
	took("PUBACK")
	x.pub.completes(two, x.away...)
	took("PUBCOMP")
	if err := wait(x.t, "pages of retained messages", pages); err != nil {
		x.t.Error(err)
	}
	took("retained pages")
	want := []string{"QoS 1", "QoS 2", "before", x.dying.link.(*link).client}
	if p := at.proc.Load(); p != nil && p.boot == boot { // else what it had in memory is gone
		want = append(want, "left")
	}
	slices.Sort(want)
	eventually(x.t, "deliveries", func() error {
		if !x.sub.connected() {
			x.c.must(x.sub.stay(x.away...))
		}
		got, faults := x.sub.payloads()
		slices.Sort(got)
		if len(faults) > 0 || !slices.Equal(got, want) {
			return fmt.Errorf("got %q, want %q, faults %q", got, want, faults)
		}
		return nil
	})
	took("deliveries, the Will and the shared message")
	x.prompt(elected, time.Since(began))
}

// prompt checks that the silent leader was left because it was silent, and not
// when the connection to it broke, which gRPC's keep-alive does after 15 s. What
// the shard's replicas needed for their next leader tells how slow the machine is.
func (x *silence) prompt(elected, took time.Duration) {
	x.t.Helper()
	if most := 2*elected + silentTimeout + 5*time.Second; took > most {
		x.t.Errorf("all goes on after %v, want at most %v: the next leader was there after %v", took, most, elected)
	}
}

// elected returns when another than the silent node leads the shard.
func (x *silence) elected() {
	x.t.Helper()
	eventually(x.t, "another leader", func() error {
		if !x.isElected() {
			return errNoLeader
		}
		return nil
	})
}

func (x *silence) isElected() bool {
	return slices.ContainsFunc(x.homes[1:], func(name string) bool { return x.c.node(name).group(1).leads() })
}
