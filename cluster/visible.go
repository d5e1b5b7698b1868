package cluster

import (
	"sync"
	"time"

	"github.com/shoalmq/shoal/broker/session"
)

// routeSource names a stream of route changes into the directory: this
// process's (boot), or a shard's outbox (group).
type routeSource struct {
	boot  uint64
	group uint32
}

// visibility lets those wait who changed a route, until every node that may
// act on its directory copy has it: the own copy has consumed the change at
// index i, and the visible index is at least i.
type visibility struct {
	n *Node

	mu     sync.Mutex
	routed map[routeSource][]*visit // not yet consumed by the own copy
	seen   []*visit                 // consumed; by index, not sorted
}

// visit is one that waits.
type visit struct {
	k     uint64 // number of the change in its stream
	index uint64
	since time.Time
	done  func(error)
}

func newVisibility(n *Node) *visibility {
	return &visibility{n: n, routed: make(map[routeSource][]*visit)}
}

// await calls done when change k of source is visible everywhere. k 0 is
// visible always.
func (v *visibility) await(source routeSource, k uint64, done func(error)) {
	if k == 0 {
		done(nil)
		return
	}
	w := &visit{k: k, since: time.Now(), done: done}
	v.mu.Lock()
	v.routed[source] = append(v.routed[source], w)
	v.mu.Unlock()
	v.consumed()
}

// consumed looks which changes the own copy has. Called after each apply of
// the directory.
func (v *visibility) consumed() {
	v.mu.Lock()
	defer v.settle()
	defer v.mu.Unlock()
	if len(v.routed) == 0 {
		return
	}
	v.n.readDirectory(func(d *directoryMachine) {
		for source, list := range v.routed {
			node := ""
			if source.group == 0 {
				node = v.n.config.NodeID
			}
			last, left := d.RouteIndex(node, source.boot, source.group), list[:0]
			for _, w := range list {
				if w.k <= last {
					w.index = d.Machine.Applied()
					v.seen = append(v.seen, w)
				} else {
					left = append(left, w)
				}
			}
			if len(left) == 0 {
				delete(v.routed, source)
			} else {
				v.routed[source] = left
			}
		}
	})
}

// settle ends the wait of those whose index is visible.
func (v *visibility) settle() {
	visible := v.n.lease.visible()
	v.mu.Lock()
	var over []*visit
	left := v.seen[:0]
	for _, w := range v.seen {
		if w.index <= visible {
			over = append(over, w)
		} else {
			left = append(left, w)
		}
	}
	clear(v.seen[len(left):])
	v.seen = left
	v.mu.Unlock()
	for _, w := range over {
		w.done(nil)
	}
}

// expire ends waits that are older than awayTimeout without success.
func (v *visibility) expire(now time.Time) {
	limit := now.Add(-awayTimeout)
	var old []*visit
	keep := func(list []*visit) []*visit {
		left := list[:0]
		for _, w := range list {
			if w.since.Before(limit) {
				old = append(old, w)
			} else {
				left = append(left, w)
			}
		}
		return left
	}
	v.mu.Lock()
	v.seen = keep(v.seen)
	for source, list := range v.routed {
		if v.routed[source] = keep(list); len(v.routed[source]) == 0 {
			delete(v.routed, source)
		}
	}
	v.mu.Unlock()
	for _, w := range old {
		w.done(session.ErrUnavailable)
	}
}
