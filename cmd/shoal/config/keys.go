package config

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// key is one row of the table: a name shared by flag, environment variable and
// YAML, and how to read and print its value.
type key struct {
	name     string
	fallback string // the default, in the form a user would write
	usage    string
	isBool   bool // the flag needs no value
	parse    func(*Config, string) error
	format   func(*Config) string
}

// keys is the table, in the order in which help and the effective
// configuration show it.
var keys = []key{
	text("node-id", "", "stable name of this node (default: the host name)", nodeID, func(c *Config) *string { return &c.NodeID }),
	text("data-dir", "./data", "directory of everything this node keeps", dataDir, func(c *Config) *string { return &c.DataDir }),
	listens("mqtt-addr", "127.0.0.1:1883", "MQTT listener", func(c *Config) *string { return &c.MQTTAddr }),
	listens("mqtts-addr", off, "listener for MQTT over TLS", func(c *Config) *string { return &c.MQTTSAddr }),
	listens("ws-addr", off, "listener for MQTT over WebSocket", func(c *Config) *string { return &c.WSAddr }),
	listens("wss-addr", off, "listener for MQTT over WebSocket over TLS", func(c *Config) *string { return &c.WSSAddr }),
	text("ws-path", "/mqtt", "path of the URL of ws-addr and wss-addr", urlPath, func(c *Config) *string { return &c.WSPath }),
	text("unix-socket", "", "path of a Unix socket for clients on this host", func(string) error { return nil }, func(c *Config) *string { return &c.UnixSocket }),
	{
		name: "unix-socket-mode", fallback: "0660", usage: "permissions of unix-socket: who may write to it may connect",
		parse: func(c *Config, v string) (err error) {
			c.UnixSocketMode, err = parseMode(v)
			return err
		},
		format: func(c *Config) string { return c.UnixSocketMode.String() },
	},
	text("tls-cert", "", "PEM file of the certificate of mqtts-addr and wss-addr, with those between it and the root", readable, func(c *Config) *string { return &c.TLS.Cert }),
	text("tls-key", "", "PEM file of its private key", readable, func(c *Config) *string { return &c.TLS.Key }),
	text("tls-client-ca", "", "PEM file of the authorities of client certificates", readable, func(c *Config) *string { return &c.TLS.ClientCA }),
	text("tls-client-cert", "", "none, request or require client certificates (default: require with tls-client-ca, else none)", oneOf("none", "request", "require"), func(c *Config) *string { return &c.TLS.ClientCert }),
	text("tls-crl", "", "PEM file of the authorities' revocation lists", readable, func(c *Config) *string { return &c.TLS.CRL }),
	text("tls-min-version", "1.2", "1.2 or 1.3", oneOf("1.2", "1.3"), func(c *Config) *string { return &c.TLS.MinVersion }),
	{
		name: "proxy-protocol-from", usage: "addresses and ranges, comma-separated, whose connections begin with a PROXY header",
		parse: func(c *Config, v string) (err error) {
			c.ProxyFrom, err = parseNetworks(v)
			return err
		},
		format: func(c *Config) string {
			all := make([]string, len(c.ProxyFrom))
			for i, n := range c.ProxyFrom {
				all[i] = n.String()
			}
			return strings.Join(all, ",")
		},
	},
	{
		name: "allow-anonymous", isBool: true,
		usage: "let clients in that bring neither user name, password nor certificate (default: true while nothing else is configured and no listener can be reached from beyond this host)",
		parse: func(c *Config, v string) (err error) {
			c.AllowAnonymous, err = parseBool(v)
			return err
		},
		format: func(c *Config) string { return strconv.FormatBool(c.AllowAnonymous) },
	},
	text("password-file", "", "file with users and their hashed passwords, as Mosquitto has it (shoal user manages one)", readable, func(c *Config) *string { return &c.PasswordFile }),
	text("acl-file", "", "file with what clients may do, as Mosquitto has it", readable, func(c *Config) *string { return &c.ACLFile }),
	text("acl-rules", "", "YAML file with what clients may do, in place of acl-file", readable, func(c *Config) *string { return &c.ACLRules }),
	listens("http-addr", "127.0.0.1:18083", "HTTP listener for health, metrics and status", func(c *Config) *string { return &c.HTTPAddr }),
	text("http-token-file", "", "file with the token that opens the HTTP API to others than this host", readable, func(c *Config) *string { return &c.HTTPTokenFile }),
	text("gossip-addr", "127.0.0.1:7946", "gossip listener (TCP and UDP)", address, func(c *Config) *string { return &c.GossipAddr }),
	text("rpc-addr", "127.0.0.1:7947", "listener for raft and streams between nodes", address, func(c *Config) *string { return &c.RPCAddr }),
	text("advertise-host", "", "host name or address under which other nodes dial this one (default: the host of --rpc-addr, or the node id when that is all interfaces)", hostName, func(c *Config) *string { return &c.AdvertiseHost }),
	{
		name: "join", usage: "gossip addresses or DNS names of other nodes, comma-separated",
		parse:  func(c *Config, v string) error { return parseJoin(c, v) },
		format: func(c *Config) string { return strings.Join(c.Join, ",") },
	},
	number("bootstrap-expect", "1", "nodes at the birth of the cluster; ignored once born", 1, maxNodes, func(c *Config) *int { return &c.BootstrapExpect }),
	number("shards", "6", "raft groups that share the sessions; set at the birth of the cluster", 1, maxShards, func(c *Config) *int { return &c.Shards }),
	text("cluster-ca", "", "PEM file of the authority that signed the nodes' certificates", readable, func(c *Config) *string { return &c.ClusterCA }),
	text("cluster-cert", "", "PEM file of this node's certificate", readable, func(c *Config) *string { return &c.ClusterCert }),
	text("cluster-key", "", "PEM file of this node's private key", readable, func(c *Config) *string { return &c.ClusterKey }),
	text("gossip-key-file", "", "file with the key that encrypts gossip", readable, func(c *Config) *string { return &c.GossipKeyFile }),
	number("max-queued-messages", "100000", "messages that wait for one persistent session; of others 1,000", 1, maxQueued, func(c *Config) *int { return &c.MaxQueuedMessages }),
	size("max-queued-bytes", "256MiB", "default", "contents of the messages that wait for one persistent session", func(c *Config) *int64 { return &c.MaxQueuedBytes }),
	text("queue-overflow", dropOldest, "what a full queue loses: drop-oldest, drop-new, or reject (drop-new, and publishers of QoS 1 are told)", oneOf(dropOldest, "drop-new", "reject"), func(c *Config) *string { return &c.QueueOverflow }),
	text("denied-publish", "drop", "what becomes of a message that its publisher may not send: drop (MQTT 5 publishers of QoS 1 and 2 are told), or disconnect its publisher", oneOf("drop", "disconnect"), func(c *Config) *string { return &c.DeniedPublish }),
	text("shared-strategy", "round-robin", "who of a shared subscription gets a message: round-robin, random, sticky (by publisher), hash (by topic), or local (members of this node first)", oneOf("round-robin", "random", "sticky", "hash", "local"), func(c *Config) *string { return &c.SharedStrategy }),
	size("queue-memory", "auto", "auto", "memory that stored messages take before they are left to the disk (auto: 512MiB, or a quarter of memory-limit if that is less)", func(c *Config) *int64 { return &c.QueueMemory }),
	size("min-free-bytes", "256MiB", off, "free disk space below which this node is not ready and leads nothing, or \"off\"", func(c *Config) *int64 { return &c.MinFreeBytes }),
	size("memory-limit", "auto", "auto", "memory the process may use; near it clients are refused, slowed and at last closed (auto: GOMEMLIMIT, or three quarters of the container's or the machine's)", func(c *Config) *int64 { return &c.MemoryLimit }),
	number("connect-rate", "0", "connections accepted per second; 0 is 1,000 for each processor", 0, 1_000_000, func(c *Config) *int { return &c.ConnectRate }),
	{
		name: "log-level", fallback: "info", usage: "least level to log: debug, info, warn or error",
		parse:  func(c *Config, v string) error { return parseLevel(c, v) },
		format: func(c *Config) string { return strings.ToLower(c.LogLevel.String()) },
	},
	text("log-format", "text", "text or json", oneOf("text", "json"), func(c *Config) *string { return &c.LogFormat }),
}

const (
	off        = "off"
	dropOldest = "drop-oldest"
	// maxQueued: the entries of a queue are one row of the state file, of three or
	// four bytes each, which every checkpoint writes anew that finds it changed.
	maxQueued = 1_000_000
	// maxNodes: every node has a replica of the directory, and more than five
	// voters cost more than they protect.
	maxNodes = 5
	// maxShards: each shard is a raft group with a state file on every replica
	// and a pipeline that idles at some cost; throughput is flat long before.
	maxShards = 128
	// maxPacketBytes is the largest packet of MQTT (MQTT 5 §2.1.4).
	maxPacketBytes = 268_435_460
	// maxSize is more memory or disk than there is.
	maxSize = 1 << 50
)

// keyByName is nil for an unknown name.
func keyByName(name string) *key {
	for i := range keys {
		if keys[i].name == name {
			return &keys[i]
		}
	}
	return nil
}

func text(name, fallback, usage string, check func(string) error, field func(*Config) *string) key {
	return key{
		name: name, fallback: fallback, usage: usage,
		parse: func(c *Config, v string) error {
			*field(c) = v
			return check(v)
		},
		format: func(c *Config) string { return *field(c) },
	}
}

// listens is an address, or "off".
func listens(name, fallback, usage string, field func(*Config) *string) key {
	return key{
		name: name, fallback: fallback, usage: usage + `, or "off"`,
		parse: func(c *Config, v string) error {
			if v == off {
				*field(c) = ""
				return nil
			}
			*field(c) = v
			return address(v)
		},
		format: func(c *Config) string {
			if *field(c) == "" {
				return off
			}
			return *field(c)
		},
	}
}

func number(name, fallback, usage string, low, high int, field func(*Config) *int) key {
	return key{
		name: name, fallback: fallback, usage: usage,
		parse: func(c *Config, v string) error {
			n, err := strconv.Atoi(v)
			if err != nil || n < low || n > high {
				return fmt.Errorf("want a whole number from %d to %d", low, high)
			}
			*field(c) = n
			return nil
		},
		format: func(c *Config) string { return strconv.Itoa(*field(c)) },
	}
}

// size is a number of bytes, with a unit or without. zero is how 0 is written.
func size(name, fallback, zero, usage string, field func(*Config) *int64) key {
	return key{
		name: name, fallback: fallback, usage: usage,
		parse: func(c *Config, v string) (err error) {
			if v == zero {
				*field(c) = 0
				return nil
			}
			*field(c), err = parseSize(v)
			return err
		},
		format: func(c *Config) string {
			if *field(c) == 0 {
				return zero
			}
			return formatSize(*field(c))
		},
	}
}

// sizeUnits from large to small.
var sizeUnits = []struct {
	name  string
	shift int
}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"", 0}}

func parseSize(v string) (int64, error) {
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(v, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 63)
		if err != nil || n > uint64(maxSize)>>u.shift {
			break
		}
		return int64(n << u.shift), nil
	}
	return 0, errors.New("want a size such as 512MiB or 2GiB")
}

func formatSize(n int64) string {
	for _, u := range sizeUnits {
		if n != 0 && n&(1<<u.shift-1) == 0 {
			return strconv.FormatInt(n>>u.shift, 10) + u.name
		}
	}
	return "0"
}

func parseBool(v string) (bool, error) {
	switch v {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, errors.New("want true or false")
}

func parseLevel(c *Config, v string) error {
	if err := oneOf("debug", "info", "warn", "error")(v); err != nil {
		return err
	}
	return c.LogLevel.UnmarshalText([]byte(v))
}

func parseJoin(c *Config, v string) error {
	c.Join = nil
	if v == "" {
		return nil
	}
	for _, part := range strings.Split(v, ",") {
		part = strings.TrimSpace(part)
		if err := joinTarget(part); err != nil {
			return fmt.Errorf("%q: %w", part, err)
		}
		c.Join = append(c.Join, part)
	}
	return nil
}

// joinTarget accepts a host or host:port.
func joinTarget(v string) error {
	if hostName(v) == nil {
		return nil
	}
	host, _, err := net.SplitHostPort(v)
	if err != nil || host == "" || address(v) != nil {
		return errors.New("want a host name or host:port, such as node-1:7946")
	}
	return hostName(host)
}

// A node id is part of raft's server id (node/disk) and of the gossip name
// (node@random), and often a DNS name.
var nodeIDPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$`)

func nodeID(v string) error {
	if !nodeIDPattern.MatchString(v) {
		return errors.New("want 1 to 128 letters, digits, '.', '_' or '-', a letter or digit at both ends")
	}
	return nil
}

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\.?$`)

func hostName(v string) error {
	if net.ParseIP(v) != nil || hostPattern.MatchString(v) {
		return nil
	}
	return errors.New("want a host name or an IP address, without a port")
}

func address(v string) error {
	host, port, err := net.SplitHostPort(v)
	if err != nil {
		return errors.New("want host:port, such as 127.0.0.1:1883")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("port %q: want a number from 0 to 65535", port)
	}
	if host == "" {
		return nil
	}
	if err := hostName(host); err != nil {
		return fmt.Errorf("host %q: %w", host, err)
	}
	return nil
}

func dataDir(v string) error {
	if v == "" {
		return errors.New("want a directory")
	}
	if st, err := os.Stat(v); err == nil && !st.IsDir() {
		return errors.New("is a file; want a directory")
	}
	return nil
}

func readable(v string) error {
	if v == "" {
		return nil
	}
	st, err := os.Stat(v)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return errors.New("want a regular file")
	}
	f, err := os.Open(v)
	if err != nil {
		return err
	}
	return f.Close()
}

func oneOf(words ...string) func(string) error {
	return func(v string) error {
		for _, w := range words {
			if v == w {
				return nil
			}
		}
		return errors.New("want " + strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1])
	}
}
