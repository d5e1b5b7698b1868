package broker

import (
	"github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// Cluster is the replicated side, as the front end needs it. Package cluster
// provides it; cmd/shoal joins the two.
type Cluster interface {
	// Ready returns nil if this node can serve clients now, else the reason in
	// words.
	Ready() error
	// Open makes the new connection, seen as sink, the owner of its session.
	// done gets ErrUnavailable within 2 s without a quorum. The rules of
	// session.Link for done hold.
	Open(r session.OpenRequest, sink session.Sink, done func(session.Link, session.Opened, error))
	// AddRoute says that a transient session of this node has subscribed
	// filter with qos. It is called after the subscription stands in the
	// front end's own trie, once for each subscription; done(nil) comes when
	// every node matches it (SUBACK), or when the last one has taken it back
	// before. A Shared Subscription's filter is the whole
	// of it, "$share/{ShareName}/{filter}"; each call is one member.
	AddRoute(filter string, qos uint8, done func(error))
	// RemoveRoute takes one AddRoute back.
	RemoveRoute(filter string, qos uint8)
	// PublishQoS0 routes a QoS 0 message: to this node's transient subscribers
	// through Local.Deliver before it returns, to everything else in the
	// background, bounded, drops counted. m and what it points to stay the
	// caller's: it is valid only during the call.
	PublishQoS0(m *shoalpb.Message)
	// Retained reads the retained messages that match filter, page by page, in
	// order of topic within a shard: each page is current, as of some time after
	// the call. The cursor to begin with is the zero value; done gets the next
	// one. The messages are shared and read only.
	//
	// When done is called, every publish of a message in the page, and of what the
	// register had before, has been through Local.Deliver here, if it matched this
	// node. What was matched when the first page of a shard was asked for is in the
	// registers that are read.
	Retained(filter string, from session.RetainedCursor, done func(page []*shoalpb.Message, next session.RetainedCursor, err error))
	// RegisterOf is the shard that keeps the retained message of a topic: where
	// Retained comes to it.
	RegisterOf(topic string) uint32
	// Redispatch gives a message of QoS ≥ 1 that a transient member of a Shared
	// Subscription has not finished to another member. It is called after the
	// member's own subscription is gone. The message is shared and read only.
	Redispatch(share string, m *shoalpb.Message)
}

// Local is the one callback of the replicated side: this node's transient
// subscribers. Broker implements it.
type Local interface {
	// Deliver hands a message to the transient subscribers of this node that
	// match. It enqueues or drops and counts, and never waits for a client.
	// For QoS 0 m is valid only during the call; for QoS ≥ 1 it is shared and
	// read only. picks are the Shared Subscriptions of which one member here gets
	// a copy; if one has no member here any more, a message of QoS ≥ 1 goes back
	// by Redispatch.
	Deliver(m *shoalpb.Message, picks []*shoalpb.Pick)
}
