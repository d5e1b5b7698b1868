package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
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
	// strays are nodes at which a CONNECT was given up. Until a later one succeeds
	// there, it may still come to the shard: it then takes the session over from
	// whoever has it, and resumes it or ends it.
	strays map[string]bool

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
	// For those who ask why it has not come:
	node   string
	clean  bool
	conn   uint64 // 0 if the CONNECT was given up
	from   int64
	opened int64
	events []string
}

func (w *will) String() string {
	return fmt.Sprintf("%s: delay %d, at %s from %s to %s, clean start %v, connection %#x, fate %v, %v",
		w.text, w.delay, w.node, at(w.from), at(w.opened), w.clean, w.conn, w.fate, w.events)
}

// note adds to what is known of w.
func (m *mortal) note(w *will, format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w.events = append(w.events, at(sinceStart().Nanoseconds())+" "+fmt.Sprintf(format, args...))
}

type fate int

func (f fate) String() string { return [...]string{"may come", "must come", "must not come"}[f] }

const (
	mayCome fate = iota
	mustCome
	mustNotCome
)

// mortalConn is one connection. It is the session.Sink.
type mortalConn struct {
	m      *mortal
	w      *will
	n      *testNode
	link   session.Link
	opened chan struct{} // link is set
	once   sync.Once     // of the end
	node   string
	epoch  int
}

func (*mortalConn) Deliver([]session.Delivery) {}

func (x *mortalConn) Superseded() {
	x.m.note(x.w, "superseded")
	go x.end()
}

func (x *mortalConn) Lost(err error) {
	x.m.note(x.w, "lost: %v", err)
	go x.end()
}

func (x *mortalConn) end() {
	<-x.opened
	if x.link != nil {
		x.close(session.CloseRequest{})
	}
}

// close tells whether r is how the connection ends: it has not ended before.
func (x *mortalConn) close(r session.CloseRequest) (first bool) {
	x.once.Do(func() {
		first = true
		x.m.note(x.w, "closed, Will discarded: %v", r.DiscardWill)
		x.link.Close(r)
	})
	return first
}

// whole tells that nothing that was said on the connection's behalf is lost: its
// process has its lease, so it has not been fenced, and no trouble came over it.
func (x *mortalConn) whole() bool {
	l := x.link.(*link)
	return x.n.proc.Load() == l.p && x.n.lease.valid() && x.n.proc.Load() == l.p && x.m.epoch(x.node) == x.epoch
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
			first := x.close(session.CloseRequest{DiscardWill: true})
			// Another connection's publishes wait for the end of this one: an
			// answer shows that the discard has come, if nothing was lost.
			if next, _ := m.connect(m.r.anyNode(rng), 0, false); next != nil && next.served() && first && x.whole() {
				m.decide(w, mustNotCome)
			}
		case 1:
			x.close(session.CloseRequest{})
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
	w := &will{text: fmt.Sprintf("%s-%d", m.id, m.count), delay: delay, node: node, clean: clean, from: sinceStart().Nanoseconds()}
	x := &mortalConn{m: m, w: w, n: n, node: node, epoch: m.epoch(node), opened: make(chan struct{})}
	m.mu.Lock()
	m.wills = append(m.wills, w)
	m.mu.Unlock()
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
	m.note(w, "answered: present %v, error %v", a.o.Present, a.err)
	if a.err != nil {
		m.gaveUp(node, clean)
		return nil, nil
	}
	m.mu.Lock()
	w.opened = sinceStart().Nanoseconds()
	w.conn = x.link.(*link).conn
	m.mu.Unlock()
	m.follow(w, a.o.Present)
	return x, w
}

// gaveUp takes a CONNECT without an answer that says that it was done. If it
// was, or will be, its end discards its own Will, its clean start ends the
// session, and that it resumes the session ends a delayed Will.
func (m *mortal) gaveUp(node string, clean bool) {
	m.strays[node] = m.strays[node] || clean
	m.had = m.had && !clean
	if m.last != nil && m.last.delay > 0 {
		m.last = nil
	}
}

// follow decides the fate of the Will before w, which is that of a connection
// now open.
func (m *mortal) follow(w *will, present bool) {
	last := m.last
	if m.had && !w.clean && !present {
		m.mu.Lock()
		m.r.t.Errorf("%s: the session is gone: %s", m.id, m.around(w))
		m.mu.Unlock()
	}
	switch {
	case last == nil || last.discarded:
	case last.delay == 0:
		m.decide(last, mustCome)
	case last.delay == 3600 && len(m.strays) > 0: // may have come in between
	case w.clean && last.delay == 3600:
		m.decide(last, mustCome)
	case last.delay == 3600:
		m.decide(last, mustNotCome)
	}
	// What was given up at this node before has come to the shard before, or
	// never will: it went the same way, or its process is fenced.
	delete(m.strays, w.node)
	m.had, m.last = true, w
	for _, clean := range m.strays {
		m.had = m.had && !clean
	}
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
		x.close(session.CloseRequest{DiscardWill: true})
		return nil
	})
}

// check compares the Wills that have come with what must and must not.
func (m *mortal) check(got map[string]int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var missing []*will
	for _, w := range m.wills {
		switch n := got[w.text]; {
		case n > 1:
			m.r.t.Fatalf("a Will came %d times: %v\n%s", n, w, m.around(w))
		case n == 1 && w.fate == mustNotCome:
			m.r.t.Fatalf("a Will came which was discarded or whose session was resumed in time: %v\n%s", w, m.around(w))
		case n == 0 && w.fate == mustCome:
			missing = append(missing, w)
		}
	}
	if len(missing) > 0 {
		st := m.r.c.stats(m.r.c.up()[0].shardOf(m.id))
		return lateError(func() string {
			m.mu.Lock()
			defer m.mu.Unlock()
			return fmt.Sprintf("of %d Wills these have not come: %v; their shard: %+v\nwhat the client did: %s\nthe watcher: %s",
				len(m.wills), missing, st, m.around(missing[0]), m.r.watcher.explain())
		})
	}
	return nil
}

// around is what the client did before and after it had the Will w. Called with
// mu held.
func (m *mortal) around(w *will) string {
	i := slices.Index(m.wills, w)
	var lines []string
	for _, w := range m.wills[max(0, i-4):min(len(m.wills), i+5)] {
		lines = append(lines, w.String())
	}
	return strings.Join(lines, "\n\t")
}

// startMortals begins the part of a run that has Wills.
func (r *run) startMortals() {
	r.watcher = newDevice(r.c, "watcher")
	eventually(r.t, "the watcher subscribes", func() error { // a slow machine may lose its connection
		if err := r.watcher.stay(r.c.names...); err != nil {
			return err
		}
		return r.watcher.subscribe("$wills/+", 2)
	})
	r.tasks.Go(func() {
		for rng := r.rng(300); r.over.Err() == nil; pause(r.over, 50*time.Millisecond) {
			if !r.watcher.connected() {
				r.watcher.connect(r.anyNode(rng))
			}
		}
	})
	for i := range 4 {
		m := &mortal{r: r, id: fmt.Sprint("mortal-", i), epochs: make(map[string]int), strays: make(map[string]bool)}
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
