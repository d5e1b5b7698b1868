package cluster

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shoalmq/shoal/cluster/directory"
	"github.com/shoalmq/shoal/cluster/shard"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// The shards that this disk has a replica of: opened when a placement names it,
// thrown away when none does and the group's leader agrees.

// runShards keeps the replicas that this disk should have. A replica that it
// should not have any more is looked at again every second until it is gone.
func (n *Node) runShards(ctx context.Context) {
	tick := time.NewTicker(reconcileEvery)
	defer tick.Stop()
	for {
		changed := n.directoryChanged.next()
		for id, placed := range n.missingShards() {
			if err := n.openShard(id, placed); err != nil {
				n.fatal(err)
				return
			}
		}
		surplus := n.surplusShards()
		for _, id := range surplus {
			if err := n.dropShard(ctx, id); err != nil && ctx.Err() == nil {
				n.log.Debug("a replica is not thrown away yet", "group", groupName(id), "err", err)
			}
		}
		var again <-chan time.Time
		if len(surplus) > 0 {
			again = tick.C
		}
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

func (n *Node) missingShards() map[uint32]directory.Placement {
	missing := make(map[uint32]directory.Placement)
	n.readDirectory(func(d *directoryMachine) {
		for id := uint32(1); id <= d.Shards(); id++ {
			placed := d.Placed(id)
			if n.group(id) == nil && slices.Contains(placed.Homes(), string(n.self)) {
				missing[id] = placed
			}
		}
	})
	return missing
}

// surplusShards are the shards of which this disk has files and that no
// placement puts here.
func (n *Node) surplusShards() (surplus []uint32) {
	have := n.dir.Groups()
	n.readDirectory(func(d *directoryMachine) {
		for _, id := range have {
			if id != 0 && d.Shards() != 0 && !slices.Contains(d.Placed(id).Homes(), string(n.self)) {
				surplus = append(surplus, id)
			}
		}
	})
	return surplus
}

// openShard opens a replica. Only a founder bootstraps its group, and only as
// long as the placement is that of birth: any other replica is told by the
// group's leader who its servers are.
func (n *Node) openShard(id uint32, placed directory.Placement) error {
	var founders []string
	if placed.Version == 1 && slices.Contains(placed.Founders, string(n.self)) {
		founders = placed.Founders
	}
	config := shard.Config{Group: id, Life: 1, RestoreBytes: n.restoreBytes(), RegisterOf: n.registers()}
	leading := func() *shardLead { return n.leadNow(id) }
	clock := newShardClock(n.config.boot())
	fresh := func(scan scanFunc) (machine, error) {
		return (&shardMachine{config: config, leading: leading, clock: clock}).fresh(scan)
	}
	return n.openGroup(id, servers(founders), clock, fresh, n.leadShard)
}

// registers tells for each topic which shard has its register. What places a shard
// has told where slots are, too.
func (n *Node) registers() func(topic string) uint32 {
	shards := make([]uint32, directory.Slots)
	n.readDirectory(func(d *directoryMachine) {
		for i := range shards {
			shards[i] = d.ShardOfSlot(i)
		}
	})
	return func(topic string) uint32 { return shards[directory.Slot(topic)] }
}

// dropShard throws a replica away, if the group's leader says that its committed
// configuration does not name this server: else its votes and entries may still
// count. It is asked again once the replica is closed: from then on nothing is
// acknowledged for it, so a leader that takes this server in anew begins with
// what an empty replica answers (Transport.Unmatch).
func (n *Node) dropShard(ctx context.Context, id uint32) error {
	if err := n.notNamed(ctx, id); err != nil {
		return err
	}
	n.closeShard(id)
	if err := n.notNamed(ctx, id); err != nil {
		if opened := n.openShard(id, directory.Placement{}); opened != nil {
			n.fatal(opened)
		}
		return err
	}
	// The log first: entries without the state before them would be a bad disk.
	if err := n.logs.EmptyGroup(id); err != nil {
		return err
	}
	if err := n.dir.RemoveState(id); err != nil {
		return err
	}
	n.log.Info("a replica was thrown away: the shard is elsewhere now", "group", groupName(id))
	return nil
}

// notNamed is nil if the committed configuration of a group does not name this
// server.
func (n *Node) notNamed(ctx context.Context, id uint32) error {
	reply, err := n.askReconfigure(ctx, id, shoalpb.ReconfigureRequest_CHANGE_LOOK, "")
	if err != nil {
		return err
	}
	if _, named := standingOf(reply).find(string(n.self)); named {
		return fmt.Errorf("the configuration of %s names this server", groupName(id))
	}
	return nil
}

// closeShard closes a replica and its state file.
func (n *Node) closeShard(id uint32) {
	n.mu.Lock()
	g, unused := n.groups[id], n.states[id]
	delete(n.groups, id)
	delete(n.states, id)
	n.mu.Unlock()
	n.mux.Members(id, nil)
	if unused != nil {
		_ = unused.Close()
	}
	if g == nil {
		return
	}
	if err := g.close(); err != nil {
		g.log.Warn("close a replica", "err", err)
	}
	if err := g.state.Close(); err != nil {
		g.log.Warn("close a replica's state", "err", err)
	}
}
