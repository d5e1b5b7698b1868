package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// These are the timing races of what one connection sends in order (scenarios 41 to
// 45): packets that arrive with one read. Each round is a new connection.

// orderRounds is how often a race is tried: 20 times in go test, 1,000 times with
// SHOAL_CHAOS=long.
func orderRounds() int {
	if os.Getenv("SHOAL_CHAOS") == "long" {
		return 1000
	}
	return 20
}

// orderShards is such that in a cluster of five each node lacks replicas.
const orderShards = 3

// orderScene is one case in one of its forms: the client is on node from, the
// others are on node to.
type orderScene struct {
	t        *testing.T
	from, to *node
	v        packet.Version
	durable  bool
	prefix   string // of the topics and Client Identifiers
}

// name is a Topic Name, or a Client Identifier, of this scene.
func (x *orderScene) name(parts ...any) string {
	return x.prefix + "/" + strings.ReplaceAll(strings.TrimSpace(fmt.Sprintln(parts...)), " ", "-")
}

// open connects. The connection acknowledges what comes, and ends with the test.
func (x *orderScene) open(n *node, id string, clean bool) (*mqtttest.Conn, error) {
	c, err := mqtttest.Dial(n.mqtt, x.v, patience)
	if err != nil {
		return nil, err
	}
	x.t.Cleanup(func() { c.Close() })
	p := packet.Connect{ClientID: id, CleanStart: clean || !x.durable}
	if x.durable {
		p.HasSessionExpiry, p.SessionExpiry = true, 3600
		p.CleanStart = clean && x.v == packet.V5 // of MQTT 3 it would make the session transient
	}
	ack, err := c.Connect(p, patience)
	if err == nil && ack.Code != packet.CodeSuccess {
		err = fmt.Errorf("CONNACK %s", ack.Code)
	}
	c.AutoAck = true
	return c, err
}

// until receives until a packet satisfies ok, and returns those before it.
func until(c *mqtttest.Conn, end time.Time, what string, ok func(packet.Packet) bool) (before []packet.Packet, err error) {
	for {
		p, err := c.Receive(time.Until(end))
		if err != nil {
			return before, fmt.Errorf("%s: %w", what, err)
		}
		if ok(p) {
			return before, nil
		}
		before = append(before, p)
	}
}

// isAck reports whether a packet is the last acknowledgement of an exchange.
func isAck(id uint16) func(packet.Packet) bool {
	return func(p packet.Packet) bool {
		switch p := p.(type) {
		case *packet.Suback:
			return p.PacketID == id
		case *packet.Unsuback:
			return p.PacketID == id
		case *packet.Ack:
			return p.PacketID == id && (p.Type == packet.TypePuback || p.Type == packet.TypePubcomp)
		}
		return false
	}
}

// publish publishes with QoS 1 on a connection of its own.
func (x *orderScene) publish(n *node, topic, payload string, retain bool) error {
	c, err := x.open(n, x.name("publisher", topic), true)
	if err != nil {
		return err
	}
	defer c.Close()
	return publishOn(c, topic, payload, retain)
}

func publishOn(c *mqtttest.Conn, topic, payload string, retain bool) error {
	if err := c.Send(&packet.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: 1, PacketID: 9, Retain: retain}); err != nil {
		return err
	}
	_, err := until(c, time.Now().Add(patience), "PUBACK", isAck(9))
	return err
}

// lastTopics are retained messages with the names that come last: whoever has got
// them has been sent all the others. They are so many that each shard has some.
const lastTopics = 64

// retainLast retains them below a prefix.
func retainLast(t *testing.T, n *node, prefix string) {
	t.Helper()
	x := &orderScene{t: t, v: packet.V5, prefix: prefix}
	c, err := x.open(n, prefix+"-last", true)
	must(t, err)
	defer c.Close()
	for i := range lastTopics {
		must(t, publishOn(c, fmt.Sprintf("%s/~%d", prefix, i), "last", true))
	}
}

// retained reads the retained messages below a prefix, without the last ones.
func retained(t *testing.T, n *node, prefix string) (map[string]string, error) {
	x := &orderScene{t: t, v: packet.V5, prefix: prefix}
	c, err := x.open(n, "", true)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.Send(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: prefix + "/#", QoS: 1}}}); err != nil {
		return nil, err
	}
	all, last := make(map[string]string), 0
	_, err = until(c, time.Now().Add(patience), "retained messages", func(p packet.Packet) bool {
		m, ok := p.(*packet.Publish)
		switch {
		case !ok:
		case strings.HasPrefix(string(m.Topic), prefix+"/~"):
			last++
		default:
			all[string(m.Topic)] = string(m.Payload)
		}
		return last == lastTopics
	})
	return all, err
}

// expectRetained waits until the retained messages below a prefix are those
// wanted, on every node. What was published with QoS 0 may come later than the
// end of the connection that sent it.
func expectRetained(t *testing.T, c *cluster, prefix string, want map[string]string) {
	t.Helper()
	end := time.Now().Add(patience)
	for _, n := range c.nodes {
		for {
			got, err := retained(t, n, prefix)
			must(t, err)
			wrong := differences(got, want)
			if len(wrong) == 0 {
				break
			}
			if time.Now().After(end) {
				t.Errorf("%d of %d are wrong on node %s, as %s", len(wrong), max(len(want), len(got)), n.name, wrong[0])
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func differences(got, want map[string]string) (wrong []string) {
	for topic, payload := range want {
		if got[topic] != payload {
			wrong = append(wrong, fmt.Sprintf("%s: %q, want %q", topic, got[topic], payload))
		}
	}
	for topic, payload := range got {
		if _, ok := want[topic]; !ok {
			wrong = append(wrong, fmt.Sprintf("%s: %q, want nothing", topic, payload))
		}
	}
	return wrong
}

// orderCase is one input. run does it once and returns what to look at when all
// rounds have been done; nil for nothing.
type orderCase struct {
	name  string
	only  func(x *orderScene) bool // nil for all forms
	run   func(x *orderScene, round int) (look func(end time.Time) error, err error)
	after func(x *orderScene, c *cluster, rounds int) // nil for nothing
}

func onlyDurable(x *orderScene) bool { return x.durable }

// subscribe is SUBSCRIBE with one filter.
func subscribe(id uint16, filter string, qos packet.QoS) *packet.Subscribe {
	return &packet.Subscribe{PacketID: id, Subscriptions: []packet.Subscription{{Filter: filter, QoS: qos}}}
}

func unsubscribe(id uint16, filter string) *packet.Unsubscribe {
	return &packet.Unsubscribe{PacketID: id, Filters: []string{filter}}
}

func publishing(topic, payload string, qos packet.QoS, retain bool) *packet.Publish {
	p := &packet.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: qos, Retain: retain}
	if qos > 0 {
		p.PacketID = 100
	}
	return p
}

// oneWrite connects, sends all with one write, and returns the deliveries that come
// until there are as many as are wanted and the last of the packets, a publish of QoS
// 1 to a topic of its own that the connection is subscribed to, has come back. Of
// messages of different QoS either may come first.
func (x *orderScene) oneWrite(round, want int, packets ...packet.Packet) (func(time.Time) ([]*packet.Publish, error), error) {
	c, err := x.open(x.from, x.name("client", round), true)
	if err != nil {
		return nil, err
	}
	end := x.name("end", round)
	if err := c.Send(subscribe(1000, end, 1)); err != nil {
		return nil, err
	}
	if _, err := until(c, time.Now().Add(patience), "SUBACK", isAck(1000)); err != nil {
		return nil, err
	}
	marker := publishing(end, "end", 1, false)
	marker.PacketID = 1001
	if err := c.Send(append(packets, marker)...); err != nil {
		return nil, err
	}
	return func(deadline time.Time) (got []*packet.Publish, err error) {
		defer c.Close()
		acked, ended := false, false
		note := func(p packet.Packet) {
			m, ok := p.(*packet.Publish)
			switch {
			case !ok:
				acked = acked || isAck(1001)(p)
			case string(m.Topic) == end:
				ended = true
			default:
				got = append(got, m)
			}
		}
		if _, err := until(c, deadline, "all messages", func(p packet.Packet) bool {
			note(p)
			return ended && acked && len(got) >= want
		}); err != nil {
			return got, err
		}
		if err := c.Send(&packet.Pingreq{}); err != nil {
			return got, err
		}
		more, err := until(c, deadline, "PINGRESP", func(p packet.Packet) bool { _, ok := p.(*packet.Pingresp); return ok })
		for _, p := range more {
			note(p)
		}
		return got, err
	}, nil
}

// gets makes a case that expects these deliveries, by "payload qos retain".
func gets(packets func(topic string) []packet.Packet, want ...string) func(*orderScene, int) (func(time.Time) error, error) {
	return func(x *orderScene, round int) (func(time.Time) error, error) {
		deliveries, err := x.oneWrite(round, len(want), packets(x.name("topic", round))...)
		if err != nil {
			return nil, err
		}
		return func(end time.Time) error {
			got, err := deliveries(end)
			if err != nil {
				return err
			}
			var list []string
			for _, m := range got {
				list = append(list, fmt.Sprintf("%s %d %t", m.Payload, m.QoS, m.Retain))
			}
			if fmt.Sprint(list) != fmt.Sprint(want) {
				return fmt.Errorf("got %q, want %q", list, want)
			}
			return nil
		}, nil
	}
}

var orderCases = []orderCase{
	{name: "41 a retained message, DISCONNECT", run: retainAndLeave("new"), after: func(x *orderScene, c *cluster, rounds int) {
		want := make(map[string]string)
		for i := range rounds {
			want[x.name("topic", i)] = "new"
		}
		expectRetained(x.t, c, x.prefix, want)
	}},
	{name: "41 a retained message is cleared, DISCONNECT", run: retainAndLeave(""), after: func(x *orderScene, c *cluster, rounds int) {
		expectRetained(x.t, c, x.prefix, nil)
	}},
	{name: "42 SUBSCRIBE, PUBLISH with QoS 0", run: gets(func(topic string) []packet.Packet {
		return []packet.Packet{subscribe(1, topic, 0), publishing(topic, "own", 0, false)}
	}, "own 0 false")},
	{name: "42 SUBSCRIBE, PUBLISH with QoS 1", run: gets(func(topic string) []packet.Packet {
		return []packet.Packet{subscribe(1, topic, 1), publishing(topic, "own", 1, false)}
	}, "own 1 false")},
	{name: "42 SUBSCRIBE, PUBLISH with QoS 2", run: gets(func(topic string) []packet.Packet {
		return []packet.Packet{subscribe(1, topic, 2), publishing(topic, "own", 2, false)}
	}, "own 2 false")},
	{name: "42 SUBSCRIBE to many, PUBLISH to the last", run: gets(func(topic string) []packet.Packet {
		all := &packet.Subscribe{PacketID: 1}
		for i := range 1000 {
			all.Subscriptions = append(all.Subscriptions, packet.Subscription{Filter: fmt.Sprint(topic, "/", i), QoS: 1})
		}
		return []packet.Packet{all, publishing(topic+"/999", "own", 1, false)}
	}, "own 1 false")},
	{name: "43 SUBSCRIBE, UNSUBSCRIBE, PUBLISH", run: gets(func(topic string) []packet.Packet {
		return []packet.Packet{subscribe(1, topic, 1), unsubscribe(2, topic), publishing(topic, "own", 1, false)}
	})},
	{name: "43 SUBSCRIBE, PUBLISH, UNSUBSCRIBE, PUBLISH", run: gets(func(topic string) []packet.Packet {
		second := publishing(topic, "no", 1, false)
		second.PacketID = 101
		return []packet.Packet{subscribe(1, topic, 1), publishing(topic, "own", 1, false), unsubscribe(2, topic), second}
	}, "own 1 false")},
	{name: "43 SUBSCRIBE with QoS 0, with QoS 1, PUBLISH", run: gets(func(topic string) []packet.Packet {
		return []packet.Packet{subscribe(1, topic, 0), subscribe(2, topic, 1), publishing(topic, "own", 1, false)}
	}, "own 1 false")},
	{name: "44 SUBSCRIBE, DISCONNECT", only: onlyDurable, run: subscribeAndLeave(&packet.Disconnect{})},
	{name: "44 SUBSCRIBE, the end of the stream", only: onlyDurable, run: subscribeAndLeave()},
	{name: "45 a retained message, SUBSCRIBE", run: func(x *orderScene, round int) (func(time.Time) error, error) {
		if err := x.publish(x.to, x.name("topic", round), "old", true); err != nil {
			return nil, err
		}
		return retainAndSubscribe(x, round)
	}},
}

// retainAndSubscribe expects one delivery of what was retained in front of the
// subscription. It comes by a replay, which nothing else is ordered against.
func retainAndSubscribe(x *orderScene, round int) (func(time.Time) error, error) {
	topic := x.name("topic", round)
	c, err := x.open(x.from, x.name("client", round), true)
	if err != nil {
		return nil, err
	}
	if err := c.Send(publishing(topic, "new", 0, true), subscribe(1, topic, 1)); err != nil {
		return nil, err
	}
	return func(end time.Time) error {
		defer c.Close()
		var got *packet.Publish
		if _, err := until(c, end, "the retained message", func(p packet.Packet) (ok bool) { got, ok = p.(*packet.Publish); return ok }); err != nil {
			return err
		}
		if string(got.Payload) != "new" || !got.Retain {
			return fmt.Errorf("got %s", mqtttest.Describe(got))
		}
		return nil
	}, nil
}

// retainAndLeave publishes with QoS 0 and RETAIN over an older message, and leaves
// with the same write.
func retainAndLeave(payload string) func(*orderScene, int) (func(time.Time) error, error) {
	return func(x *orderScene, round int) (func(time.Time) error, error) {
		topic := x.name("topic", round)
		if err := x.publish(x.to, topic, "old", true); err != nil {
			return nil, err
		}
		c, err := x.open(x.from, x.name("client", round), true)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return nil, c.Send(publishing(topic, payload, 0, true), &packet.Disconnect{})
	}
}

// subscribeAndLeave subscribes with the last write of a connection. What others
// publish to the session then is there when it comes back.
func subscribeAndLeave(then ...packet.Packet) func(*orderScene, int) (func(time.Time) error, error) {
	return func(x *orderScene, round int) (func(time.Time) error, error) {
		topic, id := x.name("topic", round), x.name("client", round)
		c, err := x.open(x.from, id, true)
		if err != nil {
			return nil, err
		}
		err = c.Send(append([]packet.Packet{subscribe(1, topic, 1)}, then...)...)
		c.Close()
		return func(end time.Time) error {
			// All rounds are done, but this one's may be under way: publish until it comes.
			for i := 0; ; i++ {
				if err := x.publish(x.to, topic, fmt.Sprint(i), false); err != nil {
					return err
				}
				back, err := x.open(x.from, id, false)
				if err != nil {
					return err
				}
				_, err = until(back, time.Now().Add(time.Second), "the message", func(p packet.Packet) bool { _, ok := p.(*packet.Publish); return ok })
				back.Close()
				if err == nil || time.Now().After(end) {
					return err
				}
			}
		}, err
	}
}

// TestOrderInOneWrite has each case in each form, on one node, three and five.
func TestOrderInOneWrite(t *testing.T) {
	for _, size := range []int{1, 3, 5} {
		t.Run(fmt.Sprintf("%d nodes", size), func(t *testing.T) {
			c := startClusterOf(t, size, orderShards)
			for i, oc := range orderCases {
				t.Run(oc.name, func(t *testing.T) { oc.try(t, c, i) })
			}
		})
	}
}

// try runs the case in its forms, which share the rounds. The client's node is
// another one in each form.
func (oc *orderCase) try(t *testing.T, c *cluster, number int) {
	forms := []orderScene{{v: packet.V311}, {v: packet.V311, durable: true}, {v: packet.V5}, {v: packet.V5, durable: true}}
	for i, x := range forms {
		x.t = t
		x.from, x.to = c.nodes[i%len(c.nodes)], c.nodes[(i+1)%len(c.nodes)]
		x.prefix = fmt.Sprintf("order-%d-%d", number, i)
		if oc.only != nil && !oc.only(&x) {
			continue
		}
		oc.rounds(&x, c, orderRounds()/len(forms))
	}
}

func (oc *orderCase) rounds(x *orderScene, c *cluster, rounds int) {
	if oc.after != nil {
		retainLast(x.t, x.to, x.prefix)
	}
	var looks []func(time.Time) error
	for round := range rounds {
		look, err := oc.run(x, round)
		if err != nil {
			x.t.Fatalf("%s durable %t, round %d: %v", x.v, x.durable, round, err)
		}
		looks = append(looks, look)
	}
	wrong := 0
	var first error
	end := time.Now().Add(patience)
	for _, look := range looks {
		if look == nil {
			continue
		}
		if err := look(end); err != nil {
			wrong++
			if first == nil {
				first = err
			}
		}
	}
	if wrong > 0 {
		x.t.Errorf("%s durable %t: %d of %d rounds failed, as %v", x.v, x.durable, wrong, rounds, first)
	}
	if oc.after != nil {
		oc.after(x, c, rounds)
	}
}
