package shard

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	mqtt "github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// valueFixture is a shard with one session that has subscribed to # and is owed a
// replay. Topics of the form "2/…" have their registers in shard 2, all others here.
type valueFixture struct {
	*fixture
	conn uint64
	eff  Effects
	rows memRows
}

func newValueFixture(t *testing.T, qos uint32) *valueFixture {
	config := testConfig()
	config.RegisterOf = func(name string) uint32 {
		if strings.HasPrefix(name, "2/") {
			return 2
		}
		return 1
	}
	f := &valueFixture{fixture: newFixture(t, New(config)), rows: memRows{}}
	f.format, f.fixture.eff = stream.FormatOrder, &f.eff
	f.conn = f.open("s")
	f.do(&shoalpb.Command{Subscribe: &shoalpb.Subscribe{
		Client: "s", Conn: f.conn, Subscriptions: []*shoalpb.Subscription{{Filter: "#", Qos: qos}}, Replay: []uint32{1},
	}})
	return f
}

func value(name, payload, by string) *shoalpb.Message {
	return &shoalpb.Message{Topic: name, Payload: []byte(payload), Qos: 1, Retain: true, Publisher: by}
}

func (f *valueFixture) live(name, payload, by string) {
	f.do(&shoalpb.Command{Append: &shoalpb.Append{Message: value(name, payload, by)}})
}

// liveQoS0 is a message that was published with QoS 0.
func (f *valueFixture) liveQoS0(name, payload, by string) {
	m := value(name, payload, by)
	m.Qos = 0
	f.m.MatchVolatile(m, nil, func(v Volatile) bool {
		if v.Joins {
			f.propose(&shoalpb.Proposal{Live: &shoalpb.Live{Client: v.Client, Conn: v.Conn, Message: v.Message}})
		} else {
			f.eff.Volatile = append(f.eff.Volatile, v)
		}
		return true
	})
}

// page proposes a page as the leader does that asked for it now.
func (f *valueFixture) page(asked uint64, group, next uint32, messages ...*shoalpb.Message) {
	after := ""
	for _, r := range f.m.sessions["s"].extra.replays {
		after = r.after
	}
	f.propose(&shoalpb.Proposal{Page: &shoalpb.Page{
		Client: "s", Replay: 1, Group: group, After: after, NextGroup: next, Messages: messages, ReadIndex: asked,
	}})
}

// got is what the session has in its queue, and what went beside it.
func (f *valueFixture) got() string {
	var list []string
	f.m.Entries("s", f.conn, 0, 100, 0, func(d mqtt.Delivery, _ Stored) bool {
		list = append(list, fmt.Sprintf("%s%s", d.Message.Payload, []string{"", "*"}[isSet(d.Retain)]))
		return true
	})
	for _, v := range f.eff.Volatile {
		list = append(list, "beside:"+string(v.Message.Payload))
	}
	return strings.Join(list, " ")
}

func (f *valueFixture) expect(want string) {
	f.t.Helper()
	if got := f.got(); got != want {
		f.t.Errorf("got %s, want %s", got, want)
	}
}

// restore goes on with what the state file has.
func (f *valueFixture) restore() {
	f.t.Helper()
	f.m = f.restored(f.rows).m
}

// TestReplayValue: the first live message of a topic that a replay has not passed is its
// value, with RETAIN 1 (*); the page leaves the topic out. One that it has passed is a
// live message, and so is what clears a topic.
func TestReplayValue(t *testing.T) {
	f := newValueFixture(t, 1)
	f.live("a", "a1", "p")
	f.live("a", "a2", "p")
	f.live("2/x", "", "p")
	f.live("2/x", "x1", "p")
	f.expect("a1* a2  x1*")
	f.restore()
	f.page(f.index, 1, 2, value("a", "a2", "p"), value("b", "b0", "q"))
	f.live("b", "b1", "p")
	f.live("2/y", "y1", "p")
	f.restore()
	f.expect("a1* a2  x1* b0* b1 y1*")
	f.page(f.index, 2, 0, value("2/x", "x1", "p"), value("2/y", "y0", "p"), value("2/z", "z0", "p"))
	f.expect("a1* a2  x1* b0* b1 y1* z0*")
}

// TestReplayValueOfTwoWriters: a value whose publisher's messages did not come live is
// newer than what came before the page was asked for, and may be older than what came
// later: then it is asked for again, with the rest of the page.
func TestReplayValueOfTwoWriters(t *testing.T) {
	for _, restored := range []bool{false, true} {
		f := newValueFixture(t, 1)
		f.live("b", "b1", "p")
		asked := f.index
		if restored {
			f.restore()
		}
		f.live("c", "c1", "p")
		f.page(asked, 1, 0, value("a", "a0", "q"), value("b", "b0", "q"), value("c", "c0", "q"), value("d", "d0", "q"))
		f.expect("b1* c1* a0* b0")
		if restored {
			f.restore()
		}
		r := f.m.sessions["s"].extra.replays[0]
		if r.group != 1 || r.after != "b" {
			t.Fatalf("the replay stands at %d/%s", r.group, r.after)
		}
		f.page(f.index, 1, 0, value("c", "c0", "q"), value("d", "d0", "q"))
		f.expect("b1* c1* a0* b0 c0 d0*")
		if f.m.Stats().Replays != 0 {
			t.Error("the replay goes on")
		}
	}
}

// TestReplayQoS0: retained messages of QoS 0 in effect never come after a newer live one:
// that waits in the queue behind them, whoever published it with which QoS.
func TestReplayQoS0(t *testing.T) {
	for _, granted := range []uint32{0, 1} {
		publish := (*valueFixture).liveQoS0
		if granted == 0 {
			publish = (*valueFixture).live // published with QoS 1
		}
		f := newValueFixture(t, granted)
		publish(f, "a", "a1", "p")
		old := value("b", "b0", "p")
		old.Qos = 0
		f.page(f.index, 1, 0, value("a", "a0", "p"), old)
		publish(f, "b", "b1", "p")
		f.expect("a1* b0* b1")
		f.restore()
		publish(f, "b", "b2", "p")
		f.expect("a1* b0* b1 b2")
		var seqs []uint64
		f.m.Entries("s", f.conn, 0, 100, 0, func(d mqtt.Delivery, _ Stored) bool {
			seqs = append(seqs, d.Seq)
			return true
		})
		f.do(&shoalpb.Command{Ack: &shoalpb.Ack{Client: "s", Conn: f.conn, Seqs: slices.Clone(seqs)}})
		publish(f, "b", "b3", "p")
		f.expect("beside:b3")
	}
}

// TestReplayQoS0Full: what joins the queue pushes nothing out of it.
func TestReplayQoS0Full(t *testing.T) {
	f := newValueFixture(t, 0)
	f.m.sessions["s"].setLimits(&limits{messages: 1})
	f.live("a", "a1", "p")
	f.live("b", "b1", "p")
	f.expect("a1*")
	if n := f.m.Stats().QueueFull; n != 1 {
		t.Errorf("%d counted", n)
	}
}
