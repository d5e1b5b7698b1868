package cluster

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/cluster/shard"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// willOf asks for a connection with a Will, whose payload is the client's name.
func willOf(name string, delay, expiry uint32, retain bool) session.OpenRequest {
	return session.OpenRequest{Client: name, ExpirySeconds: expiry, Will: &shoalpb.Will{
		Message: &shoalpb.Message{Topic: "will/" + name, Payload: []byte(name), Qos: 1, Retain: retain, Publisher: name},
		DelayS:  delay,
	}}
}

// TestScenarioWills is scenario 40: the node of a hundred clients dies. Each Will
// that is due reaches every subscriber once, and none of a client that came
// back within its delay does; also if the node is back within a second, and if
// the shards' leader dies while it dispatches.
func TestScenarioWills(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioWills)
}

func testScenarioWills(t *testing.T, size int) {
	for _, s := range []struct {
		name            string
		restart, leader bool
	}{{"node dies", false, false}, {"node restarts", true, false}, {"leader dies too", true, true}} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			c := newTimed(t, 3, 2).widened(size)
			if size == 5 {
				c.fronts["n3"] = "n5" // not the node that dies
			}
			w := newWillWatch(c)
			share := newShareOfWills(c)
			for i := range 25 {
				c.at("n1").openWith(t, willOf(fmt.Sprint("now-", i), 300, 0, false), nil) // transient: no delay
				c.at("n1").openWith(t, willOf(fmt.Sprint("kept-", i), 0, 3600, true), nil)
				c.at("n1").openWith(t, willOf(fmt.Sprint("later-", i), 300, 3600, false), nil)
				c.at("n1").openWith(t, willOf(fmt.Sprint("back-", i), 300, 3600, false), nil)
			}
			c.lead(1, "n2")
			c.lead(2, "n2")
			c.kill(c.on("n1"))
			if s.restart {
				c.start(c.on("n1"))
			}
			for i := range 25 {
				if x := c.at("n3").openWith(t, session.OpenRequest{Client: fmt.Sprint("back-", i), ExpirySeconds: 3600}, nil); !x.opened.Present {
					t.Errorf("back-%d has lost its session", i)
				}
			}
			w.expect("now", "kept")
			c.pass(300 * time.Second)
			if s.leader {
				w.some("later")
				c.kill("n2")
			}
			w.expect("now", "kept", "later")
			eventually(t, "nothing is left", func() error {
				wills, due, outbox := uint64(0), 0, 0
				for id := range uint32(2) {
					st := c.stats(id + 1)
					wills, due, outbox = wills+st.Wills, due+st.Due, outbox+st.OutboxEntries
				}
				if wills < 75 || // those of refused connections count, too
					due != 0 || outbox != 0 {
					return fmt.Errorf("%d wills, %d due, %d in the outbox", wills, due, outbox)
				}
				return nil
			})
			w.expect("now", "kept", "later")
			w.retained(25)
			share.expect(75)
		})
	}
}

// TestWillCrossesDisconnect: the DISCONNECT that discards a Will reaches the
// shard after the CONNECT that took the session over.
func TestWillCrossesDisconnect(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 1)
	w := newWillWatch(c)
	c.lead(1, "n2")
	old := c.node("n1").openWith(t, willOf("gone-0", 0, 3600, false), nil)
	other := c.node("n1").openWith(t, willOf("lost-0", 0, 3600, false), nil)
	c.net.hold("n1", "n2")
	c.net.hold("n1", "n3")
	old.link.Close(session.CloseRequest{DiscardWill: true})
	other.link.Close(session.CloseRequest{})
	c.node("n3").openWith(t, session.OpenRequest{Client: "gone-0", ExpirySeconds: 3600}, nil)
	c.node("n3").openWith(t, session.OpenRequest{Client: "lost-0", ExpirySeconds: 3600}, nil)
	eventually(t, "both Wills wait for the old connections to drain", func() error {
		if st := c.stats(1); st.Wills < 2 || st.Due != 2 {
			return fmt.Errorf("%d wills, %d due", st.Wills, st.Due)
		}
		return nil
	})
	c.net.heal()
	eventually(t, "both are decided", func() error {
		if st := c.stats(1); st.Due != 0 {
			return fmt.Errorf("%d due", st.Due)
		}
		return nil
	})
	w.expectExactly("lost-0")
}

// willWatch are two subscribers of all Wills.
type willWatch struct {
	c    *testCluster
	subs []*client
}

func newWillWatch(c *testCluster) *willWatch {
	w := &willWatch{c: c}
	for i, expiry := range []uint32{0, 3600} {
		x := c.at("n3").open(c.t, fmt.Sprint("watch-", i), true, expiry)
		x.subscribe("will/#", 1)
		w.subs = append(w.subs, x)
	}
	return w
}

// expect waits until each Will of these kinds has come once, and nothing else.
func (w *willWatch) expect(kinds ...string) {
	w.c.t.Helper()
	var names []string
	for _, kind := range kinds {
		for i := range 25 {
			names = append(names, fmt.Sprint(kind, "-", i))
		}
	}
	w.expectExactly(names...)
}

func (w *willWatch) expectExactly(names ...string) {
	w.c.t.Helper()
	want := map[string]int{}
	for _, name := range names {
		want[name]++
	}
	for _, x := range w.subs {
		eventually(w.c.t, "wills", func() error {
			got := map[string]int{}
			for _, p := range x.in.payloads() {
				got[p]++
			}
			if !maps.Equal(got, want) {
				return fmt.Errorf("%d of %d wills: %.300v", len(got), len(want), got)
			}
			return nil
		})
	}
}

// some waits until one of a kind has come.
func (w *willWatch) some(kind string) {
	w.c.t.Helper()
	eventually(w.c.t, "a will", func() error {
		if !slices.ContainsFunc(w.subs[0].in.payloads(), func(p string) bool { return len(p) > len(kind) && p[:len(kind)] == kind }) {
			return fmt.Errorf("no %s", kind)
		}
		return nil
	})
}

// retained checks that the registers have so many Wills, and only those that
// were to be retained.
func (w *willWatch) retained(want int) {
	w.c.t.Helper()
	got := 0
	for id := range uint32(w.c.parts) {
		w.c.shard(id+1, func(m *shard.Machine) {
			m.Retained("will/#", "", m.Clock(), func(msg *shoalpb.Message) bool {
				if !strings.HasPrefix(msg.Topic, "will/kept-") {
					w.c.t.Errorf("%s is retained", msg.Topic)
				}
				got++
				return true
			})
		})
	}
	if got != want {
		w.c.t.Errorf("%d retained wills, not %d", got, want)
	}
}

// shareOfWills is a Shared Subscription of two durable members in both shards.
type shareOfWills struct {
	c       *testCluster
	members []*client
}

func newShareOfWills(c *testCluster) *shareOfWills {
	s := &shareOfWills{c: c}
	for id := range uint32(c.parts) {
		x := c.at("n3").open(c.t, c.clientIn(id+1, "member"), true, 3600)
		x.subscribe("$share/wills/will/#", 1)
		s.members = append(s.members, x)
	}
	return s
}

// expect waits until the members have so many Wills between them, none twice.
func (s *shareOfWills) expect(want int) {
	s.c.t.Helper()
	eventually(s.c.t, "shared wills", func() error {
		got := map[string]int{}
		for _, x := range s.members {
			for _, p := range x.in.payloads() {
				if got[p]++; got[p] > 1 {
					s.c.t.Fatalf("%s came to two members", p)
				}
			}
		}
		if len(got) != want {
			return fmt.Errorf("%d of %d", len(got), want)
		}
		return nil
	})
}
