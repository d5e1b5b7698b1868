package broker

import (
	"github.com/shoalmq/shoal/broker/packet"
	shoalpb "github.com/shoalmq/shoal/proto"
)

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
// for every message of the client, under a lock of its connection, so they
// remember their last answers, and do not call the Broker. Strings are the
// caller's: what is kept of them is cloned.
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

// restricted tells whether there is anything to ask: the one thing that a client
// without Permissions costs for each message.
func (c *conn) restricted() bool { return c.may.Load() != nil }

// mayPublish asks about a PUBLISH.
func (c *conn) mayPublish(p *packet.Publish, name string) bool {
	may := c.may.Load()
	return may == nil || (*may).Publish(name, p.QoS, p.Retain)
}

// maySubscribe asks about a Topic Filter, without its $share.
func (c *conn) maySubscribe(filter string, qos packet.QoS, shared bool) bool {
	may := c.may.Load()
	return may == nil || (*may).Subscribe(filter, qos, shared)
}

// mayReceive asks about a delivery. It is asked before each: live, queued, of a
// Shared Subscription, retained.
func (c *conn) mayReceive(m *shoalpb.Message) bool {
	may := c.may.Load()
	return may == nil || (*may).Receive(m.Topic)
}

// withheld is a delivery that may not be, and is counted. mu is held.
func (c *conn) withheld(m *shoalpb.Message) bool {
	if c.mayReceive(m) {
		return false
	}
	c.broker.metrics.dropped[dropNotAuthorized].Add(1)
	return true
}

// refusePublish counts a PUBLISH that may not be. It returns the error that ends
// the connection, if that is what Config wants.
func (c *conn) refusePublish() error {
	c.broker.metrics.publishRefused[refusedNotAuthorized].Add(1)
	if !c.broker.config.DisconnectDenied {
		return nil
	}
	return &packet.Error{Code: packet.CodeNotAuthorized, Packet: packet.TypePublish, Reason: "not authorized to publish to this topic"}
}
