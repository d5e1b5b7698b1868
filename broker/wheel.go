package broker

import (
	"sync"
	"time"
)

// wheelSize is the number of buckets, one for each sweepInterval. Deadlines
// further ahead are looked at once a round.
const wheelSize = 64

// wheel finds connections whose deadline has come, without a timer for each:
// a keep alive is renewed by one store (conn.seen), and the wheel only looks
// when the old deadline has come.
type wheel struct {
	mu      sync.Mutex
	now     int64 // the tick last advanced to
	start   time.Time
	buckets [wheelSize]*conn
}

// wheelEntry is a connection's place in the wheel, guarded by wheel.mu.
type wheelEntry struct {
	next, prev *conn
	bucket     uint8
	linked     bool
}

func newWheel(now time.Time) *wheel { return &wheel{start: now} }

// schedule has conn.check called at the given time, up to sweepInterval later,
// or earlier. It replaces what was scheduled before.
func (w *wheel) schedule(c *conn, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlink(c)
	tick := int64((at.Sub(w.start) + sweepInterval - 1) / sweepInterval)
	tick = min(max(tick, w.now+1), w.now+wheelSize-1)
	e, b := &c.timer, uint8(tick%wheelSize)
	e.bucket, e.linked, e.prev, e.next = b, true, nil, w.buckets[b]
	if e.next != nil {
		e.next.timer.prev = c
	}
	w.buckets[b] = c
}

// cancel forgets a connection.
func (w *wheel) cancel(c *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlink(c)
}

func (w *wheel) unlink(c *conn) {
	e := &c.timer
	if !e.linked {
		return
	}
	if e.next != nil {
		e.next.timer.prev = e.prev
	}
	if e.prev != nil {
		e.prev.timer.next = e.next
	} else {
		w.buckets[e.bucket] = e.next
	}
	*e = wheelEntry{}
}

// advance takes out the connections whose time has come.
func (w *wheel) advance(now time.Time) (due []*conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for tick := int64(now.Sub(w.start) / sweepInterval); w.now < tick; {
		w.now++
		for b := w.now % wheelSize; w.buckets[b] != nil; {
			due = append(due, w.buckets[b])
			w.unlink(w.buckets[b])
		}
	}
	return due
}
