package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metricOf is a metric of a node with this value of the label, 0 if there is
// none; of histograms the number of observations.
func metricOf(t *testing.T, n *testNode, name, label, value string) (sum float64) {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(&collector{n: n.Node})
	r.MustRegister(n.metrics.delays.collectors()...)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			match := label == ""
			for _, l := range m.GetLabel() {
				match = match || l.GetName() == label && l.GetValue() == value
			}
			if match {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

// A node that is not heard is named by the leaders that wait for it, and a
// leader by those whose batches it owes.
func TestDelaysNameTheNode(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 1)
	defer c.healDisks()
	c.lead(0, "n1")
	c.lead(1, "n2")
	x := c.node("n1").open(t, c.clientIn(1, "x"), true, 1000)
	x.subscribe("a", 1)
	x.publish("a", 1, "1")
	x.expect("1")
	for name, on := range map[string]string{"shoal_commit_seconds": "n2", "shoal_disk_commit_seconds": "n3", "shoal_visible_seconds": "n1"} {
		if metricOf(t, c.node(on), name, "", "") == 0 {
			t.Errorf("%s has counted nothing on %s", name, on)
		}
	}
	c.net.freeze("n3")
	x.publish("a", 1, "2")
	x.expect("1", "2")
	eventually(t, "n2 says that it does not hear n3", func() error {
		silent, lag := metricOf(t, c.node("n2"), "shoal_raft_follower_silent_seconds", "node", "n3"), metricOf(t, c.node("n2"), "shoal_raft_follower_lag_entries", "node", "n3")
		if silent < 1 || lag < 1 {
			return fmt.Errorf("%v s, %v entries", silent, lag)
		}
		return nil
	})
	if slow := strings.Join(c.node("n2").Status().Slow, "\n"); !strings.Contains(slow, "shard-1: nothing has been heard of n3") {
		t.Errorf("the status of n2 says %q", slow)
	}
	c.net.rejoin("n3")
	c.ready()
	leader := c.leader(1)
	c.disk(leader).setSlow(time.Second)
	done := x.publishing("a", 1, "3")
	eventually(t, "n1 says that it waits for the leader", func() error {
		if s := metricOf(t, c.node("n1"), "shoal_stream_wait_seconds", "group", "shard-1"); s < .3 {
			return fmt.Errorf("%v s", s)
		}
		return nil
	})
	if err := wait(t, "publish", done); err != nil {
		t.Error(err)
	}
	eventually(t, "the disk is named", func() error {
		if metricOf(t, c.node(leader), "shoal_disk_slow", "", "") != 1 {
			return errNoLeader
		}
		return nil
	})
}
