package cluster

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/shoalmq/shoal/cluster/shard"
	shoalpb "github.com/shoalmq/shoal/proto"
	"github.com/shoalmq/shoal/storage"
)

// Queues may be larger than memory. The bodies of messages have a budget per
// node; above it those that the state files have leave memory, and are read back
// when they are sent. What no file has yet stays: at most what is dirty
// (Node.dirtyLimit) and as much again being written, for each shard.

// dirtyLimit is how many bytes of new messages make a checkpoint due: less where
// the budget is small.
func (n *Node) dirtyLimit() int {
	return max(min(checkpointBytes, n.config.QueueMemory/(4*max(n.shards(), 1))), minDirty)
}

// restoreBytes is what one shard may keep in memory when it is restored.
func (n *Node) restoreBytes() int { return max(n.config.QueueMemory/max(n.shards(), 1), 1) }

// shards is how many there are.
func (n *Node) shards() (count int) {
	n.readDirectory(func(d *directoryMachine) { count = int(d.Shards()) })
	return count
}

// relieve lets messages leave memory until the budget holds: from each shard in
// proportion to what it can spare.
func (n *Node) relieve() {
	total, spare := 0, 0
	each := map[*group]int{}
	for _, g := range n.allGroups() {
		g.read(func(m machine) {
			if s, ok := m.(*shardMachine); ok {
				bytes, evictable := s.Memory()
				each[g] = evictable
				total += bytes
				spare += evictable
			}
		})
	}
	excess := min(total-n.config.QueueMemory, spare)
	if excess <= 0 {
		return
	}
	for g, evictable := range each {
		g.evict(int(float64(excess) * float64(evictable) / float64(spare)))
	}
}

// evict lets about bytes of messages leave memory, in short steps of the lock.
func (g *group) evict(bytes int) {
	left := math.MaxInt // to look at
	step := func() (looked int) {
		g.mu.Lock()
		defer g.mu.Unlock()
		s := g.m.(*shardMachine)
		left = min(left, s.Listed())
		freed, looked := s.Evict(bytes)
		bytes -= freed
		left -= looked
		return looked
	}
	for bytes > 0 && left > 0 && step() > 0 {
	}
}

// storedMessage is a message out of the state file. at is the shard's clock when
// it was stored.
type storedMessage struct {
	*shoalpb.Message
	at uint64
}

// load reads messages that have left memory, in one transaction of the state
// file. One that is missing from the result is gone, and so is by now what
// referred to it: the machine has to be read again.
func (g *group) load(numbers []uint64) map[uint64]storedMessage {
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	var bucket string
	keys := make([][]byte, len(numbers))
	for i, number := range numbers {
		bucket, keys[i] = shard.BodyRow(number)
	}
	found := make(map[uint64]storedMessage, len(numbers))
	err := g.state.ReadAll(bucket, keys, func(i int, value []byte) error {
		m, at, err := shard.DecodeBody(value)
		if err == nil {
			found[numbers[i]] = storedMessage{m, at}
		}
		return err
	})
	if err != nil && !errors.Is(err, storage.ErrClosed) {
		g.fatal(fmt.Errorf("read messages of %s: %w", g.name, err))
	}
	g.loaded.Add(uint64(len(found)))
	return found
}
