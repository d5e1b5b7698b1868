package shard

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	mqtt "github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/broker/topic"
	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

func retainCommand(name, payload string, expiry uint64) *shoalpb.Command {
	m := &shoalpb.Message{Topic: name, Payload: []byte(payload), Qos: 1, Retain: true, Publisher: "p"}
	if expiry > 0 {
		m.ExpiryMs = &expiry
	}
	return &shoalpb.Command{Retain: &shoalpb.Retain{Message: m}}
}

// registers returns what a machine retains, by topic.
func registers(m *Machine) map[string]string {
	out := map[string]string{}
	m.Retained("#", "", m.Clock(), func(msg *shoalpb.Message) bool {
		out[msg.Topic] = string(msg.Payload)
		return true
	})
	return out
}

// tick moves the clock.
func (f *fixture) tick(clock uint64) {
	f.t.Helper()
	f.index++
	e := &shoalpb.Entry{Format: stream.FirstFormat, ClockMs: clock, Proposals: []*shoalpb.Proposal{{Tick: &shoalpb.Tick{}}}}
	if _, err := f.m.Apply(f.index, e, f.eff); err != nil {
		f.t.Fatal(err)
	}
}

// restored checkpoints into rows and returns a fixture on what they hold.
func (f *fixture) restored(rows memRows) *fixture {
	f.t.Helper()
	save(f.t, f.m, rows)
	m := load(f.t, f.m.cfg, rows)
	if m.Digest() != f.m.Digest() {
		f.t.Fatal("the restored state differs")
	}
	return &fixture{t: f.t, m: m, eff: &Effects{}, index: f.index, n: f.n}
}

// TestRetainedIsARegister: a map from topics to the latest message, under
// clearing, expiry, a limit, and restarts.
func TestRetainedIsARegister(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		config := testConfig()
		config.Retained = 4
		f := newFixture(t, New(config))
		rows := memRows{}
		want, until := map[string]string{}, map[string]uint64{}
		clock := uint64(0)
		for i := range rapid.IntRange(1, 60).Draw(rt, "steps") {
			name := rapid.SampledFrom([]string{"a", "a/b", "a/c", "b", "$x/y", "a/b/c"}).Draw(rt, "topic")
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0:
				f = f.restored(rows)
			case 1:
				clock += uint64(rapid.IntRange(1, 30).Draw(rt, "ms"))
				f.tick(clock)
				for name, at := range until {
					if at <= clock {
						delete(want, name)
						delete(until, name)
					}
				}
			case 2:
				f.do(retainCommand(name, "", 0))
				delete(want, name)
				delete(until, name)
			default:
				expiry := uint64(rapid.IntRange(0, 40).Draw(rt, "expiry"))
				a := f.do(retainCommand(name, fmt.Sprint(i), expiry))
				if _, known := want[name]; !known && len(want) == config.Retained {
					if a.GetCode() != shoalpb.Code_CODE_QUOTA {
						rt.Fatalf("one too many: %v", a)
					}
					continue
				}
				want[name] = fmt.Sprint(i)
				delete(until, name)
				if expiry > 0 {
					until[name] = clock + expiry
				}
			}
			got := registers(f.m)
			visible := maps.Clone(want)
			for name := range visible {
				if !topic.MatchOne("#", name) {
					delete(visible, name)
				}
			}
			if !maps.Equal(got, visible) || f.m.Stats().Retained != len(want) {
				rt.Fatalf("registers %v, want %v (%d)", got, visible, f.m.Stats().Retained)
			}
		}
	})
}

// TestReplay: whatever is published, acknowledged, restarted and proposed twice
// meanwhile, a replay brings each topic that matched all the time once, as what was
// retained or live, and nothing after a newer live one.
func TestReplay(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		config := testConfig()
		config.RegisterOf = func(name string) uint32 { return uint32(1 + len(name)%2) }
		f := newFixture(t, New(config))
		f.eff = &Effects{}
		rows := memRows{}
		other := map[uint32]*fixture{2: newFixture(t, New(testConfig()))} // another shard's registers
		at := func(group uint32) *fixture {
			if group == 1 {
				return f
			}
			return other[group]
		}
		value := map[string]int{}
		write := func(name string, n int) {
			at(uint32(1 + len(name)%2)).do(retainCommand(name, fmt.Sprint(n), 0))
			value[name] = n
		}
		for i := range rapid.IntRange(0, 30).Draw(rt, "topics") {
			write(fmt.Sprintf("t/%0*d", 1+i%2, i), i)
		}
		initial := maps.Clone(value)
		conn := f.open("s")
		qos := uint32(rapid.IntRange(0, 2).Draw(rt, "qos"))
		f.do(&shoalpb.Command{Subscribe: &shoalpb.Subscribe{
			Client: "s", Conn: conn, Subscriptions: []*shoalpb.Subscription{{Filter: "t/+", Qos: qos, Identifier: 7}}, Replay: []uint32{1},
		}})
		got, replayed, after := map[string]int{}, map[string]bool{}, uint64(0)
		receive := func() {
			var seqs []uint64
			f.m.Entries("s", conn, after, 1000, f.m.Clock(), func(d mqtt.Delivery, _ Stored) bool {
				seqs = append(seqs, d.Seq)
				name, n := d.Message.Topic, 0
				fmt.Sscan(string(d.Message.Payload), &n)
				if d.Retain {
					if replayed[name] {
						rt.Fatalf("%s came twice", name)
					}
					replayed[name] = true
				}
				if have, ok := got[name]; ok && n < have {
					rt.Fatalf("%s: %d after %d", name, n, have)
				}
				got[name] = n
				return true
			})
			if len(seqs) > 0 {
				after = seqs[len(seqs)-1]
				f.do(&shoalpb.Command{Ack: &shoalpb.Ack{Client: "s", Conn: conn, Seqs: seqs}})
			}
		}
		var late []*shoalpb.Page
		for i := 100; ; i++ {
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0:
				f = f.restored(rows)
			case 1:
				receive()
			case 2: // published again: retained and live
				if len(value) > 0 {
					name := rapid.SampledFrom(slices.Sorted(maps.Keys(value))).Draw(rt, "topic")
					write(name, i)
					f.do(&shoalpb.Command{Append: &shoalpb.Append{Message: &shoalpb.Message{
						Topic: name, Payload: fmt.Append(nil, i), Qos: 1, Retain: true, Publisher: "p",
					}}})
					if len(f.eff.Volatile) > 0 { // handed over at once
						got[name] = i
						f.eff.Reset()
					}
				}
			case 3:
				for _, p := range late { // of a leader that was deposed
					f.propose(&shoalpb.Proposal{Page: p})
				}
				late = nil
			default:
				var r Replay
				f.m.Replays(func(x Replay) bool { r = x; return false })
				if r.ID == 0 {
					break
				}
				p := &shoalpb.Page{Client: r.Client, Replay: r.ID, Group: r.Group, After: r.After}
				at(r.Group).m.Retained(r.Filter, r.After, 0, func(m *shoalpb.Message) bool {
					p.Messages = append(p.Messages, m)
					return len(p.Messages) < 5
				})
				switch n := len(p.Messages); {
				case n > 0:
					p.NextGroup, p.NextAfter = r.Group, p.Messages[n-1].Topic
				case r.Group == 1:
					p.NextGroup = 2
				}
				late = append(late, p)
				f.propose(&shoalpb.Proposal{Page: p})
			}
			if i > 130 && f.m.Stats().Replays == 0 {
				break
			}
		}
		receive()
		for name := range initial {
			if _, ok := got[name]; !ok {
				rt.Fatalf("%s did not come", name)
			}
		}
	})
}

// TestReplayRespectsTheQueue: a replay never fills a queue beyond its room.
func TestReplayRespectsTheQueue(t *testing.T) {
	f := newFixture(t, New(testConfig()))
	conn := f.do(&shoalpb.Command{Open: &shoalpb.Open{
		Client: "s", ExpiryS: 60, Window: 32, Limits: &shoalpb.QueueLimits{Messages: 10},
	}}).Open.Conn
	f.do(&shoalpb.Command{Subscribe: &shoalpb.Subscribe{
		Client: "s", Conn: conn, Subscriptions: []*shoalpb.Subscription{{Filter: "#", Qos: 1}}, Replay: []uint32{1},
	}})
	for i := range 8 {
		f.append("t", i)
	}
	f.m.Replays(func(r Replay) bool {
		t.Errorf("a replay with %d of 10 entries queued: %+v", f.m.Stats().Queued, r)
		return true
	})
	f.do(&shoalpb.Command{Ack: &shoalpb.Ack{Client: "s", Conn: conn, Seqs: []uint64{1, 2, 3, 4}}})
	n := 0
	f.m.Replays(func(r Replay) bool {
		n++
		if r.Messages != 6 {
			t.Errorf("room for %d messages beside 4 of 10", r.Messages)
		}
		return true
	})
	if n != 1 {
		t.Errorf("%d replays", n)
	}
}
