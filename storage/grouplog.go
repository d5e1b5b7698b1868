package storage

import (
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// GroupLog is the log and the stable store of one raft group. It implements
// raft.LogStore, raft.CommitTrackingLogStore and raft.StableStore.
//
// The log is dense: entries are stored only behind the last one (or anywhere
// into an empty log) and deleted only at its ends. Still it is not a
// raft.MonotonicLogStore: raft would answer an install by deleting all entries,
// acknowledged ones behind the snapshot too. Empty, called by the owner when an
// install makes it right, is what closes the gap instead.
//
// Data and Extensions of entries given to StoreLogs or got from GetLog are
// shared and must not be changed.
type GroupLog struct {
	log *Log
	id  uint32

	mu     sync.RWMutex
	head   head
	tail   tail
	staged uint64 // commit index to store with the next entries
	keep   func() (index uint64, ok bool)
	base   raft.Log // index and term of the entry before the first: see GetLog
}

var (
	_ raft.CommitTrackingLogStore = (*GroupLog)(nil)
	_ raft.StableStore            = (*GroupLog)(nil)
)

// FirstIndex returns the index of the first entry, 0 for none.
func (g *GroupLog) FirstIndex() (uint64, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.head.first, nil
}

// LastIndex returns the index of the last entry, 0 for none.
func (g *GroupLog) LastIndex() (uint64, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.head.last, nil
}

// GetLog reads the entry at index, from memory if it is one of the last. It
// returns raft.ErrLogNotFound if the log does not hold it.
//
// Of the entry right before the first it still knows index and term, unless the
// log was emptied since and CheckStart not called. Raft compares with no snapshot
// but its last: without that entry a follower could not accept its first entries
// after an install again, when its answer was lost or another leader has others
// there, and a leader could not go on behind a copy of a state older than its
// last. Both would mean install after install.
func (g *GroupLog) GetLog(index uint64, out *raft.Log) error {
	if found, there := g.cached(index, out); found || !there {
		if !there {
			return raft.ErrLogNotFound
		}
		return nil
	}
	for range 2 { // it may have been deleted and stored anew in between
		err := g.log.eng.read(g.id, index, out)
		if err != raft.ErrLogNotFound {
			return err
		}
		if !g.holds(index) {
			return raft.ErrLogNotFound
		}
	}
	return g.log.dir.health.fail(badDisk(g.log.path, "entry %d of group %d is missing", index, g.id))
}

// cached copies the entry if it is in memory, and says whether it is in the log.
func (g *GroupLog) cached(index uint64, out *raft.Log) (found, there bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if l := g.tail.find(index); l != nil {
		*out = *l
		return true, true
	}
	if index > 0 && index == g.base.Index && (g.head.last == 0 || g.head.first == index+1) {
		*out = g.base
		return true, true
	}
	return false, g.head.holds(index)
}

func (g *GroupLog) holds(index uint64) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.head.holds(index)
}

// currentHead returns a copy for the committer to change.
func (g *GroupLog) currentHead() head {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.head.clone()
}

// hide takes from view what a change is about to drop: a reader must not see an
// entry in the head that is no longer in the file. If the commit fails, so has
// the disk.
func (g *GroupLog) hide(c *change) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.head.first, g.head.last = max(g.head.first, c.head.first), min(g.head.last, c.head.last)
	if g.head.first > g.head.last {
		g.head.first, g.head.last = 0, 0
	}
}

// publish makes a durable change visible.
func (g *GroupLog) publish(c *change, ops []*op) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, o := range ops {
		if o.group == g && o.err == nil && len(o.logs) > 0 {
			// What an earlier operation of the same commit has cut.
			g.tail.keep(g.head.first, o.logs[0].Index-1)
			g.tail.append(o.logs)
		}
	}
	g.head = c.head
	g.tail.keep(g.head.first, g.head.last)
}

// StoreLog stores one entry.
func (g *GroupLog) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends entries, with the staged commit index, and returns when they
// are durable. They must follow the last entry and each other (ErrNotNext).
func (g *GroupLog) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	for i, l := range logs {
		if l.Index == 0 || l.Index != logs[0].Index+uint64(i) {
			return fmt.Errorf("store entry %d of group %d at %d: %w", l.Index, g.id, logs[0].Index+uint64(i), ErrNotNext)
		}
	}
	g.mu.RLock()
	commit := g.staged
	g.mu.RUnlock()

	b := g.log.eng.encode(g.id, logs)
	first, last := logs[0].Index, logs[len(logs)-1].Index
	return g.log.do(&op{group: g, logs: logs, batch: b, edit: func(h *head, c *change) error {
		if h.last != 0 && first != h.last+1 {
			return fmt.Errorf("store entry %d of group %d after %d: %w", first, g.id, h.last, ErrNotNext)
		}
		c.steps = append(c.steps, step{append: b, fresh: h.last == 0})
		if h.last == 0 {
			h.first = first
		}
		h.last = last
		h.commit = min(max(h.commit, commit), last)
		return nil
	}})
}

// DeleteRange drops the entries from min to max, inclusive, as far as there are
// any. They must be at one end of the log (ErrHole). On return that is durable;
// the space is freed later. At the front it leaves what KeepFor asks for.
func (g *GroupLog) DeleteRange(min, max uint64) error {
	max, behind := g.front(min, max)
	err := g.log.do(&op{group: g, edit: func(h *head, c *change) error {
		switch {
		case h.last == 0 || min > max || max < h.first || min > h.last:
		case min <= h.first && max >= h.last:
			h.first, h.last, h.commit = 0, 0, 0
		case min <= h.first:
			h.first = max + 1
		case max >= h.last:
			c.steps = append(c.steps, step{cut: min})
			h.last = min - 1
			if h.commit > h.last {
				h.commit = h.last
			}
		default:
			return fmt.Errorf("delete entries %d to %d of group %d, which has %d to %d: %w", min, max, g.id, h.first, h.last, ErrHole)
		}
		return nil
	}})
	if err == nil && behind.Index != 0 {
		g.mu.Lock()
		if g.head.first == behind.Index+1 {
			g.base = raft.Log{Index: behind.Index, Term: behind.Term, Type: raft.LogNoop}
		}
		g.mu.Unlock()
	}
	return err
}

// front returns how far entries from min to max may go if they are at the front
// of the log, and the last one of them; else max and nothing.
func (g *GroupLog) front(min, max uint64) (to uint64, behind raft.Log) {
	g.mu.RLock()
	first, last, keep := g.head.first, g.head.last, g.keep
	g.mu.RUnlock()
	if min > first || max >= last {
		return max, raft.Log{}
	}
	if keep != nil {
		if index, ok := keep(); ok && index <= max {
			max = index - 1
		}
	}
	if g.GetLog(max, &behind) != nil {
		return max, raft.Log{}
	}
	return max, behind
}

// Trailing is how many of the last entries take no more than bytes together: at
// least 1, at most most. It reads the heads of those that are not in memory.
func (g *GroupLog) Trailing(bytes int, most uint64) (entries uint64, err error) {
	g.mu.RLock()
	first, last := g.head.first, g.head.last
	fits := func(size int) bool {
		bytes -= size
		if bytes < 0 && entries > 0 || entries >= most || last == 0 || last-entries < first {
			return false
		}
		entries++
		return true
	}
	more := true
	for i := len(g.tail.logs) - 1; i >= 0 && more; i-- {
		more = fits(entryBytes(&g.tail.logs[i]))
	}
	g.mu.RUnlock()
	if more && last > entries {
		err = g.log.eng.sizes(g.id, last-entries, fits)
	}
	return max(entries, 1), err
}

// KeepFor has the log keep the entries that receivers of copies of s will ask
// for next, when raft truncates it. It must be set before raft is started.
func (g *GroupLog) KeepFor(s *StateFile) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.keep = s.sends.oldest
}

// Empty drops all entries and the commit index. Stable values stay. It is for
// the owner, after an install.
func (g *GroupLog) Empty() error {
	g.mu.Lock()
	g.staged, g.base = 0, raft.Log{}
	g.mu.Unlock()
	return g.log.do(&op{group: g, edit: func(h *head, _ *change) error {
		h.first, h.last, h.commit = 0, 0, 0
		return nil
	}})
}

// StageCommitIndex keeps the index in memory; the next StoreLogs stores it.
func (g *GroupLog) StageCommitIndex(index uint64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.staged = index
	return nil
}

// GetCommitIndex returns the highest index that was stored as committed, 0 for
// none. It is never above the last entry.
//
// It is for the owner, who may apply the entries up to it before raft starts.
// raft.Config.RestoreCommittedLogs must stay off: raft v1.8.0 then skips the
// configuration entries it replays and starts without servers, and waits for
// ever if there are more than 128 batches. Without it raft stages nothing; the
// owner calls StageCommitIndex with what it has applied.
func (g *GroupLog) GetCommitIndex() (uint64, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.head.commit, nil
}
