package broker

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// Config is what a Broker is made of. Zero values mean the defaults named.
type Config struct {
	// Log gets what happens; state changes at Info, connections at Debug,
	// nothing per message. slog.Default() if nil.
	Log *slog.Logger
	// Metrics is where the broker's metrics are registered; nowhere if nil.
	Metrics prometheus.Registerer
	// NodeID names the node in assigned Client Identifiers.
	NodeID string
	// NewClientID makes a Client Identifier for a client that gave none; it must
	// be unique in the cluster for ever. Random ones by default.
	NewClientID func() string

	// Authenticator decides who may connect. If it is nil AllowAnonymous
	// decides for all; else AllowAnonymous admits clients without User Name,
	// Password and verified certificate unasked.
	Authenticator  Authenticator
	AllowAnonymous bool
	// Enhanced has the methods of enhanced authentication; nil for none.
	Enhanced EnhancedAuthenticator
	// Authorizer decides what clients may do; nil for everything.
	Authorizer Authorizer
	// DisconnectDenied ends the connection of a client that publishes what it may
	// not (0x87). Else the message is dropped, and its publisher told if it is
	// MQTT 5 and QoS 1 or 2.
	DisconnectDenied bool

	// LetGoRate is how many connections are ended a second when the broker is
	// closed: 1,000, or as many as the time demands.
	LetGoRate int
	// Elsewhere is the address of a server that clients may use when this one
	// closes, empty if there is none; nil is none.
	Elsewhere func() string

	// MaxPacketBytes is the Maximum Packet Size for clients: 1 MiB.
	MaxPacketBytes int
	// MaxInFlight bounds unfinished deliveries to a client, together with its
	// Receive Maximum: 32.
	MaxInFlight uint16
	// ReceiveMaximum is the one announced; of MQTT 3 clients, who are not told,
	// no more is read while so many publishes are unanswered: 1,024.
	ReceiveMaximum uint16
	// TopicAliasMaximum is the one announced: 64. Negative: none.
	TopicAliasMaximum int
	// MaxKeepAlive caps the Keep Alive of MQTT 5 clients, who are told: no cap.
	MaxKeepAlive time.Duration
	// MaxSessionExpiry caps the Session Expiry Interval, also for MQTT 3 clients
	// with Clean Session 0: no cap.
	MaxSessionExpiry time.Duration
	// Queue bounds what waits for a durable session, in its shard; nil for the
	// shard's own limits. Its policy holds for transient sessions too, whose
	// publishers are never told. Read only.
	Queue *shoalpb.QueueLimits
	// MaxQueue bounds the QoS 1 and 2 messages that wait for a transient session
	// beyond its window: 1,000. MaxQueueBytes bounds their contents: 16 MiB. What
	// does not fit, or the oldest, is dropped and counted.
	MaxQueue      int
	MaxQueueBytes int
	// MaxOutputBytes bounds what is encoded for a connection and not written:
	// 1 MiB. QoS 0 messages beyond are dropped and counted, the others wait in
	// the queue, and the client is not read until its output drains.
	MaxOutputBytes int
	// MaxUnfinishedBytes bounds the unanswered messages of a connection: 8 MiB.
	// It is not read while there are more.
	MaxUnfinishedBytes int
	// Client bounds every client, Users those of certain users, by name.
	Client Limits
	Users  map[string]*UserLimits
	// Addresses bans addresses that connect too often (0x9F), FailedLogins those
	// from which too many logins fail, Flapping clients that connect too often
	// (0x8A): as one client, one user and one address. Zero: nobody.
	Addresses, FailedLogins, Flapping Ban
	// PacketTimeout is how long a packet that has begun to come may take: 60 s.
	// StallTimeout is how long a client may take nothing of what is sent to it:
	// 60 s. Then their connections end.
	PacketTimeout, StallTimeout time.Duration
	// MaxConnections bounds the connections of this node: no bound.
	MaxConnections int
	// ConnectRate is how many connections are accepted per second at most, fewer
	// while processors are short: 1,000 for each processor. Negative: no bound.
	ConnectRate int
	// MaxHalfOpen bounds the connections that have not sent CONNECT, or are in the
	// exchange of AUTH that it asks for: 2,048. The oldest makes room for the next.
	MaxHalfOpen int
	// MemoryLimit is how many bytes of memory the process may use; 0 for no
	// bound. Near it clients are refused, publishers paused, QoS 0 messages
	// dropped and the slowest clients closed, in this order.
	MemoryLimit int64
	// MemoryUsed measures the memory in use and counts the collections after
	// which that is exact; nil for the process's own. Tests say what they want.
	MemoryUsed func() (bytes, cycles uint64)
	// ConnectTimeout is how long a connection may take to send CONNECT, and to get
	// through the exchange of AUTH that it asks for; so long, too, may
	// re-authentication take: 10 s.
	ConnectTimeout time.Duration
}

func (c Config) withDefaults() Config {
	or(&c.Log, slog.Default())
	or(&c.LetGoRate, defaultLetGoRate)
	or(&c.MaxPacketBytes, defaultMaxPacketBytes)
	or(&c.MaxInFlight, defaultMaxInFlight)
	or(&c.ReceiveMaximum, defaultReceiveMaximum)
	or(&c.TopicAliasMaximum, defaultTopicAliasMaximum)
	or(&c.MaxKeepAlive, defaultMaxKeepAlive)
	or(&c.MaxQueue, defaultMaxQueue)
	or(&c.MaxQueueBytes, defaultMaxQueueBytes)
	or(&c.MaxOutputBytes, defaultMaxOutputBytes)
	or(&c.MaxUnfinishedBytes, defaultMaxUnfinishedBytes)
	or(&c.ConnectRate, defaultConnectRate*runtime.GOMAXPROCS(0))
	or(&c.MaxHalfOpen, defaultMaxHalfOpen)
	or(&c.PacketTimeout, defaultPacketTimeout)
	or(&c.StallTimeout, defaultStallTimeout)
	or(&c.ConnectTimeout, defaultConnectTimeout)
	c.TopicAliasMaximum = min(max(c.TopicAliasMaximum, 0), 65535)
	c.MaxKeepAlive = min(c.MaxKeepAlive, defaultMaxKeepAlive)
	if c.NewClientID == nil {
		node := c.NodeID
		c.NewClientID = func() string { return fmt.Sprintf("%s-%s", node, rand.Text()) }
	}
	return c
}

// or gives *v the value def if it has none.
func or[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
