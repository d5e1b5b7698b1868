package cluster

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// testDisk is a disk that can hang, be slow and be full. Safe for concurrent
// use.
type testDisk struct {
	mu    sync.Mutex
	hangs chan struct{} // closed when it answers again; nil while it does
	slow  time.Duration
	free  uint64 // 0: plenty
}

func (d *testDisk) hooks() *DiskHooks {
	return &DiskHooks{BeforeSync: d.sync, Free: func() (uint64, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.free == 0 {
			return 1 << 40, nil
		}
		return d.free, nil
	}}
}

func (d *testDisk) sync(string) {
	d.mu.Lock()
	hangs, slow := d.hangs, d.slow
	d.mu.Unlock()
	if hangs != nil {
		<-hangs
	}
	time.Sleep(slow)
}

func (d *testDisk) hang() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hangs == nil {
		d.hangs = make(chan struct{})
	}
}

// heal ends what a test has done to the disk.
func (d *testDisk) heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hangs != nil {
		close(d.hangs)
	}
	d.hangs, d.slow, d.free = nil, 0, 0
}

func (d *testDisk) setSlow(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.slow = by
}

func (d *testDisk) setFree(bytes uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free = bytes
}

// disk is the disk of a node, which outlives it.
func (c *testCluster) disk(name string) *testDisk {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.disks[name]
	if d == nil {
		d = &testDisk{}
		if c.disks == nil {
			c.disks = make(map[string]*testDisk)
		}
		c.disks[name] = d
	}
	return d
}

func (c *testCluster) healDisks() {
	for _, name := range c.names {
		c.disk(name).heal()
	}
}

// unready wants a node to say why it is not ready.
func unready(n *testNode, reason string) error {
	err := n.Ready()
	if err == nil {
		return errors.New("it is ready")
	}
	if !strings.Contains(err.Error(), reason) {
		return err
	}
	return nil
}

// A leader's disk hangs and fails nothing; its heartbeats go on. The others
// take over what it leads, its clients go, and when the disk answers again it
// comes back by itself: nothing is lost, nothing twice.
func TestScenarioDiskHangs(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioDiskHangs)
}

func testScenarioDiskHangs(t *testing.T, size int) {
	c := newSized(t, size, 2)
	defer c.healDisks()
	for id := range uint32(3) {
		c.lead(id, "n1")
	}
	sub := c.at("n3").open(t, c.clientIn(1, "sub"), true, 1000)
	sub.subscribe("a/#", 1)
	pub := c.at("n2").open(t, "pub", true, 0)
	stranded := c.node("n1").open(t, "stranded", true, 1000)
	pub.publish("a/b", 1, "0")

	c.disk("n1").hang()
	var want []string
	for i := range 200 {
		want = append(want, fmt.Sprint(i))
		if i > 0 {
			pub.publish("a/b", 1, fmt.Sprint(i))
		}
	}
	sub.expect(want...)
	eventually(t, "n1 is unready", func() error { return unready(c.node("n1"), "disk") })
	wait(t, "the clients of n1 go", stranded.lost)
	fresh := c.at("n2").open(t, c.clientIn(2, "fresh"), true, 1000)
	fresh.subscribe("c", 1)
	fresh.publish("c", 1, "x")
	fresh.expect("x")

	c.disk("n1").heal()
	c.ready()
	again := c.node("n1").open(t, "stranded", false, 1000)
	again.subscribe("d", 1)
	pub.publish("d", 1, "y")
	again.expect("y")
}

// A disk with fsyncs that take long is slow, not dead: all goes on, slowly, and
// nobody is fenced.
func TestScenarioSlowDisk(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioSlowDisk)
}

func testScenarioSlowDisk(t *testing.T, size int) {
	c := newSized(t, size, 1)
	defer c.healDisks()
	c.lead(0, "n1")
	c.lead(1, "n1")
	sub := c.at("n1").open(t, "sub", true, 1000)
	sub.subscribe("a", 1)
	fences := c.node("n1").fenceNumber()
	c.disk("n1").setSlow(time.Second)
	for i := range 5 {
		sub.publish("a", 1, fmt.Sprint(i))
	}
	sub.expect("0", "1", "2", "3", "4")
	if !c.node("n1").watch.isSlow() {
		t.Error("n1 does not know that its disk is slow")
	}
	for _, n := range c.up() {
		if err := n.Ready(); err != nil {
			t.Errorf("%s: %v", n.config.NodeID, err)
		}
		if now := n.fenceNumber(); now != fences {
			t.Errorf("%s: fence number %d, was %d", n.config.NodeID, now, fences)
		}
	}
}

// Before a disk is full its node leads nothing, takes no publishes of QoS ≥ 1
// and says why; it comes back when there is room.
func TestScenarioLowSpace(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioLowSpace)
}

func testScenarioLowSpace(t *testing.T, size int) {
	c := newSized(t, size, 2)
	defer c.healDisks()
	for id := range uint32(3) {
		c.lead(id, "n1")
	}
	here := c.node("n1").open(t, "here", true, 1000)
	here.subscribe("a", 1)
	pub := c.at("n2").open(t, "pub", true, 0)
	c.disk("n1").setFree(testMinFree - 1)
	eventually(t, "n1 is unready", func() error { return unready(c.node("n1"), "low disk space") })
	if err := wait(t, "publish", here.publishing("a", 1, "refused")); err == nil {
		t.Error("a publish of QoS 1 was taken")
	}
	eventually(t, "n1 leads nothing", func() error {
		for _, g := range c.node("n1").allGroups() {
			if g.leads() {
				return fmt.Errorf("it leads %s", g.name)
			}
		}
		return nil
	})
	pub.publish("a", 1, "taken")
	here.expect("taken") // who is there goes on receiving
	c.disk("n1").setFree(testMinFree + 1)
	c.node("n1").watch.lookSpace()
	if err := unready(c.node("n1"), "low disk space"); err != nil {
		t.Errorf("just above the bound: %v", err)
	}
	c.disk("n1").heal()
	c.ready()
	here.publish("a", 1, "again")
	here.expect("taken", "again")
}

// Two of three disks hang: nothing is acknowledged, and all goes on when they
// answer again; what was acknowledged is there.
func TestScenarioTwoDisksHang(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioTwoDisksHang)
}

func testScenarioTwoDisksHang(t *testing.T, size int) {
	c := newSized(t, size, 1)
	defer c.healDisks()
	sub := c.at("n1").open(t, "sub", true, 1000)
	sub.subscribe("a", 1)
	pub := c.at("n3").open(t, "pub", true, 1000)
	pub.publish("a", 1, "before")
	c.disk("n1").hang()
	c.disk("n2").hang()
	late := pub.publishing("a", 1, "late")
	for _, n := range c.up() {
		if size == 5 && n.config.NodeID != "n1" && n.config.NodeID != "n2" {
			continue // the directory has its quorum
		}
		eventually(t, n.config.NodeID+" is unready", func() error {
			if n.Ready() == nil {
				return errors.New("it is ready")
			}
			return nil
		})
	}
	select {
	case err := <-late:
		if err == nil {
			t.Error("acknowledged by one disk of three")
		}
	default:
	}
	c.healDisks()
	c.ready()
	again := c.at("n2").open(t, "sub", false, 1000)
	if !again.opened.Present {
		t.Error("the session is gone")
	}
	next := c.at("n3").open(t, "pub2", true, 0)
	next.publish("a", 1, "after")
	eventually(t, "what was acknowledged comes", func() error {
		got := append(sub.in.payloads(), again.in.payloads()...)
		if len(got) == 0 || got[0] != "before" || got[len(got)-1] != "after" {
			return fmt.Errorf("got %q", got)
		}
		return nil
	})
}

// The disk of a node that leads nothing hangs: what waits for its copy of the
// directory waits no longer than until its lease is over.
func TestScenarioFollowersDiskHangs(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioFollowersDiskHangs)
}

func testScenarioFollowersDiskHangs(t *testing.T, size int) {
	c := newSized(t, size, 1)
	defer c.healDisks()
	c.lead(0, "n1")
	c.lead(1, "n2")
	c.disk("n3").hang()
	for i := range 3 {
		x := c.at("n1").open(t, fmt.Sprint("x", i), true, 1000)
		x.subscribe(fmt.Sprint("a", i), 1)
		x.publish(fmt.Sprint("a", i), 1, "1")
		x.expect("1")
	}
	eventually(t, "n3 is unready", func() error { return unready(c.node("n3"), "disk") })
	c.disk("n3").heal()
	c.ready()
}
