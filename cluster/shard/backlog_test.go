package shard

import (
	"fmt"
	"runtime"
	"testing"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// countedRows counts what a checkpoint writes.
type countedRows struct {
	memRows
	rows, bytes int
}

func (r *countedRows) Put(bucket string, key, value []byte) error {
	r.rows++
	r.bytes += len(key) + len(value)
	return r.memRows.Put(bucket, key, value)
}

func (r *countedRows) Delete(bucket string, key []byte) error {
	r.rows++
	r.bytes += len(key)
	return r.memRows.Delete(bucket, key)
}

// backlog is a shard with sessions that are away, each with messages in its queue.
type backlog struct {
	*fixture
	rows memRows
	next uint64
}

func newBacklog(t testing.TB, sessions, messages int, format uint32) *backlog {
	f := newFixture(t, New(testConfig()))
	f.format = format
	for i := range sessions {
		c := fmt.Sprintf("device-%08d", i)
		f.subscribe(c, f.open(c), "t", 1)
	}
	f.fence()
	b := &backlog{fixture: f, rows: memRows{}, next: 1}
	for left := messages; left > 0; left -= 1000 {
		b.publish(min(left, 1000))
	}
	save(t, f.m, b.rows)
	return b
}

// publish publishes messages of 64 bytes to all.
func (b *backlog) publish(n int) {
	b.t.Helper()
	list := make([]*shoalpb.Command, n)
	for i := range list {
		list[i] = &shoalpb.Command{Append: &shoalpb.Append{Message: &shoalpb.Message{Topic: "t", Payload: make([]byte, 64), Qos: 1}}}
	}
	b.fromY(b.next, list...)
	b.next += uint64(n)
}

// checkpoint returns how many rows and bytes a checkpoint writes.
func (b *backlog) checkpoint() (rows, bytes int) {
	b.t.Helper()
	c, counted := b.m.Freeze(), &countedRows{memRows: b.rows}
	if err := c.Write(counted, unlocked); err != nil {
		b.t.Fatal(err)
	}
	c.Done(nil)
	return counted.rows, counted.bytes
}

// allocated is what fn takes of the heap.
func allocated(fn func()) int {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc)
}

// TestBacklogCostsNothing: what a checkpoint writes for one more message, and what
// an apply takes that comes while a checkpoint is written, do not depend on the
// length of queues.
func TestBacklogCostsNothing(t *testing.T) {
	const sessions, messages = 30, 2 * segmentRefs
	type cost struct{ bytes, most, apply, mostApply int }
	measure := func(backlog int) (c cost) {
		b := newBacklog(t, sessions, backlog, 0)
		for range messages {
			b.publish(1)
			frozen := b.m.Freeze()
			apply := allocated(func() { b.publish(1) })
			if err := frozen.Write(b.rows, unlocked); err != nil {
				t.Fatal(err)
			}
			frozen.Done(nil)
			_, bytes := b.checkpoint()
			c.bytes += bytes
			c.most = max(c.most, bytes)
			c.apply += apply
			c.mostApply = max(c.mostApply, apply)
			for _, s := range b.m.sessions { // as many are consumed
				if backlog == 0 {
					m := b.m
					m.now = now{}
					for s.queue != nil {
						m.finish(s, s.queue.base)
					}
				}
			}
		}
		c.bytes /= messages
		c.apply /= messages
		if load(t, testConfig(), b.rows).Digest() == b.m.Digest() != (backlog > 0) {
			t.Fatal("the file is not the state")
		}
		return c
	}
	empty, short, long := measure(0), measure(1000), measure(20_000)
	t.Logf("empty %+v, 1,000 messages %+v, 20,000 messages %+v", empty, short, long)
	for _, c := range []cost{short, long} {
		if c.bytes > 2*empty.bytes || c.apply > 2*empty.apply {
			t.Errorf("one more message costs more than twice as much as with empty queues")
		}
		// Each time sessionRowRefs have come, all sessions write a segment.
		if segment := sessions * (4*segmentRefs + 60); c.most > 2*empty.most+segment || c.mostApply > 2*empty.mostApply+24*sessions*segmentRefs+segment {
			t.Errorf("one message costs more than a segment of each queue besides")
		}
	}
}

// TestOldQueues: a queue in the session's row, as all were before FormatOrder, is
// read, stays there while the format is what it was, and goes into segments with
// the first message after it.
func TestOldQueues(t *testing.T) {
	b := newBacklog(t, 3, 5000, 1)
	if len(b.rows[bucketQueues]) != 0 || len(b.rows[bucketSessions]) != 3 {
		t.Fatalf("%d rows of segments, %d sessions", len(b.rows[bucketQueues]), len(b.rows[bucketSessions]))
	}
	same := func() {
		t.Helper()
		if load(t, testConfig(), b.rows).Digest() != b.m.Digest() {
			t.Fatal("the restored state differs")
		}
	}
	same()
	b.fixture.m = load(t, testConfig(), b.rows)
	b.publish(1)
	if _, bytes := b.checkpoint(); bytes < 3*5000 || len(b.rows[bucketQueues]) != 0 {
		t.Fatalf("%d bytes, %d rows of segments", bytes, len(b.rows[bucketQueues]))
	}
	same()
	b.format = 0 // the newest
	b.publish(1)
	b.checkpoint()
	if n := len(b.rows[bucketQueues]); n < 3*5000/segmentRefs {
		t.Fatalf("%d rows of segments", n)
	}
	same()
	b.publish(1)
	if _, bytes := b.checkpoint(); bytes > 3*1000 {
		t.Fatalf("%d bytes for one message", bytes)
	}
	same()
	b.fixture.m = load(t, testConfig(), b.rows)
	b.fromY(b.next, &shoalpb.Command{Open: &shoalpb.Open{Client: "device-00000001", CleanStart: true}})
	b.checkpoint()
	if n := len(b.rows[bucketQueues]); n > 2*(5000/segmentRefs+2) {
		t.Fatalf("%d rows of segments after a session ended", n)
	}
	same()
}

// BenchmarkBacklog measures one message to sessions that are away and have a
// backlog: its apply while a checkpoint is written, and the checkpoint.
func BenchmarkBacklog(b *testing.B) {
	for _, sessions := range []int{1, 50, 500} {
		for _, messages := range []int{0, 1000, 20_000} {
			b.Run(fmt.Sprintf("%dx%d", sessions, messages), func(b *testing.B) {
				f := newBacklog(b, sessions, messages, 0)
				bytes := 0
				b.ResetTimer()
				for b.Loop() {
					b.StopTimer()
					f.publish(1)
					c := f.m.Freeze()
					b.StartTimer()
					f.publish(1)
					b.StopTimer()
					if err := c.Write(f.rows, unlocked); err != nil {
						b.Fatal(err)
					}
					c.Done(nil)
					_, n := f.checkpoint()
					bytes += n
					b.StartTimer()
				}
				b.ReportMetric(float64(bytes)/float64(b.N), "checkpoint-B/op")
			})
		}
	}
}
