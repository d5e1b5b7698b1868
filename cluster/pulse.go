package cluster

import (
	"context"
	"slices"
	"time"
)

// A process may be stopped, starved of processors, or its machine suspended,
// again and again, and run in between. To raft it is alive, and whatever it leads
// stands with it, yet it is never away for long enough, or for all at once, to
// lose its place for good: its own timers are the first to fire when it wakes. It
// is the one who knows best: its ticks come late. One that has stood for a good
// part of the last seconds counts as unsteady: it gives its leaderships to nodes
// that are not, and does not stand for election while another may.
//
// This takes no leadership from a machine that is merely busy, or from a cluster
// that is slow everywhere: ticks that are late by less than standTime count for
// nothing, an unsteady node says so by gossip, and a leadership is only given to a
// node that has not said it. So each is given away at most once per node, and
// where all are unsteady it stays.

// pulse watches the ticks of a process. It is owned by one goroutine.
type pulse struct {
	last   time.Duration // the last tick, 0 before the first
	stands []stand       // within standWindow, in order
	until  time.Duration // the process counts as unsteady until then
}

// stand is a pause of the process that ended at end.
type stand struct{ end, length time.Duration }

// tick is called every pulseTick, with the boot-time clock, and tells whether the
// process is unsteady.
func (p *pulse) tick(now time.Duration) bool {
	late := now - p.last - pulseTick
	if p.last != 0 && late > standTime {
		p.stands = append(p.stands, stand{now, min(late, standMost)})
	}
	p.last = now
	var stood time.Duration
	p.stands = slices.DeleteFunc(p.stands, func(s stand) bool { return now-s.end >= standWindow })
	for _, s := range p.stands {
		stood += s.length
	}
	if stood >= standLimit {
		p.until = now + calmTime
	}
	return now < p.until
}

// feel keeps watch over the pulse of this process.
func (w *diskWatch) feel(ctx context.Context) {
	var p pulse
	every(ctx, pulseTick, func() {
		unsteady := p.tick(bootTime())
		if w.unsteady.Swap(unsteady) != unsteady {
			if unsteady {
				w.n.log.Warn("this process stands still again and again: it gives its leaderships to other nodes. "+
					"Look for a machine or a container that is short of processors, or is being paused", "lost", standLimit, "within", standWindow)
			} else {
				w.n.log.Info("this process runs steadily again")
			}
			w.n.gossip.SetMeta(w.n.meta())
		}
		w.n.mux.Abstain(unsteady && len(w.n.steadyNodes()) > 0)
		if unsteady {
			w.stood.set()
		}
	})
}

// steadyNodes are the other nodes that are up and that have not said that they
// want no leaderships.
func (n *Node) steadyNodes() (nodes []string) {
	wants := make(map[string]bool)
	for _, m := range n.gossip.Members() {
		wants[m.Node] = !m.Draining
	}
	for _, node := range n.undrained() {
		if node != n.config.NodeID && wants[node] {
			nodes = append(nodes, node)
		}
	}
	return nodes
}
