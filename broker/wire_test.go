package broker_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// TestStalledSocket: a client that stops reading has its output kept, bounded,
// and gets all of it when it goes on: writes that the kernel takes in part.
func TestStalledSocket(t *testing.T) {
	n := startNarrow(t, func(c *broker.Config) { c.MaxOutputBytes = 16 << 20 }) // more than all
	sub := n.connectNarrow(packet.V5, "s")
	sub.Subscribe("a", 1)
	pub := n.connect(packet.V5, "p")
	payload := strings.Repeat("x", 200<<10)
	const count = 60
	for i := range count {
		pub.Publish("a", fmt.Sprint(i, payload), packet.QoS(i%2))
	}
	got := [2]int{}
	for range count {
		p := mqtttest.Expect[*packet.Publish](sub)
		index, _ := strconv.Atoi(string(p.Payload[:len(p.Payload)-len(payload)]))
		if index < got[p.QoS] {
			t.Fatalf("%d after %d", index, got[p.QoS])
		}
		got[p.QoS] = index
		if p.QoS == 1 {
			sub.Write(ack(packet.TypePuback, p.PacketID))
		}
		if index >= count-2 && got[0] >= count-2 && got[1] >= count-2 {
			break
		}
	}
	sub.ExpectNothing()
}

// TestManyAtOnce: connections that come, talk, park and go on every side of a
// busy node; run it with -race.
func TestManyAtOnce(t *testing.T) {
	n := start(t)
	var clients sync.WaitGroup
	for worker := range 8 {
		clients.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(worker)))
			for round := range 30 {
				v := []packet.Version{packet.V311, packet.V5}[r.IntN(2)]
				if err := visit(n.addr, v, fmt.Sprint("c", worker%5), r); err != nil {
					t.Errorf("worker %d round %d: %v", worker, round, err)
					return
				}
			}
		})
	}
	clients.Wait()
	n.awaitConnections(0)
}

// visit is a short life of a client. Being taken over is fine.
func visit(addr string, v packet.Version, id string, r *rand.Rand) error {
	c, err := mqtttest.Dial(addr, v, mqtttest.Timeout)
	if err != nil {
		return err
	}
	defer c.Close()
	c.AutoAck = true
	durable := r.IntN(2) == 0
	ack, err := c.Connect(packet.Connect{ClientID: id, CleanStart: !durable, HasSessionExpiry: durable, SessionExpiry: 100}, mqtttest.Timeout)
	if err != nil || ack.Code.Failed() {
		return nil
	}
	c.Send(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "t/#", QoS: packet.QoS(r.IntN(3))}, {Filter: "+/1", QoS: 1}}})
	for i := range 20 {
		c.Send(publish(fmt.Sprint("t/", i%3), "x", packet.QoS(i%3), uint16(i+2)))
	}
	c.Send(&packet.Unsubscribe{PacketID: 50, Filters: []string{"t/#"}}, &packet.Pingreq{})
	for {
		p, err := c.Receive(mqtttest.Timeout)
		if err == mqtttest.ErrTimeout {
			return err
		}
		if _, ok := p.(*packet.Pingresp); ok || err != nil {
			break
		}
	}
	if r.IntN(2) == 0 {
		c.Send(&packet.Disconnect{})
	}
	return nil
}

// TestPark: a connection between two packets has no goroutine.
func TestPark(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("sockets are watched on Linux only")
	}
	n := start(t)
	n.connect(packet.V5, "first").ExpectNothing()
	before := runtime.NumGoroutine()
	var clients []*mqtttest.Client
	for i := range 100 {
		clients = append(clients, n.connect(packet.V5, fmt.Sprint("c", i)))
	}
	await(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
	for _, c := range clients { // and comes back
		c.ExpectNothing()
	}
	await(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
	for _, c := range clients[:50] {
		c.Close()
	}
	n.awaitConnections(51)
	for i := range 50 { // descriptors are used again
		n.connect(packet.V5, fmt.Sprint("d", i)).ExpectNothing()
	}
	for _, c := range clients[50:] {
		c.ExpectNothing()
	}
}

// TestHalfAPacketParked: a connection that parks with half a packet goes on
// with it.
func TestHalfAPacketParked(t *testing.T) {
	n := start(t)
	c := n.connect(packet.V5, "c")
	c.Subscribe("a", 0)
	other := n.connect(packet.V5, "other") // uses the same pooled buffers
	for _, size := range []int{10, 5000, 60000, 500000} {
		payload := string(bytes.Repeat([]byte{'x'}, size))
		b := publish("a", payload, 0, 0).Append(nil, packet.V5)
		received := n.metric("shoal_received_bytes_total")
		for piece := range 4 {
			c.WriteRaw(b[len(b)*piece/4 : len(b)*(piece+1)/4]...)
			await(t, "bytes", func() bool {
				return n.metric("shoal_received_bytes_total") == received+float64(len(b)*(piece+1)/4)
			})
			before := n.metric("shoal_received_bytes_total")
			other.Publish("b", strings.Repeat("y", 60000), 0)
			other.ExpectNothing()
			received += n.metric("shoal_received_bytes_total") - before
		}
		c.ExpectPublish("a", payload)
	}
}

// TestHalfClosed: a client that closes its side while it is being refused still
// reads why.
func TestHalfClosed(t *testing.T) {
	n := start(t)
	nc, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.Write(with(connect5, 9, 3))
	nc.(*net.TCPConn).CloseWrite()
	nc.SetReadDeadline(time.Now().Add(mqtttest.Timeout))
	if b, err := io.ReadAll(nc); err != nil || len(b) < 4 || b[3] != byte(packet.CodeMalformedPacket) {
		t.Errorf("read % x, %v", b, err)
	}
}

// TestHalfClosedWithOutput: so does one that has much else to read first.
func TestHalfClosedWithOutput(t *testing.T) {
	n := start(t, func(c *broker.Config) { c.MaxOutputBytes = 64 << 20 })
	nc := idle(t, n.addr, "s")
	defer nc.Close()
	subscribe := packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "a"}}}
	nc.Write(subscribe.Append(nil, packet.V5))
	if _, err := io.ReadFull(nc, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	pub := n.connect(packet.V5, "p")
	const count, size = 30, 500 << 10
	for range count {
		pub.Publish("a", strings.Repeat("x", size), 0)
	}
	pub.ExpectNothing()
	nc.Write([]byte{0x36, 0})
	nc.(*net.TCPConn).CloseWrite()
	await(t, "PUBLISH", func() bool { return n.metric("shoal_packets_sent_total", "disconnect") == 1 })
	nc.SetReadDeadline(time.Now().Add(mqtttest.Timeout))
	b, err := io.ReadAll(nc)
	if err != nil || len(b) < count*size || !bytes.Contains(b[len(b)-80:], []byte{byte(packet.CodeMalformedPacket)}) {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
}

// TestFarewellIsRead: DISCONNECT arrives although the client keeps sending
// (rule 93): the connection is not reset under it.
func TestFarewellIsRead(t *testing.T) {
	n := start(t)
	c := n.connect(packet.V5, "c")
	c.WriteRaw(append([]byte{0x36, 0}, make([]byte, 200<<10)...)...)
	c.ExpectDisconnect(packet.CodeMalformedPacket)
}

// TestIdleMemory tells what an idle connection costs. Run it with -v.
func TestIdleMemory(t *testing.T) {
	if testing.Short() || runtime.GOOS != "linux" {
		t.Skip("takes 2,000 connections, and /proc")
	}
	n := start(t)
	n.connect(packet.V5, "first")
	const count = 2000
	conns := make([]net.Conn, count)
	before := memory()
	for i := range conns {
		conns[i] = idle(t, n.addr, fmt.Sprintf("client-%06d", i))
	}
	after := memory()
	each := (after - before) / count
	t.Logf("%d bytes of heap and stack for each of %d idle connections, both ends and the cluster's part included", each, count)
	for _, c := range conns {
		c.Close()
	}
	n.awaitConnections(1)
	if limit := int64(8 << 10); each > limit {
		t.Errorf("more than %d bytes each: something is not given back", limit)
	}
}

// memory is what is in use when the pools of earlier tests are empty, which
// takes two collections, and their stacks given back.
func memory() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

func idle(t *testing.T, addr, id string) net.Conn {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Skipf("dial: %v", err)
	}
	connect := packet.Connect{ClientID: id, CleanStart: true}
	nc.Write(connect.Append(nil, packet.V5))
	ack := make([]byte, 2)
	if _, err := io.ReadFull(nc, ack); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(nc, make([]byte, ack[1])); err != nil {
		t.Fatal(err)
	}
	return nc
}
