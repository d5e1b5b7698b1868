package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/shoalmq/shoal/broker/session"
)

// visitor is a chain of transient sessions on one node. Each ends for the
// history when its node is about to have trouble.
type visitor struct {
	r    *run
	name string

	mu    sync.Mutex
	id    string
	guest *client
	seen  []*client // all there were
	ids   []string
	count int
	// good is when the guest was last seen to be served. If its connection is
	// lost, its node was fenced some time after that, and owes it nothing since.
	good int64
}

// live keeps a session that subscribes to all and publishes.
func (v *visitor) live(rng *rand.Rand) {
	for number := 0; v.r.over.Err() == nil; {
		guest, id := v.present()
		if guest == nil {
			v.visit()
		} else if rng.IntN(2) == 0 {
			number++
			m := v.r.h.publishes(id, anyTopic(rng), 1, number)
			guest.link.Publish(message(m.topic, 1, m.payload()), func(err error) {
				v.r.h.note(id, "PUBACK for %s: %v", m.payload(), err)
				if err == nil && !guest.n.dead.Load() {
					v.r.h.acked(m)
				}
			})
		}
		pause(v.r.over, time.Duration(rng.IntN(40))*time.Millisecond)
	}
}

func (v *visitor) present() (*client, string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.guest != nil {
		if v.look(); len(v.guest.lost) > 0 {
			v.end()
		}
	}
	return v.guest, v.id
}

// look notes the time if the connection is served, which it returns. Called with
// mu held.
func (v *visitor) look() (served bool) {
	now := sinceStart().Nanoseconds()
	// In this order: a later process of the node gets its lease when the
	// connections of the former one have been told.
	if !v.guest.n.lease.valid() || len(v.guest.lost) > 0 {
		return false
	}
	v.good = now
	return true
}

// visit opens a session and subscribes.
func (v *visitor) visit() {
	n := v.r.c.node(v.name)
	if n == nil {
		return
	}
	v.mu.Lock()
	v.count++
	id := fmt.Sprintf("visitor-%s-%d", v.name, v.count)
	v.mu.Unlock()
	guest, err := n.arrive(id)
	if err != nil {
		return
	}
	v.r.h.note(id, "arrived at %s, boot %d", v.name, guest.link.(*link).p.boot)
	s := v.r.h.subscribes(id, "#")
	v.mu.Lock()
	v.guest, v.id = guest, id
	v.seen, v.ids = append(v.seen, guest), append(v.ids, id)
	v.mu.Unlock()
	n.listen("#", guest.in)
	suback := make(chan error, 1)
	n.AddRoute("#", 2, func(err error) { v.r.h.note(id, "SUBACK: %v", err); suback <- err })
	select {
	case err = <-suback:
	case <-time.After(patience):
		v.r.t.Errorf("no SUBACK for %s", id)
		return
	case <-v.r.over.Done():
		return // without SUBACK: nothing is owed
	}
	if err == nil && !n.dead.Load() {
		v.r.h.subscribed(s)
	}
}

// arrive opens a transient session.
func (n *testNode) arrive(id string) (*client, error) {
	guest := &client{n: n, in: newInbox(), superseded: make(chan struct{}, 16), lost: make(chan struct{}, 16)}
	done := make(chan error, 1)
	n.Open(session.OpenRequest{Client: id, CleanStart: true, Window: 32}, guest,
		func(l session.Link, o session.Opened, err error) {
			guest.mu.Lock()
			guest.link, guest.opened = l, o
			guest.mu.Unlock()
			done <- err
		})
	select {
	case err := <-done:
		return guest, err
	case <-time.After(patience):
		return nil, errors.New("no answer")
	}
}

// leaves ends the present session, as far as promises go: its node is about to
// have trouble.
func (v *visitor) leaves() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.end()
}

// end is leaves with mu held.
func (v *visitor) end() {
	if v.guest == nil {
		return
	}
	served := v.look()
	v.r.h.note(v.id, "ends, served %v, last at %s", served, at(v.good))
	if served {
		v.r.h.leaves(v.id, "#")
	} else {
		v.r.h.leavesAt(v.id, "#", v.good)
	}
	v.guest.link.Close(session.CloseRequest{})
	v.guest.n.RemoveRoute("#", 2)
	v.guest = nil
}
