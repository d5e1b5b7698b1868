package raftnet

import (
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
)

// endsMember is a server with an empty log that looks after ends in group 1.
type endsMember struct {
	*member
	running atomic.Pointer[raft.Raft]
	short   atomic.Uint64 // what it was told of its own disk
}

func startEndsMember(t *testing.T, b *book, node string, servers []raft.Server) *endsMember {
	x := &endsMember{}
	x.member = startMember(t, b, nil, node, "d", clusterOptions{prepare: func(m *member) {
		m.fsm, m.logs, m.snaps = &fsm{}, raft.NewInmemStore(), raft.NewInmemSnapshotStore()
		m.mux.CheckEnds(Ends{
			Own: func(uint32) uint64 {
				last, _ := m.logs.LastIndex()
				return last
			},
			Led: func(uint32) (uint64, uint64) {
				r := x.running.Load()
				if r == nil || r.State() != raft.Leader {
					return 0, 0
				}
				commit := r.CommitIndex()
				return r.CurrentTerm(), commit
			},
			Short: func(_ uint32, _ string, known uint64) { x.short.Store(known) },
		})
		m.mux.Members(1, servers)
	}})
	return x
}

func (x *endsMember) open(servers []raft.Server) {
	x.openRaft(servers)
	x.running.Store(x.raft)
}

// endsCluster is three servers that look after each other's ends.
func endsCluster(t *testing.T) (ms []*member, b *book, servers []raft.Server) {
	b = &book{addrs: make(map[string]string)}
	for _, node := range []string{"a", "b", "c"} {
		self := node + "/d"
		servers = append(servers, raft.Server{ID: raft.ServerID(self), Address: raft.ServerAddress(self)})
	}
	for _, node := range []string{"a", "b", "c"} {
		x := startEndsMember(t, b, node, servers)
		x.open(servers)
		ms = append(ms, x.member)
	}
	return ms, b, servers
}

// TestEndsAreKnown: a leader knows its followers' disks, and they know its disk.
func TestEndsAreKnown(t *testing.T) {
	ms, _, _ := endsCluster(t)
	lead := leader(t, ms)
	for range 20 {
		apply(t, lead, "x")
	}
	last, _ := lead.logs.LastIndex()
	rest, _ := others(ms, lead)
	for _, f := range rest {
		await(t, "the leader knows all of "+f.self, func() bool { return lead.mux.Known(1, f.self) >= last })
		await(t, f.self+" knows the leader", func() bool { return f.mux.Known(1, lead.self) >= last })
	}
	if known := lead.mux.Known(2, rest[0].self); known != 0 {
		t.Errorf("%d entries of another group are known", known)
	}
	// A server that has left and comes again begins anew.
	lead.mux.Members(1, nil)
	if known := lead.mux.Known(1, rest[0].self); known != 0 {
		t.Errorf("%d entries of no member are known", known)
	}
}

// TestShortDiskKeepsOut: a server that has lost its log while the others know what
// it had takes no part in the group before it is trusted again: neither entries
// nor votes.
func TestShortDiskKeepsOut(t *testing.T) {
	ms, b, servers := endsCluster(t)
	lead := leader(t, ms)
	for range 20 {
		apply(t, lead, "x")
	}
	last, _ := lead.logs.LastIndex()
	rest, _ := others(ms, lead)
	lost, other := rest[0], rest[1]
	await(t, "the leader knows what it had", func() bool { return lead.mux.Known(1, lost.self) >= last })
	lost.stop()
	again := startEndsMember(t, b, lost.node, servers)
	again.open(servers)
	await(t, "it is told", func() bool { return again.short.Load() >= last })

	// Two of three are alive, and one of them keeps out: nobody can lead.
	other.stop()
	await(t, "the leader has lost its quorum", func() bool { return lead.raft.State() != raft.Leader })
	term := lead.raft.CurrentTerm()
	await(t, "it is a candidate", func() bool { return lead.raft.State() == raft.Candidate })
	if got, _ := again.logs.LastIndex(); got > 1 || lead.raft.CurrentTerm() != term {
		t.Fatalf("it has taken entries up to %d, the term went from %d to %d", got, term, lead.raft.CurrentTerm())
	}
	again.mux.Trust(1) // its leader has said that all is well: it was thrown away in order
	lead.mux.ends.unmatch(1, again.self)
	leader(t, []*member{lead, again.member})
	await(t, "it has everything again", func() bool { return again.fsm.len() >= 20 })
}

// TestKnownEnds: what becomes known, of whom, and when it is forgotten.
func TestKnownEnds(t *testing.T) {
	m := &Mux{self: "a/1", log: slog.New(slog.DiscardHandler), refused: map[string]bool{}}
	term, commit := uint64(3), uint64(0)
	m.CheckEnds(Ends{Led: func(uint32) (uint64, uint64) { return term, commit }})
	m.Members(1, []raft.Server{{ID: "b/1"}, {ID: "c/1"}})
	request := func(term, prev, n, commit uint64) *raft.AppendEntriesRequest {
		r := &raft.AppendEntriesRequest{Term: term, PrevLogEntry: prev, PrevLogTerm: 2, LeaderCommitIndex: commit}
		for i := range n {
			r.Entries = append(r.Entries, &raft.Log{Index: prev + i + 1, Term: term})
		}
		return r
	}
	known := func(want uint64) {
		t.Helper()
		if got := m.Known(1, "b/1"); got != want {
			t.Errorf("%d is known, want %d", got, want)
		}
	}
	m.ends.had(1, "d/1", request(3, 10, 5, 15), Now())
	if got := m.Known(1, "d/1"); got != 0 {
		t.Errorf("%d is known of no member", got)
	}
	m.ends.had(1, "b/1", request(3, 10, 5, 12), Now())
	known(12) // 13 to 15 may be lost
	commit = 14
	known(14)
	commit = 40
	known(15)
	m.ends.had(1, "b/1", request(3, 8, 1, 15), Now()) // a late one
	known(15)
	// Entries 16 to 20 are not committed when the lead ends. What the next leader
	// commits there, others or the same, says nothing of b by itself.
	commit = 15
	m.ends.had(1, "b/1", request(3, 15, 5, 15), Now())
	term, commit = 0, 0
	known(15)
	m.Settle(1, func(uint64) uint64 { return 9 }) // others
	known(15)
	m.Settle(1, func(uint64) uint64 { return 3 }) // the same
	known(20)
	// As a follower: the leader's disk has what it says is committed.
	m.ends.led(1, "b/1", request(5, 20, 3, 22), &raft.AppendEntriesResponse{Term: 5, Success: true})
	known(22)
	m.ends.led(1, "b/1", request(4, 50, 3, 53), &raft.AppendEntriesResponse{Term: 5})
	known(22)
	m.ends.unmatch(1, "b/1")
	known(0)
	m.ends.had(1, "b/1", request(5, 20, 3, 22), Now()-1e9) // asked before it was a member anew
	known(0)
	// All that stay members are remembered.
	m.ends.had(1, "b/1", request(5, 20, 3, 22), Now()+1)
	m.Members(1, []raft.Server{{ID: "b/1"}})
	known(22)
	m.Members(1, []raft.Server{{ID: "c/1"}})
	m.Members(1, []raft.Server{{ID: "b/1"}})
	known(0)
}
