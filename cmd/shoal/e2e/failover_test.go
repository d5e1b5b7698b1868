package e2e

import (
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
	rng := rand.New(rand.NewPCG(1, 12))
	var all []time.Duration
	for i := range kills {
		c.awaitReady()
		awaitLeaders(t, c)
		n := c.nodes[rng.IntN(len(c.nodes))]
		if !leadsShard(t, n) {
			continue
		}
		all = append(all, failover(t, c, n, i)...)
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
// acknowledge. One client for each shard publishes to itself, on another node.
func failover(t *testing.T, c *cluster, n *node, round int) (took []time.Duration) {
	s, err := n.status()
	if err != nil {
		t.Fatal(err)
	}
	led := map[string]bool{}
	for _, g := range s.Groups {
		if g.State == "Leader" && g.Group != "directory" {
			led[g.Group] = true
		}
	}
	others := slices.DeleteFunc(c.addrs(), func(a string) bool { return a == n.mqtt })
	clients := shardClients(t, c, others, led, round)
	n.kill()
	killed := time.Now()
	var mu sync.Mutex
	var tasks sync.WaitGroup
	for _, p := range clients {
		tasks.Go(func() {
			m := packet.Publish{Topic: []byte("failover/" + p.connect.ClientID), Payload: []byte("x"), QoS: packet.QoS1}
			if err := p.publish(m, nil); err != nil {
				t.Error(err)
			}
			mu.Lock()
			took = append(took, time.Since(killed))
			mu.Unlock()
		})
	}
	tasks.Wait()
	for _, p := range clients {
		p.connect.CleanStart, p.connect.HasSessionExpiry = true, false
		p.offline()
		if p.online() == nil {
			p.leave()
		}
	}
	return took
}

// shardClients returns a durable client for each of the shards named, subscribed
// to a topic of its own: what is published there has to be committed in its
// shard. It finds them by trying names and looking which shard has one more
// session.
func shardClients(t *testing.T, c *cluster, at []string, shards map[string]bool, round int) (clients []*person) {
	t.Helper()
	n := c.byAddr(at[0])
	sessions := func() map[string]int {
		s, err := n.status()
		if err != nil {
			t.Fatal(err)
		}
		by := map[string]int{}
		for _, g := range s.Groups {
			by[g.Group] = g.Sessions
		}
		return by
	}
	want := len(shards)
	found := map[string]bool{}
	for i := 0; len(clients) < want && i < 200; i++ {
		before := sessions()
		name := fmt.Sprintf("failover-%d-%d", round, i)
		p := newPerson(at, 0, packet.Connect{ClientID: name, HasSessionExpiry: true, SessionExpiry: 600})
		if err := p.online(); err != nil {
			t.Fatal(err)
		}
		if err := p.subscribe(func(*packet.Publish) {}, packet.Subscription{Filter: "failover/" + name, QoS: packet.QoS1}); err != nil {
			t.Fatal(err)
		}
		group := ""
		eventually(t, "the new session", func() error {
			for g, count := range sessions() {
				if count > before[g] {
					group = g
					return nil
				}
			}
			return fmt.Errorf("in no shard")
		})
		if shards[group] && !found[group] {
			found[group] = true
			clients = append(clients, p)
			continue
		}
		p.connect.CleanStart, p.connect.HasSessionExpiry = true, false
		p.offline()
		if p.online() == nil {
			p.leave()
		}
	}
	return clients
}

// byAddr returns the node with that MQTT address.
func (c *cluster) byAddr(addr string) *node {
	for _, n := range c.nodes {
		if n.mqtt == addr {
			return n
		}
	}
	c.t.Fatalf("no node at %s", addr)
	return nil
}

func leadsShard(t *testing.T, n *node) bool {
	s, err := n.status()
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(s.Groups, func(g groupStatus) bool { return g.State == "Leader" && g.Group != "directory" })
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
