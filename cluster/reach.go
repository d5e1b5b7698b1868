package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// reach is a node's first look at the shards. Clients are let in when every shard
// has shown a leader that serves, whether this node has a replica or not: from then
// on what they publish arrives, and a subscription stands. It is taken once in the
// life of a process: a shard that loses its leader later has publishes wait. Safe
// for concurrent use.
type reach struct {
	mu      sync.Mutex
	done    bool
	missing []uint32 // ascending; empty before the directory has told which there are
}

// why returns nil if all shards have been reached, else which have not.
func (r *reach) why() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.done:
		return nil
	case len(r.missing) == 0:
		return fmt.Errorf("the shards have not been asked yet")
	}
	names := make([]string, len(r.missing))
	for i, id := range r.missing {
		names[i] = groupName(id)
	}
	return fmt.Errorf("no leader yet of %s", strings.Join(names, ", "))
}

// begin names the shards to reach. It reports false if they have been reached.
func (r *reach) begin(shards int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return false
	}
	r.missing = r.missing[:0]
	for id := range uint32(shards) {
		r.missing = append(r.missing, id+1)
	}
	return true
}

// reached takes a shard off the list.
func (r *reach) reached(id uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missing = slices.DeleteFunc(r.missing, func(missing uint32) bool { return missing == id })
	r.done = r.done || len(r.missing) == 0
}

// reachShards asks for the leader of each shard until all have answered or ctx
// ends. The question is one for retained messages, which only a confirmed leader
// answers that has applied all that was committed before its term.
func (n *Node) reachShards(ctx context.Context, shards int) {
	if !n.reach.begin(shards) {
		return
	}
	var asking sync.WaitGroup
	for id := uint32(1); id <= uint32(shards); id++ {
		asking.Go(func() {
			if _, err := n.readRetained(ctx, &shoalpb.RetainedRequest{Group: id, Filter: nothing}); err == nil {
				n.reach.reached(id)
			}
		})
	}
	asking.Wait()
}

// nothing is a Topic Name under which next to nothing is retained.
const nothing = "$shoal/nothing"
