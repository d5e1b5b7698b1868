package cluster

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkIdle measures the CPU of three idle nodes, as parts of a core each:
// without clients, and with a durable session of each shard at each node, so that
// every feed is open.
func BenchmarkIdle(b *testing.B) {
	const span = 10 * time.Second
	for _, feeds := range []bool{false, true} {
		b.Run(fmt.Sprintf("feeds=%v", feeds), func(b *testing.B) {
			c := newCluster(&testing.T{}, 3, 6)
			defer c.close()
			for shard := range uint32(6) {
				for _, name := range c.names {
					if feeds {
						c.node(name).open(&testing.T{}, c.clientIn(shard+1, name), true, 1000)
					}
				}
			}
			time.Sleep(span) // elections and checkpoints pass
			b.ResetTimer()
			used := cpu()
			time.Sleep(span)
			b.ReportMetric(float64(cpu()-used)/float64(span)/3*100, "%core/node")
		})
	}
}
