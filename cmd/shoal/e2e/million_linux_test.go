package e2e

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

// TestMoveMeasure measures, for make bench, what a million queued messages add to
// the replacement of a disk: a node is killed, its data directory deleted, and it
// starts again. And what they take in memory, by the budget.
func TestMoveMeasure(t *testing.T) {
	if os.Getenv("SHOAL_BENCH") == "" {
		t.Skip("measurements are for make bench (SHOAL_BENCH=1)")
	}
	for _, budget := range []string{"512MiB", "64MiB"} {
		t.Run(budget, func(t *testing.T) { measureMove(t, budget) })
	}
}

func measureMove(t *testing.T, budget string) {
	const sessions, each, size = 10, 100_000, 256
	c := newCluster(t, 6, t.TempDir())
	for _, n := range c.nodes {
		n.flags = append(n.flags, "--queue-memory="+budget)
	}
	c.start()
	c.awaitReady()
	for i := range sessions {
		p := newPerson(c.addrs(), i, packet.Connect{ClientID: fmt.Sprint("million-", i), HasSessionExpiry: true, SessionExpiry: 86400})
		must(t, p.online())
		must(t, p.subscribe(nil, packet.Subscription{Filter: fmt.Sprint("million/", i), QoS: 1}))
		p.leave()
	}
	begin := time.Now()
	var tasks sync.WaitGroup
	for i := range sessions {
		tasks.Go(func() { fillQueue(t, c, i, each, size) })
	}
	tasks.Wait()
	if t.Failed() {
		return
	}
	stored := time.Since(begin)
	n := c.nodes[2]
	rss := rssBytes(t, c.nodes[0].pid())
	n.kill()
	must(t, os.RemoveAll(n.dir))
	begin = time.Now()
	n.start()
	c.awaitReady()
	ready := time.Since(begin)
	c.awaitPlaces(3, []string{"a", "b", "c"}, nil)
	line := fmt.Sprintf("queue-memory "+budget+", 1,000,000 queued messages of %d B: stored in %v (3 processes, RSS of one %d MB); a wiped node serves after %v and has all replicas after %v",
		size, stored.Round(time.Millisecond), rss>>20, ready.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
	t.Log(line)
	fmt.Println(line)
}

// fillQueue publishes at QoS 1 to a session that is away.
func fillQueue(t *testing.T, c *cluster, i, count, size int) {
	p := newPerson(c.addrs(), i, packet.Connect{ClientID: fmt.Sprint("filler-", i), CleanStart: true})
	if err := p.online(); err != nil {
		t.Error(err)
		return
	}
	defer p.offline()
	const window = 1000
	waiting := 0
	payload := make([]byte, size)
	for k := 0; k < count || waiting > 0; {
		for k < count && waiting < window {
			p.conn.Send(&packet.Publish{Topic: fmt.Append(nil, "million/", i), Payload: payload, QoS: 1, PacketID: p.next()})
			waiting++
			k++
		}
		x, err := p.conn.Receive(patience)
		if err != nil {
			t.Error(err)
			return
		}
		if ack, ok := x.(*packet.Ack); ok {
			waiting--
			if ack.Code.Failed() {
				t.Errorf("PUBACK: %s", ack.Code)
				return
			}
		}
	}
}
