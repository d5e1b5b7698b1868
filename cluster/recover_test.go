package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRecover loses two of three nodes for good and makes a cluster of the third.
// Its durable sessions go on with what they were owed; the lost nodes' disks are
// refused; as empty nodes they join.
func TestRecover(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 3)
	var subs []*device
	pub := newDevice(c, "pub")
	c.must(pub.stay("n1"))
	for _, id := range []string{"sub-a", "sub-b", "sub-c", "sub-d"} {
		d := newDevice(c, id)
		c.must(d.stay("n2"))
		c.must(d.subscribe("a/+", 2))
		d.hangUp()
		subs = append(subs, d)
	}
	var want []string
	for _, payload := range []string{"one", "two", "three"} {
		m := pub.publish("a/b", 2, payload)
		wait(t, payload+" is taken", m.acked)
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
		c.must(d.stay("n3"))
		d.expect(want...)
	}
	c.must(pub.stay("n3"))
	wait(t, "a publish is taken", pub.publish("a/b", 2, "four").acked)
	want = append(want, "four")
	for _, d := range subs[:2] {
		d.expect(want...)
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
	for _, d := range subs[2:] {
		c.must(d.stay("n1"))
		d.expect(want...)
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
