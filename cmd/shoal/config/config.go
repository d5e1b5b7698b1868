// Package config is the configuration of a node: one table of keys, read from
// flags, environment, a YAML file and defaults, in that order of precedence.
//
// It owns the names, defaults and checks of all keys. Every value passes the
// same parser wherever it came from, and every error says where the value was
// found, what is wrong with it and what to write instead. Load looks at the
// file system (to find out whether named files exist) but changes nothing.
//
// Secrets are never values: a key whose name ends in -file names a file that
// holds one. So the effective configuration can be printed as it is.
package config

import (
	"log/slog"
)

// Config is the effective configuration of a node, complete and checked.
type Config struct {
	// NodeID is the stable name of the node within its cluster.
	NodeID string
	// DataDir holds everything that the node keeps.
	DataDir string
	// MQTTAddr, MQTTSAddr, WSAddr and WSSAddr are the listeners for clients,
	// host:port, over TCP, TLS, WebSocket, and WebSocket over TLS; empty is none.
	MQTTAddr, MQTTSAddr, WSAddr, WSSAddr string
	// WSPath is the path of the URL of WSAddr and WSSAddr.
	WSPath string
	// UnixSocket is a path; empty is none.
	UnixSocket     string
	UnixSocketMode FileMode
	// TLS is that of MQTTSAddr and WSSAddr.
	TLS ListenerTLS
	// ProxyFrom are the addresses that send PROXY headers to the listeners above.
	ProxyFrom []Network
	// Listeners are further ones.
	Listeners []Listener
	// AllListeners are those above and Listeners, complete.
	AllListeners []Listener
	// AllowAnonymous lets clients in without authentication.
	AllowAnonymous bool
	// PasswordFile has users; empty is none. It is asked before Authentication.
	PasswordFile string
	// ACLFile and ACLRules say what clients may do, in Mosquitto's form or in YAML;
	// empty is everything.
	ACLFile, ACLRules string
	// Authentication is the chain of who is asked about clients.
	Authentication []Authentication
	// Limits bound clients and users.
	Limits Limits
	// HTTPAddr is the listener for health, metrics and status; empty is none.
	HTTPAddr string
	// GossipAddr is the listener of memberlist (TCP and UDP).
	GossipAddr string
	// RPCAddr is the listener for raft and streams between nodes.
	RPCAddr string
	// AdvertiseHost is the name or address under which other nodes dial this one.
	AdvertiseHost string
	// Join lists gossip addresses or DNS names of other nodes.
	Join []string
	// BootstrapExpect is the number of nodes at the cluster's birth.
	BootstrapExpect int
	// Shards is the number of shards, set at birth.
	Shards int
	// ClusterCA, ClusterCert and ClusterKey are PEM files for mutual TLS between
	// nodes: all or none.
	ClusterCA, ClusterCert, ClusterKey string
	// GossipKeyFile holds the key that encrypts gossip; empty is none.
	GossipKeyFile string
	// HTTPTokenFile holds the token that opens the HTTP API beyond loopback;
	// empty is none.
	HTTPTokenFile string
	// MaxQueuedMessages and MaxQueuedBytes bound what waits for one persistent
	// session; QueueOverflow says what is lost: drop-oldest, drop-new or reject.
	MaxQueuedMessages int
	MaxQueuedBytes    int64
	QueueOverflow     string
	// DeniedPublish is what becomes of a message that its publisher may not send:
	// drop or disconnect.
	DeniedPublish string
	// SharedStrategy is how members of Shared Subscriptions are chosen.
	SharedStrategy string
	// QueueMemory is what stored messages may take in memory; 0 is found out.
	QueueMemory int64
	// MinFreeBytes of disk must be free for the node to be ready; 0 is no bound.
	MinFreeBytes int64
	// MemoryLimit is what the process may use, in bytes; 0 is found out.
	MemoryLimit int64
	// ConnectRate bounds the connections accepted per second; 0 is by the number
	// of processors.
	ConnectRate int
	// LogLevel is the least level that is logged.
	LogLevel slog.Level
	// LogFormat is "text" or "json".
	LogFormat string

	// origin tells by key where its value came from.
	origin map[string]source
}

// source is the place where a value was found.
type source struct {
	kind  sourceKind
	where string // as an error names it: "--node-id", "SHOAL_NODE_ID", "shoal.yaml:3: node-id"
	value string
}

type sourceKind int

// Sources in ascending precedence.
const (
	fromDefault sourceKind = iota
	fromFile
	fromEnv
	fromFlag
)

// Origin says where the value of a key came from: "default", a file with its
// line, an environment variable or a flag.
func (c *Config) Origin(name string) string {
	s, ok := c.origin[name]
	if !ok || s.kind == fromDefault {
		return "default"
	}
	return s.where
}
