package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// metaVersion is the first byte of encoded metadata. Later versions of the
// same number may add fields at the end.
const metaVersion = 1

// Meta is what a node tells others of itself. It must be small: encoded at
// most 512 bytes.
type Meta struct {
	// Node is the stable name, Disk the id of the data directory, Boot counts
	// its processes.
	Node, Disk string
	Boot       uint64
	// ClusterID is empty before birth.
	ClusterID string
	// RPCAddr is "host:port" of the node's RPC listener; host may be a name.
	RPCAddr string
	// Expect and Shards are what the node was told for a birth.
	Expect, Shards int
	// Format is the highest cluster version that the program speaks.
	Format int
	// Draining: the node is about to stop and wants no leaderships.
	Draining bool
}

// encode returns the encoded metadata, or an error if it is too long now or
// would be with a cluster id.
func (m Meta) encode() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	b := []byte{metaVersion}
	for _, s := range []string{m.Node, m.Disk, m.ClusterID, m.RPCAddr} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	for _, v := range []uint64{m.Boot, uint64(m.Expect), uint64(m.Shards), uint64(m.Format), flag(m.Draining)} {
		b = binary.AppendUvarint(b, v)
	}
	if most := metaBytes - max(0, clusterIDBytes-len(m.ClusterID)); len(b) > most {
		return nil, fmt.Errorf("gossip metadata has %d bytes, at most %d: shorten the node id (%d bytes) or the advertised address (%d bytes)",
			len(b), most, len(m.Node), len(m.RPCAddr))
	}
	return b, nil
}

// check refuses names that "node/disk" cannot be made of.
func (m Meta) check() error {
	if m.Node == "" || strings.Contains(m.Node, "/") {
		return fmt.Errorf("gossip metadata names node %q", m.Node)
	}
	return nil
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

var errBadMeta = errors.New("gossip metadata is truncated")

func decodeMeta(b []byte) (Meta, error) {
	if len(b) == 0 {
		return Meta{}, errBadMeta
	}
	if b[0] != metaVersion {
		return Meta{}, fmt.Errorf("gossip metadata has version %d, not %d", b[0], metaVersion)
	}
	b = b[1:]
	var m Meta
	for _, s := range []*string{&m.Node, &m.Disk, &m.ClusterID, &m.RPCAddr} {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			return Meta{}, errBadMeta
		}
		*s, b = string(b[k:k+int(n)]), b[k+int(n):]
	}
	var numbers [5]uint64
	for i := range numbers {
		v, k := binary.Uvarint(b)
		if k <= 0 {
			return Meta{}, errBadMeta
		}
		numbers[i], b = v, b[k:]
	}
	m.Boot, m.Expect, m.Shards, m.Format = numbers[0], int(numbers[1]), int(numbers[2]), int(numbers[3])
	m.Draining = numbers[4] != 0
	if err := m.check(); err != nil {
		return Meta{}, err
	}
	return m, nil
}
