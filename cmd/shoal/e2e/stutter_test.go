package e2e

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// stutter stops the node's process and lets it run, in turn, until end is called,
// which leaves it running.
func (n *node) stutter(stop, run time.Duration) (end func()) {
	var wg sync.WaitGroup
	var over atomic.Bool
	p := n.process.Process
	wg.Go(func() {
		for !over.Load() {
			p.Signal(syscall.SIGSTOP)
			time.Sleep(stop)
			p.Signal(syscall.SIGCONT)
			time.Sleep(run)
		}
	})
	return sync.OnceFunc(func() {
		over.Store(true)
		wg.Wait()
	})
}

// TestDirectoryLeaderStutters is scenario 53: a directory's leader that is stopped
// for 0.9 s of each second loses its place to another node and does not come back
// to it, and a node that is killed meanwhile is fenced.
func TestDirectoryLeaderStutters(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		size      int
		stop, run time.Duration
	}{
		{3, 900 * time.Millisecond, 100 * time.Millisecond},
		{5, 900 * time.Millisecond, 100 * time.Millisecond},
		{3, 650 * time.Millisecond, 350 * time.Millisecond},
		{3, 400 * time.Millisecond, 100 * time.Millisecond},
	} {
		t.Run(fmt.Sprintf("%d nodes, %v of %v", c.size, c.stop, c.stop+c.run), func(t *testing.T) {
			size, stop, run := c.size, c.stop, c.run
			dir := t.TempDir()
			c := newCluster(t, 2, dir)
			c.start()
			c.awaitReady()
			for _, name := range []string{"d", "e"}[:size-3] {
				c.grow(name, dir)
			}
			c.awaitReady()
			if size == 5 {
				c.awaitVoters(size)
			}
			first := c.leader("directory")
			rest := slices.DeleteFunc(slices.Clone(c.nodes), func(n *node) bool { return n == first })
			begin := time.Now()
			end := first.stutter(stop, run)
			defer end()

			leads := func() (string, uint64) {
				s, err := rest[0].status()
				if err != nil {
					return "", 0
				}
				d := s.Groups[0]
				return d.Leader, d.Term
			}
			eventually(t, "another node leads the directory", func() error {
				if name, _ := leads(); name == "" || name == first.name {
					return fmt.Errorf("%q leads it", name)
				}
				return nil
			})
			t.Logf("another one leads after %v", time.Since(begin).Round(10*time.Millisecond))
			var since time.Time
			var kept uint64
			eventually(t, "another node keeps the directory for five seconds", func() error {
				name, term := leads()
				if name == "" || name == first.name || term != kept {
					kept, since = term, time.Now()
				}
				if time.Since(since) < 5*time.Second {
					return fmt.Errorf("%q has led in term %d for %v", name, term, time.Since(since))
				}
				return nil
			})
			t.Logf("it keeps it, %v after the first pause", time.Since(begin).Round(10*time.Millisecond))

			dead := rest[len(rest)-1]
			killed := time.Now()
			dead.kill()
			if size == 3 { // one of two that are left cannot go on
				end()
			}
			eventually(t, "the node that was killed is fenced", func() error {
				s, err := rest[0].status()
				if err != nil {
					return err
				}
				for _, x := range s.Nodes {
					if x.Node == dead.name && !x.Up {
						return nil
					}
				}
				return fmt.Errorf("node %s is up", dead.name)
			})
			t.Logf("fenced %v after its death", time.Since(killed).Round(10*time.Millisecond))
			end()
			c.heal()
		})
	}
}

// awaitVoters waits until all nodes vote in the directory.
func (c *cluster) awaitVoters(size int) {
	c.t.Helper()
	eventually(c.t, "all vote in the directory", func() error {
		s, err := c.nodes[0].status()
		if err != nil {
			return err
		}
		voters := 0
		for _, r := range s.Groups[0].Replicas {
			if r == "a (voter)" || r == "b (voter)" || r == "c (voter)" || r == "d (voter)" || r == "e (voter)" {
				voters++
			}
		}
		if voters != size {
			return fmt.Errorf("replicas %v", s.Groups[0].Replicas)
		}
		return nil
	})
}
