package cluster

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// mortal is a client of a random run whose connections each have a Will of
// their own, and end in all ways there are. Its methods are called by one
// goroutine, but for trouble.
type mortal struct {
	r     *run
	id    string
	count int
	had   bool  // a session was acknowledged and not ended since
	last  *will // of the connection before, not decided yet

	mu     sync.Mutex
	epochs map[string]int // troubles of each node
	wills  []*will
}

// will is the Will of one connection.
type will struct {
	text      string
	delay     uint32
	discarded bool // its connection's end discarded it, as far as the client knows
	fate      fate
}

type fate int

const (
	mayCome fate = iota
	mustCome
	mustNotCome
)

// mortalConn is one connection. It is the session.Sink.
type mortalConn struct {
	n      *testNode
	link   session.Link
	opened chan struct{} // link is set
	node   string
	epoch  int
}

func (*mortalConn) Deliver([]session.Delivery) {}
func (x *mortalConn) Superseded()              { go x.end() }
func (x *mortalConn) Lost(error)               { go x.end() }

func (x *mortalConn) end() {
	<-x.opened
	if x.link != nil {
		x.link.Close(session.CloseRequest{})
	}
}

func (m *mortal) epoch(node string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.epochs[node]
}

// trouble notes that what a connection to node says may be lost.
func (m *mortal) trouble(node string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epochs[node]++
}

// live opens and ends connections until the run is over.
func (m *mortal) live(rng *rand.Rand) {
	for m.r.over.Err() == nil {
		delay := []uint32{0, 0, 1, 3600}[rng.IntN(4)]
		x, w := m.connect(m.r.anyNode(rng), delay, rng.IntN(5) == 0)
		pause(m.r.over, time.Duration(rng.IntN(60))*time.Millisecond)
		if x == nil {
			continue
		}
		switch rng.IntN(4) {
		case 0:
			w.discarded = true
			x.link.Close(session.CloseRequest{DiscardWill: true})
			// Another connection's publishes wait for the end of this one: an
			// answer shows that the discard has come, if nothing was lost.
			if next, _ := m.connect(m.r.anyNode(rng), 0, false); next != nil && next.served() && m.epoch(x.node) == x.epoch {
				m.decide(w, mustNotCome)
			}
		case 1:
			x.link.Close(session.CloseRequest{})
		default: // a takeover
		}
	}
}

// connect opens a connection with a new Will, which decides the fate of that
// before.
func (m *mortal) connect(node string, delay uint32, clean bool) (*mortalConn, *will) {
	n := m.r.c.node(node)
	if n == nil {
		return nil, nil
	}
	m.count++
	w := &will{text: fmt.Sprintf("%s-%d", m.id, m.count), delay: delay}
	x := &mortalConn{n: n, node: node, epoch: m.epoch(node), opened: make(chan struct{})}
	type answer struct {
		o   session.Opened
		err error
	}
	done := make(chan answer, 1)
	n.Open(session.OpenRequest{
		Client: m.id, CleanStart: clean, ExpirySeconds: 3600, Window: 32, Will: &shoalpb.Will{DelayS: delay, Message: &shoalpb.Message{
			Topic: "$wills/" + m.id, Payload: []byte(w.text), Qos: 2, Publisher: m.id,
		}},
	}, x, func(l session.Link, o session.Opened, err error) {
		x.link = l
		close(x.opened)
		done <- answer{o, err}
	})
	var a answer
	select {
	case a = <-done:
	case <-time.After(patience):
		m.r.t.Errorf("%s: CONNECT is not answered", m.id)
		return nil, nil
	}
	m.mu.Lock()
	m.wills = append(m.wills, w)
	m.mu.Unlock()
	last := m.last
	if a.err != nil {
		// Nobody knows whether it opened; if it did, its end discarded its own
		// Will, its clean start ended the session, and that it resumed the session
		// ended a delayed Will.
		m.had = m.had && !clean
		if last != nil && last.delay > 0 {
			m.last = nil
		}
		return nil, nil
	}
	if m.had && !clean && !a.o.Present {
		m.r.t.Errorf("%s: the session is gone", m.id)
	}
	m.had, m.last = true, w
	switch {
	case last == nil || last.discarded:
	case last.delay == 0 || clean && last.delay == 3600:
		m.decide(last, mustCome)
	case last.delay == 3600:
		m.decide(last, mustNotCome)
	}
	return x, w
}

func (m *mortal) decide(w *will, f fate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w.fate = f
}

// served publishes and waits for the answer.
func (x *mortalConn) served() bool {
	done := make(chan error, 1)
	x.link.Publish(message("$served", 1, "x"), func(err error) { done <- err })
	select {
	case err := <-done:
		return err == nil && !x.n.dead.Load()
	case <-time.After(patience):
		return false
	}
}

// finish decides the last Will.
func (m *mortal) finish() {
	eventually(m.r.t, m.id+" is served to the end", func() error {
		x, _ := m.connect(m.r.c.names[m.count%len(m.r.c.names)], 0, false)
		if x == nil {
			return session.ErrUnavailable
		}
		x.link.Close(session.CloseRequest{DiscardWill: true})
		return nil
	})
}

// check compares the Wills that have come with what must and must not.
func (m *mortal) check(got map[string]int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var missing []string
	for _, w := range m.wills {
		switch n := got[w.text]; {
		case n > 1:
			m.r.t.Fatalf("the Will %s came %d times", w.text, n)
		case n == 1 && w.fate == mustNotCome:
			m.r.t.Fatalf("the Will %s came, which was discarded or whose session was resumed in time", w.text)
		case n == 0 && w.fate == mustCome:
			missing = append(missing, w.text)
		}
	}
	if len(missing) > 0 {
		st := m.r.c.stats(m.r.c.up()[0].shardOf(m.id))
		return fmt.Errorf("of %d Wills these have not come: %v; the shard had %d, %d are due, %d in its outbox",
			len(m.wills), missing, st.Wills, st.Due, st.OutboxEntries)
	}
	return nil
}

// startMortals begins the part of a run that has Wills.
func (r *run) startMortals() {
	r.watcher = newDevice(r.c, "watcher")
	r.c.must(r.watcher.stay(r.c.names...))
	r.c.must(r.watcher.subscribe("$wills/+", 2))
	r.tasks.Go(func() {
		for rng := r.rng(300); r.over.Err() == nil; pause(r.over, 50*time.Millisecond) {
			if !r.watcher.connected() {
				r.watcher.connect(r.anyNode(rng))
			}
		}
	})
	for i := range 4 {
		m := &mortal{r: r, id: fmt.Sprint("mortal-", i), epochs: make(map[string]int)}
		r.mortals = append(r.mortals, m)
		r.tasks.Go(func() { m.live(r.rng(200 + i)) })
	}
}

// finishMortals checks what came of the Wills, when all tasks have ended.
func (r *run) finishMortals() {
	for _, m := range r.mortals {
		m.finish()
	}
	check := func() error {
		if !r.watcher.connected() {
			r.c.must(r.watcher.stay(r.c.names...))
		}
		payloads, faults := r.watcher.payloads()
		if len(faults) > 0 {
			r.t.Fatalf("%s: %q", r.watcher.id, faults)
		}
		got := make(map[string]int)
		for _, p := range payloads {
			got[p]++
		}
		for _, m := range r.mortals {
			if err := m.check(got); err != nil {
				return err
			}
		}
		return nil
	}
	eventually(r.t, "wills", check)
	r.c.settled()
	r.c.must(check())
	fates := map[fate]int{}
	for _, m := range r.mortals {
		for _, w := range m.wills {
			fates[w.fate]++
		}
	}
	r.t.Logf("wills: %d must come, %d must not, %d may", fates[mustCome], fates[mustNotCome], fates[mayCome])
}

// checkClocks makes sure that no shard's clock has run ahead of the time since
// its birth, whatever happened to its leaders: a session would end too early.
func (r *run) checkClocks() {
	for id := range uint32(r.c.parts) {
		r.c.tick(id + 1)
		at := r.c.clock(id + 1)
		if lived := bootTime() - r.born; at > lived+time.Second {
			r.t.Errorf("after %v the clock of shard %d is at %v", lived, id+1, at)
		} else {
			r.t.Logf("the clock of shard %d is %v behind", id+1, lived-at)
		}
	}
}
