package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalmq/shoal/cluster/raftnet"
)

// Config says how a node runs. Fields without a comment have the meaning of
// the configuration key of the same name.
type Config struct {
	// NodeID is the node's stable name.
	NodeID string
	// DataDir holds everything the node keeps; one process at a time.
	DataDir string
	// GossipAddr and RPCAddr are host:port to listen on; port 0 takes a free
	// one.
	GossipAddr, RPCAddr string
	// AdvertiseHost is the name at which others reach this node, resolved anew
	// at every dial; empty for the host of the listening address.
	AdvertiseHost string
	// HTTPAddr and MQTTAddr are told to others, for people to read.
	HTTPAddr, MQTTAddr string
	// Join are gossip addresses of other nodes, tried for ever.
	Join []string
	// BootstrapExpect is the number of nodes at birth; ignored once born.
	BootstrapExpect int
	// Shards is the number of shards at birth; ignored once born.
	Shards int
	// QueueMemory is how many bytes of memory stored messages may take before
	// those that the disk has leave it: 512 MiB if 0. What no state file has yet
	// comes on top of it.
	QueueMemory int
	// SharedStrategy is how members of Shared Subscriptions are chosen: one of
	// ShareStrategies, empty for the first.
	SharedStrategy string
	// CAFile, CertFile and KeyFile make connections between nodes mutual TLS:
	// all three or none.
	CAFile, CertFile, KeyFile string
	// GossipKeyFile holds the key that encrypts gossip.
	GossipKeyFile string
	// ElectionTimeout is for how long a replica does without its group's leader
	// before it stands for election, and for how long a leader goes on that its
	// followers do not answer: 500 ms if 0. Leases do not depend on it.
	ElectionTimeout time.Duration
	// MinFreeBytes of the data directory's file system must be free for the node
	// to be ready and to lead; 0 for no such bound.
	MinFreeBytes uint64
	// Build is the human-readable version.
	Build   string
	Log     *slog.Logger
	Metrics prometheus.Registerer
	// Net, if not nil, lets tests cut, slow and hold what goes between nodes.
	Net *NetHooks
	// Disk, if not nil, lets tests slow, hang and fill the disk.
	Disk *DiskHooks
	// Clocks, if not nil, replaces the clocks that shards measure time by.
	Clocks *ClockHooks
}

// ClockHooks are the clocks behind the shards' time, for tests. Leases and
// everything else keep to the real ones.
type ClockHooks struct {
	// Wall is the wall clock, Boot the boot-time clock.
	Wall func() time.Time
	Boot func() time.Duration
	// Look is how often a leader looks at a Boot clock that may jump.
	Look time.Duration
}

// NetHooks are the places where a test gets between nodes.
type NetHooks struct {
	// Fault sees every raft message.
	Fault raftnet.Fault
	// Step, if not nil, is called before each page of a replay is proposed
	// ("page"), and before each step of a move of a shard's replica,
	// by the directory's leader.
	Step func(ctx context.Context, what string)
	// Dial replaces the TCP dial.
	Dial func(ctx context.Context, node string, class raftnet.Class, hostport string) (net.Conn, error)
}

// maxShards bounds P: slots are 1024, and each group costs a raft instance.
const maxShards = 128

func (c *Config) check() error {
	switch {
	case c.NodeID == "":
		return errors.New("node id is empty")
	case strings.ContainsAny(c.NodeID, "/@ \t\n"):
		return fmt.Errorf("node id %q: must not contain '/', '@' or white space", c.NodeID)
	case c.Shards < 1 || c.Shards > maxShards:
		return fmt.Errorf("shards is %d: must be 1 to %d", c.Shards, maxShards)
	case c.BootstrapExpect < 1:
		return fmt.Errorf("bootstrap-expect is %d: must be at least 1", c.BootstrapExpect)
	}
	for key, addr := range map[string]string{"gossip-addr": c.GossipAddr, "rpc-addr": c.RPCAddr} {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf("%s %q: %w", key, addr, err)
		}
	}
	if s := c.SharedStrategy; s != "" && !slices.Contains(ShareStrategies, s) {
		return fmt.Errorf("shared-strategy %q: must be one of %s", s, strings.Join(ShareStrategies, ", "))
	}
	some, all := c.CAFile+c.CertFile+c.KeyFile != "", c.CAFile != "" && c.CertFile != "" && c.KeyFile != ""
	if some && !all {
		return errors.New("cluster-ca, cluster-cert and cluster-key belong together: give all three or none")
	}
	return nil
}

// advertised is the name that others dial for this node.
func (c *Config) advertised(listen string) string {
	if c.AdvertiseHost != "" {
		return c.AdvertiseHost
	}
	host, _, err := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); err != nil || host == "" || (ip != nil && ip.IsUnspecified()) {
		return c.NodeID
	}
	return host
}
