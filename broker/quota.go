package broker

import (
	"strings"
	"time"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// Limits bound what one client may do and cost. What is zero is as the less
// specific Limits say: those of a user come before those of the listener, these
// before Config.Client, and these before Config itself. A more specific one may
// be wider as well as narrower.
type Limits struct {
	// PublishRate and PublishBytesRate bound what the client publishes, in messages
	// and in bytes of Topic Name and payload per second. A client that was quiet may
	// publish a second's worth at once.
	PublishRate, PublishBytesRate float64
	// RequestRate bounds SUBSCRIBE, UNSUBSCRIBE and PINGREQ packets per second,
	// likewise.
	RequestRate float64
	// Disconnect ends connections that exceed a rate (0x96). Without it they are
	// not read until it is kept, which loses nothing.
	Disconnect bool
	// MaxPacketBytes, MaxInFlight, ReceiveMaximum, MaxKeepAlive, MaxSessionExpiry,
	// MaxQueue, MaxQueueBytes and Queue are as in Config.
	MaxPacketBytes int
	MaxInFlight    uint16
	ReceiveMaximum uint16
	MaxKeepAlive,
	MaxSessionExpiry time.Duration
	MaxQueue      int
	MaxQueueBytes int
	Queue         *shoalpb.QueueLimits
	// MaxTopicBytes and MaxTopicLevels bound Topic Names and Filters: 65,535 bytes
	// and topic.MaxLevels. Above: 0x90, 0x8F.
	MaxTopicBytes, MaxTopicLevels int
	// MaxSubscriptions bounds the subscriptions of a session (0x97): 100,000 of a
	// transient one, and of a durable one, which are replicated, 10,000, which is
	// the most.
	MaxSubscriptions int
}

// Quota bounds what the clients of a user, or of a listener, may do together on
// this node. Zero is no bound.
type Quota struct {
	// MaxConnections: more are refused with 0x97 (3.1.1: 0x03).
	MaxConnections int
	// PublishRate and PublishBytesRate are as in Limits, for all together.
	PublishRate, PublishBytesRate float64
}

// UserLimits are those of a user.
type UserLimits struct {
	Quota
	// Each of its clients has these.
	Each Limits
}

// bounds are the Limits of a connection, complete. They are shared by all that
// have the same, and never change.
type bounds struct {
	Limits
	meters []*meter // that others publish through too
}

// over gives l the values of the more specific m.
func (l Limits) over(m *Limits) Limits {
	set(&l.PublishRate, m.PublishRate)
	set(&l.PublishBytesRate, m.PublishBytesRate)
	set(&l.RequestRate, m.RequestRate)
	set(&l.Disconnect, m.Disconnect)
	set(&l.MaxPacketBytes, m.MaxPacketBytes)
	set(&l.MaxInFlight, m.MaxInFlight)
	set(&l.ReceiveMaximum, m.ReceiveMaximum)
	set(&l.MaxKeepAlive, m.MaxKeepAlive)
	set(&l.MaxSessionExpiry, m.MaxSessionExpiry)
	set(&l.MaxQueue, m.MaxQueue)
	set(&l.MaxQueueBytes, m.MaxQueueBytes)
	set(&l.Queue, m.Queue)
	set(&l.MaxTopicBytes, m.MaxTopicBytes)
	set(&l.MaxTopicLevels, m.MaxTopicLevels)
	set(&l.MaxSubscriptions, m.MaxSubscriptions)
	return l
}

// complete gives the shard what it is to enforce.
func (l Limits) complete() Limits {
	if l.MaxSubscriptions == 0 {
		return l
	}
	q := &shoalpb.QueueLimits{Messages: l.Queue.GetMessages(), Bytes: l.Queue.GetBytes(), Policy: l.Queue.GetPolicy()}
	q.Subscriptions = uint64(l.MaxSubscriptions)
	l.Queue = q
	return l
}

// subscriptions that a transient session may have.
func (l *Limits) subscriptions() int {
	if l.MaxSubscriptions > 0 {
		return min(l.MaxSubscriptions, maxSubscriptions)
	}
	return maxSubscriptions
}

// set gives *v the value n if that is one.
func set[T comparable](v *T, n T) {
	var zero T
	if n != zero {
		*v = n
	}
}

// limits are what Config says for every client.
func (c *Config) limits() Limits {
	return Limits{
		MaxPacketBytes: c.MaxPacketBytes, MaxInFlight: c.MaxInFlight, ReceiveMaximum: c.ReceiveMaximum,
		MaxKeepAlive: c.MaxKeepAlive, MaxSessionExpiry: c.MaxSessionExpiry,
		MaxQueue: c.MaxQueue, MaxQueueBytes: c.MaxQueueBytes, Queue: c.Queue,
	}.over(&c.Client)
}

// meterOf is the meter for what clients of a quota publish, nil for none.
func (q *Quota) meterOf() *meter {
	return newMeter(q.PublishRate, q.PublishBytesRate, true)
}

// tooLong tells whether a Topic Name or Filter exceeds the bounds.
func (l *Limits) tooLong(name string) bool {
	return l.MaxTopicBytes > 0 && len(name) > l.MaxTopicBytes ||
		l.MaxTopicLevels > 0 && strings.Count(name, "/") >= l.MaxTopicLevels
}
