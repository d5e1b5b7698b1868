package lease

import (
	"testing"
	"time"
)

// A process whose copy lags is granted nothing after LagLimit, so that its lease
// lapses and the visible index goes on without it; once it has caught up it is
// granted again.
func TestLaggingCopyIsExcluded(t *testing.T) {
	at := time.Duration(0)
	x := NewTable(at, 2, 10, []Member{{"a", 1}, {"b", 1}})
	x.Led(at, 10)
	step := func(b uint64) (a, lag bool) {
		at += Renew
		a, _ = x.Renew(at, "a", 1, x.led, true)
		lag, _ = x.Renew(at, "b", 1, b, true)
		return a, lag
	}
	if a, b := step(10); !a || !b {
		t.Fatal("both have all: both are granted")
	}
	x.Led(at, 20)
	since := at
	for {
		a, b := step(10)
		if !a {
			t.Fatal("the process that has all is refused")
		}
		if !b {
			break
		}
		if at-since > LagLimit+Renew {
			t.Fatal("the lagging process is still granted")
		}
		if v := x.Visible(at); v != 10 {
			t.Fatalf("visible is %d while a leased process has 10", v)
		}
	}
	if at-since <= LagLimit {
		t.Fatalf("refused after %v already", at-since)
	}
	for range 11 {
		step(10)
	}
	if v := x.Visible(at); v != 20 {
		t.Fatalf("visible is %d after the lapse, want 20", v)
	}
	if got := x.Expired(at); len(got) != 0 {
		t.Fatalf("%v is declared dead before its time", got)
	}
	if _, b := step(20); !b {
		t.Fatal("refused although it has caught up")
	}
}

// A process that always lags a little, with entries coming all the time, is
// not excluded.
func TestSteadyLagIsFine(t *testing.T) {
	at := time.Duration(0)
	x := NewTable(at, 1, 0, []Member{{"a", 1}, {"b", 1}})
	for i := range uint64(100) {
		at += Renew
		x.Led(at, 10+i)
		x.Renew(at, "a", 1, 10+i, true)
		if ok, why := x.Renew(at, "b", 1, 10+i-min(i, 2), true); !ok {
			t.Fatalf("round %d: %s", i, why)
		}
	}
}
