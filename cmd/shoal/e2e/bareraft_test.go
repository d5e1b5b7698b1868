package e2e

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/shoalmq/shoal/storage"
)

// Bare raft is what the broker's figures are compared with: three nodes with
// the same raft, the same log on disk and entries of the same size, and nothing
// else; no MQTT, no state, no deliveries. It runs in one process.

// bareRaftCommand makes the test binary bare raft, with the arguments directory,
// groups and messages an entry. It prints messages a second and CPU-µs a
// message.
const bareRaftCommand = "bare-raft"

const (
	// bareMessageBytes is a message of 256 B as a log has it, with its topic.
	bareMessageBytes = 256 + 48
	// bareInFlight entries of each group are proposed and not applied.
	bareInFlight = 2
)

func bareRaft(args []string) int {
	rate, cost, err := runBareRaft(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(rate, cost)
	return 0
}

func runBareRaft(args []string) (rate, cost float64, err error) {
	if len(args) != 3 {
		return 0, 0, fmt.Errorf("got %d arguments, want 3", len(args))
	}
	groups, err := strconv.Atoi(args[1])
	if err != nil {
		return 0, 0, err
	}
	perEntry, err := strconv.Atoi(args[2])
	if err != nil {
		return 0, 0, err
	}
	b := &bareCluster{entry: make([]byte, max(perEntry, 1)*bareMessageBytes)}
	for _, name := range []string{"a", "b", "c"} {
		dir, err := storage.Open(filepath.Join(args[0], name), storage.Options{NodeID: name})
		if err != nil {
			return 0, 0, err
		}
		log, err := dir.OpenLog(storage.LogOptions{})
		if err != nil {
			return 0, 0, err
		}
		b.logs = append(b.logs, log)
	}
	for id := range groups {
		leader, err := b.group(uint32(id + 1))
		if err != nil {
			return 0, 0, err
		}
		for range bareInFlight {
			go b.propose(leader)
		}
	}
	time.Sleep(warmUp)
	entries, used, begin := b.applied.Load(), processTime(), time.Now()
	time.Sleep(measureFor / 2)
	messages := float64(b.applied.Load()-entries) * float64(perEntry)
	return messages / time.Since(begin).Seconds(), float64((processTime() - used).Microseconds()) / messages, nil
}

// processTime is the CPU time of this process.
func processTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

type bareCluster struct {
	logs    []*storage.Log
	entry   []byte
	applied atomic.Int64 // entries known to be applied at their leaders
}

// group starts a group's three replicas and returns the leader.
func (b *bareCluster) group(id uint32) (*raft.Raft, error) {
	var servers []raft.Server
	var transports []*raft.NetworkTransport
	for range b.logs {
		tr, err := raft.NewTCPTransport("127.0.0.1:0", nil, 3, patience, io.Discard)
		if err != nil {
			return nil, err
		}
		transports = append(transports, tr)
		servers = append(servers, raft.Server{ID: raft.ServerID(tr.LocalAddr()), Address: tr.LocalAddr()})
	}
	var replicas []*raft.Raft
	for i, log := range b.logs {
		c := raft.DefaultConfig()
		c.LocalID = servers[i].ID
		c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 500*time.Millisecond, 500*time.Millisecond, 250*time.Millisecond
		c.SnapshotThreshold = 1 << 40
		c.Logger = hclog.NewNullLogger()
		store := log.Group(id)
		if err := raft.BootstrapCluster(c, store, store, raft.NewDiscardSnapshotStore(), transports[i], raft.Configuration{Servers: servers}); err != nil {
			return nil, err
		}
		r, err := raft.NewRaft(c, bareFSM{}, store, store, raft.NewDiscardSnapshotStore(), transports[i])
		if err != nil {
			return nil, err
		}
		replicas = append(replicas, r)
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, r := range replicas {
			if r.State() == raft.Leader {
				return r, nil
			}
		}
	}
	return nil, fmt.Errorf("group %d has no leader", id)
}

func (b *bareCluster) propose(r *raft.Raft) {
	for {
		if err := r.Apply(b.entry, patience).Error(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		b.applied.Add(1)
	}
}

// bareFSM does nothing.
type bareFSM struct{}

func (bareFSM) Apply(*raft.Log) any                 { return nil }
func (bareFSM) Snapshot() (raft.FSMSnapshot, error) { return nil, raft.ErrNothingNewToSnapshot }
func (bareFSM) Restore(io.ReadCloser) error         { return nil }
