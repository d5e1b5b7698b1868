package gossip

import (
	"encoding/json"
	"fmt"

	"github.com/hashicorp/memberlist"
)

// metaFormat is the format of an encoded Meta.
const metaFormat = 1

// Meta is what a node tells others of itself.
type Meta struct {
	Node      string `json:"n"`
	Disk      string `json:"d"`
	ClusterID string `json:"c,omitempty"`
	// RPCAddr is host:port for connections between nodes.
	RPCAddr string `json:"r"`
	Boot    uint64 `json:"b"`
	// Expect and Shards are what the node would found a cluster with.
	Expect int `json:"e"`
	Shards int `json:"s"`
}

// encode returns m as memberlist carries it: a format byte and JSON.
func (m Meta) encode() ([]byte, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode node metadata: %w", err)
	}
	if len(data)+1 > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("node metadata is %d bytes, gossip carries %d: use shorter names for node %q and address %q",
			len(data)+1, memberlist.MetaMaxSize, m.Node, m.RPCAddr)
	}
	return append([]byte{metaFormat}, data...), nil
}

func decodeMeta(b []byte) (m Meta, err error) {
	if len(b) == 0 || b[0] != metaFormat {
		return m, fmt.Errorf("node metadata of unknown format")
	}
	if err := json.Unmarshal(b[1:], &m); err != nil {
		return m, fmt.Errorf("decode node metadata: %w", err)
	}
	return m, nil
}
