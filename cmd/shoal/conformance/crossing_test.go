package conformance

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// counter publishes ascending numbers, retained, to one topic.
type counter struct {
	acked atomic.Int64
	last  atomic.Int64
	stop  chan struct{}
	over  chan struct{}
}

// count starts a publisher that waits for each acknowledgement.
func (s *scene) count(pub *mqtttest.Client, topic string, qos packet.QoS) *counter {
	c := &counter{stop: make(chan struct{}), over: make(chan struct{})}
	go func() {
		defer close(c.over)
		for n := int64(1); ; n++ {
			select {
			case <-c.stop:
				return
			default:
			}
			p := publish(topic, strconv.FormatInt(n, 10), qos, uint16(n%60_000)+1)
			p.Retain = true
			exchange(pub, p)
			c.last.Store(n)
			if qos > 0 {
				c.acked.Store(n)
			}
		}
	}()
	return c
}

// counted is a subscriber of a counter.
type counted struct {
	*mqtttest.Client
	least  int64 // acknowledged before its SUBSCRIBE
	values []int64
}

// take takes what has come. The first has RETAIN 1 and is not too old, all others are
// newer and have RETAIN 0.
func (c *counted) take(s *scene, packets []packet.Packet) {
	for _, x := range packets {
		p, ok := x.(*packet.Publish)
		if !ok {
			continue
		}
		n, _ := strconv.ParseInt(string(p.Payload), 10, 64)
		first := len(c.values) == 0
		switch {
		case p.Retain != first:
			s.Errorf("%s after %v", mqtttest.Describe(p), c.values)
		case first && n < c.least:
			s.Errorf("got %d, though %d was acknowledged before SUBSCRIBE", n, c.least)
		case !first && n <= c.values[len(c.values)-1]:
			s.Errorf("%d after %v", n, c.values)
		}
		c.values = append(c.values, n)
	}
}

func (c *counted) end() int64 {
	if len(c.values) == 0 {
		return 0
	}
	return c.values[len(c.values)-1]
}

// TestCrossing: retained publishes cross with new subscriptions (scenario 46).
func TestCrossing(t *testing.T) {
	var rules []rule
	for qos := packet.QoS1; qos <= packet.QoS2; qos++ {
		rules = append(rules, rule{fmt.Sprintf("a new subscription while retained messages of QoS %d are published", qos), every, func(s *scene) {
			topic := s.topic("r", "a")
			pub := s.connect(s.here, "p")
			w := s.count(pub, topic, qos)
			for w.acked.Load() == 0 {
				time.Sleep(time.Millisecond)
			}
			var all []*counted
			for i, n := range []*node{s.here, s.there, s.other, s.here, s.there, s.other, s.here, s.there, s.other} {
				c := &counted{Client: s.connect(n, fmt.Sprint("s", i))}
				c.AutoAck = true
				c.least = w.acked.Load()
				filter := []string{topic, s.topic("r", "+"), s.topic("#")}[i%3]
				c.Write(&packet.Subscribe{PacketID: c.NextID(), Subscriptions: []packet.Subscription{{Filter: filter, QoS: packet.QoS(1 + i%2)}}})
				all = append(all, c)
				for len(c.values) == 0 { // also before SUBACK: it stands
					c.take(s, c.Ping())
				}
			}
			close(w.stop)
			<-w.over
			for _, c := range all {
				for end := time.Now().Add(patience); c.end() < w.last.Load() && time.Now().Before(end); {
					c.take(s, c.Ping())
				}
				if c.end() != w.last.Load() {
					s.Errorf("it ends with %d, not with %d", c.end(), w.last.Load())
				}
			}
		}})
	}
	check(t, rules)
}
