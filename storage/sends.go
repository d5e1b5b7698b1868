package storage

import (
	"sync"
	"time"
)

// sends are the copies of a state file that are on their way to other nodes, or
// came there not long ago. The log behind them must stay: a follower that finds
// it truncated when it has its copy needs another one, and under load, when a
// copy takes longer than it takes to fill the log, it would never come back.
type sends struct {
	mu  sync.Mutex
	now func() time.Time
	all map[*send]struct{}
}

// send is one copy.
type send struct {
	index uint64    // the copy is at it or later
	until time.Time // zero while the copy is read
}

func (s *sends) begin(index uint64) *send {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &send{index: index}
	s.all[c] = struct{}{}
	return c
}

// end says that the copy was read, or given up: then there is nothing to wait
// for.
func (s *sends) end(c *send, givenUp bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case givenUp:
		delete(s.all, c)
	case c.until.IsZero():
		c.until = s.now().Add(catchUpTime)
	}
}

// oldest returns the lowest index that receivers of copies continue behind; ok
// is false if there are none.
func (s *sends) oldest() (index uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for c := range s.all {
		if !c.until.IsZero() && now.After(c.until) {
			delete(s.all, c)
			continue
		}
		if !ok || c.index < index {
			index, ok = c.index, true
		}
	}
	return index, ok
}
