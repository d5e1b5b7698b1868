package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/cluster/directory"
)

// routeSource names a stream of route changes into the directory: this
// process's (boot), or a shard's outbox (group).
type routeSource struct {
	boot  uint64
	group uint32
}

// visibility lets those wait who changed a route, until every node that may
// act on its directory copy has it: the own copy has consumed the change at
// index i, and the visible index is at least i. One goroutine looks; the apply
// of the directory only wakes it.
type visibility struct {
	n    *Node
	wake signal

	mu     sync.Mutex
	routed map[routeSource][]*visit // not yet consumed by the own copy
	fresh  map[routeSource]bool     // of routed, to be looked at
	seen   []*visit                 // consumed, in order of index
}

// visit is one that waits.
type visit struct {
	k     uint64 // number of the change in its stream
	index uint64
	since time.Time
	done  func(error)
}

func newVisibility(n *Node) *visibility {
	return &visibility{
		n: n, wake: newSignal(), routed: make(map[routeSource][]*visit), fresh: make(map[routeSource]bool),
	}
}

// await calls done when change k of source is visible everywhere. k 0 is
// visible always.
func (v *visibility) await(source routeSource, k uint64, done func(error)) {
	if k == 0 {
		done(nil)
		return
	}
	v.mu.Lock()
	v.routed[source] = append(v.routed[source], &visit{k: k, since: time.Now(), done: done})
	v.fresh[source] = true
	v.mu.Unlock()
	v.wake.set()
}

// moved tells that the own copy has consumed changes of these sources.
func (v *visibility) moved(sources []directory.Source) {
	if len(sources) == 0 {
		return
	}
	v.mu.Lock()
	for _, s := range sources {
		source := routeSource{group: s.Group}
		if s.Node != "" {
			if s.Node != v.n.config.NodeID {
				continue
			}
			source = routeSource{boot: s.Boot}
		}
		if len(v.routed[source]) > 0 {
			v.fresh[source] = true
		}
	}
	some := len(v.fresh) > 0
	v.mu.Unlock()
	if some {
		v.wake.set()
	}
}

// run ends waits as their changes become visible.
func (v *visibility) run(ctx context.Context) {
	for {
		select {
		case <-v.wake:
		case <-ctx.Done():
			return
		}
		v.mu.Lock()
		v.consume()
		over := v.settle()
		v.mu.Unlock()
		for _, w := range over {
			v.n.metrics.visible.Observe(time.Since(w.since).Seconds())
			w.done(nil)
		}
	}
}

// consume moves what the own copy has to seen. Called with mu held.
func (v *visibility) consume() {
	if len(v.fresh) == 0 {
		return
	}
	v.n.readDirectory(func(d *directoryMachine) {
		for source := range v.fresh {
			node := ""
			if source.group == 0 {
				node = v.n.config.NodeID
			}
			last := d.RouteIndex(node, source.boot, source.group)
			v.routed[source] = keep(v.routed[source], func(w *visit) bool {
				if w.k > last {
					return true
				}
				w.index = d.Machine.Applied()
				v.seen = append(v.seen, w)
				return false
			})
			if len(v.routed[source]) == 0 {
				delete(v.routed, source)
			}
		}
	})
	clear(v.fresh)
}

// settle takes those whose index is visible. Called with mu held.
func (v *visibility) settle() (over []*visit) {
	visible := v.n.lease.visible()
	n := 0
	for n < len(v.seen) && v.seen[n].index <= visible {
		n++
	}
	over = v.seen[:n:n]
	v.seen = v.seen[n:]
	return over
}

// expire ends waits that are older than awayTimeout without success.
func (v *visibility) expire(now time.Time) {
	limit := now.Add(-awayTimeout)
	var old []*visit
	young := func(w *visit) bool {
		if w.since.Before(limit) {
			old = append(old, w)
			return false
		}
		return true
	}
	v.mu.Lock()
	v.seen = keep(v.seen, young)
	for source, list := range v.routed {
		if v.routed[source] = keep(list, young); len(v.routed[source]) == 0 {
			delete(v.routed, source)
		}
	}
	v.mu.Unlock()
	for _, w := range old {
		w.done(session.ErrUnavailable)
	}
}

// keep filters list in place.
func keep(list []*visit, f func(*visit) bool) []*visit {
	left := list[:0]
	for _, w := range list {
		if f(w) {
			left = append(left, w)
		}
	}
	clear(list[len(left):])
	return left
}
