package broker_test

import (
	"fmt"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoalmq/shoal/broker/brokertest"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// TestReplayModel: whatever is published, subscribed and unsubscribed while pages
// are under way, a client never gets an older value of a topic after a newer one,
// and ends with the retained one of every topic it is owed.
func TestReplayModel(t *testing.T) {
	n := start(t)
	pub := n.connect(packet.V5, "p")
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		m := &replayModel{n: n, pub: pub, name: fmt.Sprint("t", run), owed: map[string]bool{}, known: map[string]int{}}
		m.sub = n.connect(packet.V5, m.name)
		defer m.sub.Close()
		n.cluster.Hold(brokertest.Retained)
		rt.Repeat(map[string]func(*rapid.T){
			"publish":     m.publish,
			"subscribe":   m.subscribe,
			"unsubscribe": m.unsubscribe,
			"page": func(*rapid.T) {
				if n.cluster.Held(brokertest.Retained) > 0 {
					n.cluster.ReleaseOne(brokertest.Retained, 0)
				}
			},
			"": func(rt *rapid.T) { m.read(rt) },
		})
		n.cluster.ReleaseAll(brokertest.Retained)
		m.read(rt)
		for filter, owed := range m.owed {
			for _, topic := range []string{"a", "b"} {
				kept := n.cluster.RetainedMessage(m.name + "/" + topic)
				if !owed || kept == nil || filter != "+" && filter != topic {
					continue
				}
				if want, _ := strconv.Atoi(string(kept.Payload)); m.known[topic] != want {
					rt.Fatalf("%s: %d is retained, the client has %d", topic, want, m.known[topic])
				}
			}
		}
	})
}

type replayModel struct {
	n        *node
	pub, sub *mqtttest.Client
	name     string
	last     int
	owed     map[string]bool // by filter: it was to bring retained messages
	known    map[string]int  // by topic: the last value seen
}

func (m *replayModel) publish(t *rapid.T) {
	m.last++
	text := strconv.Itoa(m.last)
	if rapid.IntRange(0, 4).Draw(t, "clear") == 0 {
		text = ""
	}
	topic := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "topic")
	m.n.retain(m.pub, m.name+"/"+topic, text, packet.QoS(rapid.IntRange(0, 2).Draw(t, "qos")))
}

var replayFilters = []string{"a", "b", "+"}

func (m *replayModel) subscribe(t *rapid.T) {
	filter := rapid.SampledFrom(replayFilters).Draw(t, "filter")
	handling := byte(rapid.IntRange(0, 2).Draw(t, "retain handling"))
	_, existed := m.owed[filter]
	m.owed[filter] = m.owed[filter] || handling == 0 || handling == 1 && !existed
	p := packet.Subscribe{PacketID: m.sub.NextID(), Subscriptions: []packet.Subscription{{Filter: m.name + "/" + filter, QoS: packet.QoS(rapid.IntRange(0, 2).Draw(t, "granted")), RetainHandling: handling}}}
	m.sub.Write(&p)
	m.read(t)
}

func (m *replayModel) unsubscribe(t *rapid.T) {
	filter := rapid.SampledFrom(replayFilters).Draw(t, "filter")
	delete(m.owed, filter)
	m.sub.Write(&packet.Unsubscribe{PacketID: m.sub.NextID(), Filters: []string{m.name + "/" + filter}})
	m.read(t)
}

// read takes what has come. The client answers, so that its window is open.
func (m *replayModel) read(t *rapid.T) {
	for again := true; again; {
		again = false
		for _, p := range m.sub.Ping() {
			again = true
			switch p := p.(type) {
			case *packet.Publish:
				m.take(t, p)
			case *packet.Ack:
				m.sub.Write(&packet.Ack{Type: packet.TypePubcomp, PacketID: p.PacketID})
			}
		}
	}
}

func (m *replayModel) take(t *rapid.T, p *packet.Publish) {
	topic := string(p.Topic[len(m.name)+1:])
	value, _ := strconv.Atoi(string(p.Payload))
	if len(p.Payload) == 0 {
		value = m.last // what clears is newer than all before
	}
	if value < m.known[topic] {
		t.Fatalf("%s: %d after %d", topic, value, m.known[topic])
	}
	m.known[topic] = value
	switch p.QoS {
	case packet.QoS1:
		m.sub.Write(&packet.Ack{Type: packet.TypePuback, PacketID: p.PacketID})
	case packet.QoS2:
		m.sub.Write(&packet.Ack{Type: packet.TypePubrec, PacketID: p.PacketID})
	}
}
