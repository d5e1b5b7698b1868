package raftnet

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestReplication(t *testing.T) {
	ms, _ := startCluster(t, 3, nil, clusterOptions{})
	l := leader(t, ms)
	var futures []raft.ApplyFuture
	for i := range 500 {
		futures = append(futures, l.raft.Apply([]byte(strings.Repeat("x", i*40)), 0))
	}
	for _, f := range futures {
		if err := f.Error(); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range ms {
		await(t, "500 entries everywhere", func() bool { return m.fsm.len() == 500 })
		for i, b := range m.fsm.applied {
			if string(b) != strings.Repeat("x", i*40) {
				t.Fatalf("%s: entry %d has %d bytes", m.self, i, len(b))
			}
		}
	}
}

func TestLeaderDies(t *testing.T) {
	ms, _ := startCluster(t, 3, nil, clusterOptions{})
	l := leader(t, ms)
	apply(t, l, "one")
	l.stop()
	rest, _ := others(ms, l)
	l2 := leader(t, rest)
	apply(t, l2, "two")
}

func TestLeadershipTransfer(t *testing.T) {
	ms, _ := startCluster(t, 3, nil, clusterOptions{})
	l := leader(t, ms)
	rest, _ := others(ms, l)
	to := rest[0]
	if err := l.raft.LeadershipTransferToServer(raft.ServerID(to.self), raft.ServerAddress(to.self)).Error(); err != nil {
		t.Fatal(err)
	}
	await(t, "target leads", func() bool { return to.raft.State() == raft.Leader })
	apply(t, to, "x")
}

// TestPreVote: a follower that was cut off has not raised its term, so its
// return does not depose the leader.
func TestPreVote(t *testing.T) {
	l := &links{}
	ms, _ := startCluster(t, 3, l, clusterOptions{})
	lead := leader(t, ms)
	apply(t, lead, "one")
	rest, _ := others(ms, lead)
	cut := rest[0]
	_, names := others(ms, cut)
	term := lead.raft.CurrentTerm()
	l.isolate(true, cut.self, names...)
	await(t, "cut follower is a candidate", func() bool { return cut.raft.State() == raft.Candidate })
	apply(t, lead, "two")
	// Give it several elections' time by waiting for its own timers.
	for range 3 {
		await(t, "candidate again", func() bool { return cut.raft.State() == raft.Candidate })
		time.Sleep(raftConfig("").ElectionTimeout) // the candidate's pause
	}
	l.isolate(false, cut.self, names...)
	await(t, "cut follower has caught up", func() bool { return cut.fsm.len() == 2 })
	if got := lead.raft.CurrentTerm(); got != term || lead.raft.State() != raft.Leader {
		t.Fatalf("leader in term %d is %v in term %d after the follower's return", term, lead.raft.State(), got)
	}
}

func TestSnapshotInstall(t *testing.T) {
	ms, b := startCluster(t, 3, nil, clusterOptions{})
	lead := leader(t, ms)
	rest, _ := others(ms, lead)
	gone := rest[0]
	gone.stop()
	if err := lead.raft.ReloadConfig(raft.ReloadableConfig{
		TrailingLogs: 1, SnapshotInterval: time.Hour, SnapshotThreshold: 1 << 20,
		HeartbeatTimeout: 300 * time.Millisecond, ElectionTimeout: 300 * time.Millisecond,
	}); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		apply(t, lead, strings.Repeat("y", 100_000)) // several chunks
	}
	if err := lead.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	back := startMember(t, b, nil, gone.node, strings.TrimPrefix(gone.self, gone.node+"/"), clusterOptions{})
	back.startRaft(nil)
	await(t, "snapshot is installed", func() bool { return back.fsm.len() == 20 })
	apply(t, lead, "after")
	await(t, "entries follow the snapshot", func() bool { return back.fsm.len() == 21 })
}

// TestReopenGroup: raft is shut down, which closes the Transport, and opened
// again below streams that peers keep.
func TestReopenGroup(t *testing.T) {
	ms, _ := startCluster(t, 3, nil, clusterOptions{})
	lead := leader(t, ms)
	apply(t, lead, "one")
	rest, _ := others(ms, lead)
	m := rest[0]
	if err := m.raft.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
	apply(t, lead, "two")
	m.fsm = &fsm{}
	m.openRaft(nil)
	await(t, "reopened group has caught up", func() bool { return m.fsm.len() == 2 })
}

// TestMove: a node comes back at another address; its peers dial anew.
func TestMove(t *testing.T) {
	ms, b := startCluster(t, 3, nil, clusterOptions{})
	lead := leader(t, ms)
	apply(t, lead, "one")
	rest, _ := others(ms, lead)
	old := rest[0]
	before, _ := b.resolve(old.node)
	old.stop()
	now := startMember(t, b, nil, old.node, strings.TrimPrefix(old.self, old.node+"/"), clusterOptions{})
	if after, _ := b.resolve(now.node); after == before {
		t.Skip("the system gave the same port again")
	}
	now.fsm, now.logs, now.snaps = &fsm{}, old.logs, old.snaps
	now.openRaft(nil)
	apply(t, lead, "two")
	await(t, "moved node has caught up", func() bool { return now.fsm.len() == 2 })
}

// TestAbstain: a server that abstains leaves the lead to another, and takes it
// when there is none.
func TestAbstain(t *testing.T) {
	l := &links{}
	ms, _ := startCluster(t, 3, l, clusterOptions{})
	lead := leader(t, ms)
	apply(t, lead, "one")
	rest, _ := others(ms, lead)
	quiet, other := rest[0], rest[1]
	await(t, "all have it", func() bool { return quiet.fsm.len() == 1 && other.fsm.len() == 1 })
	quiet.mux.Abstain(true)
	// Whoever of the two is a candidate first, the other one leads.
	for range 3 {
		_, names := others(ms, lead)
		cut := time.Now()
		l.isolate(true, lead.self, names...)
		next := other
		await(t, "another one leads", func() bool {
			if quiet.raft.State() == raft.Leader {
				if after := time.Since(cut); after < abstainTime {
					t.Fatalf("the one that abstains leads after %v", after)
				}
				next = quiet // the machine is so slow that the other one took too long
			}
			return next.raft.State() == raft.Leader
		})
		l.isolate(false, lead.self, names...)
		if err := next.raft.LeadershipTransferToServer(raft.ServerID(lead.self), raft.ServerAddress(lead.self)).Error(); err != nil {
			t.Fatal(err)
		}
		await(t, "the first one leads again", func() bool { return lead.raft.State() == raft.Leader })
	}
	// With the other one gone only it can.
	other.stop()
	_, names := others(ms, lead)
	l.isolate(true, lead.self, names...)
	time.Sleep(2 * raftConfig("").ElectionTimeout)
	l.isolate(false, lead.self, names...)
	lead.mux.Abstain(true) // now both do
	await(t, "one of two leads", func() bool { return quiet.raft.State() == raft.Leader || lead.raft.State() == raft.Leader })
}
