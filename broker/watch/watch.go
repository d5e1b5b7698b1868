// Package watch tells when files change, such as certificates and password
// files, so that they are read anew while the process runs.
//
// It looks at them every few seconds instead of asking the kernel to be told:
// mounted volumes of Kubernetes change by swapping symbolic links, editors by
// renaming, network file systems without a word, and a look costs a microsecond.
//
// A Watcher has one goroutine, Run's, which calls all load functions, one after
// the other. The functions own what they load; readers get it from them by an
// atomic pointer.
package watch

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Every is how often files are looked at: soon enough for someone who waits for
// it, and Kubernetes takes up to a minute to change them anyway.
const Every = 2 * time.Second

// Watcher watches files. Its methods may be called from any goroutine.
type Watcher struct {
	log *slog.Logger

	mu      sync.Mutex
	entries []*entry
}

// entry is some files that are loaded together.
type entry struct {
	what  string
	paths []string
	load  func() error
	seen  []os.FileInfo // nil for one that was not there
	// wrong is what the last load failed by, empty if it did not. It is tried again
	// at every look, for what was wrong may not show in the file: who may read it.
	wrong string
}

// New returns a Watcher that watches nothing yet. log gets what was read anew, and
// what could not be.
func New(log *slog.Logger) *Watcher { return &Watcher{log: log} }

// Add calls load, and then again whenever one of the files has changed. An error
// of the first call is returned, and nothing is watched; later ones are logged,
// load is to leave in force what it had, and is called again until it succeeds.
// what names the files in the log.
func (w *Watcher) Add(what string, paths []string, load func() error) error {
	e := &entry{what: what, paths: paths, load: load}
	e.seen = e.look() // before load: a change during it is seen later
	if err := load(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.entries = append(w.entries, e)
	return nil
}

// Run watches until ctx is done.
func (w *Watcher) Run(ctx context.Context) {
	tick := time.NewTicker(Every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			w.Look()
		case <-ctx.Done():
			return
		}
	}
}

// Look looks at all files now.
func (w *Watcher) Look() {
	w.mu.Lock()
	entries := w.entries
	w.mu.Unlock()
	for _, e := range entries {
		e.mayLoad(w.log)
	}
}

// mayLoad loads files that have changed. It is called by one goroutine at a time.
func (e *entry) mayLoad(log *slog.Logger) {
	now := e.look()
	changed := !same(e.seen, now)
	if !changed && e.wrong == "" {
		return
	}
	e.seen = now
	if err := e.load(); err != nil {
		if changed || err.Error() != e.wrong {
			log.Error("a changed file cannot be used; what was read before stays in force", "what", e.what, "error", err)
		}
		e.wrong = err.Error()
		return
	}
	e.wrong = ""
	log.Info("read anew", "what", e.what, "files", e.paths)
}

func (e *entry) look() []os.FileInfo {
	infos := make([]os.FileInfo, len(e.paths))
	for i, path := range e.paths {
		infos[i], _ = os.Stat(path) // one that is missing counts as a change
	}
	return infos
}

func same(a, b []os.FileInfo) bool {
	for i := range a {
		if (a[i] == nil) != (b[i] == nil) {
			return false
		}
		if a[i] != nil && (!os.SameFile(a[i], b[i]) || a[i].Size() != b[i].Size() || !a[i].ModTime().Equal(b[i].ModTime())) {
			return false
		}
	}
	return true
}
