package storage

import (
	"fmt"
	"io"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// kv is a state machine that keeps itself in a StateFile, as the shards do: a
// command "key value" in memory at once, in the file at a checkpoint.
type kv struct {
	mu      sync.Mutex
	rows    map[string]string
	dirty   map[string]bool
	applied uint64
	state   *StateFile
}

func openKV(s *StateFile) (*kv, error) {
	k := &kv{state: s}
	return k, k.load()
}

func (k *kv) load() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	m, _ := k.state.Marker()
	k.rows, k.dirty, k.applied = make(map[string]string), make(map[string]bool), m.Index
	return k.state.Scan("kv", func(key, value []byte) error {
		k.rows[string(key)] = string(value)
		return nil
	})
}

func (k *kv) Apply(l *raft.Log) any {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.Index <= k.applied {
		return nil
	}
	k.applied = l.Index
	var key, value string
	_, _ = fmt.Sscan(string(l.Data), &key, &value)
	k.rows[key], k.dirty[key] = value, true
	return nil
}

func (k *kv) Snapshot() (raft.FSMSnapshot, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	frozen := make(frozenKV, len(k.dirty))
	for key := range k.dirty {
		frozen[key] = k.rows[key]
	}
	k.dirty = make(map[string]bool)
	return frozen, nil
}

func (k *kv) Restore(r io.ReadCloser) error {
	_ = r.Close() // the file is in place
	return k.load()
}

func (k *kv) copy() map[string]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.rows)
}

type frozenKV map[string]string

func (f frozenKV) Persist(sink raft.SnapshotSink) error {
	return sink.(CheckpointSink).Checkpoint(func(r Rows) error {
		for k, v := range f {
			if err := r.Put("kv", []byte(k), []byte(v)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (f frozenKV) Release() {}

// raftNode is one node with one group.
type raftNode struct {
	path  string
	id    raft.ServerID
	dir   *Dir
	log   *GroupLog
	state *StateFile
	kv    *kv
	raft  *raft.Raft
	trans *raft.InmemTransport
}

func (n *raftNode) start(t *testing.T) {
	t.Helper()
	n.dir = openDirWith(t, n.path, Options{NodeID: string(n.id)})
	n.log, n.state = openTestLog(t, n.dir).Group(1), openTestState(t, n.dir, 1)
	n.state.OnInstall(func(m Marker) error { return CheckStart(n.log, m, true) })
	n.run(t)
}

// run starts raft over the open files.
func (n *raftNode) run(t *testing.T) {
	t.Helper()
	m, has := n.state.Marker()
	must(t, CheckStart(n.log, m, has))
	var err error
	n.kv, err = openKV(n.state)
	must(t, err)
	conf := raft.DefaultConfig()
	conf.LocalID = n.id
	conf.Logger = hclog.NewNullLogger()
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = 200*time.Millisecond, 200*time.Millisecond, 100*time.Millisecond
	conf.CommitTimeout = 5 * time.Millisecond
	conf.SnapshotInterval, conf.SnapshotThreshold, conf.TrailingLogs = time.Hour, 1<<40, 4
	conf.NoSnapshotRestoreOnStart = true
	n.raft, err = raft.NewRaft(conf, n.kv, n.log, n.log, n.state.SnapshotStore(), n.trans)
	must(t, err)
}

func (n *raftNode) stop(t *testing.T) {
	t.Helper()
	must(t, n.raft.Shutdown().Error())
	must(t, n.dir.Close())
}

// startCluster starts n nodes that know each other.
func startCluster(t *testing.T, n int) []*raftNode {
	t.Helper()
	nodes := make([]*raftNode, n)
	var conf raft.Configuration
	for i := range nodes {
		id := raft.ServerID(fmt.Sprintf("n%d", i))
		_, trans := raft.NewInmemTransport(raft.ServerAddress(id))
		nodes[i] = &raftNode{path: t.TempDir(), id: id, trans: trans}
		conf.Servers = append(conf.Servers, raft.Server{ID: id, Address: raft.ServerAddress(id)})
	}
	connect(nodes)
	for _, n := range nodes {
		n.start(t)
		must(t, n.raft.BootstrapCluster(conf).Error())
	}
	return nodes
}

func connect(nodes []*raftNode) {
	for _, a := range nodes {
		for _, b := range nodes {
			a.trans.Connect(b.trans.LocalAddr(), b.trans)
		}
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("never: ", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func leaderOf(t *testing.T, nodes []*raftNode) (leader *raftNode) {
	t.Helper()
	eventually(t, "a leader", func() bool {
		for _, n := range nodes {
			if n.raft.State() == raft.Leader {
				leader = n
			}
		}
		return leader != nil
	})
	return leader
}

// propose has the leader commit the command, whoever that is.
func propose(t *testing.T, nodes []*raftNode, command string) {
	t.Helper()
	eventually(t, "commit of "+command, func() bool {
		return leaderOf(t, nodes).raft.Apply([]byte(command), time.Second).Error() == nil
	})
}

func TestRaftRestarts(t *testing.T) {
	nodes := startCluster(t, 1)
	n := nodes[0]
	for i := range 60 {
		propose(t, nodes, fmt.Sprintf("k%d v%d", i%7, i))
		if i%20 == 10 {
			must(t, n.raft.Snapshot().Error())
		}
		if i%25 == 24 {
			n.stop(t)
			n.start(t)
		}
	}
	n.stop(t)
	n.start(t)
	propose(t, nodes, "last one")
	want := map[string]string{"last": "one"}
	for i := 53; i < 60; i++ {
		want[fmt.Sprintf("k%d", i%7)] = fmt.Sprintf("v%d", i)
	}
	if got := n.kv.copy(); !maps.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	n.stop(t)
	must(t, Verify(n.path, func(file, problem string) { t.Error(file, problem) }))
}

// A follower that was away while the leader truncated its log gets the leader's
// file, has its own log emptied, is opened anew and then leads.
func TestRaftInstalls(t *testing.T) {
	nodes := startCluster(t, 3)
	propose(t, nodes, "a 1")
	leader := leaderOf(t, nodes)
	var away *raftNode
	var rest []*raftNode
	for _, n := range nodes {
		if n != leader && away == nil {
			away = n
		} else {
			rest = append(rest, n)
		}
	}
	eventually(t, "the follower has it", func() bool { return away.kv.copy()["a"] == "1" })
	away.stop(t)
	for i := range 50 {
		propose(t, rest, fmt.Sprintf("k%d v%d", i, i))
	}
	for _, n := range rest {
		must(t, n.raft.Snapshot().Error())
	}
	propose(t, rest, "b 2")

	_, away.trans = raft.NewInmemTransport(raft.ServerAddress(away.id))
	connect(nodes)
	away.start(t)
	eventually(t, "the install", func() bool { m, _ := away.state.Marker(); return m.Index > 40 })
	must(t, away.raft.Shutdown().Error())
	_, away.trans = raft.NewInmemTransport(raft.ServerAddress(away.id))
	connect(nodes)
	away.run(t)
	want := leaderOf(t, rest).kv.copy()
	eventually(t, "the same state", func() bool { return maps.Equal(away.kv.copy(), want) })

	eventually(t, "it leads", func() bool {
		_ = leaderOf(t, nodes).raft.LeadershipTransferToServer(away.id, raft.ServerAddress(away.id)).Error()
		return away.raft.State() == raft.Leader
	})
	propose(t, nodes, "c 3")
	for _, n := range nodes {
		eventually(t, "all have it", func() bool { return n.kv.copy()["c"] == "3" })
	}
	for _, n := range nodes {
		n.stop(t)
		must(t, Verify(n.path, func(file, problem string) { t.Error(file, problem) }))
	}
}
