package shard

import (
	"fmt"
	"testing"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// manyRegisters is a shard with retained messages of 64 bytes.
func manyRegisters(t testing.TB, topics int) *Machine {
	m := New(testConfig())
	f := newFixture(t, m)
	for first := 0; first < topics; first += 500 {
		f.n++
		b := &shoalpb.Batch{Node: "X", Boot: 1, Target: 1, TargetLife: 1, First: f.n, Answered: f.n - 1}
		for i := first; i < first+500; i++ {
			b.Commands = append(b.Commands, retainCommand(fmt.Sprintf("site/%d/device-%07d/state", i%10, i), fmt.Sprintf("%064d", i), 0))
		}
		f.n += uint64(len(b.Commands)) - 1
		f.propose(&shoalpb.Proposal{Batch: b})
	}
	save(t, m, memRows{}) // forgets the list of what is dirty
	return m
}

// BenchmarkIdleRegister measures what a retained message of 64 bytes takes in
// memory, and one page of 256 out of many: the next in order, and that of a
// filter that matches none of them.
func BenchmarkIdleRegister(b *testing.B) {
	const topics = 200_000
	before := heapBytes()
	m := manyRegisters(b, topics)
	each := float64(heapBytes()-before) / topics
	for _, filter := range []string{"site/#", "site/+/+/other"} {
		b.Run(filter, func(b *testing.B) {
			for b.Loop() {
				n := 0
				m.Retained(filter, "site/5/device-0100005/state", 0, func(*shoalpb.Message) bool {
					n++
					return n < 256
				})
			}
			b.ReportMetric(each, "bytes/topic")
		})
	}
}
