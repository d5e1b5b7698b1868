package e2e

import (
	"fmt"
	"testing"
	"time"
)

// realRetained: what one client retains on one node greets others on another,
// until it is cleared.
func realRetained(t *testing.T, c *cluster, name string, open func() library) {
	publisher := open()
	connected(t, publisher, c.nodes[0].mqtt, name+"-publisher", true, false)
	for qos := byte(1); qos <= 2; qos++ {
		m := received{fmt.Sprintf("real/%s/retained/%d", name, qos), "kept", qos, true}
		must(t, publisher.publish(m))
		for _, clean := range []bool{true, false} {
			id := fmt.Sprint(name, "-retained-", qos, clean)
			s := open()
			connected(t, s, c.nodes[1].mqtt, id, clean, false)
			subscribed(t, s, fmt.Sprintf("real/%s/retained/%d/#", name, qos), qos)
			expect(t, s, m)
			live := m
			live.retain, live.payload = false, "kept again"
			again := live
			again.retain = true
			must(t, publisher.publish(again))
			expect(t, s, live)
			must(t, publisher.publish(m))
			must(t, s.disconnect())
		}
		m.payload = ""
		must(t, publisher.publish(m))
	}
	s := open()
	connected(t, s, c.nodes[2].mqtt, name+"-cleared", true, false)
	subscribed(t, s, "real/"+name+"/retained/#", 2)
	marker := received{topic: "real/" + name + "/retained", payload: "nothing was kept", qos: 1}
	must(t, publisher.publish(marker))
	expect(t, s, marker)
	must(t, s.disconnect())
}

// realWill: the Will of a client that is cut off comes, and that of one that says
// goodbye does not; a retained one greets who comes later.
func realWill(t *testing.T, c *cluster, name string, open func() library) {
	watcher := open()
	connected(t, watcher, c.nodes[1].mqtt, name+"-watcher", true, false)
	subscribed(t, watcher, "real/"+name+"/will/#", 2)
	for qos := byte(0); qos <= 2; qos++ {
		topic := fmt.Sprintf("real/%s/will/%d", name, qos)
		for _, end := range []string{"goodbye", "cut"} {
			s := open()
			must(t, s.will(received{topic, end, qos, true}))
			connected(t, s, c.nodes[0].mqtt, name+"-mortal", true, false)
			if end == "goodbye" {
				must(t, s.disconnect())
			} else {
				s.cut()
			}
		}
		expect(t, watcher, received{topic, "cut", qos, false})
		late := open()
		connected(t, late, c.nodes[2].mqtt, name+"-late", true, false)
		eventually(t, "the Will is retained", func() error {
			subscribed(t, late, topic, qos)
			select {
			case got := <-late.messages():
				if want := (received{topic, "cut", qos, true}); got != want {
					return fmt.Errorf("got %+v, want %+v", got, want)
				}
				return nil
			case <-time.After(time.Second):
				return fmt.Errorf("nothing came")
			}
		})
		must(t, late.disconnect())
	}
}

// realShared: of a group with a member on each node one gets each message, and
// all get some.
func realShared(t *testing.T, c *cluster, name string, open func() library) {
	topic := "real/" + name + "/shared"
	members := make([]library, len(c.nodes))
	for i := range members {
		members[i] = open()
		connected(t, members[i], c.nodes[i].mqtt, fmt.Sprint(name, "-member-", i), true, false)
		subscribed(t, members[i], "$share/group/"+topic, 2)
	}
	publisher := open()
	connected(t, publisher, c.nodes[0].mqtt, name+"-publisher", true, false)
	const messages = 60
	seen := map[string]int{}
	share := make([]int, len(members))
	for i := range messages {
		m := received{topic: topic, payload: fmt.Sprint(i), qos: byte(1 + i%2)}
		must(t, publisher.publish(m))
	}
	for len(seen) < messages {
		for i, x := range members {
			select {
			case got := <-x.messages():
				if seen[got.payload]++; seen[got.payload] > 1 {
					t.Fatalf("%+v came twice", got)
				}
				share[i]++
				continue
			default:
			}
		}
		if time.Sleep(time.Millisecond); t.Context().Err() != nil {
			return
		}
	}
	for _, n := range share {
		if n == 0 {
			t.Errorf("shares of %d messages: %v", messages, share)
		}
	}
}
