package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

// TestFailover measures, for make bench: from kill -9 of a node to the first
// acknowledgement of each publisher to a shard that it led. SHOAL_FAILOVERS says
// how many kills (50).
func TestFailover(t *testing.T) {
	if os.Getenv("SHOAL_BENCH") == "" {
		t.Skip("measurements are for make bench (SHOAL_BENCH=1)")
	}
	kills := 50
	if s := os.Getenv("SHOAL_FAILOVERS"); s != "" {
		kills, _ = strconv.Atoi(s)
	}
	c := startCluster(t, 6)
	clients := shardClients(t, c)
	rng := rand.New(rand.NewPCG(1, 12))
	var all []time.Duration
	for range kills {
		c.awaitReady()
		awaitLeaders(t, c)
		n := c.nodes[rng.IntN(len(c.nodes))]
		all = append(all, failover(t, c, n, clients)...)
		n.start()
	}
	slices.Sort(all)
	at := func(p float64) time.Duration { return all[int(p*float64(len(all)-1))].Round(time.Millisecond) }
	line := fmt.Sprintf("failover, kill -9 to PUBACK at QoS 1 of the dead leader's shards, %d kills, %d shards: p50 %v, p99 %v, most %v",
		kills, len(all), at(.5), at(.99), at(1))
	t.Log(line)
	fmt.Println(line)
}

// failover kills n and returns how long each shard that it led did not
// acknowledge. The client of each shard publishes to itself, on another node.
func failover(t *testing.T, c *cluster, n *node, clients map[string]*person) (took []time.Duration) {
	t.Helper()
	s, err := n.status()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var tasks sync.WaitGroup
	others := slices.DeleteFunc(c.addrs(), func(a string) bool { return a == n.mqtt })
	var moved []*person
	for _, g := range s.Groups {
		if p := clients[g.Group]; p != nil && g.State == "Leader" {
			p.offline()
			p.nodes = others
			if err := p.online(); err != nil {
				t.Fatal(err)
			}
			moved = append(moved, p)
		}
	}
	n.kill()
	killed := time.Now()
	for _, p := range moved {
		tasks.Go(func() {
			m := packet.Publish{Topic: []byte("failover/" + p.connect.ClientID), Payload: []byte("x"), QoS: packet.QoS1}
			if err := p.publish(m, nil); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(killed))
		})
	}
	tasks.Wait()
	return took
}

// shardClients returns a durable client for each shard, subscribed to a topic of
// its own: what is published there has to be committed in its shard. It finds
// them by trying names and looking which shard has one more session.
func shardClients(t *testing.T, c *cluster) map[string]*person {
	t.Helper()
	sessions := func() map[string]int {
		s, err := c.nodes[0].status()
		if err != nil {
			t.Fatal(err)
		}
		by := map[string]int{}
		for _, g := range s.Groups {
			if g.Group != "directory" {
				by[g.Group] = g.Sessions
			}
		}
		return by
	}
	clients := map[string]*person{}
	for i := 0; len(clients) < len(sessions()); i++ {
		before := sessions()
		name := fmt.Sprint("failover-", i)
		p := newPerson(c.addrs(), 0, packet.Connect{ClientID: name, HasSessionExpiry: true, SessionExpiry: 3600})
		if err := p.online(); err != nil {
			t.Fatal(err)
		}
		if err := p.subscribe(func(*packet.Publish) {}, packet.Subscription{Filter: "failover/" + name, QoS: packet.QoS1}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the new session", func() error {
			for g, count := range sessions() {
				if count > before[g] {
					clients[g] = p
					return nil
				}
			}
			return errors.New("in no shard")
		})
	}
	return clients
}

// awaitLeaders waits until each group has a leader that all nodes know.
func awaitLeaders(t *testing.T, c *cluster) {
	t.Helper()
	eventually(t, "leaders of all groups", func() error {
		leaders := map[string]string{}
		for _, n := range c.nodes {
			s, err := n.status()
			if err != nil {
				return err
			}
			for _, g := range s.Groups {
				if known, ok := leaders[g.Group]; g.Leader == "" || ok && known != g.Leader {
					return fmt.Errorf("%s: node %s takes %q for the leader", g.Group, n.name, g.Leader)
				}
				leaders[g.Group] = g.Leader
			}
		}
		return nil
	})
}
