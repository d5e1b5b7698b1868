package storage

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// logModel is what a GroupLog must be equal to.
type logModel struct {
	logs        map[uint64]*raft.Log
	first, last uint64
	commit      uint64
	staged      uint64
	stable      map[string]string
}

func (m *logModel) store(logs []*raft.Log) bool {
	if m.last != 0 && logs[0].Index != m.last+1 {
		return false
	}
	for _, l := range logs {
		m.logs[l.Index] = l
		m.last = l.Index
	}
	if m.first == 0 {
		m.first = logs[0].Index
	}
	m.commit = min(max(m.commit, m.staged), m.last)
	return true
}

func (m *logModel) delete(lo, hi uint64) bool {
	if m.last == 0 || lo > hi || hi < m.first || lo > m.last {
		return true
	}
	if lo > m.first && hi < m.last {
		return false
	}
	for i := max(lo, m.first); i <= min(hi, m.last); i++ {
		delete(m.logs, i)
	}
	m.first, m.last = 0, 0
	for i := range m.logs {
		if m.first == 0 || i < m.first {
			m.first = i
		}
		m.last = max(m.last, i)
	}
	m.commit = min(m.commit, m.last)
	return true
}

func (m *logModel) check(t *rapid.T, g *GroupLog) {
	first, _ := g.FirstIndex()
	last, _ := g.LastIndex()
	commit, _ := g.GetCommitIndex()
	if first != m.first || last != m.last || commit != m.commit {
		t.Fatalf("group %d: %d to %d, commit %d; want %d to %d, %d", g.id, first, last, commit, m.first, m.last, m.commit)
	}
	for i := m.first; i <= m.last && i > 0; i++ {
		var l raft.Log
		if err := g.GetLog(i, &l); err != nil {
			t.Fatalf("group %d, entry %d: %v", g.id, i, err)
		}
		if w := m.logs[i]; l.Index != i || l.Term != w.Term || string(l.Data) != string(w.Data) {
			t.Fatalf("group %d, entry %d differs", g.id, i)
		}
	}
	for k, v := range m.stable {
		if got, _ := g.Get([]byte(k)); string(got) != v {
			t.Fatalf("group %d: %s is %q, not %q", g.id, k, got, v)
		}
	}
}

// modelOp draws one operation on a group and its model: run does it, and ok says
// whether it must succeed.
func modelOp(t *rapid.T, g *GroupLog, m *logModel) (run func() error, ok bool) {
	switch rapid.SampledFrom([]string{"store", "store", "store", "delete", "empty", "stage", "set"}).Draw(t, "op") {
	case "store":
		first := m.last + 1
		if m.last == 0 {
			first = rapid.Uint64Range(1, 500).Draw(t, "first")
		} else if rapid.IntRange(0, 9).Draw(t, "wrong") == 0 {
			first = rapid.Uint64Range(1, m.last+5).Draw(t, "first")
		}
		n := rapid.IntRange(1, 200).Draw(t, "n")
		logs := entries(first, n, rapid.Uint64Range(1, 9).Draw(t, "term"), rapid.IntRange(0, 300).Draw(t, "size"))
		logs[0].Data = append(logs[0].Data, make([]byte, rapid.IntRange(0, 9000).Draw(t, "big"))...)
		return func() error { return g.StoreLogs(logs) }, m.store(logs)
	case "delete":
		lo := rapid.Uint64Range(0, m.last+10).Draw(t, "lo")
		hi := rapid.Uint64Range(0, m.last+10).Draw(t, "hi")
		switch rapid.IntRange(0, 3).Draw(t, "end") {
		case 0:
			lo = m.first
		case 1:
			hi = m.last
		}
		return func() error { return g.DeleteRange(lo, hi) }, m.delete(lo, hi)
	case "empty":
		m.delete(0, m.last)
		m.staged = 0
		return g.Empty, true
	case "stage":
		i := rapid.Uint64Range(0, m.last+20).Draw(t, "commit")
		m.staged = i
		return func() error { return g.StageCommitIndex(i) }, true
	default:
		k, v := rapid.StringMatching("[a-c]").Draw(t, "k"), rapid.StringMatching("[x-z]{0,3}").Draw(t, "v")
		m.stable[k] = v
		return func() error { return g.Set([]byte(k), []byte(v)) }, true
	}
}

// together runs operations so that one commit takes them all, in this order, and
// returns their errors.
func together(l *Log, runs []func() error) []error {
	release := make(chan struct{})
	waiting := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.queue)
	}
	var wg sync.WaitGroup
	held := make(chan struct{})
	wg.Go(func() {
		_ = l.do(&op{group: l.Group(99), edit: func(*head, *change) error {
			close(held)
			<-release
			return errors.New("only to hold the committer")
		}})
	})
	<-held
	errs := make([]error, len(runs))
	for i, run := range runs {
		before := waiting()
		done := make(chan struct{})
		wg.Go(func() {
			defer close(done)
			errs[i] = run()
		})
		for queued := false; !queued; {
			select {
			case <-done: // refused at once, or nothing to wait for
				queued = true
			default:
				queued = waiting() > before
				runtime.Gosched()
			}
		}
	}
	close(release)
	wg.Wait()
	return errs
}

func TestLogAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path, err := os.MkdirTemp("", "log")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(path)
		var d *Dir
		var l *Log
		open := func() {
			if d, err = Open(path, Options{NodeID: "n"}); err != nil {
				t.Fatal(err)
			}
			if l, err = d.OpenLog(LogOptions{TailBytes: rapid.IntRange(1, 20000).Draw(t, "tail")}); err != nil {
				t.Fatal(err)
			}
		}
		open()
		defer func() { _ = d.Close() }()
		models := make(map[uint32]*logModel)
		for id := range uint32(3) {
			models[id] = &logModel{logs: make(map[uint64]*raft.Log), stable: make(map[string]string)}
		}
		group := rapid.Uint32Range(0, 2)
		t.Repeat(map[string]func(*rapid.T){
			"one": func(t *rapid.T) {
				id := group.Draw(t, "group")
				if run, ok := modelOp(t, l.Group(id), models[id]); ok != (run() == nil) {
					t.Fatalf("want %v", ok)
				}
			},
			"many": func(t *rapid.T) {
				var runs []func() error
				var oks []bool
				for range rapid.IntRange(2, 6).Draw(t, "ops") {
					id := group.Draw(t, "group")
					run, ok := modelOp(t, l.Group(id), models[id])
					runs, oks = append(runs, run), append(oks, ok)
				}
				for i, err := range together(l, runs) {
					if oks[i] != (err == nil) {
						t.Fatalf("operation %d: want %v, got %v", i, oks[i], err)
					}
				}
			},
			"reopen": func(t *rapid.T) {
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				for _, m := range models {
					m.staged = 0
				}
				open()
			},
			"": func(t *rapid.T) {
				for id, m := range models {
					m.check(t, l.Group(id))
				}
			},
		})
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		open() // checks all of the file
	})
}
