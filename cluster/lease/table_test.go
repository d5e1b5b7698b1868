package lease

import (
	"slices"
	"testing"
	"time"
)

const second = time.Second

func renew(t *testing.T, l *Table, now time.Duration, node string, boot, applied uint64) {
	t.Helper()
	if ok, reason := l.Renew(now, Report{node, boot, 1, applied}, true); !ok {
		t.Fatalf("at %v: %s is refused: %s", now, node, reason)
	}
}

func refused(t *testing.T, l *Table, now time.Duration, node string, boot, applied uint64, confirmed bool) {
	t.Helper()
	if ok, reason := l.Renew(now, Report{node, boot, 1, applied}, confirmed); ok || reason == "" {
		t.Fatalf("at %v: %s is granted a lease, reason %q", now, node, reason)
	}
}

func visible(t *testing.T, l *Table, now time.Duration, want uint64) {
	t.Helper()
	if v := l.Visible(now); v != want {
		t.Fatalf("at %v: visible is %d, want %d", now, v, want)
	}
}

func expired(t *testing.T, l *Table, now time.Duration, want ...Member) {
	t.Helper()
	if m := l.Expired(now); !slices.Equal(m, want) {
		t.Fatalf("at %v: expired are %v, want %v", now, m, want)
	}
}

// beats renews nodes every Renew from just after from up to to.
func beats(t *testing.T, l *Table, from, to time.Duration, applied uint64, nodes ...string) {
	t.Helper()
	for now := from + Renew; now <= to; now += Renew {
		for _, node := range nodes {
			renew(t, l, now, node, 1, applied)
		}
	}
}

var abc = []Member{{"a", 1}, {"b", 1}, {"c", 1}}

// TestTable walks a node through lapse and death.
func TestTable(t *testing.T) {
	l := NewTable(10*second, 3, 100, abc)
	// After an election all count, and what they have applied is not known.
	renew(t, l, 10*second, "a", 1, 100)
	renew(t, l, 10*second, "b", 1, 107)
	visible(t, l, 10*second, 0)
	l.Applied(10*second, Report{"c", 1, 1, 90})
	visible(t, l, 10*second, 90)
	refused(t, l, 10*second, "c", 1, 99, true) // below the first index of the term
	refused(t, l, 10*second, "c", 2, 200, true)
	refused(t, l, 10*second, "d", 1, 200, true)
	refused(t, l, 10*second, "a", 1, 100, false)
	if next := l.Next(10 * second); next != 13150*time.Millisecond {
		t.Fatalf("next is %v", next)
	}
	beats(t, l, 10*second, 13*second, 105, "a", "b")
	visible(t, l, 13149*time.Millisecond, 99)
	visible(t, l, 13150*time.Millisecond, 105) // c is not counted any more
	refused(t, l, 13200*time.Millisecond, "c", 1, 104, true)
	// Reports do not fall, and nor does what is visible.
	l.Applied(13200*time.Millisecond, Report{"a", 1, 1, 1})
	visible(t, l, 13200*time.Millisecond, 105)
	beats(t, l, 13*second, 14200*time.Millisecond, 106, "a", "b")
	expired(t, l, 14299*time.Millisecond)
	if next := l.Next(14299 * time.Millisecond); next != 14300*time.Millisecond {
		t.Fatalf("next is %v", next)
	}
	expired(t, l, 14300*time.Millisecond, Member{"c", 1})
	// From now on it is granted nothing, caught up or not; it is told once a second.
	refused(t, l, 14400*time.Millisecond, "c", 1, 200, true)
	expired(t, l, 15200*time.Millisecond)
	expired(t, l, 15300*time.Millisecond, Member{"c", 1})
	l.SetNodes(15400*time.Millisecond, []Member{{"a", 1}, {"b", 1}})
	expired(t, l, 16*second)
}

// TestRenewedInTime: a node that lapsed and comes back before it is declared dead
// goes on.
func TestRenewedInTime(t *testing.T) {
	l := NewTable(0, 1, 1, abc)
	beats(t, l, 0, 4200*time.Millisecond, 9, "a", "b")
	visible(t, l, 4200*time.Millisecond, 9)
	refused(t, l, 4200*time.Millisecond, "c", 1, 8, true)
	renew(t, l, 4250*time.Millisecond, "c", 1, 9)
	beats(t, l, 4200*time.Millisecond, 7*second, 9, "a", "b")
	expired(t, l, 7*second)
}

// TestNewBoot: a new process takes the place of the old one at once and counts
// from its first grant.
func TestNewBoot(t *testing.T) {
	l := NewTable(0, 1, 1, abc)
	beats(t, l, 0, second, 5, "a", "b", "c")
	visible(t, l, second, 5)
	l.SetNodes(second, []Member{{"a", 1}, {"b", 1}, {"c", 2}, {"d", 1}})
	refused(t, l, second, "c", 1, 9, true)
	beats(t, l, second, 2*second, 9, "a", "b")
	visible(t, l, 2*second, 9) // neither c/2 nor d holds it back
	refused(t, l, 2*second, "c", 2, 8, true)
	beats(t, l, 2*second, 3*second, 9, "a", "b")
	renew(t, l, 3*second, "c", 2, 9)
	l.Applied(3*second, Report{"a", 1, 1, 12})
	l.Applied(3*second, Report{"b", 1, 1, 12})
	visible(t, l, 3*second, 9)
}

// TestNewcomer: a process that announced itself and died at once is declared
// dead; one that keeps asking while it catches up is not.
func TestNewcomer(t *testing.T) {
	l := NewTable(0, 1, 1, abc[:1])
	l.SetNodes(0, abc)
	for now := time.Duration(0); now < 20*second; now += Renew {
		renew(t, l, now, "a", 1, 9)
		l.Visible(now)
		refused(t, l, now, "b", 1, 3, true)
		if now < newcomerPatience {
			expired(t, l, now)
		}
	}
	if m := l.nodes["c"]; !m.dead && len(l.Expired(20*second)) != 1 {
		t.Fatal("c is not declared dead")
	}
	if l.nodes["b"].dead {
		t.Fatal("b is declared dead")
	}
}

// TestLaggingNodeAfterElection is what happens when D1 leaves a lagging node out,
// tells a visible index, and dies: D2 grants that node nothing before it has
// caught up.
func TestLaggingNodeAfterElection(t *testing.T) {
	d1 := NewTable(0, 1, 1, abc)
	beats(t, d1, 0, 4*second, 50, "a", "b")
	visible(t, d1, 4*second, 50)
	d2 := NewTable(100*second, 2, 51, abc) // on b, whose clock is another
	refused(t, d2, 100*second, "c", 1, 20, true)
	renew(t, d2, 100*second, "b", 1, 51)
	renew(t, d2, 100*second, "a", 1, 51)
	visible(t, d2, 103*second, 20)
	renew(t, d2, 103*second, "c", 1, 51)
}

// TestDeposedLeader: what a leader that does not know that it is deposed tells of
// entries of its successor's term is not used, whenever it arrives.
func TestDeposedLeader(t *testing.T) {
	d1 := NewTable(0, 1, 1, abc)
	beats(t, d1, 0, 3*second, 9, "a", "b", "c")
	beats(t, d1, 3*second, 3300*time.Millisecond, 9, "b")
	// Elsewhere D2 begins at index 10. b follows it and tells D1; those that
	// would hold D1 back lapse.
	d1.Applied(6*second, Report{"b", 1, 1, 15})
	stale := d1.Visible(6200 * time.Millisecond)
	if stale != 15 {
		t.Fatalf("the deposed leader tells %d: this test tests nothing", stale)
	}
	var early, late Holder
	early.Applied(9, 1)
	early.Told(1, stale)
	early.Applied(10, 2)
	early.Applied(15, 2)
	if v := early.Visible(); v != 9 {
		t.Errorf("visible is %d, told before the entry came", v)
	}
	late.Applied(9, 1)
	late.Applied(15, 2)
	if v := late.Told(1, stale); v != 0 {
		t.Errorf("visible is %d, told after the entry came", v)
	}
	if v := late.Told(2, 12); v != 12 {
		t.Errorf("visible is %d, told by the leader", v)
	}
	if v := late.Told(2, 11); v != 12 {
		t.Errorf("visible fell to %d", v)
	}
}

// TestSuspendedCluster: a cluster of one that was suspended for a minute finds
// its lease over, but nobody dead and no reason to let clients go.
func TestSuspendedCluster(t *testing.T) {
	l, h := NewTable(0, 1, 1, abc[:1]), &Holder{}
	h.Granted(0, 0)
	now := time.Duration(0)
	for ; now < 2*second; now += Renew {
		renew(t, l, now, "a", 1, 1)
		h.Granted(now, now)
		if h.CloseClients(now) {
			t.Fatal("clients closed")
		}
	}
	now += time.Minute
	if h.Valid(now) {
		t.Fatal("the lease went on in the sleep")
	}
	expired(t, l, now)
	if h.CloseClients(now) {
		t.Fatal("clients closed on waking up")
	}
	if next := l.Next(now); next != now+DeadAfter {
		t.Fatalf("next is %v after waking up", next-now)
	}
	renew(t, l, now, "a", 1, 1)
	h.Granted(now, now)
	expired(t, l, now+Renew)
	if h.CloseClients(now + Renew) {
		t.Fatal("clients closed")
	}
}

// TestHolder: a lease counts from when it was asked for.
func TestHolder(t *testing.T) {
	var h Holder
	if h.Valid(0) || h.Expiry() != 0 || h.CloseClients(9*second) {
		t.Fatal("a lease from nowhere")
	}
	h.Granted(10*second, 12*second)
	h.Granted(9*second, 12500*time.Millisecond) // out of order
	if h.Expiry() != 13*second || !h.Valid(13*second-1) || h.Valid(13*second) {
		t.Fatalf("the lease ends at %v", h.Expiry())
	}
	for now := 12 * second; now < 15*second; now += 100 * time.Millisecond {
		if got, want := h.CloseClients(now), now >= 13800*time.Millisecond; got != want {
			t.Fatalf("at %v clients are to be closed: %v", now, got)
		}
	}
	h.Granted(14900*time.Millisecond, 15*second)
	if h.CloseClients(15*second) || !h.Valid(15*second) {
		t.Fatal("renewed, and yet closed")
	}
}

// TestSetBack is scenario 52: what a process reported of a copy that an install
// has replaced since counts no more, however late it arrives.
func TestSetBack(t *testing.T) {
	l := NewTable(0, 1, 50, []Member{{"b", 1}, {"c", 1}})
	l.Applied(0, Report{"b", 1, 1, 100})
	l.Applied(0, Report{"c", 1, 1, 80})
	visible(t, l, 0, 80)
	// An install sets b back to 60; it catches up to 80.
	l.Applied(second, Report{"b", 1, 2, 60})
	if ok, reason := l.Renew(second, Report{"b", 1, 2, 80}, true); !ok {
		t.Fatalf("b is refused: %s", reason)
	}
	l.Applied(second, Report{"b", 1, 1, 100}) // of the former copy
	l.Applied(second, Report{"c", 1, 1, 100})
	visible(t, l, second, 80)
	if ok, _ := l.Renew(second, Report{"b", 1, 1, 100}, true); ok {
		t.Fatal("a renewal for the former copy is granted")
	}
	visible(t, l, second, 80)
	l.Applied(second, Report{"b", 1, 2, 100})
	visible(t, l, second, 100)
}

// TestSetBackUnnumbered: the same of a build that does not number its copies. Its
// renewal tells what it has.
func TestSetBackUnnumbered(t *testing.T) {
	l := NewTable(0, 1, 50, []Member{{"b", 1}, {"c", 1}})
	l.Applied(0, Report{"b", 1, 0, 100})
	l.Applied(0, Report{"c", 1, 1, 80})
	visible(t, l, 0, 80)
	if ok, reason := l.Renew(second, Report{"b", 1, 0, 80}, true); !ok {
		t.Fatalf("b is refused: %s", reason)
	}
	l.Applied(second, Report{"c", 1, 1, 100})
	visible(t, l, second, 80)
}

// TestLeaderThatStandsAgainAndAgain: a leader that runs for a tenth of each second
// still finds out who is dead, and takes nobody for dead that renews whenever it
// runs.
func TestLeaderThatStandsAgainAndAgain(t *testing.T) {
	l := NewTable(0, 1, 1, abc)
	ran, now := time.Duration(0), time.Duration(0)
	for ; ran < 2*(Count+DeadAfter); now += 900 * time.Millisecond {
		for wake := now + 100*time.Millisecond; now < wake; now, ran = now+20*time.Millisecond, ran+20*time.Millisecond {
			renew(t, l, now, "a", 1, 9)
			renew(t, l, now, "b", 1, 9)
			l.Visible(now)
			dead := l.Expired(now)
			if len(dead) == 0 {
				continue
			}
			expired(t, l, now+repeatDead, Member{"c", 1})
			if now < Count+DeadAfter {
				t.Fatalf("declared dead after %v", now)
			}
			return
		}
	}
	t.Fatalf("not declared dead though the leader ran for %v of %v", ran, now)
}

// TestHolderThatStandsAgainAndAgain: a node that runs for a tenth of each second
// and is not renewed lets its clients go.
func TestHolderThatStandsAgainAndAgain(t *testing.T) {
	var h Holder
	h.Granted(0, 0)
	for now := time.Duration(0); now < 20*second; now += 900 * time.Millisecond {
		for wake := now + 100*time.Millisecond; now < wake; now += 20 * time.Millisecond {
			if h.CloseClients(now) {
				if now < Duration+CloseAfter {
					t.Fatalf("clients closed after %v", now)
				}
				return
			}
		}
	}
	t.Fatal("the clients stay")
}
