package storage

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

func TestTermsNeverFall(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path)
	g := openTestLog(t, d).Group(1)
	for _, key := range [][]byte{keyCurrentTerm, keyLastVoteTerm} {
		must(t, g.SetUint64(key, 0))
		must(t, g.SetUint64(key, 300))
		must(t, g.SetUint64(key, 300))
		if err := g.SetUint64(key, 255); !errors.Is(err, ErrTermFalls) {
			t.Errorf("%s falls: %v", key, err)
		}
	}
	must(t, d.Close())
	g = openTestLog(t, openDir(t, path)).Group(1)
	for _, key := range [][]byte{keyCurrentTerm, keyLastVoteTerm} {
		if term, err := g.GetUint64(key); term != 300 || err != nil {
			t.Errorf("%s is %d, %v", key, term, err)
		}
		must(t, g.SetUint64(key, 301))
	}
	must(t, g.SetUint64([]byte("other"), 2))
	must(t, g.SetUint64([]byte("other"), 1))
}

// A crash between the two halves of raft's vote must not turn the vote of an
// earlier term into one of this term, which raft repeats without comparing logs.
func TestHalfAVote(t *testing.T) {
	path := t.TempDir()
	d := openDirWith(t, path, Options{NodeID: "n0"})
	g := openTestLog(t, d).Group(1)
	conf := raft.Configuration{}
	for _, id := range []raft.ServerID{"n0", "n1", "stale"} {
		conf.Servers = append(conf.Servers, raft.Server{ID: id, Address: raft.ServerAddress(id)})
	}
	must(t, g.StoreLogs([]*raft.Log{
		{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(conf)},
		{Index: 2, Term: 5, Type: raft.LogCommand, Data: []byte("a acknowledged")},
	}))
	// Voted for "stale" in term 4; dies while it votes in term 6 for another.
	must(t, g.SetUint64(keyLastVoteTerm, 4))
	must(t, g.Set(keyLastVoteCand, []byte("stale")))
	must(t, g.SetUint64(keyCurrentTerm, 6))
	must(t, g.SetUint64(keyLastVoteTerm, 6))
	must(t, d.Close())

	_, trans := raft.NewInmemTransport("n0")
	n := &raftNode{path: path, id: "n0", trans: trans}
	n.start(t)
	defer n.stop(t)
	ask := func(candidate string, lastIndex, lastTerm uint64) bool {
		t.Helper()
		_, asking := raft.NewInmemTransport(raft.ServerAddress(candidate))
		asking.Connect("n0", trans)
		req := &raft.RequestVoteRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte(candidate), Addr: []byte(candidate)},
			Term:      6, LastLogIndex: lastIndex, LastLogTerm: lastTerm,
		}
		var resp raft.RequestVoteResponse
		must(t, asking.RequestVote("n0", "n0", req, &resp))
		return resp.Granted
	}
	if ask("stale", 1, 1) {
		t.Fatal("a vote for a log without an acknowledged entry")
	}
	if !ask("n1", 2, 5) {
		t.Fatal("no vote for a complete log")
	}
	if ask("stale", 9, 5) {
		t.Fatal("two votes in one term")
	}
}

// The leader's first entries after an install are stored and its answer is lost:
// they come again behind the marker's index, which the log does not hold.
func TestAppendAgainBehindInstall(t *testing.T) {
	path := t.TempDir()
	d := openDirWith(t, path, Options{NodeID: "n0"})
	conf := raft.Configuration{Servers: []raft.Server{{ID: "n0", Address: "n0"}, {ID: "n1", Address: "n1"}}}
	s := openTestState(t, d, 1)
	m := Marker{Index: 10, Term: 3, Configuration: conf, ConfigurationIndex: 1}
	must(t, s.Checkpoint(m, func(Rows) error { return nil }))
	must(t, d.Close())

	_, trans := raft.NewInmemTransport("n0")
	n := &raftNode{path: path, id: "n0", trans: trans}
	n.start(t)
	defer n.stop(t)
	_, leader := raft.NewInmemTransport("n1")
	leader.Connect("n0", trans)
	send := func(term, prev, prevTerm uint64, entries ...*raft.Log) *raft.AppendEntriesResponse {
		t.Helper()
		req := &raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("n1"), Addr: []byte("n1")},
			Term:      term, PrevLogEntry: prev, PrevLogTerm: prevTerm, Entries: entries,
		}
		resp := new(raft.AppendEntriesResponse)
		must(t, leader.AppendEntries("n0", "n0", req, resp))
		return resp
	}
	sent := entries(11, 3, 4, 10)
	for range 2 {
		if r := send(4, 10, 3, sent...); !r.Success {
			t.Fatalf("%+v", r)
		}
	}
	if r := send(4, 10, 2); r.Success {
		t.Fatal("another term at the marker was not noticed")
	}
	// A later leader has other entries there.
	if r := send(5, 10, 3, entries(11, 1, 5, 10)...); !r.Success {
		t.Fatalf("%+v", r)
	}
	if last, _ := n.log.LastIndex(); last != 11 {
		t.Fatal(last)
	}
	if err := n.log.GetLog(9, new(raft.Log)); err != raft.ErrLogNotFound {
		t.Fatal(err)
	}
}
