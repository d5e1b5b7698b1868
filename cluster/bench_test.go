package cluster

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// cpu is what this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDurable publishes QoS 1 messages of 256 bytes from many connections
// to as many durable subscribers, over three nodes in this process: all of the
// path but MQTT itself.
func BenchmarkDurable(b *testing.B) {
	parts := 6
	if s := os.Getenv("SHOAL_BENCH_SHARDS"); s != "" {
		parts, _ = strconv.Atoi(s)
	}
	c := newCluster(&testing.T{}, 3, parts)
	defer c.close()
	t := &testing.T{}
	const pairs = 60
	var received atomic.Int64
	pubs := make([]*client, pairs)
	for i := range pairs {
		sub := c.nodes[fmt.Sprintf("n%d", i%3+1)].open(t, fmt.Sprint("s", i), true, 3600)
		sub.count = &received
		sub.subscribe(fmt.Sprint("t/", i), 1)
		pubs[i] = c.nodes[fmt.Sprintf("n%d", (i+1)%3+1)].open(t, fmt.Sprint("p", i), true, 0)
	}
	body := make([]byte, 256)
	b.ResetTimer()
	used := cpu()
	var wg sync.WaitGroup
	for i, p := range pubs {
		wg.Go(func() {
			window := make(chan struct{}, 64)
			for range b.N / pairs {
				window <- struct{}{}
				p.link.Publish(&shoalpb.Message{Topic: fmt.Sprint("t/", i), Qos: 1, Payload: body}, func(err error) {
					if err != nil {
						b.Error(err)
					}
					<-window
				})
			}
			for range cap(window) {
				window <- struct{}{}
			}
		})
	}
	wg.Wait()
	for received.Load() < int64(b.N/pairs*pairs) {
		time.Sleep(time.Millisecond)
	}
	b.ReportMetric(float64(cpu()-used)/float64(b.N)/1e3, "cpu-µs/msg")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

// BenchmarkReplay replays 10,000 retained messages of 64 bytes to one durable
// session after another, over three nodes in this process.
func BenchmarkReplay(b *testing.B) {
	c := newCluster(&testing.T{}, 3, 6)
	defer c.close()
	t := &testing.T{}
	const topics = 10_000
	w := c.nodes["n1"].open(t, "w", true, 0)
	values := make(map[string]string, topics)
	for i := range topics {
		values[fmt.Sprintf("plant/%d/%d", i%17, i)] = fmt.Sprintf("%064d", i)
	}
	w.retain(values)
	b.ResetTimer()
	used := cpu()
	for i := range b.N {
		var received atomic.Int64
		s := c.nodes[fmt.Sprintf("n%d", i%3+1)].open(t, fmt.Sprint("s", i), true, 3600)
		s.count = &received
		s.subscribe("plant/#", 1)
		for received.Load() < topics {
			time.Sleep(time.Millisecond)
		}
	}
	b.ReportMetric(float64(cpu()-used)/float64(b.N*topics)/1e3, "cpu-µs/msg")
	b.ReportMetric(float64(b.N*topics)/b.Elapsed().Seconds(), "msg/s")
}
