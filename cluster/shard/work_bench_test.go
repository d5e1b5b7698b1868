package shard

import (
	"fmt"
	"runtime"
	"testing"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// BenchmarkFence measures the entry that fences a process with 100,000 sessions
// that have Wills, and what each entry sweeps after it.
func BenchmarkFence(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		f := newFixture(b, New(testConfig()))
		for i := range 100_000 {
			f.do(&shoalpb.Command{Open: &shoalpb.Open{Client: fmt.Sprintf("c%d", i), ExpiryS: 60, Will: will("gone")}})
		}
		save(b, f.m, memRows{})
		runtime.GC()
		b.StartTimer()
		f.fence()
	}
}

// BenchmarkReplays measures one look for replays that can go on: 50,000 sessions
// are in the middle of one, with full queues, and one has room.
func BenchmarkReplays(b *testing.B) {
	f := newFixture(b, New(testConfig()))
	for i := range 50_000 {
		c := fmt.Sprintf("c%d", i)
		conn := f.open(c)
		f.do(&shoalpb.Command{Subscribe: &shoalpb.Subscribe{
			Client: c, Conn: conn, Subscriptions: []*shoalpb.Subscription{{Filter: "r/#", Qos: 1}}, Replay: []uint32{1},
		}})
		if i == 0 {
			continue
		}
		page := &shoalpb.Page{Client: c, Replay: uint64(i) + 1, Group: 1, NextGroup: 1, NextAfter: "r/z"}
		for n := range replayQueue/2 + 1 {
			page.Messages = append(page.Messages, &shoalpb.Message{Topic: fmt.Sprint("r/", n), Payload: []byte("x"), Qos: 1})
		}
		f.propose(&shoalpb.Proposal{Page: page})
	}
	for b.Loop() {
		found := 0
		f.m.Replays(func(Replay) bool {
			found++
			return true
		})
		if found != 1 {
			b.Fatal(found, "replays can go on")
		}
	}
}
