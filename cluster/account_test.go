package cluster

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// sumOf is a metric's sum over registries, of the samples with a label value.
func sumOf(t *testing.T, all []*prometheus.Registry, name, value string) (sum float64) {
	t.Helper()
	for _, r := range all {
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() != name {
				continue
			}
			for _, m := range f.GetMetric() {
				if l := m.GetLabel(); value == "" || l[len(l)-1].GetValue() == value {
					sum += m.GetCounter().GetValue()
				}
			}
		}
	}
	return sum
}

// TestQueuePolicies: three clients that are away, each with another policy, and
// room for four messages. What each loses is counted once in the cluster, and
// the publisher is told of the one that rejects.
func TestQueuePolicies(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var registries []*prometheus.Registry
	c := startCluster(t, 3, 2, nil, func(c *Config) {
		r := prometheus.NewRegistry()
		c.Metrics = r
		mu.Lock()
		registries = append(registries, r)
		mu.Unlock()
	})
	n := c.node("n1")
	away := func(policy shoalpb.QueuePolicy) {
		x := &client{t: t, n: n, in: newInbox(), superseded: make(chan struct{}, 16), lost: make(chan struct{}, 16)}
		done := make(chan error, 1)
		n.Open(session.OpenRequest{
			Client: policy.String(), ExpirySeconds: 3600, Window: 32,
			Queue: &shoalpb.QueueLimits{Messages: 4, Policy: policy},
		}, x, func(l session.Link, o session.Opened, err error) {
			x.link, x.opened = l, o
			done <- err
		})
		if err := wait(t, "open", done); err != nil {
			t.Fatal(err)
		}
		x.subscribe("t", 1)
		x.link.Close(session.CloseRequest{})
	}
	policies := []shoalpb.QueuePolicy{
		shoalpb.QueuePolicy_QUEUE_POLICY_DROP_OLDEST, shoalpb.QueuePolicy_QUEUE_POLICY_DROP_NEW, shoalpb.QueuePolicy_QUEUE_POLICY_REJECT,
	}
	for _, policy := range policies {
		away(policy)
	}
	p := n.open(t, "publisher", true, 0)
	for i := range 6 {
		err := wait(t, "publish", p.publishing("t", 1, fmt.Sprint(i)))
		if full := i >= 4; full != errors.Is(err, session.ErrQueueFull) || !full && err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	for i, want := range [][]string{{"2", "3", "4", "5"}, {"0", "1", "2", "3"}, {"0", "1", "2", "3"}} {
		c.node(c.names[i]).open(t, policies[i].String(), false, 3600).expect(want...)
	}
	eventually(t, "accounts", func() error {
		for reason, want := range map[string]float64{"dropped_oldest": 2, "queue_full": 2, "rejected": 2, "expired": 0} {
			if got := sumOf(t, registries, "shoal_shard_messages_dropped_total", reason); got != want {
				return fmt.Errorf("%s: %v, not %v", reason, got, want)
			}
		}
		enqueued := sumOf(t, registries, "shoal_shard_messages_enqueued_total", "")
		acked := sumOf(t, registries, "shoal_shard_messages_acked_total", "")
		if enqueued != 14 || acked != 12 {
			return fmt.Errorf("%v enqueued, %v acknowledged", enqueued, acked)
		}
		return nil
	})
}
