package cluster

import (
	"errors"
	"fmt"
	"testing"

	"github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// TestScenarioClosed: what a connection handed over before it closed goes on to
// its end, though the shards concerned are away at the time: messages of each QoS,
// retained and not, and subscriptions; then the session is detached and drained. What
// the client publishes on its next connection comes after it (scenarios 41, 44).
func TestScenarioClosed(t *testing.T) {
	t.Parallel()
	for _, expiry := range []uint32{0, 3600} {
		t.Run(fmt.Sprintf("expiry %d", expiry), func(t *testing.T) {
			t.Parallel()
			c := newScenario(t, 3, 2)
			c.lead(1, "n2")
			c.lead(2, "n3")
			sub := c.node("n3").open(t, c.clientIn(2, "sub"), true, 3600)
			sub.subscribe("f/+", 2)
			id, topic := c.clientIn(1, "pub"), c.topicIn(2, "r")
			pub := c.node("n1").open(t, id, true, expiry)
			c.net.hold("n1", "n2")
			c.net.hold("n1", "n3")
			none := func(error) {}
			pub.link.Retain(retainedMessage(topic, 0, "1"), func() {})
			pub.link.Publish(retainedMessage(topic, 1, "2"), none)
			pub.link.Retain(retainedMessage(topic, 0, "3"), func() {})
			pub.link.Publish(message("f/1", 1, "1"), none)
			if expiry > 0 {
				pub.link.Received(7, false, message("f/2", 2, "2"), none)
				pub.link.Subscribe([]*shoalpb.Subscription{{Filter: "own", Qos: 1}}, func([]bool, error) {})
			} else {
				pub.link.Publish(message("f/2", 2, "2"), none)
			}
			pub.link.Close(session.CloseRequest{})
			pub.link.Publish(message("f/3", 1, "too late"), none)
			c.net.heal()
			again := c.node("n2").open(t, id, false, expiry)
			if again.opened.Present != (expiry > 0) {
				t.Errorf("opened %+v", again.opened)
			}
			again.publish("f/1", 1, "3")
			again.retain(map[string]string{topic: "4"})
			eventually(t, "messages", func() error { return contains(sub.in.payloads(), []string{"1", "2", "3"}) })
			if got := fmt.Sprint(sub.in.payloadsOf("f/1")); got != "[1 3]" {
				t.Errorf("the subscriber got %s", got)
			}
			eventually(t, "register", func() error {
				got, err := c.node("n1").registers(topic)
				if err == nil && got[topic] != "4" {
					err = fmt.Errorf("%v is retained", got)
				}
				return err
			})
			if expiry > 0 {
				c.node("n3").open(t, "other", true, 0).publish("own", 1, "own")
				eventually(t, "subscription", func() error { return contains(again.in.payloads(), []string{"own"}) })
			}
			eventually(t, "drained", func() error {
				if p := c.node("n1").proc.Load(); len(p.linksOf(id)) > 0 {
					return errors.New("the process knows the connection")
				}
				return nil
			})
		})
	}
}

// linksOf are the connections of a client that are open or have not drained.
func (p *process) linksOf(client string) []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.links[client]
}
