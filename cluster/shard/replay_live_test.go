package shard

import (
	"fmt"
	"testing"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// TestReplayForgetsTheOldest: topics that came live are remembered until a page
// passes them; with too many of them it is the oldest that are forgotten.
func TestReplayForgetsTheOldest(t *testing.T) {
	f := newFixture(t, New(testConfig()))
	conn := f.open("s")
	f.do(&shoalpb.Command{Subscribe: &shoalpb.Subscribe{
		Client: "s", Conn: conn, Subscriptions: []*shoalpb.Subscription{{Filter: "#", Qos: 1}}, Replay: []uint32{1},
	}})
	live := func(n int) {
		f.do(&shoalpb.Command{Append: &shoalpb.Append{Message: &shoalpb.Message{
			Topic: fmt.Sprint(n), Payload: []byte("x"), Qos: 1, Retain: true,
		}}})
		f.do(&shoalpb.Command{Ack: &shoalpb.Ack{Client: "s", Conn: conn, Seqs: []uint64{uint64(n) + 1}}})
	}
	total := 2*maxReplayLive + 10
	for n := range total {
		live(n)
	}
	known := &f.m.sessions["s"].extra.replays[0].live
	has := func(name string) bool { return known.find(name) != nil }
	if has("0") || !has(fmt.Sprint(total-1)) || !has(fmt.Sprint(total-maxReplayLive)) {
		t.Fatalf("wrong topics are forgotten: %d and %d known", len(known.young), len(known.old))
	}
	f = f.restored(memRows{})
	known = &f.m.sessions["s"].extra.replays[0].live
	last := fmt.Sprint(total - 1)
	f.propose(&shoalpb.Proposal{Page: &shoalpb.Page{
		Client: "s", Replay: 1, Group: 1, NextGroup: 1, NextAfter: last,
		Messages: []*shoalpb.Message{{Topic: last, Payload: []byte("old"), Qos: 1, Retain: true}},
	}})
	if n := f.m.Stats().Queued; n != 0 || has(last) {
		t.Fatalf("%d queued, the topic passed is remembered: %v", n, has(last))
	}
}

// TestReplayWaitsForRoom: the leader is not told to try again and again when the
// next message is too large for what is left of the queue.
func TestReplayWaitsForRoom(t *testing.T) {
	f := newFixture(t, New(testConfig()))
	conn := f.do(&shoalpb.Command{Open: &shoalpb.Open{
		Client: "s", ExpiryS: 60, Window: 32, Limits: &shoalpb.QueueLimits{Bytes: 30},
	}}).Open.Conn
	f.do(&shoalpb.Command{Subscribe: &shoalpb.Subscribe{
		Client: "s", Conn: conn, Subscriptions: []*shoalpb.Subscription{{Filter: "#", Qos: 1}}, Replay: []uint32{1},
	}})
	f.append("0123456789", 1)
	for _, want := range []int{1, 0} {
		n := 0
		f.m.Replays(func(r Replay) bool {
			n++
			f.propose(&shoalpb.Proposal{Page: &shoalpb.Page{
				Client: "s", Replay: r.ID, Group: 1, NextGroup: 2,
				Messages: []*shoalpb.Message{{Topic: "t", Payload: make([]byte, 20), Qos: 1}},
			}})
			return true
		})
		if n != want {
			t.Fatalf("%d replays can go on, not %d", n, want)
		}
	}
	f.do(&shoalpb.Command{Ack: &shoalpb.Ack{Client: "s", Conn: conn, Seqs: []uint64{1}}})
	n := 0
	f.m.Replays(func(Replay) bool { n++; return true })
	if n != 1 {
		t.Fatal("the replay does not go on")
	}
}
