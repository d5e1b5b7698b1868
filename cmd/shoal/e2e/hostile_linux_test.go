package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// hostileConfig is what an operator would say who expects trouble.
const hostileConfig = `
memory-limit: 256MiB
limits:
  packet-timeout: 5s
  stall-timeout: 5s
  client: {publish-rate: 2000, publish-bytes-rate: 2MiB, request-rate: 100, max-packet-bytes: 256KiB, max-topic-levels: 32, max-subscriptions: 1000}
`

// hostileRSS bounds the memory of the node: what it is limited to, the mapped
// files of its store, and what the collector has not returned yet.
const hostileRSS = 512 << 20

// TestHostileClients has some thousand connections do all that a server must not
// be hurt by, while two clients that behave talk to each other: nothing of theirs
// is lost, nothing comes twice or out of order, and the node neither grows nor
// ends. How late their messages come is told; a bound is set that only a server
// that is stuck would miss.
func TestHostileClients(t *testing.T) {
	lasts := 12 * time.Second
	if os.Getenv("SHOAL_CHAOS") == "long" {
		lasts = 2 * time.Minute
	}
	c := newCluster(t, 1, t.TempDir())
	c.nodes = c.nodes[:1]
	n := c.nodes[0]
	file := filepath.Join(t.TempDir(), "shoal.yaml")
	must(t, os.WriteFile(file, []byte(hostileConfig), 0o600))
	n.flags = []string{"--config=" + file}
	c.start()
	c.awaitReady()
	good := newBehaved(t, n.mqtt)
	calm := good.talk(3 * time.Second)
	pid, most := n.pid(), atomic.Int64{}
	h := &horde{addr: n.mqtt, done: make(chan struct{})}
	for _, kind := range hostiles {
		for i := range kind.count {
			h.tasks.Go(func() {
				r := rand.New(rand.NewPCG(uint64(i), 1))
				for !h.over() {
					kind.do(h, r)
				}
			})
		}
	}
	h.tasks.Go(func() {
		for !h.over() {
			most.Store(max(most.Load(), rssBytes(t, pid)))
			h.pause(200 * time.Millisecond)
		}
	})
	storm := good.talk(lasts)
	close(h.done)
	h.tasks.Wait()
	t.Logf("%d hostile connections made; memory of the node at most %d MiB", h.made.Load(), most.Load()>>20)
	t.Logf("delay of QoS 0: calm %s, under attack %s", calm[0], storm[0])
	t.Logf("delay of QoS 1: calm %s, under attack %s", calm[1], storm[1])
	for qos, d := range storm {
		if d.at(99) > patience/10 {
			t.Errorf("QoS %d: the delay under attack is %s", qos, d)
		}
	}
	if most.Load() > hostileRSS {
		t.Errorf("memory of the node: %d MiB, want %d at most", most.Load()>>20, hostileRSS>>20)
	}
	if n.pid() != pid {
		t.Error("the node was started again")
	}
	c.failIfEnded()
	eventually(t, "the hostile connections are gone", func() error {
		if open := n.metric("shoal_connections"); open != 2 {
			return fmt.Errorf("%v connections are open", open)
		}
		return nil
	})
	for _, limit := range []string{"publish_rate", "request_rate", "packet_size", "topic", "subscriptions", "packet_time"} {
		t.Logf("limits hit, %s: %v", limit, n.metric(`shoal_limits_hit_total{limit="`+limit+`"}`))
	}
	good.talk(time.Second)
}

// horde are the hostile clients.
type horde struct {
	addr  string
	done  chan struct{}
	tasks sync.WaitGroup
	made  atomic.Int64
}

func (h *horde) over() bool {
	select {
	case <-h.done:
		return true
	default:
		return false
	}
}

// pause waits, or until it is over.
func (h *horde) pause(d time.Duration) {
	select {
	case <-h.done:
	case <-time.After(d):
	}
}

// dial returns a connection that ends with the horde, nil if there is none.
func (h *horde) dial() net.Conn {
	nc, err := net.DialTimeout("tcp", h.addr, 5*time.Second)
	if err != nil {
		h.pause(100 * time.Millisecond)
		return nil
	}
	h.made.Add(1)
	nc.SetDeadline(time.Now().Add(10 * time.Second))
	return nc
}

// client is one that has sent CONNECT and got its answer, nil if it has not.
func (h *horde) client() net.Conn {
	nc := h.dial()
	if nc == nil {
		return nil
	}
	p := packet.Connect{Version: packet.V5, CleanStart: true}
	_, err := nc.Write(p.Append(nil, packet.V5))
	if err == nil {
		_, err = io.ReadFull(nc, make([]byte, 4))
	}
	if err != nil {
		nc.Close()
		h.pause(100 * time.Millisecond)
		return nil
	}
	return nc
}

// drain reads all until the connection ends or the horde does.
func (h *horde) drain(nc net.Conn) {
	for !h.over() {
		nc.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		if _, err := nc.Read(make([]byte, 64<<10)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

// write goes on until the connection ends or the horde does.
func (h *horde) write(nc net.Conn, b []byte, every time.Duration) {
	defer nc.Close()
	go h.drain(nc)
	for !h.over() {
		nc.SetWriteDeadline(time.Now().Add(2 * time.Second))
		if _, err := nc.Write(b); err != nil {
			return
		}
		if every > 0 {
			h.pause(every)
		}
	}
}

func publishOf(topic string, size int) []byte {
	p := packet.Publish{Topic: []byte(topic), Payload: make([]byte, size)}
	return p.Append(nil, packet.V5)
}

// header is one of a packet of the length given, which never comes.
func header(first byte, length int) []byte {
	return append([]byte{first}, varint(length)...)
}

func varint(n int) (b []byte) {
	for {
		digit := byte(n % 128)
		if n /= 128; n == 0 {
			return append(b, digit)
		}
		b = append(b, digit|0x80)
	}
}

// hostiles are what they do, again and again, and how many do.
var hostiles = []struct {
	name  string
	count int
	do    func(*horde, *rand.Rand)
}{
	{"silent", 1000, func(h *horde, _ *rand.Rand) {
		if nc := h.dial(); nc != nil {
			defer nc.Close()
			h.drain(nc)
		}
	}},
	{"CONNECT byte by byte", 300, func(h *horde, _ *rand.Rand) {
		if nc := h.dial(); nc != nil {
			defer nc.Close()
			p := packet.Connect{ClientID: strings.Repeat("x", 1000)}
			for _, b := range p.Append(nil, packet.V311) {
				if _, err := nc.Write([]byte{b}); err != nil || h.over() {
					return
				}
				h.pause(500 * time.Millisecond)
			}
		}
	}},
	{"garbage", 100, func(h *horde, r *rand.Rand) {
		if nc := h.dial(); nc != nil {
			defer nc.Close()
			b := make([]byte, 1+r.IntN(2000))
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			nc.Write(b)
			nc.SetReadDeadline(time.Now().Add(time.Second))
			io.Copy(io.Discard, nc)
			h.pause(50 * time.Millisecond)
		}
	}},
	{"garbage after CONNECT", 50, func(h *horde, r *rand.Rand) {
		if nc := h.client(); nc != nil {
			defer nc.Close()
			b := publishOf("garbage", 100)
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
			nc.Write(bytes.Repeat(b, 10))
			nc.SetReadDeadline(time.Now().Add(time.Second))
			io.Copy(io.Discard, nc)
			h.pause(50 * time.Millisecond)
		}
	}},
	{"giant lengths", 100, func(h *horde, r *rand.Rand) {
		if nc := h.client(); nc != nil {
			h.write(nc, header(byte(1+r.IntN(14))<<4, 268_435_455), 0)
			h.pause(50 * time.Millisecond)
		}
	}},
	{"packets that never end", 300, func(h *horde, _ *rand.Rand) {
		if nc := h.client(); nc != nil {
			nc.Write(header(0x30, 200_000))
			h.write(nc, make([]byte, 1000), 300*time.Millisecond)
		}
	}},
	{"floods", 30, func(h *horde, _ *rand.Rand) {
		if nc := h.client(); nc != nil {
			h.write(nc, bytes.Repeat(publishOf("flood", 500), 100), 0)
		}
	}},
	{"PINGREQ floods", 20, func(h *horde, _ *rand.Rand) {
		if nc := h.client(); nc != nil {
			h.write(nc, bytes.Repeat([]byte{0xC0, 0}, 10_000), 0)
		}
	}},
	{"deaf subscribers", 50, func(h *horde, _ *rand.Rand) {
		if nc := h.client(); nc != nil {
			defer nc.Close()
			p := packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "#", QoS: 1}}}
			nc.Write(p.Append(nil, packet.V5))
			for !h.over() {
				h.pause(time.Second)
				nc.SetWriteDeadline(time.Now().Add(time.Second))
				if _, err := nc.Write([]byte{0xC0, 0}); err != nil {
					return
				}
			}
		}
	}},
	{"deep topics", 20, func(h *horde, r *rand.Rand) {
		if nc := h.client(); nc != nil {
			h.write(nc, publishOf(strings.Repeat("a/", []int{31, 100, 20_000}[r.IntN(3)])+"a", 10), 10*time.Millisecond)
			h.pause(20 * time.Millisecond)
		}
	}},
	{"subscription bombs", 20, func(h *horde, r *rand.Rand) {
		if nc := h.client(); nc != nil {
			p := packet.Subscribe{PacketID: 1}
			for range 200 {
				levels := make([]string, 1+r.IntN(31))
				for i := range levels {
					levels[i] = []string{"+", "a"}[r.IntN(2)]
				}
				p.Subscriptions = append(p.Subscriptions, packet.Subscription{Filter: strings.Join(levels, "/")})
			}
			h.write(nc, p.Append(nil, packet.V5), 20*time.Millisecond)
		}
	}},
	{"connect and leave", 50, func(h *horde, _ *rand.Rand) {
		if nc := h.client(); nc != nil {
			nc.Close()
		}
	}},
	{"resets", 50, func(h *horde, r *rand.Rand) {
		if nc := h.dial(); nc != nil {
			p := packet.Connect{ClientID: fmt.Sprint("reset", r.IntN(10)), Will: &packet.Will{Topic: "will", Payload: make([]byte, 1000)}}
			b := p.Append(nil, packet.V311)
			nc.Write(b[:r.IntN(len(b))])
			nc.(*net.TCPConn).SetLinger(0)
			nc.Close()
		}
	}},
}

// delays are how long messages took.
type delays []time.Duration

func (d delays) at(percent int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[(len(d)-1)*percent/100]
}

func (d delays) String() string {
	return fmt.Sprintf("p50 %s, p99 %s (%d messages)", d.at(50).Round(10*time.Microsecond), d.at(99).Round(10*time.Microsecond), len(d))
}

// behaved are two clients that talk to each other.
type behaved struct {
	t        *testing.T
	pub, sub *mqtttest.Conn
	number   uint64
}

func newBehaved(t *testing.T, addr string) *behaved {
	connect := func(id string) *mqtttest.Conn {
		c, err := mqtttest.Dial(addr, packet.V5, patience)
		must(t, err)
		t.Cleanup(func() { c.Close() })
		ack, err := c.Connect(packet.Connect{ClientID: id, CleanStart: true}, patience)
		must(t, err)
		if ack.Code != 0 {
			t.Fatal(ack.Code)
		}
		return c
	}
	b := &behaved{t: t, pub: connect("behaved-p"), sub: connect("behaved-s")}
	b.sub.AutoAck = true
	must(t, b.sub.Send(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "behaved/+", QoS: 1}}}))
	if _, err := b.sub.Receive(patience); err != nil {
		t.Fatal(err)
	}
	return b
}

// talk sends one message of each QoS in turn, each when the one before has come,
// and returns the delays by QoS.
func (b *behaved) talk(lasts time.Duration) (took [2]delays) {
	b.t.Helper()
	for end := time.Now().Add(lasts); time.Now().Before(end); {
		for qos := range took {
			b.number++
			p := &packet.Publish{Topic: fmt.Appendf(nil, "behaved/%d", qos), QoS: packet.QoS(qos), Payload: binary.BigEndian.AppendUint64(nil, b.number)}
			if qos > 0 {
				p.PacketID = 1
			}
			start := time.Now()
			must(b.t, b.pub.Send(p))
			got, err := b.sub.Receive(patience)
			if err != nil {
				b.t.Fatalf("message %d: %v", b.number, err)
			}
			took[qos] = append(took[qos], time.Since(start))
			if m, ok := got.(*packet.Publish); !ok || binary.BigEndian.Uint64(m.Payload) != b.number {
				b.t.Fatalf("got %s, want message %d", mqtttest.Describe(got), b.number)
			}
			if qos > 0 {
				if ack, err := b.pub.Receive(patience); err != nil || ack.(*packet.Ack).Code.Failed() {
					b.t.Fatalf("acknowledgement of message %d: %v, %v", b.number, ack, err)
				}
			}
		}
	}
	return took
}
