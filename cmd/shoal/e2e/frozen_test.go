package e2e

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// TestFrozenNodeMatchesAgain: a node that was frozen while others acknowledged
// a subscription must not acknowledge, with the routes of before, what waits in
// its sockets.
func TestFrozenNodeMatchesAgain(t *testing.T) {
	c := startCluster(t, 6)
	for round, durable := range []bool{false, true} {
		frozen, other := c.nodes[round], c.nodes[round+1]
		var publishers []*mqtttest.Client
		for i := range 20 {
			p := mqtttest.DialTest(t, frozen.mqtt, packet.V5)
			p.Connect(mqtttest.ID(fmt.Sprintf("publisher-%d-%d", round, i)))
			publishers = append(publishers, p)
		}
		s := mqtttest.DialTest(t, other.mqtt, packet.V5)
		s.AutoAck = true
		options := []mqtttest.Option{mqtttest.ID(fmt.Sprintf("subscriber-%d", round))}
		if durable {
			options = append(options, mqtttest.Expiry(3600))
		}
		s.Connect(options...)

		frozen.freeze()
		begin := time.Now()
		s.Subscribe(fmt.Sprintf("frozen/%d/+", round), packet.QoS1)
		t.Logf("durable: %t: SUBACK %v after the freeze", durable, time.Since(begin).Round(time.Millisecond))
		topic := func(i int) string { return fmt.Sprintf("frozen/%d/%d", round, i) }
		for i, p := range publishers {
			p.Write(&packet.Publish{Topic: []byte(topic(i)), Payload: []byte("x"), QoS: packet.QoS1, PacketID: 1})
		}
		frozen.thaw()
		acked := map[string]bool{}
		for i, p := range publishers {
			if acknowledged(t, p) {
				acked[topic(i)] = true
			}
		}
		t.Logf("%d of %d acknowledged, the others closed", len(acked), len(publishers))
		for len(acked) > 0 {
			p, err := s.Receive(patience)
			if err != nil {
				t.Fatalf("durable: %t: missed %v: %v", durable, acked, err)
			}
			if m, ok := p.(*packet.Publish); ok {
				delete(acked, string(m.Topic))
			}
		}
		c.awaitReady()
	}
}

// acknowledged waits for PUBACK with success, or for the connection's end.
func acknowledged(t *testing.T, p *mqtttest.Client) bool {
	t.Helper()
	for {
		got, err := p.Receive(patience)
		if errors.Is(err, mqtttest.ErrTimeout) {
			t.Fatal("neither PUBACK nor the connection's end")
		}
		if ack, ok := got.(*packet.Ack); ok && !ack.Code.Failed() {
			return true
		}
		if err != nil {
			return false
		}
	}
}
