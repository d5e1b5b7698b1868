package broker

import "sync"

// wake is the list of connections with output to write. Readers bracket the
// handling of a chunk with enter and leave, and the one that leaves writes the
// whole list; what arises while nobody is reading is left to the flusher.
// Every listed connection is flushed: an add finds a reader that has not left,
// or signals the flusher.
type wake struct {
	mu      sync.Mutex
	list    []*conn
	spare   [][]*conn
	readers int
	// signal has room for one: more would not say more.
	signal chan struct{}
}

func newWake() *wake { return &wake{signal: make(chan struct{}, 1)} }

// add lists c. It is called under c.mu, when c was not listed.
func (w *wake) add(c *conn) {
	w.mu.Lock()
	w.list = append(w.list, c)
	idle := w.readers == 0 && len(w.list) == 1
	w.mu.Unlock()
	if idle {
		select {
		case w.signal <- struct{}{}:
		default:
		}
	}
}

// enter says that the caller will leave soon, without waiting for anything.
func (w *wake) enter() {
	w.mu.Lock()
	w.readers++
	w.mu.Unlock()
}

// leave takes back an enter and writes what is listed.
func (w *wake) leave() {
	w.mu.Lock()
	w.readers--
	list := w.take()
	w.mu.Unlock()
	w.flush(list)
}

// run is the flusher.
func (w *wake) run(done <-chan struct{}) {
	for {
		select {
		case <-w.signal:
			w.mu.Lock()
			list := w.take()
			w.mu.Unlock()
			w.flush(list)
		case <-done:
			return
		}
	}
}

func (w *wake) take() []*conn {
	if len(w.list) == 0 {
		return nil
	}
	list := w.list
	w.list = nil
	if n := len(w.spare); n > 0 {
		w.list, w.spare = w.spare[n-1], w.spare[:n-1]
	}
	return list
}

// flush writes the output of the connections listed, on several processors if
// they are many.
func (w *wake) flush(list []*conn) {
	if len(list) == 0 {
		return
	}
	var others sync.WaitGroup
	for rest := list; len(rest) > 0; {
		share := rest[:min(len(rest), flushShare)]
		rest = rest[len(share):]
		if len(rest) == 0 {
			flushAll(share)
		} else {
			others.Go(func() { flushAll(share) })
		}
	}
	others.Wait()
	clear(list)
	w.mu.Lock()
	w.spare = append(w.spare, list[:0])
	w.mu.Unlock()
}

func flushAll(list []*conn) {
	for _, c := range list {
		c.flush()
	}
}
