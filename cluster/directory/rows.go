package directory

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// The buckets of a state file.
const (
	bucketCluster   = "cluster"   // one row: DirectoryRow
	bucketNodes     = "nodes"     // node → NodeRow
	bucketPlacement = "placement" // group, 4 bytes big endian → PlacementRow
	bucketRoutes    = "routes"    // Topic Filter (routeKey) → RouteRow
	bucketStreams   = "streams"   // one row: StreamsRow
)

// rowFormat is the version of all rows.
const rowFormat = 1

// onlyKey is the key of buckets with one row.
var onlyKey = []byte("state")

type row struct {
	bucket     string
	key, value []byte // value nil: no such row
}

// smallRows returns all rows but those of routes: there are few of them.
func (m *Machine) smallRows(applied uint64) []row {
	rows := []row{
		{bucketStreams, onlyKey, m.in.AppendRow(nil)},
		{bucketCluster, onlyKey, encode(&shoalpb.DirectoryRow{
			Format: rowFormat, Applied: applied, ClusterId: m.clusterID, Shards: m.shards, Version: m.version, Slots: m.slots,
		})},
	}
	for _, name := range slices.Sorted(maps.Keys(m.nodes)) {
		n := m.nodes[name]
		value := encode(&shoalpb.NodeRow{
			Format: rowFormat, Info: n.Info, Up: n.Up, Fence: n.Fence,
			Drained: n.Drained, Leaving: n.Leaving, Refused: n.refused, Removed: n.removed,
		})
		rows = append(rows, row{bucketNodes, []byte(name), value})
	}
	for i, p := range m.placement {
		key := binary.BigEndian.AppendUint32(nil, uint32(i+1))
		rows = append(rows, row{bucketPlacement, key, encode(&shoalpb.PlacementRow{
			Format: rowFormat, Replicas: p.Replicas, Version: p.Version,
			Joining: p.Joining, Leaving: p.Leaving, Founders: p.Founders,
		})})
	}
	return rows
}

// rows returns those of a plain filter's targets that are alive. Equal routes give
// equal rows, whatever the ids.
func (r *routes) rows(s *targetSet, alive []uint64) (targets []*shoalpb.RouteTarget) {
	if s == nil {
		return nil
	}
	s.each(alive, func(id int, qos uint8) {
		o := r.owner[id]
		targets = append(targets, &shoalpb.RouteTarget{Group: o.Group, Node: o.Node, Boot: o.Boot, Qos: uint32(qos)})
	})
	slices.SortFunc(targets, func(a, b *shoalpb.RouteTarget) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Boot, b.Boot), cmp.Compare(a.Group, b.Group))
	})
	return targets
}

// encodeRoute returns the row of a filter, nil if it has no targets.
func encodeRoute(filter string, targets []*shoalpb.RouteTarget) []byte {
	if targets == nil {
		return nil
	}
	out := &shoalpb.RouteRow{Format: rowFormat, Targets: targets}
	if len(filter) > keyBytes {
		out.Filter = filter
	}
	return encode(out)
}

// routeKey returns the key of a filter's row: the filter, or its hash if it is
// long, behind a zero byte that no filter contains ([MQTT-4.7.3-2]).
func routeKey(filter string) []byte {
	if len(filter) <= keyBytes {
		return []byte(filter)
	}
	hash := sha256.Sum256([]byte(filter))
	return append([]byte{0}, hash[:]...)
}

type vtMessage interface {
	MarshalVT() ([]byte, error)
}

// encode cannot fail: there are no required fields and no invalid strings.
func encode(v vtMessage) []byte {
	data, err := v.MarshalVT()
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return data
}

// Digest returns a hash of the replicated state. It is the same on all replicas
// that applied the same entries; it does not contain Applied, as raft's own
// entries pass some replicas by. It walks all routes.
func (m *Machine) Digest() [32]byte {
	h := sha256.New()
	var buf []byte
	add := func(r row) {
		buf = buf[:0]
		for _, part := range [][]byte{[]byte(r.bucket), r.key, r.value} {
			buf = append(binary.AppendUvarint(buf, uint64(len(part))), part...)
		}
		h.Write(buf)
	}
	for _, r := range m.smallRows(0) {
		add(r)
	}
	m.routes.trie.All(func(filter string, s *targetSet) bool {
		if value := encodeRoute(filter, m.routes.rows(s, m.routes.alive)); value != nil {
			add(row{bucketRoutes, routeKey(filter), value})
		}
		return true
	})
	m.routes.eachShare(func(sh *share) {
		if value := encodeRoute(sh.name, sh.rows(m.routes.alive)); value != nil {
			add(row{bucketRoutes, routeKey(sh.name), value})
		}
	})
	return [32]byte(h.Sum(nil))
}
