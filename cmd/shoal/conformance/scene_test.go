package conformance

import (
	"fmt"
	"hash/fnv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// variant is what a rule is tested with: versions of the protocol and classes
// of sessions.
type variant uint8

const (
	v311 variant = 1 << iota
	v5
	transient
	durable
	v31 // beside everyVersion: what differs in MQTT 3.1

	everyVersion = v311 | v5
	every        = everyVersion | transient | durable
	every5       = v5 | transient | durable
	allDurable   = everyVersion | durable
	allTransient = everyVersion | transient
	durable5     = v5 | durable
	transient5   = v5 | transient
	both3        = v31 | v311 | transient | durable
	transient3   = v31 | v311 | transient
)

// rule is a statement of the standard and its test.
type rule struct {
	name string
	in   variant
	test func(*scene)
}

// check runs rules, each in its variants, all side by side.
func check(t *testing.T, rules []rule) {
	for _, r := range rules {
		r.checkTransports(t)
		for _, v := range []packet.Version{packet.V31, packet.V311, packet.V5} {
			for _, keep := range []bool{false, true} {
				if !r.in.has(v, keep) {
					continue
				}
				class := "transient"
				if keep {
					class = "durable"
				}
				t.Run(r.name+"/"+v.String()+" "+class, func(t *testing.T) {
					t.Parallel()
					r.try(t, v, keep, overTCP)
				})
			}
		}
	}
}

func (in variant) has(v packet.Version, keep bool) bool {
	version := map[packet.Version]variant{packet.V31: v31, packet.V311: v311, packet.V5: v5}[v]
	class := transient
	if keep {
		class = durable
	}
	return in&version != 0 && in&class != 0
}

// scene is one run of one rule: a protocol version, a class of sessions, two
// nodes, and names that nobody else uses.
type scene struct {
	testing.TB
	v       packet.Version
	durable bool
	// here is where publishers and first connections are, there where
	// subscribers and second ones are, other the third node.
	here, there, other *node
	name               string
	via                transport
}

var scenes atomic.Uint64

// newScene turns the roles of the nodes around from run to run.
func newScene(t testing.TB, v packet.Version, keep bool, over transport) *scene {
	h := fnv.New32a()
	h.Write([]byte(t.Name()))
	first := int(h.Sum32() % 3)
	return &scene{
		TB: t, v: v, durable: keep, via: over, name: fmt.Sprintf("t%d", scenes.Add(1)),
		here: nodes[first], there: nodes[(first+1)%3], other: nodes[(first+2)%3],
	}
}

// topic is a Topic Name or Filter of this scene.
func (s *scene) topic(levels ...string) string {
	return strings.Join(append([]string{s.name}, levels...), "/")
}

func (s *scene) id(name string) string { return s.name + "-" + name }

func (s *scene) dial(n *node) *mqtttest.Client {
	s.Helper()
	c, err := n.dial(s.via, s.v)
	if err != nil {
		s.Fatal(err)
	}
	return mqtttest.New(s, c)
}

// class are the options for a session of the scene's class.
func (s *scene) class() []mqtttest.Option {
	if s.durable {
		return []mqtttest.Option{mqtttest.Resume(), mqtttest.Expiry(3600)}
	}
	return nil
}

// open connects a client of the scene's version and class.
func (s *scene) open(n *node, name string, options ...mqtttest.Option) (*mqtttest.Client, *packet.Connack) {
	s.Helper()
	c := s.dial(n)
	all := append([]mqtttest.Option{mqtttest.ID(s.id(name))}, s.class()...)
	return c, c.Connect(append(all, options...)...)
}

func (s *scene) connect(n *node, name string, options ...mqtttest.Option) *mqtttest.Client {
	s.Helper()
	c, _ := s.open(n, name, options...)
	return c
}

// resume connects a client again; its session must be there.
func (s *scene) resume(n *node, name string, options ...mqtttest.Option) *mqtttest.Client {
	s.Helper()
	c, ack := s.open(n, name, options...)
	if !ack.SessionPresent {
		s.Fatal("the session is gone")
	}
	return c
}

// pair connects a publisher here and a subscriber there.
func (s *scene) pair(options ...mqtttest.Option) (pub, sub *mqtttest.Client) {
	s.Helper()
	return s.connect(s.here, "p"), s.connect(s.there, "s", options...)
}

// as returns the scene with another version.
func (s *scene) as(v packet.Version) *scene {
	c := *s
	c.v = v
	return &c
}

// code5 is a Reason Code in MQTT 5, and 0 before.
func (s *scene) code5(c packet.Code) packet.Code {
	if s.v == packet.V5 {
		return c
	}
	return 0
}

// leave disconnects a client of a durable session and waits until the cluster
// knows: marker, a topic that the session is subscribed to with QoS 1 or 2, gets
// a message, which is the first that waits for it. It goes the way of the
// session's end: from the same node to the same shard.
func (s *scene) leave(c *mqtttest.Client, n *node, marker string) {
	s.Helper()
	c.Disconnect()
	w := s.connect(n, "marker")
	w.Publish(marker, "marker", packet.QoS1)
	w.Disconnect()
}

func publish(topic, payload string, qos packet.QoS, id uint16) *packet.Publish {
	return &packet.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: qos, PacketID: id}
}

func ack(t packet.Type, id uint16) *packet.Ack { return &packet.Ack{Type: t, PacketID: id} }

// exchange publishes and goes through the acknowledgements of the QoS.
func exchange(c *mqtttest.Client, p *packet.Publish) {
	c.Write(p)
	switch p.QoS {
	case packet.QoS1:
		c.ExpectAck(packet.TypePuback, p.PacketID, 0)
	case packet.QoS2:
		c.ExpectAck(packet.TypePubrec, p.PacketID, 0)
		c.Write(ack(packet.TypePubrel, p.PacketID))
		c.ExpectAck(packet.TypePubcomp, p.PacketID, 0)
	}
}

// finish answers a message as a subscriber does, to the end.
func finish(c *mqtttest.Client, p *packet.Publish) {
	switch p.QoS {
	case packet.QoS1:
		c.Write(ack(packet.TypePuback, p.PacketID))
	case packet.QoS2:
		c.Write(ack(packet.TypePubrec, p.PacketID))
		c.ExpectAck(packet.TypePubrel, p.PacketID, 0)
		c.Write(ack(packet.TypePubcomp, p.PacketID))
	}
}
