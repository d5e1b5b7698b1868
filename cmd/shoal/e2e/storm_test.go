package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

// storm is many clients that connect as fast as they can, again and again: a
// fleet after a power cut.
type storm struct {
	tried, served, refused, failed atomic.Int64
	wg                             sync.WaitGroup
}

// rage has workers connect, rate times a second altogether at most, until ctx
// ends.
func (s *storm) rage(ctx context.Context, addrs []string, workers, rate int) {
	begin := time.Now()
	for w := range workers {
		s.wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				n := s.tried.Add(1)
				due := begin.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
				select {
				case <-time.After(time.Until(due)):
				case <-ctx.Done():
					return
				}
				s.connect(addrs[(w+i)%len(addrs)], fmt.Sprintf("storm-%d", n))
			}
		})
	}
}

// connect connects once, as a client without patience, and hangs up.
func (s *storm) connect(addr, id string) {
	nc, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		s.failed.Add(1)
		return
	}
	nc.(*net.TCPConn).SetLinger(0) // no port waits for this connection to be forgotten
	defer nc.Close()
	p := packet.Connect{ClientID: id, CleanStart: true}
	nc.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := nc.Write(p.Append(nil, packet.V311)); err != nil {
		s.failed.Add(1)
		return
	}
	var ack [4]byte
	switch n, _ := nc.Read(ack[:]); {
	case n == 4 && ack[0] == 0x20 && ack[3] == 0:
		s.served.Add(1)
	case n == 4 && ack[0] == 0x20:
		s.refused.Add(1)
	default:
		s.failed.Add(1)
	}
}

// terms are the terms of all groups, once every group is led by the first of
// its replicas: before that leaderships are given away on purpose.
func terms(c *cluster) map[string]uint64 {
	c.t.Helper()
	var all map[string]uint64
	eventually(c.t, "leaders are where they belong", func() error {
		all = make(map[string]uint64)
		for _, n := range c.nodes {
			s, err := n.status()
			if err != nil {
				return err
			}
			for _, g := range s.Groups {
				if g.Group != "directory" && !strings.HasPrefix(g.Replicas[0], g.Leader+" ") {
					return errors.New(g.Group + " is led by " + g.Leader)
				}
				all[n.name+" "+g.Group] = g.Term
			}
		}
		return nil
	})
	return all
}

// stormTries is how many storms may be ill: on a slow machine an election may
// come for other reasons, but not in every storm.
const stormTries = 3

// TestConnectStorm: ten thousand CONNECTs a second are served or refused, and
// what the cluster does otherwise goes on: no group has an election, and those
// who are connected are served.
func TestConnectStorm(t *testing.T) {
	c := startCluster(t, 3)
	l := startLoad(t, c, loadConfig{seed: 1, window: 30, pace: 5 * time.Millisecond})
	awaitAcked(l, 500)
	for try := 1; ; try++ {
		err := weather(t, c, l)
		if err == nil {
			break
		}
		if t.Log(err); try == stormTries {
			t.Errorf("none of %d storms was without that", try)
			break
		}
	}
	awaitAcked(l, l.ackedNow()+500)
	l.finish()
}

// weather lets a storm rage, and tells what it has done to the cluster.
func weather(t *testing.T, c *cluster, l *load) error {
	t.Helper()
	before, fenced, calm := terms(c), fences(c), l.ackedNow()
	s := &storm{}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	begin := time.Now()
	s.rage(ctx, c.addrs(), 3000, 10_000)
	s.wg.Wait()
	took := time.Since(begin).Seconds()
	t.Logf("per second: %.0f tried, %.0f served, %.0f refused, %.0f gave up; %.0f publishes acknowledged",
		float64(s.tried.Load())/took, float64(s.served.Load())/took, float64(s.refused.Load())/took, float64(s.failed.Load())/took,
		float64(l.ackedNow()-calm)/took)
	if s.served.Load() == 0 {
		return errors.New("nobody was served")
	}
	if after := terms(c); !maps.Equal(before, after) {
		return fmt.Errorf("terms were %v, are %v", before, after)
	}
	if after := fences(c); after != fenced {
		return fmt.Errorf("%v processes were fenced", after-fenced)
	}
	return nil
}

// fences counts the processes that were fenced.
func fences(c *cluster) (sum float64) {
	for _, n := range c.nodes {
		sum += n.metric("shoal_cluster_fenced_total")
	}
	return sum
}
