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
		a, _ = x.Renew(at, Report{"a", 1, 1, x.led}, true)
		lag, _ = x.Renew(at, Report{"b", 1, 1, b}, true)
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
		x.Renew(at, Report{"a", 1, 1, 10 + i}, true)
		if ok, why := x.Renew(at, Report{"b", 1, 1, 10 + i - min(i, 2)}, true); !ok {
			t.Fatalf("round %d: %s", i, why)
		}
	}
}

// A process whose copy was set back is given LagLimit again to catch up.
func TestSetBackIsNoLag(t *testing.T) {
	x := NewTable(0, 1, 0, []Member{{"a", 1}, {"b", 1}})
	x.Led(0, 20)
	at := time.Duration(0)
	step := func(copy, b uint64) (ok bool, why string) {
		at += Renew
		x.Renew(at, Report{"a", 1, 1, 20}, true)
		return x.Renew(at, Report{"b", 1, copy, b}, true)
	}
	for range 20 {
		if ok, why := step(1, 20); !ok {
			t.Fatal(why)
		}
	}
	set := at
	for at-set < LagLimit {
		if ok, why := step(2, 10); !ok && at-set < LagLimit {
			t.Fatalf("refused %v after the install: %s", at-set, why)
		}
	}
	step(2, 10)
	if ok, _ := step(2, 10); ok {
		t.Fatal("still granted, though it does not catch up")
	}
	if ok, why := step(2, 20); !ok {
		t.Fatal(why)
	}
}
