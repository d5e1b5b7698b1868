package acl

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/shoalmq/shoal/broker"
)

// TestShared: clients that the same rules concern have them once, also after a
// change, and what nobody has any more goes.
func TestShared(t *testing.T) {
	const text = "user a\ntopic read x\nuser b\ntopic read y\npattern write out/%c\npattern read all\n"
	s := newTestSet(t, ParseMosquitto, text)
	list := func(p broker.Permissions) *list { return p.(*permissions).chosen.common }
	first, second := permissionsOf(t, s, client("1", "a")), permissionsOf(t, s, client("2", "a"))
	other := permissionsOf(t, s, client("3", "b"))
	check := func() {
		t.Helper()
		for want, p := range map[string]broker.Permissions{"x out/1": first, "x out/2": second, "y out/3": other} {
			got := ""
			for _, n := range []string{"x", "y", "out/1", "out/2", "out/3"} {
				if rights(p, n) != "" {
					got += " " + n
				}
			}
			if got != " "+want || rights(p, "all") != "r" {
				t.Errorf("%q, want %q", got, want)
			}
		}
		if list(first) != list(second) || list(first) == list(other) {
			t.Error("not one list for those whom the same rules concern")
		}
	}
	check()
	if err := s.Load(); err != nil {
		t.Fatal(err)
	}
	check()
	many := ""
	for i := range 1000 {
		many += fmt.Sprintf("user u%d\ntopic %d\n", i, i)
	}
	s = newTestSet(t, ParseMosquitto, many)
	for i := range 1000 {
		permissionsOf(t, s, client("c", fmt.Sprintf("u%d", i)))
		if i%100 == 0 {
			runtime.GC()
		}
	}
	if n := len(s.rules.Load().shared.lists); n > 500 {
		t.Errorf("%d lists of clients that have gone", n)
	}
}

// TestTogether: clients ask what they share while the rules are read anew; for the
// race detector.
func TestTogether(t *testing.T) {
	text := "user u\n"
	for i := range 2 * indexFrom {
		text += fmt.Sprintf("topic read a/%d\n", i)
	}
	s := newTestSet(t, ParseMosquitto, text+"pattern read out/%c\n")
	var wg sync.WaitGroup
	for i := range 4 {
		p := permissionsOf(t, s, client(fmt.Sprint(i), "u"))
		wg.Go(func() {
			for n := range 2000 {
				if !p.Receive(fmt.Sprintf("a/%d", n%(2*indexFrom))) || !p.Receive(fmt.Sprintf("out/%d", i)) || p.Receive(fmt.Sprintf("out/%d", i+1)) {
					t.Error("another answer while rules are read anew")
					return
				}
			}
		})
	}
	for range 20 {
		if err := s.Load(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}

// BenchmarkPublish: a client that goes on publishing to its topic, and one that
// publishes to ever new ones among 10,000 rules.
func BenchmarkPublish(b *testing.B) {
	text := ""
	for i := range 10_000 {
		text += fmt.Sprintf("topic write line/%d/#\n", i)
	}
	p := permissionsOf(b, newTestSet(b, ParseMosquitto, "user u\n"+text), client("c", "u"))
	names := make([]string, 64)
	for i := range names {
		names[i] = fmt.Sprintf("line/%d/temperature", i*100)
	}
	b.Run("same", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			p.Publish(names[0], 1, false)
		}
	})
	b.Run("other", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			p.Publish(names[i%len(names)], 1, false)
		}
	})
}
