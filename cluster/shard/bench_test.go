package shard

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// TestIdleSessionMemory holds the promise of at most 600 bytes for an idle
// durable session with one subscription of its own. A filter costs more with
// every level that no other filter shares.
func TestIdleSessionMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("fills memory")
	}
	for filter, limit := range map[string]int64{"commands/%s": 600, "site/7/%s/command": 700} {
		m := New(testConfig())
		f := newFixture(t, m)
		before := heapBytes()
		const sessions = 50_000
		for i := range sessions {
			c := fmt.Sprintf("device-%08d", i)
			f.subscribe(c, f.open(c), fmt.Sprintf(filter, c), 1)
		}
		f.propose(&shoalpb.Proposal{OutboxAnswered: &shoalpb.OutboxAnswered{Target: directoryTarget, UpTo: sessions}})
		f.propose(&shoalpb.Proposal{Fence: &shoalpb.Fence{Nodes: []*shoalpb.NodeBoot{{Node: "X", Boot: 2}}}})
		save(t, m, memRows{}) // forgets the list of what is dirty
		each := (heapBytes() - before) / sessions
		t.Logf("%s: %d bytes for each session", filter, each)
		if m.Stats().Durable != sessions {
			t.Fatalf("%+v", m.Stats())
		}
		if each > limit {
			t.Errorf("%s: %d bytes for each session, more than %d", filter, each, limit)
		}
	}
}

func heapBytes() int64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// appends makes entries of 128 messages, each to the topic of one client.
func appends(first uint64, clients int) *shoalpb.Entry {
	b := &shoalpb.Batch{Node: "X", Boot: 1, Target: 1, TargetLife: 1, First: first, Answered: first - 1}
	payload := make([]byte, 256)
	for i := range 128 {
		b.Commands = append(b.Commands, &shoalpb.Command{Append: &shoalpb.Append{Message: &shoalpb.Message{
			Topic: fmt.Sprintf("site/7/c%d/command", (int(first)+i)%clients), Payload: payload, Qos: 1,
		}}})
	}
	return &shoalpb.Entry{Format: stream.LastFormat, Proposals: []*shoalpb.Proposal{{Batch: b}}}
}

// BenchmarkAppend measures one message to one attached session, with its
// acknowledgement in the next batch.
func BenchmarkAppend(b *testing.B) {
	const clients = 100
	f := newFixture(b, New(testConfig()))
	f.eff = &Effects{}
	conns := make([]uint64, clients)
	for i := range conns {
		c := fmt.Sprintf("c%d", i)
		conns[i] = f.open(c)
		f.subscribe(c, conns[i], "site/7/"+c+"/command", 1)
	}
	b.ReportAllocs()
	for done := 0; done < b.N; done += 128 {
		b.StopTimer()
		appended := appends(f.n+1, clients)
		f.n += 128
		acks := &shoalpb.Batch{Node: "X", Boot: 1, Target: 1, TargetLife: 1, First: f.n + 1, Answered: f.n}
		for i := range conns {
			s := f.m.sessions[fmt.Sprintf("c%d", i)]
			ack := &shoalpb.Ack{Client: s.client, Conn: s.conn}
			for seq := s.nextSeq; seq < s.nextSeq+2; seq++ {
				ack.Seqs = append(ack.Seqs, seq)
			}
			acks.Commands = append(acks.Commands, &shoalpb.Command{Ack: ack})
		}
		f.n += uint64(len(acks.Commands))
		b.StartTimer()
		f.index++
		if _, err := f.m.Apply(f.index, appended, f.eff); err != nil {
			b.Fatal(err)
		}
		f.index++
		acked := &shoalpb.Entry{Format: stream.LastFormat, Proposals: []*shoalpb.Proposal{{Batch: acks}}}
		if _, err := f.m.Apply(f.index, acked, f.eff); err != nil {
			b.Fatal(err)
		}
		f.eff.Reset()
		if f.m.DirtyRefs() > 64<<10 {
			b.StopTimer()
			save(b, f.m, memRows{})
			b.StartTimer()
		}
	}
	if q := f.m.Stats().Queued; q > 2*clients {
		b.Fatalf("%d entries are left", q)
	}
}

// BenchmarkFanOut measures one message to 1,000 detached sessions: the cost of
// one reference.
func BenchmarkFanOut(b *testing.B) {
	const clients = 1000
	f := newFixture(b, New(Config{Group: 1, Life: 1, QueueEntries: 1 << 30}))
	for i := range clients {
		c := fmt.Sprintf("c%d", i)
		f.subscribe(c, f.open(c), "all/#", 1)
	}
	f.propose(&shoalpb.Proposal{Fence: &shoalpb.Fence{Nodes: []*shoalpb.NodeBoot{{Node: "X", Boot: 2}}}})
	message := &shoalpb.Message{Topic: "all/x", Qos: 1, Payload: make([]byte, 256)}
	b.ReportAllocs()
	n := uint64(0)
	for b.Loop() {
		n++
		f.index++
		if _, err := f.m.Apply(f.index, &shoalpb.Entry{Format: stream.LastFormat, Proposals: []*shoalpb.Proposal{{Batch: &shoalpb.Batch{
			Node: "Y", Boot: 1, Target: 1, TargetLife: 1, First: n, Answered: n - 1,
			Commands: []*shoalpb.Command{{Append: &shoalpb.Append{Message: message}}},
		}}}}, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/clients, "ns/reference")
}

// BenchmarkCheckpoint measures a checkpoint of 10,000 dirty sessions with seven
// entries each.
func BenchmarkCheckpoint(b *testing.B) {
	f := filled(b, 10_000, 6)
	b.ReportAllocs()
	for b.Loop() {
		f.append("t", 1)
		save(b, f.m, memRows{})
	}
}
