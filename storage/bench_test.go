package storage

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// BenchmarkStoreLogs stores batches as raft does, with the log truncated behind,
// and reports bytes stored, CPU per megabyte, bytes written per byte stored and
// operations that shared a commit.
func BenchmarkStoreLogs(b *testing.B) {
	for _, groups := range []int{1, 8} {
		for _, shape := range []struct{ n, size int }{{1, 300}, {1, 16 << 10}, {1, 64 << 10}, {2, 512 << 10}, {64, 1 << 10}} {
			b.Run(fmt.Sprintf("groups=%d/%dx%d", groups, shape.n, shape.size), func(b *testing.B) {
				benchStore(b, groups, shape.n, shape.size)
			})
		}
	}
}

// countingEngine counts commits.
type countingEngine struct {
	engine
	commits atomic.Int64
}

func (e *countingEngine) commit(c []*change) error {
	e.commits.Add(1)
	return e.engine.commit(c)
}

func benchStore(b *testing.B, groups, n, size int) {
	l := openTestLog(b, openDirWith(b, b.TempDir(), Options{ReserveBytes: 256 << 20}))
	count := &countingEngine{engine: l.eng}
	must(b, l.Group(1).SetUint64([]byte("t"), 1)) // the committer is idle now
	l.eng = count
	b.SetBytes(int64(n * size))
	cpu, written := cpuTime(), bytesWritten()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for id := range uint32(groups) {
		g := l.Group(id)
		logs := entries(1, n, 1, size)
		wg.Go(func() {
			for next := uint64(1); left.Add(-1) >= 0; next += uint64(n) {
				batch := make([]*raft.Log, n)
				for i := range batch {
					e := *logs[i]
					e.Index = next + uint64(i)
					batch[i] = &e
				}
				must(b, g.StoreLogs(batch))
				if next%512 < uint64(n) && next > 512 {
					must(b, g.DeleteRange(1, next-512))
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	mb := float64(b.N*n*size) / (1 << 20)
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/mb, "cpu-µs/MB")
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(bytesWritten()-written)/(mb*(1<<20)), "written/stored")
	b.ReportMetric(float64(b.N)/float64(count.commits.Load()), "ops/commit")
}

// cpuTime is what the process has used.
func cpuTime() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// bytesWritten is what the process has given to write calls, 0 where unknown.
func bytesWritten() (n int64) {
	b, _ := os.ReadFile("/proc/self/io")
	for line := range strings.Lines(string(b)) {
		_, _ = fmt.Sscanf(line, "wchar: %d", &n)
	}
	return n
}

// BenchmarkGetLog reads entries of 64 KiB as a replicator that is behind does,
// past the tail.
func BenchmarkGetLog(b *testing.B) {
	g := openTestLog(b, openDir(b, b.TempDir())).Group(1)
	for i := range uint64(256) {
		must(b, g.StoreLogs(entries(i+1, 1, 1, 64<<10)))
	}
	b.SetBytes(64 << 10)
	b.ResetTimer()
	var l raft.Log
	for i := range b.N {
		must(b, g.GetLog(uint64(i%200)+1, &l))
	}
}

// BenchmarkCheckpoint writes checkpoints of 64 k small rows that change in place
// and 16 MB of bodies in order.
func BenchmarkCheckpoint(b *testing.B) {
	s := openTestState(b, openDir(b, b.TempDir()), 1)
	cpu, written := cpuTime(), bytesWritten()
	body := make([]byte, 256)
	b.ResetTimer()
	for i := range b.N {
		must(b, s.Checkpoint(markerAt(uint64(i+1)), func(r Rows) error {
			for j := range 1000 {
				must(b, r.Put("session", fmt.Appendf(nil, "session-%06d", (i*7919+j*31)%20000), body[:200]))
			}
			for j := range 1 << 16 {
				must(b, r.Put("body", fmt.Appendf(nil, "%016d", i<<16+j), body))
			}
			return nil
		}))
	}
	b.StopTimer()
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N)/(1<<16), "cpu-µs/row")
	b.ReportMetric(float64(bytesWritten()-written)/float64(b.N)/(256<<16), "written/stored")
}

// BenchmarkOpenLog opens a log of 64 MB, which reads all of it.
func BenchmarkOpenLog(b *testing.B) {
	d := openDir(b, b.TempDir())
	l := openTestLog(b, d)
	for i := range uint64(1024) {
		must(b, l.Group(1).StoreLogs(entries(i+1, 1, 1, 64<<10)))
	}
	must(b, l.Close())
	b.SetBytes(64 << 20)
	b.ResetTimer()
	for range b.N {
		must(b, openTestLog(b, d).Close())
	}
}
