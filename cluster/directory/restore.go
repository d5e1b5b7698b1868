package directory

import (
	"encoding/binary"
	"fmt"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
	"google.golang.org/protobuf/proto"
)

// Restore fills a new machine with what checkpoints have written. scan calls fn
// for each row of a bucket, none if there is no such bucket; k and v are not
// kept. After an error the machine is of no use.
func (m *Machine) Restore(scan func(bucket string, fn func(k, v []byte) error) error) error {
	// Streams come before routes: they tell which processes are fenced.
	for _, b := range []struct {
		bucket string
		load   func(k, v []byte) error
	}{
		{bucketStreams, func(_, v []byte) error { return m.in.LoadRow(v) }},
		{bucketCluster, m.loadCluster},
		{bucketNodes, m.loadNode},
		{bucketPlacement, m.loadPlacement},
		{bucketRoutes, m.loadRoute},
	} {
		err := scan(b.bucket, func(k, v []byte) error {
			if err := b.load(k, v); err != nil {
				return fmt.Errorf("row %q: %w", k, err)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("restore directory: %s: %w", b.bucket, err)
		}
	}
	return nil
}

type vtRow interface {
	proto.Message
	UnmarshalVT([]byte) error
	GetFormat() uint32
}

func decode(v []byte, r vtRow) error {
	if err := r.UnmarshalVT(v); err != nil {
		return err
	}
	if r.GetFormat() != rowFormat {
		return fmt.Errorf("unknown format %d", r.GetFormat())
	}
	return stream.CheckKnown(r)
}

func (m *Machine) loadCluster(_, v []byte) error {
	var r shoalpb.DirectoryRow
	if err := decode(v, &r); err != nil {
		return err
	}
	if born := r.ClusterId != ""; born && len(r.Slots) != Slots || !born && len(r.Slots) != 0 || r.Shards > MaxShards {
		return fmt.Errorf("%d slots, %d shards", len(r.Slots), r.Shards)
	}
	for _, shard := range r.Slots {
		if shard == 0 || shard > r.Shards {
			return fmt.Errorf("no shard %d", shard)
		}
	}
	m.applied, m.clusterID, m.shards, m.version, m.slots = r.Applied, r.ClusterId, r.Shards, r.Version, r.Slots
	m.placement = make([]Placement, r.Shards)
	return nil
}

func (m *Machine) loadNode(k, v []byte) error {
	var r shoalpb.NodeRow
	if err := decode(v, &r); err != nil {
		return err
	}
	if r.Info == nil {
		return fmt.Errorf("no node")
	}
	m.nodes[string(k)] = &Node{
		Info: r.Info, Up: r.Up, Fence: r.Fence,
		Drained: r.Drained, Leaving: r.Leaving, refused: r.Refused, removed: r.Removed,
	}
	return nil
}

func (m *Machine) loadPlacement(k, v []byte) error {
	var r shoalpb.PlacementRow
	if err := decode(v, &r); err != nil {
		return err
	}
	if len(k) != 4 {
		return fmt.Errorf("key of %d bytes", len(k))
	}
	group := binary.BigEndian.Uint32(k)
	if group == 0 || group > m.shards {
		return fmt.Errorf("no shard %d", group)
	}
	m.placement[group-1] = Placement{r.Replicas, r.Version, r.Joining, r.Leaving, r.Founders}
	return nil
}

// loadRoute loads the routes of a filter. Routes of processes that were fenced
// after the row was written, and not cleared away before the last checkpoint,
// are left out; the next checkpoint writes the row without them.
func (m *Machine) loadRoute(k, v []byte) error {
	var r shoalpb.RouteRow
	if err := decode(v, &r); err != nil {
		return err
	}
	filter, stale := string(k), false
	if r.Filter != "" {
		filter = r.Filter
	}
	for _, t := range r.Targets {
		if t.Qos > 2 {
			return fmt.Errorf("QoS %d", t.Qos)
		}
		if t.Node != "" && t.Boot < m.in.MinBoot(t.Node) {
			stale = true
			continue
		}
		source := Source{Group: t.Group, Node: t.Node, Boot: t.Boot}
		if _, shared := inner(filter); shared {
			m.routes.setShare(source, filter, seats{uint8(t.Qos), t.Members, t.Attached})
		} else {
			m.routes.set(source, filter, uint8(t.Qos))
		}
	}
	delete(m.dirty, filter)
	if stale {
		m.dirty[filter] = struct{}{}
	}
	return nil
}
