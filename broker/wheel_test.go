package broker

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWheel: a connection comes out of the wheel not before its time, unless the
// time is more than a round away, and not more than an interval after it.
func TestWheel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := time.Unix(1000, 0)
		w, now := newWheel(start), start
		at := make(map[*conn]time.Time)
		conns := make([]*conn, 5)
		for i := range conns {
			conns[i] = &conn{}
		}
		t.Repeat(map[string]func(*rapid.T){
			"schedule": func(t *rapid.T) {
				c := rapid.SampledFrom(conns).Draw(t, "conn")
				at[c] = now.Add(time.Duration(rapid.IntRange(0, 200_000).Draw(t, "ms")) * time.Millisecond)
				w.schedule(c, at[c])
			},
			"cancel": func(t *rapid.T) {
				c := rapid.SampledFrom(conns).Draw(t, "conn")
				delete(at, c)
				w.cancel(c)
			},
			"advance": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 70_000).Draw(t, "ms")) * time.Millisecond)
				for _, c := range w.advance(now) {
					when, known := at[c]
					if !known {
						t.Fatal("a connection that is not scheduled")
					}
					if delete(at, c); when.After(now) {
						at[c] = when
						w.schedule(c, when)
					}
				}
				for _, when := range at {
					if late := now.Sub(when); late > sweepInterval {
						t.Fatalf("%v late", late)
					}
				}
			},
		})
	})
}
