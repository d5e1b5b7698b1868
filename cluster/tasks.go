package cluster

import (
	"context"
	"sync"
)

// tasks is the set of goroutines of one owner. The zero value is not usable.
type tasks struct {
	ctx    context.Context
	cancel context.CancelFunc
	mu     sync.Mutex
	over   bool
	wg     sync.WaitGroup
}

func newTasks(parent context.Context) *tasks {
	t := &tasks{}
	t.ctx, t.cancel = context.WithCancel(parent)
	return t
}

// run starts f in a goroutine of t, unless t is stopping: then it reports false.
func (t *tasks) run(f func(ctx context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return false
	}
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		f(t.ctx)
	}()
	return true
}

// stop cancels the context of all goroutines and starts no more.
func (t *tasks) stop() {
	t.mu.Lock()
	t.over = true
	t.mu.Unlock()
	t.cancel()
}

// wait stops and waits for all goroutines. Not from one of them.
func (t *tasks) wait() {
	t.stop()
	t.wg.Wait()
}

// signal wakes one waiter; signals that nobody waits for are kept, one deep.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) set() {
	select {
	case s <- struct{}{}:
	default:
	}
}
