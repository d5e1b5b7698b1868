package session

import (
	"errors"
	"time"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// The two halves of a session meet in the types of this file: the connection's
// half (package broker), which speaks MQTT, and the replicated half (package
// cluster), which remembers. Neither imports the other.
//
// Rules for every done function and every method of Sink: they may be called
// from any goroutine, at any time after the call that passed them, also before
// it returns; they must not block and must not call back into the Link that
// called them while holding a lock that a Link method's caller may hold. Each
// done is called exactly once. A done with a nil error means: committed by a
// quorum and fsynced (design: "an acknowledgement means done").

// Errors of the replicated half, as a connection has to tell them apart.
var (
	// ErrUnavailable: no quorum, no lease, or a shard was away for longer than
	// the bound. CONNECT gets 0x88 (3.1.1: 0x03); a connection that waited is
	// closed with 0x88 and nothing it waited for is acknowledged.
	ErrUnavailable = errors.New("the cluster has no quorum for this at the moment")
	// ErrNotOwner: another connection has the session now (0x8E), or this
	// node's process was fenced. The connection closes.
	ErrNotOwner = errors.New("another connection owns the session")
	// ErrQuota: a limit of the session or its shard is reached (0x97).
	ErrQuota = errors.New("quota exceeded")
	// ErrQueueFull: the queue of a matching session is full, and its policy is
	// that the publisher is told (0x97). The others got the message.
	ErrQueueFull = errors.New("the queue of a subscriber is full")
	// ErrIDInUse: a QoS 2 Packet Identifier is in use by another message (0x91).
	ErrIDInUse = errors.New("packet identifier in use")
	// ErrUndecided: nobody knows whether the session will be opened, or was: the
	// connection closes without CONNACK, as one with an error would be a promise
	// that nothing happens.
	ErrUndecided = errors.New("the session was not opened in time")
	// ErrBusy: the node admits no more work for now (0x89 to CONNECT).
	ErrBusy = errors.New("the server is busy")
	// ErrClosed: the Link was closed, or the node is stopping.
	ErrClosed = errors.New("connection closed")
)

// OpenRequest asks for the ownership of a Client Identifier's session.
type OpenRequest struct {
	Client     string
	CleanStart bool
	// ExpirySeconds is the Session Expiry Interval: 0 asks for a transient
	// session, 0xFFFFFFFF never expires (3.1.1: Clean Session 0).
	ExpirySeconds uint32
	// Window is min(Receive Maximum, max in flight) of the connection, ≥ 1.
	Window uint16
	Will   *shoalpb.Will
	// Queue bounds what waits for the session; nil for the defaults.
	Queue *shoalpb.QueueLimits
	// Waits, if not nil, tells whether the client still waits for its CONNACK. It
	// is asked before a connection is ended for the client's sake.
	Waits func() bool
}

// Opened is what the shard decided about an OpenRequest.
type Opened struct {
	// Present is the Session Present flag.
	Present bool
	// Durable is the class of the session: durable ones are reached through
	// their shard and Link.Subscribe; transient ones live in the memory of the
	// connection's node and use Cluster.AddRoute.
	Durable bool
	// SentHi is the highest seq that may have been sent by former connections:
	// on the first sending by this one DUP is 1 exactly for seq <= SentHi.
	SentHi uint64
}

// Link is an open connection's door to its session's shard. It is made by
// Cluster.Open and used by one connection. Methods do not block; messages and
// slices passed in belong to the Link from then on.
type Link interface {
	// Publish routes a message of QoS 1, or of QoS 2 from a transient
	// publisher, and calls done when every shard has committed it and every
	// node with transient subscribers has accepted it (PUBACK, PUBREC).
	// Messages of one Link are routed in the order of the calls. With the RETAIN
	// flag done waits for the topic's register too.
	Publish(m *shoalpb.Message, done func(error))
	// Retain hands a message of QoS 0 with the RETAIN flag to the topic's
	// register, in order with what was published before; the live copies are
	// Cluster.PublishQoS0's, which is called afterwards: a new subscription that it
	// does not match waits for the register. done comes when the register has it, or
	// a later one of this Link, or when it is lost and counted; of several that wait
	// for one topic the last is kept.
	Retain(m *shoalpb.Message, done func())
	// Received records a QoS 2 message of a durable publisher. done(nil) means
	// PUBREC with success, also for a repeat; ErrIDInUse means PUBREC 0x91.
	Received(id uint16, dup bool, m *shoalpb.Message, done func(error))
	// Released ends the exchange that Received began. done(known, nil) means
	// PUBCOMP; known false means Reason Code 0x92.
	Released(id uint16, done func(known bool, err error))
	// Subscribe adds or replaces subscriptions of a durable session. done comes
	// when they are committed and visible on every node (SUBACK); existed tells
	// for each whether the filter was subscribed before.
	Subscribe(subs []*shoalpb.Subscription, done func(existed []bool, err error))
	// Unsubscribe removes subscriptions of a durable session (UNSUBACK).
	Unsubscribe(filters []string, done func(existed []bool, err error))
	// Ack finishes the entry seq of a durable session: PUBACK, PUBCOMP, or
	// PUBREC >= 0x80 came. It is not confirmed.
	Ack(seq uint64)
	// Expired finishes the entry seq of a durable session, which was not sent on
	// this connection: its Message Expiry Interval has passed. It is not
	// confirmed.
	Expired(seq uint64)
	// Release records that PUBREC came for seq; done(nil) allows PUBREL.
	Release(seq uint64, done func(error))
	// Fetch starts deliveries to the Sink, after seq (0 for all). Called once,
	// when CONNACK is on its way. Transient sessions need no Fetch.
	Fetch()
	// Close ends the connection's ownership, behind everything that was handed over
	// before: that goes on to its end, for what a client has sent outlives its
	// connection. Idempotent. No done comes after Close returned except those
	// already running.
	Close(r CloseRequest)
}

// CloseRequest tells how a connection ended.
type CloseRequest struct {
	// ExpirySeconds is the Session Expiry Interval of DISCONNECT, nil if
	// unchanged.
	ExpirySeconds *uint32
	// DiscardWill: DISCONNECT with Reason Code 0x00 ([MQTT-3.1.2-10]).
	DiscardWill bool
}

// Sink is the connection as its Link sees it.
type Sink interface {
	// Deliver hands over entries of a durable session's queue, ascending in
	// Seq within and over calls, except that after a change of the shard's
	// leader entries may come again: the Sink ignores a Seq it has. Entries
	// with Seq 0 are QoS 0. The Sink holds at most what the window allows
	// times two: the shard does not send more than max(2 × window, 64)
	// unfinished entries.
	Deliver(entries []Delivery)
	// Superseded tells that another connection owns the session: send
	// DISCONNECT 0x8E and close. Link.Close follows from the connection.
	Superseded()
	// Lost tells that the node lost its lease for too long or was fenced:
	// close (0x88), without waiting for anything.
	Lost(err error)
}

// Delivery is one entry of a durable session's queue.
type Delivery struct {
	// Seq numbers the entries of a session; the Packet Identifier is
	// PacketID(Seq). 0 for QoS 0.
	Seq uint64
	// QoS is min(published, granted).
	QoS uint8
	// Released: PUBREC was received; PUBREL is owed instead of PUBLISH.
	Released bool
	// Retain is the RETAIN flag to send.
	Retain bool
	// Identifiers are the Subscription Identifiers of all matching
	// subscriptions, none if empty.
	Identifiers []uint32
	// Age is how long the message has waited in the shard: what is left of its
	// Message Expiry Interval is less by it ([MQTT-3.3.2-6]).
	Age time.Duration
	// Share is the Shared Subscription that a delivery to a transient session
	// came through, empty if none: what its member leaves unfinished goes to
	// another (Cluster.Redispatch).
	Share string
	// Message is shared and read only.
	Message *shoalpb.Message
}

// RetainedCursor is where a replay of retained messages stands.
type RetainedCursor struct {
	// Group is the shard to read next, After the last topic read of it.
	Group uint32
	After string
	// Settle: retained publishes that are under way when the page is asked for are
	// waited for before it is read, as they are before the first page of a shard.
	Settle bool
	// Done: there is no more.
	Done bool
}

// PacketID is the outbound Packet Identifier of the queue entry seq (≥ 1): any
// node resends an entry with the same one.
func PacketID(seq uint64) uint16 { return uint16((seq-1)%65535) + 1 }
