package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

// generator is load for measuring: pairs of a publisher and a subscriber on
// different nodes. It shares the machine with what it measures, so it does next
// to nothing: MQTT 3.1.1, packets encoded once, one write for all that a read
// allows.
type generator struct {
	pairs []*generatorPair
	tasks sync.WaitGroup
	ended atomic.Bool
	err   atomic.Pointer[error] // the first
}

type generatorPair struct {
	publisher, subscriber *wire
	packet                []byte // PUBLISH
	// window bounds what is sent and not acknowledged (QoS 1), lag what is sent
	// and not delivered: without it queues would grow for as long as a
	// subscriber is slower.
	window, lag      int
	acked, delivered atomic.Int64
}

// generatorConfig says what the pairs do.
type generatorConfig struct {
	pairs      int
	qos        packet.QoS
	payload    int // bytes
	window     int
	lag        int
	publishers []string // MQTT addresses of publishers, taken in turn
	// subscribers are the same for subscribers, which are durable at QoS 1.
	subscribers []string
}

func startGenerator(c generatorConfig) (*generator, error) {
	g := &generator{}
	for i := range c.pairs {
		p := &generatorPair{window: c.window, lag: c.lag}
		g.pairs = append(g.pairs, p)
		topic := fmt.Sprintf("load/%d/%d", c.qos, i)
		p.packet = (&packet.Publish{QoS: c.qos, Topic: []byte(topic), PacketID: uint16(c.qos), Payload: make([]byte, c.payload)}).Append(nil, packet.V311)
		var err error
		if p.subscriber, err = connectWire(c.subscribers[i%len(c.subscribers)], topic+"/s", c.qos == 0); err != nil {
			return g, err
		}
		if err := subscribeWire(p.subscriber, topic, c.qos); err != nil {
			return g, err
		}
		if p.publisher, err = connectWire(c.publishers[i%len(c.publishers)], topic+"/p", true); err != nil {
			return g, err
		}
	}
	for _, p := range g.pairs {
		g.tasks.Go(func() { g.fail(p.receive(c.qos)) })
		g.tasks.Go(func() { g.fail(p.send(c.qos, &g.ended)) })
	}
	return g, nil
}

func connectWire(addr, name string, clean bool) (*wire, error) {
	w, err := dialWire(addr, packet.V311)
	if err != nil {
		return nil, err
	}
	w.append(&packet.Connect{ClientID: name, CleanStart: clean})
	if err := w.flush(); err != nil {
		return nil, err
	}
	p, err := w.next(time.Now().Add(patience))
	if err != nil {
		return nil, err
	}
	if ack, ok := p.(*packet.Connack); !ok || ack.Code.Failed() {
		return nil, fmt.Errorf("connect %s: %+v", name, p)
	}
	return w, w.SetDeadline(time.Time{})
}

func subscribeWire(w *wire, topic string, qos packet.QoS) error {
	w.append(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: topic, QoS: qos}}})
	if err := w.flush(); err != nil {
		return err
	}
	p, err := w.next(time.Now().Add(patience))
	if err != nil {
		return err
	}
	if ack, ok := p.(*packet.Suback); !ok || ack.Codes[0].Failed() {
		return fmt.Errorf("subscribe %s: %+v", topic, p)
	}
	return w.SetDeadline(time.Time{})
}

func (g *generator) fail(err error) {
	if err != nil && !errors.Is(err, net.ErrClosed) {
		g.err.CompareAndSwap(nil, &err)
	}
}

// close ends the load and returns its first error.
func (g *generator) close() error {
	g.ended.Store(true)
	for _, p := range g.pairs {
		for _, w := range []*wire{p.publisher, p.subscriber} {
			if w != nil {
				w.Close()
			}
		}
	}
	g.tasks.Wait()
	if err := g.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (g *generator) totals() (acked, delivered int64) {
	for _, p := range g.pairs {
		acked += p.acked.Load()
		delivered += p.delivered.Load()
	}
	return acked, delivered
}

// send publishes as fast as window and lag allow.
func (p *generatorPair) send(qos packet.QoS, ended *atomic.Bool) error {
	var out []byte
	ids := make([]uint16, 0, p.window) // free Packet Identifiers
	for id := range p.window {
		ids = append(ids, uint16(id+1))
	}
	in := make([]byte, 4*p.window) // PUBACKs
	rest, sent := 0, int64(0)
	for !ended.Load() {
		room := min(len(ids), int(p.delivered.Load()+int64(p.lag)-sent))
		out = out[:0]
		for range room {
			start := len(out)
			out = append(out, p.packet...)
			if qos > 0 {
				packet.SetPacketID(out[start:], ids[len(ids)-1])
				ids = ids[:len(ids)-1]
			}
		}
		if sent += int64(room); room > 0 {
			if _, err := p.publisher.Write(out); err != nil {
				return err
			}
		}
		switch {
		case qos == 0 || len(ids) == p.window: // nothing to read
			if room == 0 {
				time.Sleep(200 * time.Microsecond)
			}
			p.acked.Store(sent)
			continue
		case room == 0 && len(ids) > 0: // held back by the subscriber
			p.publisher.SetReadDeadline(time.Now().Add(time.Millisecond))
		default:
			p.publisher.SetReadDeadline(time.Time{})
		}
		n, err := p.publisher.Read(in[rest:])
		if n == 0 && err != nil && !isTimeout(err) {
			return err
		}
		n += rest
		for at := 0; at+4 <= n; at += 4 {
			if in[at] != byte(packet.TypePuback)<<4 {
				return fmt.Errorf("a publisher got % x", in[at:at+4])
			}
			ids = append(ids, binary.BigEndian.Uint16(in[at+2:]))
			p.acked.Add(1)
		}
		rest = copy(in, in[n-n%4:n])
	}
	return nil
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// receive counts and acknowledges what arrives.
func (p *generatorPair) receive(qos packet.QoS) error {
	in, out := make([]byte, 64<<10), []byte{}
	rest := copy(in, p.subscriber.in[p.subscriber.start:p.subscriber.end])
	for {
		n, err := p.subscriber.Read(in[rest:])
		if err != nil {
			return err
		}
		n += rest
		at, many := 0, int64(0)
		out = out[:0]
		for {
			h, body, size, err := packet.Next(in[at:n], 0)
			if err != nil {
				return err
			}
			if size == 0 {
				break
			}
			if h.Type != packet.TypePublish {
				return fmt.Errorf("a subscriber got %s", h.Type)
			}
			if qos > 0 {
				id := body[2+int(binary.BigEndian.Uint16(body)):]
				out = append(out, byte(packet.TypePuback)<<4, 2, id[0], id[1])
			}
			at += size
			many++
		}
		if len(out) > 0 {
			if _, err := p.subscriber.Write(out); err != nil {
				return err
			}
		}
		p.delivered.Add(many)
		rest = copy(in, in[at:n])
	}
}
