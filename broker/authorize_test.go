package broker_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/brokertest"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// rules is an Authorizer: what begins with a denied word is. Rules may change
// while clients are connected.
type rules struct {
	mu                          sync.Mutex
	publish, subscribe, receive string
	asked                       []string
}

func (r *rules) Permissions(c *broker.Client) (broker.Permissions, error) {
	if strings.HasPrefix(c.ID, "free") {
		return nil, nil
	}
	return r, nil
}

func (r *rules) allowed(denied *string, what string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, strings.Clone(what))
	return *denied == "" || !strings.HasPrefix(what, *denied)
}

func (r *rules) Publish(topic string, qos packet.QoS, retain bool) bool {
	return r.allowed(&r.publish, topic)
}

func (r *rules) Subscribe(filter string, qos packet.QoS, shared bool) bool {
	return r.allowed(&r.subscribe, filter)
}

func (r *rules) Receive(topic string) bool { return r.allowed(&r.receive, topic) }

func (r *rules) deny(publish, subscribe, receive string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.publish, r.subscribe, r.receive = publish, subscribe, receive
}

// ruled starts a node with rules.
func ruled(t *testing.T, change ...func(*broker.Config)) (*node, *rules) {
	r := new(rules)
	n := start(t, append([]func(*broker.Config){func(c *broker.Config) { c.Authorizer = r }}, change...)...)
	return n, r
}

// refusedPublishes and withheld are what was counted.
func (n *node) refusedPublishes() float64 {
	return n.metric("shoal_publishes_refused_total", "not_authorized")
}

func (n *node) withheld() float64 {
	return n.metric("shoal_messages_dropped_total", "not_authorized")
}

// TestPublishDenied: MQTT 5 clients are told, in PUBACK and PUBREC; others are
// answered as ever. Nobody gets it, and the exchange is over.
func TestPublishDenied(t *testing.T) {
	for _, v := range []packet.Version{packet.V31, packet.V311, packet.V5} {
		t.Run(v.String(), func(t *testing.T) {
			n, rules := ruled(t)
			rules.deny("secret", "", "")
			sub := n.connect(packet.V5, "free")
			sub.Subscribe("#", 2)
			code := packet.Code(0)
			if v == packet.V5 {
				code = packet.CodeNotAuthorized
			}
			c := n.connect(v, "c")
			for range 2 { // the identifiers are free again
				c.Write(
					&packet.Publish{Topic: []byte("secret/0"), Retain: true},
					&packet.Publish{Topic: []byte("secret/1"), QoS: 1, PacketID: 1, Retain: true},
					&packet.Publish{Topic: []byte("secret/2"), QoS: 2, PacketID: 2})
				c.ExpectAck(packet.TypePuback, 1, code)
				c.ExpectAck(packet.TypePubrec, 2, code)
				if v != packet.V5 {
					c.Write(&packet.Ack{Type: packet.TypePubrel, PacketID: 2})
					c.ExpectAck(packet.TypePubcomp, 2, 0)
				}
			}
			if got := n.refusedPublishes(); got != 6 {
				t.Errorf("%v refused, want 6", got)
			}
			c.Publish("open", "2", 2)
			sub.ExpectPublish("open", "2")
			if n.cluster.RetainedMessage("secret/1") != nil || n.cluster.RetainedMessage("secret/0") != nil {
				t.Error("a refused message is retained")
			}
		})
	}
}

// TestPublishDeniedInOrder: a refusal waits for the answers before it
// ([MQTT-4.6.0-2]), and returns its part of the Receive Maximum.
func TestPublishDeniedInOrder(t *testing.T) {
	n, rules := ruled(t, func(c *broker.Config) { c.ReceiveMaximum = 4 })
	rules.deny("secret", "", "")
	c := n.connect(packet.V5, "c")
	n.cluster.Hold(brokertest.Publish)
	c.Write(
		&packet.Publish{Topic: []byte("open"), QoS: 1, PacketID: 1},
		&packet.Publish{Topic: []byte("secret"), QoS: 1, PacketID: 2})
	await(t, "publish", func() bool { return n.cluster.Held(brokertest.Publish) == 1 && n.refusedPublishes() == 1 })
	c.ExpectNothing()
	n.cluster.ReleaseAll(brokertest.Publish)
	c.ExpectAck(packet.TypePuback, 1, 0)
	c.ExpectAck(packet.TypePuback, 2, packet.CodeNotAuthorized)
	for i := range uint16(12) {
		qos := packet.QoS(1 + i%2)
		c.Write(&packet.Publish{Topic: []byte("secret"), QoS: qos, PacketID: 10 + i})
		want := packet.TypePuback
		if qos == 2 {
			want = packet.TypePubrec
		}
		c.ExpectAck(want, 10+i, packet.CodeNotAuthorized)
	}
}

// TestPublishDeniedDisconnects: the other policy.
func TestPublishDeniedDisconnects(t *testing.T) {
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		for qos := range packet.QoS(3) {
			t.Run(fmt.Sprintf("%s/%d", v, qos), func(t *testing.T) {
				n, rules := ruled(t, func(c *broker.Config) { c.DisconnectDenied = true })
				rules.deny("secret", "", "")
				c := n.connect(v, "c")
				c.Publish("open", "", 1)
				p := packet.Publish{Topic: []byte("secret"), QoS: qos}
				if qos > 0 {
					p.PacketID = 9
				}
				c.Write(&p)
				c.ExpectDisconnect(packet.CodeNotAuthorized)
				if n.refusedPublishes() != 1 || len(n.cluster.Messages()) != 1 {
					t.Error("not counted, or routed")
				}
			})
		}
	}
}

// TestPublishDeniedByAlias: a Topic Alias reaches no further than its Topic Name,
// which it is given also by a PUBLISH that is refused.
func TestPublishDeniedByAlias(t *testing.T) {
	n, rules := ruled(t)
	rules.deny("secret", "", "")
	sub := n.connect(packet.V5, "free")
	sub.Subscribe("#", 0)
	c := n.connect(packet.V5, "c")
	c.Write(
		&packet.Publish{Topic: []byte("open"), HasAlias: true, TopicAlias: 1},
		&packet.Publish{Topic: []byte("secret"), HasAlias: true, TopicAlias: 1},
		&packet.Publish{HasAlias: true, TopicAlias: 1},
		&packet.Publish{HasAlias: true, TopicAlias: 1, QoS: 1, PacketID: 1})
	c.ExpectAck(packet.TypePuback, 1, packet.CodeNotAuthorized)
	if n.refusedPublishes() != 3 {
		t.Errorf("%v refused", n.refusedPublishes())
	}
	rules.deny("", "", "") // the alias was made
	c.Write(&packet.Publish{HasAlias: true, TopicAlias: 1})
	c.ExpectNothing()
	sub.ExpectPublish("open", "")
	sub.ExpectPublish("secret", "")
	sub.ExpectNothing()
}

// TestPublishDeniedAgain: an exchange that was begun on a former connection, when
// it was allowed, ends on both sides.
func TestPublishDeniedAgain(t *testing.T) {
	n, rules := ruled(t)
	c, _ := n.durable(packet.V5, "c")
	p := packet.Publish{Topic: []byte("t"), QoS: 2, PacketID: 7}
	c.Write(&p)
	c.ExpectAck(packet.TypePubrec, 7, 0)
	// The same connection: it has been taken.
	rules.deny("t", "", "")
	p.Dup = true
	c.Write(&p)
	c.ExpectAck(packet.TypePubrec, 7, 0)
	c.Close()
	n.awaitConnections(0)

	c, _ = n.durable(packet.V5, "c")
	c.Write(&p)
	c.ExpectAck(packet.TypePubrec, 7, packet.CodeNotAuthorized)
	rules.deny("", "", "")
	p.Dup = false
	c.Write(&p)
	c.ExpectAck(packet.TypePubrec, 7, 0) // not 0x91
	if got := len(n.cluster.Messages()); got != 2 {
		t.Errorf("%d messages", got)
	}
}

// TestSubscribeDenied: 0x87 (3.1.1: 0x80, 3.1: 0x00) for the filter, and no subscription.
func TestSubscribeDenied(t *testing.T) {
	for _, v := range []packet.Version{packet.V31, packet.V311, packet.V5} {
		for _, durable := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/durable=%t", v, durable), func(t *testing.T) {
				n, rules := ruled(t)
				rules.deny("", "secret", "")
				c := n.dial(v)
				options := []mqtttest.Option{mqtttest.ID("c")}
				if durable {
					options = append(options, mqtttest.Resume(), mqtttest.Expiry(100))
				}
				c.Connect(options...)
				codes := c.SubscribeAll(
					packet.Subscription{Filter: "secret/#", QoS: 1},
					packet.Subscription{Filter: "open", QoS: 1},
					packet.Subscription{Filter: "$share/g/secret/#", QoS: 1})
				want := map[packet.Version]packet.Code{
					packet.V31: packet.CodeGrantedQoS0, packet.V311: packet.CodeUnspecifiedError, packet.V5: packet.CodeNotAuthorized,
				}[v]
				if codes[0] != want || codes[1] != packet.CodeGrantedQoS1 || codes[2] != want {
					t.Errorf("codes %v", codes)
				}
				if codes := c.SubscribeAll(packet.Subscription{Filter: "secret"}); codes[0] != want {
					t.Errorf("codes %v", codes)
				}
				p := n.connect(packet.V5, "free")
				p.Publish("secret/1", "", 0)
				p.Publish("secret/1", "", 1)
				p.Publish("open", "", 1)
				c.ExpectPublish("open", "")
			})
		}
	}
}

// TestReceiveDenied: whatever was subscribed, and when, each delivery is asked
// for: live ones of each QoS.
func TestReceiveDenied(t *testing.T) {
	for _, durable := range []bool{false, true} {
		t.Run(fmt.Sprintf("durable=%t", durable), func(t *testing.T) {
			n, rules := ruled(t)
			rules.deny("", "", "secret")
			c := n.dial(packet.V5)
			options := []mqtttest.Option{mqtttest.ID("c"), mqtttest.ReceiveMaximum(2)}
			if durable {
				options = append(options, mqtttest.Resume(), mqtttest.Expiry(100))
			}
			c.Connect(options...)
			c.Subscribe("#", 2)
			p := n.connect(packet.V5, "free")
			for qos := range packet.QoS(3) {
				p.Publish("secret/1", "", qos)
				p.Publish("open", fmt.Sprint(qos), qos)
				if d := c.ExpectPublish("open", fmt.Sprint(qos)); d.QoS != qos {
					t.Errorf("QoS %d", d.QoS)
				}
			}
			await(t, "count", func() bool { return n.withheld() == 3 })
			if durable {
				await(t, "acks", func() bool { return n.cluster.Queued("c") == 2 })
			}
			rules.deny("", "", "") // at once
			p.Publish("secret/1", "now", 0)
			c.ExpectPublish("secret/1", "now")
		})
	}
}

// TestReceiveDeniedWhileQueued: rules that change while messages wait hold for
// them, and for what is sent again.
func TestReceiveDeniedWhileQueued(t *testing.T) {
	for _, durable := range []bool{false, true} {
		t.Run(fmt.Sprintf("durable=%t", durable), func(t *testing.T) {
			n, rules := ruled(t)
			c := n.dial(packet.V5)
			options := []mqtttest.Option{mqtttest.ID("c"), mqtttest.ReceiveMaximum(1)}
			if durable {
				options = append(options, mqtttest.Resume(), mqtttest.Expiry(100))
			}
			c.Connect(options...)
			c.Subscribe("#", 1)
			p := n.connect(packet.V5, "free")
			p.Publish("a", "1", 1)
			first := c.ExpectPublish("a", "1")
			p.Publish("secret", "2", 1)
			p.Publish("a", "3", 1)
			rules.deny("", "", "secret")
			c.Write(&packet.Ack{Type: packet.TypePuback, PacketID: first.PacketID})
			third := c.ExpectPublish("a", "3")
			if n.withheld() != 1 {
				t.Errorf("%v withheld", n.withheld())
			}
			if !durable {
				return
			}
			rules.deny("", "", "a") // it is not sent again
			c.Close()
			n.awaitConnections(1)
			c, _ = n.durable(packet.V5, "c")
			await(t, "discard", func() bool { return n.withheld() == 2 && n.cluster.Queued("c") == 0 })
			c.Write(&packet.Ack{Type: packet.TypePuback, PacketID: third.PacketID})
			c.ExpectNothing()
		})
	}
}

// TestReceiveDeniedTakesNoRoom: what may not be received does not make others
// wait, or drop.
func TestReceiveDeniedTakesNoRoom(t *testing.T) {
	n, rules := ruled(t, func(c *broker.Config) { c.MaxQueue = 1 })
	rules.deny("", "", "secret")
	c := n.connect(packet.V5, "c", mqtttest.ReceiveMaximum(1))
	c.Subscribe("#", 1)
	p := n.connect(packet.V5, "free")
	p.Publish("a", "1", 1)
	first := c.ExpectPublish("a", "1")
	p.Publish("a", "2", 1)
	p.Publish("secret", "3", 1)
	c.Write(&packet.Ack{Type: packet.TypePuback, PacketID: first.PacketID})
	c.ExpectPublish("a", "2")
}

// TestReceiveDeniedRetained: a replay leaves out what may not be received.
func TestReceiveDeniedRetained(t *testing.T) {
	for _, durable := range []bool{false, true} {
		t.Run(fmt.Sprintf("durable=%t", durable), func(t *testing.T) {
			n, rules := ruled(t)
			rules.deny("", "", "secret")
			for i := range 300 { // more than a page
				n.cluster.SetRetained(&shoalpb.Message{Topic: fmt.Sprintf("secret/%03d", i), Payload: []byte("x"), Retain: true, Qos: uint32(i % 2)})
			}
			n.cluster.SetRetained(&shoalpb.Message{Topic: "zzz", Payload: []byte("last"), Retain: true})
			c := n.dial(packet.V5)
			options := []mqtttest.Option{mqtttest.ID("c")}
			if durable {
				options = append(options, mqtttest.Resume(), mqtttest.Expiry(100))
			}
			c.Connect(options...)
			c.Subscribe("#", 1)
			c.ExpectPublish("zzz", "last")
			if got := n.withheld(); got != 300 {
				t.Errorf("%v withheld", got)
			}
		})
	}
}

// TestReceiveDeniedShared: a member that may not receive a message leaves it to
// the others; if none may it is dropped, and does not go round for ever.
func TestReceiveDeniedShared(t *testing.T) {
	n, rules := ruled(t)
	rules.deny("", "", "secret")
	for _, id := range []string{"a", "b"} {
		n.connect(packet.V5, id).Subscribe("$share/g/#", 1)
	}
	p := n.connect(packet.V5, "free publisher")
	p.Publish("secret", "lost", 1)
	p.Publish("secret", "lost", 0)
	p.ExpectNothing()
	if n.withheld() != 2 || len(n.cluster.Redispatched()) != 0 {
		t.Errorf("%v withheld, %d passed on", n.withheld(), len(n.cluster.Redispatched()))
	}
	free := n.connect(packet.V5, "free")
	free.Subscribe("$share/g/#", 1)
	for i := range 6 {
		p.Publish("secret", fmt.Sprint(i), packet.QoS(i%2))
		d := free.ExpectPublish("secret", fmt.Sprint(i))
		if d.QoS == 1 {
			free.Write(&packet.Ack{Type: packet.TypePuback, PacketID: d.PacketID})
		}
	}
}

// TestFreeOfRules: a client with all permissions is not asked about.
func TestFreeOfRules(t *testing.T) {
	n, rules := ruled(t)
	c := n.connect(packet.V5, "free")
	c.Subscribe("a", 1)
	c.Publish("b", "", 1)
	if len(rules.asked) > 0 {
		t.Errorf("asked about %q", rules.asked)
	}
}
