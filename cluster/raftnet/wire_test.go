//lint:file-ignore SA1019 raft still fills the deprecated fields, and they are carried as they are.

package raftnet

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

func flat(f *frame) []byte { return f.pieces.Materialize() }

// some draws bytes, nil for none as the wire has it.
func some(t *rapid.T, label string, most int) []byte {
	b := rapid.SliceOfN(rapid.Byte(), 0, most).Draw(t, label)
	if len(b) == 0 {
		return nil
	}
	return b
}

func drawHeader(t *rapid.T) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: 3, ID: some(t, "id", 20), Addr: some(t, "addr", 20)}
}

func drawEntry(t *rapid.T) *raft.Log {
	e := &raft.Log{
		Index: rapid.Uint64().Draw(t, "index"), Term: rapid.Uint64().Draw(t, "term"),
		Type: raft.LogType(rapid.Byte().Draw(t, "type")), Extensions: some(t, "ext", 10), Data: some(t, "data", 100),
	}
	if rapid.Bool().Draw(t, "long") {
		e.Data = bytes.Repeat([]byte{7}, rapid.IntRange(referenceBytes-1, 3*referenceBytes).Draw(t, "size"))
	}
	if at := rapid.Int64Range(0, 1<<62).Draw(t, "at"); at > 0 {
		e.AppendedAt = time.Unix(0, at)
	}
	return e
}

func drawRequest(t *rapid.T) (Kind, any, *frame) {
	h, term, leader := drawHeader(t), rapid.Uint64().Draw(t, "term"), some(t, "leader", 20)
	u := func(label string) uint64 { return rapid.Uint64().Draw(t, label) }
	switch kind := Kind(rapid.IntRange(1, 6).Draw(t, "kind")); kind {
	case KindHeartbeat:
		r := &raft.AppendEntriesRequest{RPCHeader: h, Term: term, Leader: leader}
		return kind, r, encodeHeartbeat(r)
	case KindAppend:
		r := &raft.AppendEntriesRequest{RPCHeader: h, Term: term, Leader: leader, PrevLogEntry: u("prev"), PrevLogTerm: u("prevTerm"), LeaderCommitIndex: u("commit")}
		r.Entries = rapid.SliceOfN(rapid.Custom(drawEntry), 0, 5).Draw(t, "entries")
		return kind, r, encodeAppend(r)
	case KindVote:
		r := &raft.RequestVoteRequest{RPCHeader: h, Term: term, Candidate: leader, LastLogIndex: u("last"), LastLogTerm: u("lastTerm"), LeadershipTransfer: rapid.Bool().Draw(t, "transfer")}
		return kind, r, encodeVote(r)
	case KindPreVote:
		r := &raft.RequestPreVoteRequest{RPCHeader: h, Term: term, LastLogIndex: u("last"), LastLogTerm: u("lastTerm")}
		return kind, r, encodePreVote(r)
	case KindTimeoutNow:
		r := &raft.TimeoutNowRequest{RPCHeader: h}
		return kind, r, encodeTimeoutNow(r)
	default:
		r := &raft.InstallSnapshotRequest{RPCHeader: h, SnapshotVersion: 1, Term: term, Leader: leader, LastLogIndex: u("last"), LastLogTerm: u("lastTerm"), Peers: some(t, "peers", 20), Configuration: some(t, "conf", 50), ConfigurationIndex: u("confIndex"), Size: rapid.Int64Min(0).Draw(t, "size")}
		return KindSnapshot, r, encodeSnapshot(r)
	}
}

// TestRequests: encode and parse are inverse, and no truncation, no byte too
// many and no changed byte does harm.
func TestRequests(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind, req, f := drawRequest(t)
		b := flat(f)
		k, got, err := parseRequest(b)
		if err != nil || k != kind || !reflect.DeepEqual(got, req) {
			t.Fatalf("got %v %+v, %v\nwant %v %+v", k, got, err, kind, req)
		}
		cut := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
		if _, _, err := parseRequest(b[:cut]); err == nil {
			t.Fatalf("%d of %d bytes parse", cut, len(b))
		}
		if _, _, err := parseRequest(append(bytes.Clone(b), 0)); err == nil {
			t.Fatal("a byte too many parses")
		}
		b[cut] ^= rapid.ByteMin(1).Draw(t, "flip")
		parseRequest(b) // must not panic nor take much memory
	})
}

func TestAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, term := drawHeader(t), rapid.Uint64().Draw(t, "term")
		yes, no := rapid.Bool().Draw(t, "yes"), rapid.Bool().Draw(t, "no")
		for kind, resp := range map[Kind]any{
			KindAppend:     &raft.AppendEntriesResponse{RPCHeader: h, Term: term, LastLog: 9, Success: yes, NoRetryBackoff: no},
			KindVote:       &raft.RequestVoteResponse{RPCHeader: h, Term: term, Peers: some(t, "peers", 9), Granted: yes},
			KindPreVote:    &raft.RequestPreVoteResponse{RPCHeader: h, Term: term, Granted: yes},
			KindTimeoutNow: &raft.TimeoutNowResponse{RPCHeader: h},
			KindSnapshot:   &raft.InstallSnapshotResponse{RPCHeader: h, Term: term, Success: yes},
		} {
			b := flat(encodeAnswer(kind, raft.RPCResponse{Response: resp}))
			got := reflect.New(reflect.TypeOf(resp).Elem()).Interface()
			if err := parseAnswer(b, kind, got); err != nil || !reflect.DeepEqual(got, resp) {
				t.Fatalf("%v: got %+v, %v, want %+v", kind, got, err, resp)
			}
			if err := parseAnswer(b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")], kind, got); err == nil {
				t.Fatalf("%v: a truncated answer parses", kind)
			}
			if err := parseAnswer(b, kind+1, got); err == nil {
				t.Fatalf("%v is taken for another kind", kind)
			}
		}
	})
}

func TestHelloRoundTrip(t *testing.T) {
	h := hello{cluster: "c", from: "a/1", to: "b/2", group: 1<<32 - 1, boot: 300, known: 1 << 40}
	b := flat(h.encode())
	if got, err := parseHello(b); err != nil || got != h {
		t.Fatalf("got %+v, %v", got, err)
	}
	for i := range b {
		if _, err := parseHello(b[:i]); err == nil {
			t.Errorf("%d of %d bytes parse", i, len(b))
		}
	}
}

func TestBound(t *testing.T) {
	r := &raft.AppendEntriesRequest{}
	for range 20 {
		r.Entries = append(r.Entries, &raft.Log{Data: make([]byte, 512<<10)})
	}
	bound(r)
	if len(r.Entries) != 7 { // 8 × 512 KiB and overhead are above 4 MiB
		t.Errorf("%d entries left", len(r.Entries))
	}
	r.Entries = []*raft.Log{{Data: make([]byte, 2*maxAppendBytes)}, {}}
	bound(r)
	if len(r.Entries) != 1 {
		t.Errorf("%d entries left, want the large one alone", len(r.Entries))
	}
}
