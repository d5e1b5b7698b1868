package shard

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	mqtt "github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// filled returns a machine with n durable sessions that subscribe "t" and have
// queued messages.
func filled(t testing.TB, n, messages int) *fixture {
	f := newFixture(t, New(testConfig()))
	for i := range n {
		c := fmt.Sprintf("c%d", i)
		f.subscribe(c, f.open(c), "t", 1)
	}
	for i := range messages {
		f.append("t", i)
	}
	return f
}

// TestCheckpointBesideApply writes a checkpoint while another goroutine goes on
// applying under the lock: the file must hold exactly the state of Freeze.
func TestCheckpointBesideApply(t *testing.T) {
	f := filled(t, 3*writeRows, 10)
	rows := memRows{}
	for round := range 5 {
		frozen, index := f.m.Digest(), f.m.Applied()
		c := f.m.Freeze()
		var mu sync.Mutex
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range 3 * writeRows {
				mu.Lock()
				client := fmt.Sprintf("c%d", (i*7)%(3*writeRows))
				conn := f.m.sessions[client].conn
				f.do(&shoalpb.Command{Ack: &shoalpb.Ack{Client: client, Conn: conn, Seqs: []uint64{uint64(round + 1)}}})
				f.append("t", i)
				mu.Unlock()
			}
		}()
		lock := func(step func()) {
			mu.Lock()
			defer mu.Unlock()
			step()
		}
		if err := c.Write(rows, lock); err != nil {
			t.Fatal(err)
		}
		<-done
		c.Done(nil)
		restored := load(t, testConfig(), rows)
		if restored.Applied() != index || restored.Digest() != frozen {
			t.Fatalf("round %d: the file is not the frozen state", round)
		}
	}
	save(t, f.m, rows)
	if load(t, testConfig(), rows).Digest() != f.m.Digest() {
		t.Fatal("the last checkpoint differs")
	}
}

// failingRows fails at the n-th call.
type failingRows struct {
	memRows
	left int
}

var errNoSpace = errors.New("no space left on device")

func (r *failingRows) Put(bucket string, key, value []byte) error {
	if r.left--; r.left < 0 {
		return errNoSpace
	}
	return r.memRows.Put(bucket, key, value)
}

func (r *failingRows) Delete(bucket string, key []byte) error {
	if r.left--; r.left < 0 {
		return errNoSpace
	}
	return r.memRows.Delete(bucket, key)
}

// TestCheckpointFails lets a checkpoint fail at each of its rows: the next one
// must write everything that is missing.
func TestCheckpointFails(t *testing.T) {
	for at := 0; ; at++ {
		f := filled(t, 3, 3)
		rows := memRows{}
		save(t, f.m, rows)
		f.append("t", 4)
		f.do(&shoalpb.Command{Ack: &shoalpb.Ack{Client: "c1", Conn: f.m.sessions["c1"].conn, Seqs: []uint64{1, 2}}})
		f.do(&shoalpb.Command{Open: &shoalpb.Open{Client: "c2", CleanStart: true}})
		c := f.m.Freeze()
		f.append("t", 5)
		err := c.Write(&failingRows{rows.clone(), at}, unlocked)
		c.Done(err)
		if err == nil {
			return
		}
		if !errors.Is(err, errNoSpace) {
			t.Fatal(err)
		}
		save(t, f.m, rows)
		if load(t, testConfig(), rows).Digest() != f.m.Digest() {
			t.Fatalf("after a failure at row %d the next checkpoint lacks something", at)
		}
	}
}

// TestConsumedStaysOut: what was consumed before a checkpoint never reaches the
// file, and what is consumed later leaves it.
func TestConsumedStaysOut(t *testing.T) {
	f := filled(t, 2, 3)
	rows := memRows{}
	ack := func(client string, seqs ...uint64) {
		f.do(&shoalpb.Command{Ack: &shoalpb.Ack{Client: client, Conn: f.m.sessions[client].conn, Seqs: seqs}})
	}
	ack("c0", 1, 2, 3)
	ack("c1", 1, 3)
	if f.m.DirtyRefs() == 0 || f.m.DirtyBytes() == 0 {
		t.Fatal("nothing to write")
	}
	save(t, f.m, rows)
	if f.m.DirtyRefs() != 0 || f.m.DirtyBytes() != 0 {
		t.Fatal("something to write")
	}
	if n := len(rows[bucketBodies]); n != 1 {
		t.Fatalf("%d bodies in the file, not 1", n)
	}
	ack("c1", 2)
	save(t, f.m, rows)
	if n := len(rows[bucketBodies]); n != 0 {
		t.Fatalf("%d bodies in the file, not 0", n)
	}
}

// TestLongNames: a Client Identifier or filter may have 65,535 bytes, a key may
// not.
func TestLongNames(t *testing.T) {
	f := newFixture(t, New(testConfig()))
	client, filter := strings.Repeat("c", 65535), strings.Repeat("f", 65535)
	f.subscribe(client, f.open(client), filter, 1)
	f.append(filter, 1)
	rows := memRows{}
	save(t, f.m, rows)
	m := load(t, testConfig(), rows)
	if m.Digest() != f.m.Digest() {
		t.Fatal("the restored state differs")
	}
	f = newFixture(t, m)
	f.do(&shoalpb.Command{Open: &shoalpb.Open{Client: client, CleanStart: true}})
	f.propose(&shoalpb.Proposal{Fence: &shoalpb.Fence{Nodes: []*shoalpb.NodeBoot{{Node: "X", Boot: 2}}}})
	save(t, m, rows)
	if len(rows[bucketSessions]) != 0 || len(rows[bucketFilters]) != 0 {
		t.Fatal("rows of long names stay")
	}
}

// TestRestoreRefuses removes and damages each row of a file in turn: a file that
// does not fit together must not be taken.
func TestRestoreRefuses(t *testing.T) {
	f := filled(t, 2, 2)
	f.do(&shoalpb.Command{Received: &shoalpb.Received{
		Client: "c0", Conn: f.m.sessions["c0"].conn, Id: 1, Message: &shoalpb.Message{Topic: "x", Qos: 2},
		Targets: []*shoalpb.Target{{Group: 2}},
	}})
	rows := memRows{}
	save(t, f.m, rows)
	for bucket, list := range rows {
		for key, value := range list {
			r := rows.clone()
			delete(r[bucket], key)
			// Without a session the file still fits together, if another one
			// refers to the same things.
			if err := New(testConfig()).Restore(r.scan); err == nil && bucket != bucketSessions {
				t.Errorf("%s %x is missing, and nobody minds", bucket, key)
			}
			r[bucket][key] = append(bytes.Clone(value), 0x98, 0x06, 0x01)
			if err := New(testConfig()).Restore(r.scan); err == nil {
				t.Errorf("%s %x holds an unknown field, and nobody minds", bucket, key)
			}
			r[bucket][key] = value[:len(value)-1]
			if m := New(testConfig()); m.Restore(r.scan) == nil && m.Digest() == f.m.Digest() {
				t.Errorf("%s %x is cut off, and nobody minds", bucket, key)
			}
		}
	}
	if err := New(Config{Group: 2, Life: 1}).Restore(rows.scan); err == nil {
		t.Error("the state of another shard was taken")
	}
}

// TestFenceOrder: sessions that end together end in the same order on all
// replicas, however their maps are laid out.
func TestFenceOrder(t *testing.T) {
	var digests [2][32]byte
	for i := range digests {
		f := newFixture(t, New(testConfig()))
		for n := range 40 {
			c := fmt.Sprintf("c%d", n)
			f.subscribe(c, f.open(c), c, 1)
			f.do(&shoalpb.Command{Open: &shoalpb.Open{Client: c}}) // expiry 0: ends with the connection
		}
		f.propose(&shoalpb.Proposal{Fence: &shoalpb.Fence{Nodes: []*shoalpb.NodeBoot{{Node: "X", Boot: 2}}}})
		digests[i] = f.m.Digest()
	}
	if digests[0] != digests[1] {
		t.Fatal("two replicas differ")
	}
}

// TestReadsBesideEachOther calls all that only reads at the same time; the race
// detector judges.
func TestReadsBesideEachOther(t *testing.T) {
	f := filled(t, 5, 5)
	f.subscribe("c1", f.m.sessions["c1"].conn, "+", 2)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			conns := map[string]uint64{}
			f.m.Attached(func(client, node string, boot, conn uint64) bool {
				conns[client] = conn
				return node == "X" && boot == 1
			})
			var reached []string
			f.m.MatchVolatile(&shoalpb.Message{Topic: "t"}, nil, func(v Volatile) bool {
				if conns[v.Client] != v.Conn {
					t.Errorf("%s has connection %d, not %d", v.Client, conns[v.Client], v.Conn)
				}
				reached = append(reached, v.Client)
				return true
			})
			slices.Sort(reached)
			if !slices.Equal(reached, []string{"c0", "c1", "c2", "c3", "c4"}) {
				t.Errorf("a QoS 0 message reached %v", reached)
			}
			var seqs []uint64
			if !f.m.Entries("c3", conns["c3"], 1, 3, 0, func(d mqtt.Delivery, _ Stored) bool {
				seqs = append(seqs, d.Seq)
				return true
			}) || !slices.Equal(seqs, []uint64{2, 3, 4}) {
				t.Errorf("entries %v", seqs)
			}
			var routes []string
			f.m.RouteFilters(func(filter string, qos uint8) bool {
				routes = append(routes, fmt.Sprint(filter, qos))
				return true
			})
			if !slices.Equal(routes, []string{"+2", "t1"}) {
				t.Errorf("routes %v", routes)
			}
			f.m.Stats()
			f.m.Digest()
			f.m.Outbox(&shoalpb.Target{}, 0, 0, 0)
		})
	}
	all.Wait()
}

// TestOutboxRun cuts what is read by bytes, and gives at least one entry.
func TestOutboxRun(t *testing.T) {
	f := newFixture(t, New(testConfig()))
	conn := f.open("c")
	for i := range 5 {
		f.subscribe("c", conn, fmt.Sprintf("filter-%d", i), 1)
	}
	for _, want := range []struct {
		after     uint64
		bytes     int
		first     uint64
		commands  int
		lastRoute string
	}{
		{0, 1, 1, 1, "filter-0"},
		{0, 17, 1, 2, "filter-1"},
		{2, 1 << 20, 3, 3, "filter-4"},
		{5, 1 << 20, 6, 0, ""},
	} {
		first, list, _ := f.m.Outbox(&shoalpb.Target{}, want.after, want.bytes, 0)
		if first != want.first || len(list) != want.commands {
			t.Errorf("after %d, %d bytes: first %d, %d entries", want.after, want.bytes, first, len(list))
		} else if len(list) > 0 && list[len(list)-1].Route.Filter != want.lastRoute {
			t.Errorf("after %d: last is %v", want.after, list[len(list)-1])
		}
	}
}

// TestTooManyExchanges: the 1,025th unfinished QoS 2 exchange is refused.
func TestTooManyExchanges(t *testing.T) {
	f := newFixture(t, New(testConfig()))
	conn := f.open("c")
	receive := func(id int) *shoalpb.Answer {
		return f.do(&shoalpb.Command{Received: &shoalpb.Received{
			Client: "c", Conn: conn, Id: uint32(id), Hash: 1, Message: &shoalpb.Message{Topic: "t", Qos: 2},
		}})
	}
	for id := 1; id <= maxReceived; id++ {
		if a := receive(id); a != nil {
			t.Fatalf("exchange %d: %v", id, a)
		}
	}
	if a := receive(maxReceived + 1); a.GetCode() != shoalpb.Code_CODE_QUOTA {
		t.Fatalf("answer %v", a)
	}
	f.do(&shoalpb.Command{Released: &shoalpb.Released{Client: "c", Conn: conn, Id: 7}})
	if a := receive(maxReceived + 1); a != nil {
		t.Fatalf("answer %v", a)
	}
}
