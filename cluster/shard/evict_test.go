package shard

import (
	"testing"
	"unsafe"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// TestBodySize: a million of them wait on the disk.
func TestBodySize(t *testing.T) {
	if size := unsafe.Sizeof(body{}); size > 48 {
		t.Errorf("a body takes %d bytes", size)
	}
}

// TestDueStaysInMemory: the message of a Dispatch is matched in apply, so it must
// be there, also after a restart with hardly any room.
func TestDueStaysInMemory(t *testing.T) {
	f := newFixture(t, New(testConfig()))
	conn := f.open("s")
	f.subscribe("s", conn, "will/#", 1)
	w := f.do(&shoalpb.Command{Open: &shoalpb.Open{
		Client: "w", Window: 1, Will: &shoalpb.Will{Message: &shoalpb.Message{Topic: "will/w", Payload: []byte("gone"), Qos: 1}},
	}}).Open.Conn
	f.do(&shoalpb.Command{Close: &shoalpb.Close{Client: "w", Conn: w, Drained: true}})
	f.append("will/x", 1)
	rows := memRows{}
	save(t, f.m, rows)
	evict(t, f.m)
	small := testConfig()
	small.RestoreBytes = 1
	for name, m := range map[string]*Machine{"evicted": f.m, "restored": load(t, small, rows)} {
		var id uint64
		m.Due(func(due Due) bool {
			if id = due.ID; due.Message == nil {
				t.Fatalf("%s: the message that is due is not in memory", name)
			}
			return true
		})
		_, err := m.Apply(f.index+1, &shoalpb.Entry{Format: stream.FirstFormat, Proposals: []*shoalpb.Proposal{{
			Dispatch: &shoalpb.Dispatch{Due: id, Targets: []*shoalpb.Target{{Group: 1}}},
		}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		list, _ := rows.entries(t, m, scriptConn{client: "s", conn: conn}, 0, 10, 0)
		if len(list) != 2 || string(list[0].Message.Payload) != "1" || string(list[1].Message.Payload) != "gone" {
			t.Fatalf("%s: %v", name, list)
		}
		if len(m.pinned) != 0 {
			t.Fatalf("%s: pinned for ever: %v", name, m.pinned)
		}
	}
}

// TestCheckpointsDecideNothing: what a replica has in its file is no part of the
// state, also of a Will that is retained.
func TestCheckpointsDecideNothing(t *testing.T) {
	with, without := newFixture(t, New(testConfig())), newFixture(t, New(testConfig()))
	rows := memRows{}
	for _, f := range []*fixture{with, without} {
		f.subscribe("s", f.open("s"), "will/#", 1)
		w := f.do(&shoalpb.Command{Open: &shoalpb.Open{
			Client: "w", Window: 1, Will: &shoalpb.Will{Message: &shoalpb.Message{Topic: "will/w", Payload: []byte("gone"), Qos: 1, Retain: true}},
		}}).Open.Conn
		f.do(&shoalpb.Command{Close: &shoalpb.Close{Client: "w", Conn: w, Drained: true}})
		if f == with {
			save(t, f.m, rows)
			evict(t, f.m)
		}
		f.propose(&shoalpb.Proposal{Dispatch: &shoalpb.Dispatch{Due: 1, Targets: []*shoalpb.Target{{Group: 1}}, Retain: 1}})
		if f == with {
			evict(t, f.m)
		}
		if got := registers(f.m)["will/w"]; got != "gone" {
			t.Fatalf("%q is retained", got)
		}
		f.append("will/x", 1)
	}
	if with.m.Digest() != without.m.Digest() {
		t.Fatal("replicas differ by what is in their files")
	}
	// The register lets go; the queue's entry may leave memory again.
	with.do(retainCommand("will/w", "", 0))
	save(t, with.m, rows)
	evict(t, with.m)
	if bytes, _ := with.m.Memory(); bytes != 0 {
		t.Fatalf("%d bytes stay in memory", bytes)
	}
	if n := with.m.Stats().Bodies; n != 2 {
		t.Fatalf("%d bodies", n)
	}
}

// TestEvictForgetsTheDead: a list of what may leave memory keeps nothing of what
// is gone.
func TestEvictForgetsTheDead(t *testing.T) {
	const n = 4 * minDead
	f := newFixture(t, New(testConfig()))
	conn := f.open("s")
	f.subscribe("s", conn, "t", 1)
	for i := range n {
		f.append("t", i)
	}
	save(t, f.m, memRows{})
	ack := &shoalpb.Ack{Client: "s", Conn: conn}
	for seq := range uint64(n) {
		f.do(&shoalpb.Command{Ack: &shoalpb.Ack{Client: ack.Client, Conn: ack.Conn, Seqs: []uint64{seq + 1}}})
	}
	if left := len(f.m.resident.list); left >= minDead {
		t.Fatalf("%d dead messages are kept", left)
	}
	if bytes, evictable := f.m.Memory(); bytes != 0 || evictable != 0 {
		t.Fatalf("%d bytes, %d of them evictable", bytes, evictable)
	}
}
