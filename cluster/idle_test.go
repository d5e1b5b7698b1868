package cluster

import (
	"testing"
	"time"
)

// BenchmarkIdle measures the CPU of three idle nodes, as parts of a core each.
func BenchmarkIdle(b *testing.B) {
	c := newCluster(&testing.T{}, 3, 6)
	defer c.close()
	const span = 10 * time.Second
	time.Sleep(span) // elections and checkpoints pass
	b.ResetTimer()
	used := cpu()
	time.Sleep(span)
	b.ReportMetric(float64(cpu()-used)/float64(span)/3*100, "%core/node")
}
