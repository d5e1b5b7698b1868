package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/cluster/raftnet"
)

// TestRecover loses two of three nodes for good and makes a cluster of the third.
// Its durable sessions go on with what they were owed; the lost nodes' disks are
// refused; as empty nodes they join.
func TestRecover(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 3)
	var subs []*device
	pub := newDevice(c, "pub")
	for _, id := range []string{"sub-a", "sub-b", "sub-c", "sub-d"} {
		d := newDevice(c, id)
		d.subscribes("a/+", 2, "n2")
		d.hangUp()
		subs = append(subs, d)
	}
	var want []string
	shared := newDevice(c, "shared")
	shared.subscribes("$share/g/a/+", 1, "n2")
	shared.hangUp()
	for _, payload := range []string{"one", "two", "three"} {
		pub.publishes("a/b", 2, payload, "n1")
		want = append(want, payload)
	}
	pub.hangUp()
	c.settled()
	for _, name := range c.names {
		c.kill(name)
	}
	r, err := Recover(filepath.Join(c.dir, "n3"), nil)
	if err != nil || len(r.Kept) != 3 || len(r.Lost) != 0 {
		t.Fatalf("recovered %+v: %v", r, err)
	}
	n3 := c.start("n3")
	eventually(t, "n3 is ready", n3.Ready)
	if now := n3.clusterID(); now != r.ClusterID || now == r.Former {
		t.Errorf("the cluster is %s, recovered %+v", now, r)
	}
	for _, d := range subs[:2] {
		d.gets("n3", want...)
	}
	pub.publishes("a/b", 2, "four", "n3")
	want = append(want, "four")
	for _, d := range subs[:2] {
		d.gets("n3", want...)
	}
	// A disk of the former cluster stays outside.
	n1 := c.start("n1")
	pause(context.Background(), 30*retryDelay)
	if err := n1.Ready(); err == nil || n1.clusterID() != r.Former {
		t.Errorf("n1 is ready (%v) in cluster %s", err, n1.clusterID())
	}
	c.kill("n1")
	for _, name := range []string{"n1", "n2"} {
		c.must(os.RemoveAll(filepath.Join(c.dir, name)))
		c.start(name)
	}
	c.ready()
	c.placed(3, 3, "n1", "n2", "n3")
	for _, d := range append(subs[2:], shared) {
		d.gets("n1", want...)
	}
}

// TestRecoverRefuses what is no disk of a cluster.
func TestRecoverRefuses(t *testing.T) {
	if _, err := Recover(filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	c := newScenario(t, 1, 1)
	if _, err := Recover(filepath.Join(c.dir, "n1"), nil); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a running node: %v", err)
	}
}

// TestRecoverFromCopiesOfDifferentAge recovers from a disk on which one shard is
// older than the other, so that each has forgotten, or knows more of, what they
// sent to each other. What is published afterwards arrives all the same.
func TestRecoverFromCopiesOfDifferentAge(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 2)
	for id := range uint32(3) {
		c.lead(id, "n1")
	}
	var pubs, subs []*device
	for shard := uint32(1); shard <= 2; shard++ {
		sub, pub := newDevice(c, c.clientIn(shard, "sub")), newDevice(c, c.clientIn(shard, "pub"))
		sub.subscribes("a/+", 2, "n1")
		subs, pubs = append(subs, sub), append(pubs, pub)
	}
	publish := func(what string, count int, nodes ...string) (payloads []string) {
		for i := range count {
			for _, pub := range pubs {
				payload := fmt.Sprint(what, " ", i, " of ", pub.id)
				pub.publishes("a/b", 2, payload, nodes...)
				payloads = append(payloads, payload)
			}
		}
		return payloads
	}
	publish("before", 3, "n1", "n2")
	c.settled()
	c.net.filter(func(m raftnet.Message) (<-chan struct{}, bool) {
		return nil, m.Group == 1 && (strings.HasPrefix(m.To, "n3/") || strings.HasPrefix(m.From, "n3/"))
	})
	publish("forgotten by one", 5, "n1", "n2")
	eventually(t, "n3 has the second shard", func() error {
		if a, b := c.node("n1").group(2).applied(), c.node("n3").group(2).applied(); a != b {
			return fmt.Errorf("applied %d and %d", a, b)
		}
		return nil
	})
	for _, d := range append(subs, pubs...) {
		d.hangUp()
	}
	for _, name := range c.names {
		c.kill(name)
	}
	c.net.heal()
	if _, err := Recover(filepath.Join(c.dir, "n3"), nil); err != nil {
		t.Fatal(err)
	}
	n3 := c.start("n3")
	eventually(t, "n3 is ready", n3.Ready)
	for _, sub := range subs {
		c.must(sub.stay("n3"))
	}
	want := publish("after", 10, "n3")
	late := newDevice(c, c.clientIn(1, "late"))
	late.subscribes("a/+", 1, "n3")
	want = append(want, publish("last", 1, "n3")...)
	for _, sub := range subs {
		eventually(t, sub.id+" gets what came after", func() error {
			if !sub.connected() {
				c.must(sub.stay("n3"))
			}
			got, _ := sub.payloads()
			for _, payload := range want {
				if !slices.Contains(got, payload) {
					return fmt.Errorf("%q has not come", payload)
				}
			}
			return nil
		})
	}
}

// TestRecoverWithLostShards recovers from a disk that has some of the shards: the
// others begin empty.
func TestRecoverWithLostShards(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 4)
	c.grow("n4")
	c.ready()
	c.operate("rebalance", "", false)
	c.placed(3, 3, "n1", "n2", "n3", "n4")
	for shard := uint32(1); shard <= 4; shard++ { // streams between all shards
		pub, sub := newDevice(c, c.clientIn(shard, "pub")), newDevice(c, c.clientIn(shard, "former"))
		sub.subscribes("a", 2, "n1")
		for range 3 {
			pub.publishes("a", 2, "before", "n1")
		}
		pub.hangUp()
	}
	for _, name := range c.names {
		c.kill(name)
	}
	r, err := Recover(filepath.Join(c.dir, "n4"), nil)
	if err != nil || len(r.Kept) != 3 || len(r.Lost) != 1 {
		t.Fatalf("recovered %+v: %v", r, err)
	}
	n4 := c.start("n4")
	eventually(t, "n4 is ready", n4.Ready)
	var subs []*device
	for shard := uint32(1); shard <= 4; shard++ {
		sub := newDevice(c, c.clientIn(shard, "sub"))
		sub.subscribes("a", 1, "n4")
		subs = append(subs, sub)
	}
	for shard := uint32(1); shard <= 4; shard++ { // whose publisher's session may be lost
		pub := newDevice(c, c.clientIn(shard, "again"))
		pub.publishes("a", 2, pub.id, "n4")
	}
	for _, sub := range subs {
		eventually(t, "all shards get what comes from all shards", func() error {
			if !sub.connected() {
				c.must(sub.stay("n4"))
			}
			if got, faults := sub.payloads(); len(got) != 4 || len(faults) > 0 {
				return fmt.Errorf("got %q, %q", got, faults)
			}
			return nil
		})
	}
	c.placed(1, 1, "n4")
}
