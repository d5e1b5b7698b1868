package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/shoalmq/shoal/storage"
)

// diskWatch looks after what a running node stands on: its disk, which may hang
// without an error, be slow, or fill up; and its own process, which may stand
// still again and again (pulse.go).
//
// A node whose disk hangs is as good as dead, only that its heartbeats go on,
// so that nobody would take its place: its raft instances wait in a write,
// where they can neither commit nor give a leadership away. So it falls silent:
// nothing that raft sends leaves this node any more, and nothing that others'
// raft asks is answered (a loss of messages, which raft must bear), it asks for no
// lease, its leads end, and whoever asks it is told that it does not lead. Others
// elect among themselves and fence it; its clients are closed when the lease is
// over. When the disk answers, what was kept back goes on: raft hears of the
// later terms, and the process takes its next boot.
//
// A node that is low on space still works, and must not until nothing is left:
// it gives its leaderships to nodes that have space, is not ready, and refuses
// QoS ≥ 1 publishes of the clients it has, who may go on receiving.
type diskWatch struct {
	n     *Node
	hangs atomic.Bool
	low   atomic.Bool
	slow  atomic.Int64 // bootTime until which the disk counts as slow
	free  atomic.Uint64
	// unsteady: see pulse. stood wakes runLeaders while it is.
	unsteady atomic.Bool
	stood    signal

	looked time.Time // lookHang's last call
}

// DiskHooks are the places where a test gets between a node and its disk.
type DiskHooks struct {
	// BeforeSync is storage.Options.BeforeSync.
	BeforeSync func(file string)
	// Free replaces the question for free bytes.
	Free func() (uint64, error)
}

// run watches until ctx ends. Whoever asks a disk may have to wait for it, so
// each question has a goroutine of its own.
func (w *diskWatch) run(ctx context.Context) {
	t := newTasks(ctx)
	t.run(func(ctx context.Context) { every(ctx, hangTick, w.lookHang) })
	t.run(func(ctx context.Context) { every(ctx, spaceTick, w.lookSpace) })
	t.run(w.feel)
	<-ctx.Done()
	t.wait()
}

// every calls f now and then at each tick until ctx ends.
func every(ctx context.Context, d time.Duration, f func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		f()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (w *diskWatch) lookHang() {
	now := time.Now()
	asleep := now.Sub(w.looked) > 4*hangTick
	if w.looked = now; asleep {
		return // this process was stopped, or short of processors: so was the commit
	}
	busy := w.n.logs.Busy()
	hangs := busy > hangTime
	if w.hangs.Swap(hangs) == hangs {
		return
	}
	w.n.mux.Mute(hangs)
	for _, g := range w.n.allGroups() {
		g.muted.broadcast()
		g.leaderMoved.broadcast()
	}
	if hangs {
		w.n.metrics.diskHangs.Inc()
		w.n.log.Error("the disk does not answer: this node falls silent, so that others take over what it leads", "for", busy.Round(time.Millisecond))
	} else {
		w.n.log.Warn("the disk answers again: this node comes back")
	}
	w.n.gossip.SetMeta(w.n.meta())
}

func (w *diskWatch) lookSpace() {
	want := w.n.config.MinFreeBytes
	if want == 0 {
		return
	}
	free, err := w.freeBytes()
	if err != nil {
		w.n.log.Debug("free space", "err", err)
		return
	}
	w.free.Store(free)
	was := w.low.Load()
	if was {
		want += want / 2 // room enough not to be here again at once
	}
	low := free < want
	w.low.Store(low)
	if low == was {
		return
	}
	if low {
		w.n.log.Error("low disk space: this node gives its leaderships away and takes no publishes of QoS 1 and 2", "free", free, "min", want)
	} else {
		w.n.log.Info("there is disk space again", "free", free)
	}
	w.n.gossip.SetMeta(w.n.meta())
}

func (w *diskWatch) freeBytes() (uint64, error) {
	if h := w.n.config.Disk; h != nil && h.Free != nil {
		return h.Free()
	}
	return storage.FreeBytes(w.n.config.DataDir)
}

// committed is told how long a commit of the raft log took.
func (w *diskWatch) committed(took time.Duration) {
	w.n.metrics.disk.Observe(took.Seconds())
	if took < slowTime {
		return
	}
	if was := w.slow.Swap(int64(bootTime() + slowMemory)); was < int64(bootTime()) {
		w.n.log.Warn("the disk is slow", "commit", took.Round(time.Millisecond))
	}
}

// isSlow tells whether a commit has taken long lately, or is doing so.
func (w *diskWatch) isSlow() bool {
	return int64(bootTime()) < w.slow.Load() || w.n.logs.Busy() > slowTime
}

// unfit tells that this node should lead nothing.
func (w *diskWatch) unfit() bool { return w.low.Load() || w.hangs.Load() || w.unsteady.Load() }

// trouble is nil while the disk can serve clients, else why not.
func (w *diskWatch) trouble() error {
	switch {
	case w.hangs.Load():
		return fmt.Errorf("the disk has not answered for %v", w.n.logs.Busy().Round(time.Second))
	case w.low.Load():
		return fmt.Errorf("low disk space: %d MiB free, min-free-bytes is %d MiB", w.free.Load()>>20, w.n.config.MinFreeBytes>>20)
	}
	return nil
}

var errDiskHangs = errors.New("the disk of this node does not answer")
