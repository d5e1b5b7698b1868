package storage

import (
	"testing"
	"time"
)

// A disk that hangs fails nothing, but the log tells for how long it has been
// waiting, and goes on when the disk does.
func TestBusyTellsOfAHangingDisk(t *testing.T) {
	hang := make(chan chan struct{}, 1)
	d := openDirWith(t, t.TempDir(), Options{BeforeSync: func(file string) {
		select {
		case release := <-hang:
			<-release
		default:
		}
	}})
	took := make(chan time.Duration, 100)
	l, err := d.OpenLog(LogOptions{OnCommit: func(d time.Duration) { took <- d }})
	must(t, err)
	g := l.Group(1)
	must(t, g.StoreLogs(entries(1, 2, 1, 50)))
	<-took
	if b := l.Busy(); b != 0 {
		t.Fatalf("idle, and busy for %v", b)
	}
	release := make(chan struct{})
	hang <- release
	stored := make(chan error, 1)
	go func() { stored <- g.StoreLogs(entries(3, 2, 1, 50)) }()
	for l.Busy() < 50*time.Millisecond {
		select {
		case err := <-stored:
			t.Fatalf("stored on a disk that hangs: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	if last, _ := g.LastIndex(); last != 2 {
		t.Errorf("the log ends at %d", last)
	}
	close(release)
	must(t, <-stored)
	if d := <-took; d < 50*time.Millisecond {
		t.Errorf("the commit took %v", d)
	}
	if b := l.Busy(); b != 0 {
		t.Errorf("done, and busy for %v", b)
	}
}
