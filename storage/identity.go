package storage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

const identityName = "identity"

// Identity says whose directory it is and what the node has promised. It is
// kept as one line of JSON and one with its CRC32C, for people to read.
type Identity struct {
	// Format is the version of the directory's format.
	Format int `json:"format"`
	// NodeID is the node's stable name.
	NodeID string `json:"node_id"`
	// DiskID is random, made with the directory and written in every file. A
	// node with another disk is another raft server.
	DiskID string `json:"disk_id"`
	// Nonce is random, made with the directory; the cluster id is derived from
	// the nonce of its lowest first member.
	Nonce string `json:"nonce"`
	// ClusterID is the cluster this disk belongs to, "" before its birth.
	ClusterID string `json:"cluster_id"`
	// Boot counts the lives of the node on this disk, from 1.
	Boot uint64 `json:"boot"`
	// Promise is the exact set of servers this one has promised to found a
	// cluster with; nil if it has not, or has taken it back.
	Promise []string `json:"promise"`
	// Shards is the number of shards given at birth, 0 before it.
	Shards int `json:"shards"`
	// Files are the files the directory must hold. One that is gone is a bad
	// disk: started without it, the node would forget votes or entries.
	Files []string `json:"files"`
}

// ReadIdentity returns the identity of the data directory at path, which need
// not be fit for anything else.
func ReadIdentity(path string) (Identity, error) { return readIdentity(path) }

func newIdentity(nodeID string) Identity {
	return Identity{Format: Format, NodeID: nodeID, DiskID: randomHex(8), Nonce: randomHex(16)}
}

func (id Identity) clone() Identity {
	id.Promise = slices.Clone(id.Promise)
	id.Files = slices.Clone(id.Files)
	return id
}

func (id Identity) encode() ([]byte, error) {
	line, err := json.Marshal(id)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(line, "\ncrc32c %08x\n", checksum(line)), nil
}

// decodeIdentity reads the record of the file, by its path.
func decodeIdentity(file string, b []byte) (Identity, error) {
	line, rest, found := bytes.Cut(b, []byte("\n"))
	if !found || string(rest) != fmt.Sprintf("crc32c %08x\n", checksum(line)) {
		return Identity{}, badDisk(file, "CRC does not match")
	}
	var id Identity
	if err := json.Unmarshal(line, &id); err != nil {
		return Identity{}, badDisk(file, "not an identity: %v", err)
	}
	if id.Format > Format {
		return id, fmt.Errorf("%s has format %d, this program knows %d: %w", file, id.Format, Format, ErrNewerFormat)
	}
	if id.Format < 1 || id.NodeID == "" || id.DiskID == "" {
		return id, badDisk(file, "fields are missing")
	}
	return id, nil
}
