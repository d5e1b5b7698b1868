package broker

import "github.com/shoalmq/shoal/broker/packet"

// Authorizer decides what clients may do. Safe for concurrent use; it does not
// block: what it needs it has in memory.
type Authorizer interface {
	// Permissions returns those of a client, for as long as it is connected. They
	// follow changes of the rules by themselves. nil allows everything.
	// ErrNotAuthorized, possibly wrapped, if it may not connect at all. c is kept.
	Permissions(c *Client) (Permissions, error)
}

// Client is who asks.
type Client struct {
	ID       string
	Identity *Identity
	Peer     *Peer
}

// Permissions are what one client may do. Safe for concurrent use. They are asked
// for every message of the client, so they remember their last answers.
type Permissions interface {
	// Publish tells whether the client may publish to a valid Topic Name.
	Publish(topic string, qos packet.QoS, retain bool) bool
	// Subscribe tells whether it may subscribe to a valid Topic Filter, without
	// the $share of a Shared Subscription. A filter is allowed if it matches some
	// topic that may be received: Receive looks at each message. That of a Shared
	// Subscription is allowed if all that it matches may be, for a message that is
	// not received is lost to the other members.
	Subscribe(filter string, qos packet.QoS, shared bool) bool
	// Receive tells whether a message of this Topic Name may be delivered to the
	// client, whatever subscription matched it, and whenever that was made.
	Receive(topic string) bool
}
