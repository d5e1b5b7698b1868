package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"

	"github.com/hashicorp/raft"

	shoalpb "github.com/shoalmq/shoal/proto"
	"github.com/shoalmq/shoal/storage"
)

// Recovered is what a recovery has made.
type Recovered struct {
	Node string `json:"node"`
	Disk string `json:"disk"`
	// Former is the cluster there was, ClusterID the new one.
	Former    string `json:"former_cluster_id"`
	ClusterID string `json:"cluster_id"`
	// Kept are the shards that the disk has, Lost those that begin empty.
	Kept []string `json:"kept"`
	Lost []string `json:"lost"`
}

// Recover makes a cluster of one node of what a data directory holds, when the
// majority of its cluster is lost for good. The node must not run. It is the last
// resort: what was acknowledged and has not come to this disk is lost, and so is
// what its shards and directory know of different age; messages may come twice.
//
// The result is another cluster, with another id, so that nodes of the former one
// that turn up all the same are refused: their disks must be emptied, then they
// may join. Every group of the disk gets two entries behind what it has: a
// configuration of this server alone, and a Recover. Cut short by a crash it is
// done again from the beginning.
func Recover(dataDir string, log *slog.Logger) (Recovered, error) {
	id, err := storage.ReadIdentity(dataDir)
	if err != nil {
		return Recovered{}, fmt.Errorf("recover: %w", err)
	}
	if id.ClusterID == "" {
		return Recovered{}, errors.New("recover: this disk was never part of a cluster")
	}
	dir, err := storage.Open(dataDir, storage.Options{NodeID: id.NodeID, Logger: log})
	if err != nil {
		return Recovered{}, fmt.Errorf("recover: %w", err)
	}
	defer dir.Close()
	logs, err := dir.OpenLog(storage.LogOptions{})
	if err != nil {
		return Recovered{}, fmt.Errorf("recover: %w", err)
	}
	defer logs.Close()
	var random [16]byte
	rand.Read(random[:]) // never fails
	r := &recovery{
		dir: dir, logs: logs, out: Recovered{Node: id.NodeID, Disk: id.DiskID, Former: id.ClusterID, ClusterID: hex.EncodeToString(random[:])},
	}
	if err := r.run(id); err != nil {
		return Recovered{}, fmt.Errorf("recover: %w", err)
	}
	return r.out, nil
}

// recovery is one run of Recover.
type recovery struct {
	dir  *storage.Dir
	logs *storage.Log
	out  Recovered
}

// ending is where a group's log ends.
type ending struct{ index, term uint64 }

func (r *recovery) run(id storage.Identity) error {
	ends := make(map[uint32]ending)
	for _, group := range r.dir.Groups() {
		end, err := r.ending(group)
		if err != nil {
			return fmt.Errorf("%s: %w", groupName(group), err)
		}
		if end.index > 0 { // else it was opened and never got anything
			ends[group] = end
		}
	}
	if _, ok := ends[0]; !ok {
		return errors.New("this disk has no copy of the directory")
	}
	entry := &shoalpb.Recover{
		ClusterId: r.out.ClusterID, Server: &shoalpb.NodeDisk{Node: id.NodeID, Disk: id.DiskID}, Shards: uint32(id.Shards),
	}
	for shard := uint32(1); shard <= entry.Shards; shard++ {
		if _, ok := ends[shard]; ok {
			entry.Kept = append(entry.Kept, shard)
			r.out.Kept = append(r.out.Kept, groupName(shard))
		} else {
			r.out.Lost = append(r.out.Lost, groupName(shard))
		}
	}
	for group := range entry.Shards + 1 { // those that begin empty, too
		if err := r.extend(group, ends[group], entry); err != nil {
			return fmt.Errorf("%s: %w", groupName(group), err)
		}
	}
	// Last: until then the disk is of the former cluster, and this is done again.
	if err := r.dir.SetPromise(nil); err != nil {
		return err
	}
	return r.dir.SetBirth(r.out.ClusterID, id.Shards)
}

// ending finds the end of a group's log, or of its state if that is all there is.
func (r *recovery) ending(group uint32) (ending, error) {
	state, err := r.dir.OpenState(group)
	if err != nil {
		return ending{}, err
	}
	defer state.Close()
	log := r.logs.Group(group)
	marker, has := state.Marker()
	if err := storage.CheckStart(log, marker, has); err != nil {
		return ending{}, err
	}
	last, err := log.LastIndex()
	if err != nil || last == 0 {
		return ending{marker.Index, marker.Term}, err
	}
	var l raft.Log
	err = log.GetLog(last, &l)
	return ending{l.Index, l.Term}, err
}

// extend appends the two entries, in a term above all that the group has had.
func (r *recovery) extend(group uint32, end ending, entry *shoalpb.Recover) error {
	state, err := r.dir.OpenState(group) // makes the file
	if err != nil {
		return err
	}
	if err := state.Close(); err != nil {
		return err
	}
	log := r.logs.Group(group)
	term, err := log.GetUint64(keyCurrentTerm)
	if err != nil {
		return err
	}
	term = max(term, end.term) + 1
	if err := log.SetUint64(keyCurrentTerm, term); err != nil {
		return err
	}
	e := &shoalpb.Entry{Format: entryFormat, Proposals: []*shoalpb.Proposal{{Recover: entry}}}
	data, err := e.MarshalVT()
	if err != nil {
		return err
	}
	alone := raft.Configuration{Servers: servers([]string{r.out.Node + "/" + r.out.Disk})}
	return log.StoreLogs([]*raft.Log{
		{Index: end.index + 1, Term: term, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(alone)},
		{Index: end.index + 2, Term: term, Type: raft.LogCommand, Data: data},
	})
}
