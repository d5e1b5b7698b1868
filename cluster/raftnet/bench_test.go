package raftnet

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// cpu is the CPU time that the process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchPair(b *testing.B) (*member, *member) {
	bk := &book{addrs: make(map[string]string)}
	x := startMember(b, bk, nil, "a", "d1", clusterOptions{})
	y := startMember(b, bk, nil, "b", "d2", clusterOptions{})
	answerAll(y, agree)
	return x, y
}

// BenchmarkPipeline sends AppendEntries with one entry each; both sides' CPU
// time is reported.
func BenchmarkPipeline(b *testing.B) {
	for _, size := range []int{256, 64 << 10, 512 << 10} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			x, _ := benchPair(b)
			p, err := x.mux.Group(1).AppendEntriesPipeline("", "b/d2")
			if err != nil {
				b.Fatal(err)
			}
			defer p.Close()
			entry := &raft.Log{Index: 1, Term: 1, Data: make([]byte, size), AppendedAt: time.Now()}
			b.SetBytes(int64(size))
			start := cpu()
			b.ResetTimer()
			go func() {
				for range b.N {
					p.AppendEntries(&raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 1, Entries: []*raft.Log{entry}}, new(raft.AppendEntriesResponse))
				}
			}()
			for range b.N {
				if f := <-p.Consumer(); f.Error() != nil {
					b.Fatal(f.Error())
				}
			}
			b.ReportMetric(float64((cpu()-start).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

func BenchmarkHeartbeat(b *testing.B) {
	x, _ := benchPair(b)
	start := cpu()
	for b.Loop() {
		if err := heartbeat(x, "b/d2", 1); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpu()-start).Microseconds())/float64(b.N), "cpu-µs/op")
}
