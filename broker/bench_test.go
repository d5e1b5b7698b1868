//go:build unix

package broker_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// benchBatch is how many messages the benchmark's publisher puts into one write,
// and has under way at most: what a busy client's socket holds.
const benchBatch = 100

// BenchmarkDelivery measures a message's way from one socket to another, both
// clients' ends included: cpu-ns/delivery is of the whole process.
func BenchmarkDelivery(b *testing.B) {
	for _, c := range []struct {
		qos         packet.QoS
		subscribers int
	}{{0, 1}, {0, 100}, {1, 1}} {
		b.Run(fmt.Sprintf("qos=%d/subscribers=%d", c.qos, c.subscribers), func(b *testing.B) {
			benchDelivery(b, c.qos, c.subscribers)
		})
	}
}

func benchDelivery(b *testing.B, qos packet.QoS, subscribers int) {
	n := start(b)
	// arrived gets a token for every benchBatch messages of each subscriber.
	arrived := make(chan error, subscribers)
	for i := range subscribers {
		nc := benchConnect(b, n.addr, fmt.Sprint("s", i))
		subscribe := packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "bench/topic", QoS: qos}}}
		nc.Write(subscribe.Append(nil, packet.V311))
		if _, err := io.ReadFull(nc, make([]byte, 5)); err != nil {
			b.Fatal(err)
		}
		go drain(nc, arrived)
	}
	pub := benchConnect(b, n.addr, "p")
	go drain(pub, nil)
	payload := make([]byte, 64)
	var batch []byte
	for i := range benchBatch {
		p := packet.Publish{Topic: []byte("bench/topic"), Payload: payload, QoS: qos}
		if qos > 0 {
			p.PacketID = uint16(i + 1)
		}
		batch = p.Append(batch, packet.V311)
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime()
	rounds := b.N/benchBatch + 1
	for range rounds {
		if _, err := pub.Write(batch); err != nil {
			b.Fatal(err)
		}
		for range subscribers {
			select {
			case err := <-arrived:
				if err != nil {
					b.Fatal(err)
				}
			case <-time.After(mqtttest.Timeout):
				b.Fatal("messages do not arrive")
			}
		}
	}
	deliveries := rounds * benchBatch * subscribers
	b.ReportMetric(float64(cpuTime()-before)/float64(deliveries), "cpu-ns/delivery")
}

// benchConnect connects in MQTT 3.1.1 with a transient session.
func benchConnect(b *testing.B, addr, id string) net.Conn {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { nc.Close() })
	connect := packet.Connect{ClientID: id, CleanStart: true}
	nc.Write(connect.Append(nil, packet.V311))
	if _, err := io.ReadFull(nc, make([]byte, 4)); err != nil {
		b.Fatal(err)
	}
	return nc
}

// drain reads packets, acknowledges as a client does, and reports every
// benchBatch PUBLISH packets.
func drain(nc net.Conn, arrived chan<- error) {
	r := bufio.NewReaderSize(nc, 64<<10)
	var answers []byte
	count := 0
	var p packet.Publish
	for {
		if r.Buffered() < 2 && len(answers) > 0 {
			nc.Write(answers)
			answers = answers[:0]
		}
		head, err := r.Peek(2)
		if err != nil {
			return
		}
		whole, err := r.Peek(packet.Needed(head)) // the benchmark's packets are short
		if err != nil {
			return
		}
		h, body, n, err := packet.Next(whole, 0)
		if err == nil && n == 0 {
			err = io.ErrShortBuffer
		}
		if err != nil {
			arrived <- err
			return
		}
		if h.Type == packet.TypePublish {
			p.Decode(h, body, packet.V311)
			if p.QoS > 0 {
				answer := packet.Ack{Type: packet.TypePuback, PacketID: p.PacketID}
				answers = answer.Append(answers, packet.V311)
			}
			if count++; count%benchBatch == 0 {
				arrived <- nil
			}
		}
		r.Discard(n)
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
