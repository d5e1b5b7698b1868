package storage

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// LogOptions of the raft log.
type LogOptions struct {
	// TailBytes bounds what of each group's last entries is held in memory;
	// 0 is the default of 16 MiB.
	TailBytes int
	// OnCommit is told how long each commit took, fsync included; nil for
	// nobody. It runs on the committer: it must not block.
	OnCommit func(took time.Duration)
}

// Log is the raft log of all groups of a node, in one file. One goroutine, the
// committer, makes everything durable: it takes all operations that wait, of all
// groups, and commits them together (group commit). While it waits for the disk
// the next ones gather, so there is no timer.
//
// The queue is bounded by its callers, who wait: each raft group has at most a
// few operations in it.
type Log struct {
	dir       *Dir
	path      string
	eng       engine
	tailBytes int
	wake      chan struct{} // 1: there is something to do
	done      chan struct{} // closed when the committer has ended
	onCommit  func(took time.Duration)
	// began is when the commit that is under way began, in nanoseconds since
	// the log was opened; 0 for none.
	began  atomic.Int64
	opened time.Time

	mu     sync.Mutex
	queue  []*op
	groups map[uint32]*GroupLog
	heads  map[uint32]head // of groups not yet asked for
	closed bool
}

// op is one operation that waits for the committer.
type op struct {
	group *GroupLog
	logs  []*raft.Log // entries to store
	batch *batch      // the same, encoded
	edit  editFunc
	err   error
	done  chan struct{}
}

// editFunc changes a group's head as the operation asks, or returns why it
// cannot. It may add steps to the change.
type editFunc func(h *head, c *change) error

// OpenLog opens the log, which may be open once. It reads all of the file; what
// is damaged is a *BadDiskError.
func (d *Dir) OpenLog(o LogOptions) (*Log, error) {
	if o.TailBytes <= 0 {
		o.TailBytes = tailBytes
	}
	p, err := d.part(logName,
		func(path string) error { return newLogFile(path, d.health, d.opt.OpenFile, d.disk) },
		func(path string) (io.Closer, error) { return openLog(path, d, o) })
	if err != nil {
		return nil, fmt.Errorf("open raft log: %w", err)
	}
	return p.(*Log), nil
}

func openLog(path string, d *Dir, o LogOptions) (*Log, error) {
	eng, err := openBoltLog(path, d)
	if err != nil {
		return nil, err
	}
	l := &Log{
		dir: d, path: path, eng: eng, tailBytes: o.TailBytes,
		wake: make(chan struct{}, 1), done: make(chan struct{}), onCommit: o.OnCommit, opened: time.Now(),
		groups: make(map[uint32]*GroupLog), heads: make(map[uint32]head),
	}
	for id, g := range eng.groups {
		l.heads[id] = g.head.clone()
	}
	go l.run()
	return l, nil
}

// Group returns the log of one group, the same for each call.
func (l *Log) Group(id uint32) *GroupLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.groups[id]
	if g == nil {
		h := l.heads[id]
		g = &GroupLog{log: l, id: id, head: h, tail: tail{limit: l.tailBytes}}
		l.groups[id] = g
	}
	return g
}

// EmptyGroup drops all entries of a group: see GroupLog.Empty.
func (l *Log) EmptyGroup(id uint32) error { return l.Group(id).Empty() }

// Close commits what waits and closes the file. Raft groups must be shut down
// before.
func (l *Log) Close() error {
	l.mu.Lock()
	already := l.closed
	l.closed = true
	l.mu.Unlock()
	if already {
		<-l.done
		return nil
	}
	l.signal()
	<-l.done
	l.dir.forget(logName)
	return l.eng.close()
}

func (l *Log) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// do queues an operation and waits until it is durable or refused.
func (l *Log) do(o *op) error {
	o.done = make(chan struct{})
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	l.queue = append(l.queue, o)
	l.mu.Unlock()
	l.signal()
	<-o.done
	return o.err
}

// take returns what waits; ok is false when the log is closed and empty.
func (l *Log) take() (ops []*op, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ops, l.queue = l.queue, nil
	return ops, len(ops) > 0 || !l.closed
}

// run is the committer.
func (l *Log) run() {
	defer close(l.done)
	for {
		ops, ok := l.take()
		switch {
		case !ok:
			return
		case len(ops) > 0:
			l.commit(ops)
		case l.eng.sweep() && l.dir.health.check() == nil:
			_ = l.write(nil) // a failure is remembered by health
		default:
			<-l.wake
		}
	}
}

// commit makes operations durable together and answers each.
func (l *Log) commit(ops []*op) {
	changes := plan(ops)
	var err error
	if len(changes) > 0 {
		for _, c := range changes {
			l.Group(c.group).hide(c)
		}
		err = l.write(changes)
	}
	for _, o := range ops {
		if o.err == nil {
			o.err = err
		}
	}
	if err == nil {
		for _, c := range changes {
			l.Group(c.group).publish(c, ops)
		}
	}
	for _, o := range ops {
		close(o.done)
	}
}

// write has the engine commit, and notes how long it takes.
func (l *Log) write(changes []*change) error {
	start := time.Since(l.opened)
	l.began.Store(max(int64(start), 1))
	err := l.eng.commit(changes)
	l.began.Store(0)
	if l.onCommit != nil {
		l.onCommit(time.Since(l.opened) - start)
	}
	return err
}

// Busy is for how long the commit that is under way has been, 0 if there is
// none: a disk that hangs does not fail. Safe for concurrent use, and never
// waits for the disk.
func (l *Log) Busy() time.Duration {
	began := l.began.Load()
	if began == 0 {
		return 0
	}
	return time.Since(l.opened) - time.Duration(began)
}

// plan folds operations into one change for each group, in the order they came.
// An operation that is not possible gets its error and changes nothing.
func plan(ops []*op) []*change {
	var changes []*change
	byGroup := make(map[*GroupLog]*change)
	for _, o := range ops {
		c := byGroup[o.group]
		if c == nil {
			c = &change{group: o.group.id, head: o.group.currentHead()}
		}
		if o.err = o.edit(&c.head, c); o.err == nil && byGroup[o.group] == nil {
			byGroup[o.group] = c
			changes = append(changes, c)
		}
	}
	return changes
}
