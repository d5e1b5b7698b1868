package raftnet

import (
	"testing"
	"time"
)

// TestProgressIsOfTheTermAndTheLog: what a peer answered in another term, or to
// what was sent before its log was thrown away, does not count.
func TestProgressIsOfTheTermAndTheLog(t *testing.T) {
	tr := &Transport{mux: &Mux{}}
	want := func(term, index uint64) {
		t.Helper()
		if got, _ := tr.Progress(term, "a/d"); got != index {
			t.Errorf("term %d: matched %d, want %d", term, got, index)
		}
	}
	want(1, 0)
	tr.answers.match("a/d", 1, 10, Now())
	tr.answers.match("a/d", 1, 7, Now()) // an older answer, later
	want(1, 10)
	want(2, 0)
	tr.answers.match("a/d", 2, 3, Now())
	tr.answers.match("a/d", 1, 20, Now())
	want(2, 3)
	sent := Now() - time.Nanosecond
	tr.Unmatch("a/d")
	want(2, 0)
	tr.answers.match("a/d", 2, 5, sent)
	want(2, 0)
	tr.answers.match("a/d", 2, 4, Now())
	want(2, 4)

	if _, silent := tr.Progress(2, "a/d"); silent < time.Hour {
		t.Errorf("silent for %v before any answer", silent)
	}
	tr.answers.record("a/d", 2, 2, Now())
	if _, silent := tr.Progress(2, "a/d"); silent > time.Minute {
		t.Errorf("silent for %v after an answer", silent)
	}
}
