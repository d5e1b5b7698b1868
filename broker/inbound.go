package broker

import (
	"time"

	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/broker/topic"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// incoming is the state of the QoS 1 and 2 messages that a client publishes,
// guarded by conn.mu.
type incoming struct {
	session *session.Inbound
	pubacks session.AckOrder[answer]
	pubrecs session.AckOrder[answer]
	bytes   int // of messages not answered
}

// incomingState makes the state when it is first needed: most connections never
// publish with QoS 1 or 2. mu is held.
func (c *conn) incomingState() *incoming {
	if c.incoming != nil {
		return c.incoming
	}
	limit := c.bounds.ReceiveMaximum
	if c.version != packet.V5 {
		limit = 65535 // they are not told one: pausing bounds them
	}
	c.incoming = &incoming{session: session.NewInbound(limit)}
	if c.resumed {
		c.incoming.session = session.NewResumedInbound(limit)
	}
	return c.incoming
}

// order is where PUBACKs, or PUBRECs, wait for their turn.
func (in *incoming) order(qos uint8) *session.AckOrder[answer] {
	if qos == 2 {
		return &in.pubrecs
	}
	return &in.pubacks
}

// unanswered counts the messages that wait for PUBACK or PUBREC.
func (in *incoming) unanswered() int { return in.pubacks.Len() + in.pubrecs.Len() }

// handlePublish checks a PUBLISH and sends its message through the door.
func (c *conn) handlePublish(r *reader, h packet.Header, body []byte) error {
	p := &r.publish
	if err := p.Decode(h, body, c.version); err != nil {
		return err
	}
	if err := p.CheckClient(); err != nil {
		return err
	}
	name, err := c.topicName(p)
	if err != nil {
		return err
	}
	if err := c.meterPublish(len(name) + len(p.Payload)); err != nil {
		return err
	}
	c.broker.metrics.received[p.QoS].Add(1)
	allowed := !c.restricted() || c.mayPublish(p, name)
	if p.QoS == packet.QoS0 {
		if !allowed {
			return c.refusePublish()
		}
		m := &r.message
		fillMessage(m, p, name, c.client)
		if p.Retain { // [MQTT-3.3.1-5]; before the match, see session.Link
			c.retain(ownMessage(p, name, c.client))
		}
		c.broker.cluster.PublishQoS0(m)
		return nil
	}
	return c.publish(p, name, allowed)
}

// topicName returns the Topic Name of a PUBLISH, which may be an alias.
func (c *conn) topicName(p *packet.Publish) (string, error) {
	if p.HasAlias && int(p.TopicAlias) > c.broker.config.TopicAliasMaximum { // [MQTT-3.3.2-9]
		return "", &packet.Error{Code: packet.CodeTopicAliasInvalid, Packet: packet.TypePublish, Reason: "topic alias is above the maximum"}
	}
	if len(p.Topic) == 0 {
		return c.aliased(p.TopicAlias)
	}
	if string(p.Topic) != c.topic {
		name := string(p.Topic)
		if err := topic.ValidateName(name); err != nil { // [MQTT-3.3.2-2]
			return "", &packet.Error{Code: packet.CodeTopicNameInvalid, Packet: packet.TypePublish, Reason: err.Error()}
		}
		if c.bounds.tooLong(name) {
			return "", c.hit(limitTopic, packet.CodeTopicNameInvalid, packet.TypePublish, "topic name is longer, or has more levels, than it may")
		}
		c.topic = name
	}
	if p.HasAlias {
		for len(c.aliases) < int(p.TopicAlias) {
			c.aliases = append(c.aliases, "")
		}
		c.aliases[p.TopicAlias-1] = c.topic
	}
	return c.topic, nil
}

func (c *conn) aliased(alias uint16) (string, error) {
	if int(alias) > len(c.aliases) || c.aliases[alias-1] == "" { // MQTT 5 §3.3.2.3.4
		return "", &packet.Error{Code: packet.CodeProtocolError, Packet: packet.TypePublish, Reason: "topic alias has no topic name"}
	}
	return c.aliases[alias-1], nil
}

// fillMessage makes m the message of a PUBLISH, aliasing its payload and
// properties.
func fillMessage(m *shoalpb.Message, p *packet.Publish, name, publisher string) {
	m.Topic, m.Payload, m.Properties = name, p.Payload, p.Forward
	m.Qos, m.Retain, m.Publisher = uint32(p.QoS), p.Retain, publisher
	m.ExpiryMs = nil
	if p.HasExpiry {
		m.ExpiryMs = expiryMillis(p.MessageExpiry)
	}
}

func expiryMillis(seconds uint32) *uint64 {
	ms := uint64(seconds) * 1000
	return &ms
}

// ownMessage is the message of a PUBLISH with memory of its own.
func ownMessage(p *packet.Publish, name, publisher string) *shoalpb.Message {
	m := new(shoalpb.Message)
	fillMessage(m, p, name, publisher)
	n := len(p.Payload)
	data := make([]byte, n+len(p.Forward))
	copy(data, p.Payload)
	copy(data[n:], p.Forward)
	m.Payload, m.Properties = data[:n:n], data[n:]
	return m
}

// publish has the session record a message of QoS 1 or 2 and hands it to the
// Link. What the Link answers comes to answers.go. What is not allowed is
// recorded too, for it is answered in its turn.
func (c *conn) publish(p *packet.Publish, name string, allowed bool) error {
	qos, id := uint8(p.QoS), p.PacketID
	c.mu.Lock()
	in := c.incomingState()
	a := answer{qos: qos, id: id, size: len(p.Payload), at: time.Now()}
	var token session.Token
	result := in.session.Publish(qos, id, p.Dup)
	switch result {
	case session.InboundNew:
		a.counted = true
		token = in.order(qos).Push()
		in.bytes += a.size
		c.pausePublisher()
	case session.InboundRepeat:
		c.answerAtOnce(in, a)
	case session.InboundInUse:
		a.code = packet.CodePacketIdentifierInUse
		c.answerAtOnce(in, a)
	}
	c.unlock()
	switch result {
	case session.InboundExceeded: // [MQTT-3.3.4-7]
		return &packet.Error{Code: packet.CodeReceiveMaximumExceeded, Packet: packet.TypePublish, Reason: "receive maximum exceeded"}
	case session.InboundNew:
		if !allowed {
			return c.deny(p.Dup, a, token)
		}
		c.route(p.Dup, ownMessage(p, name, c.client), a, token)
	}
	return nil
}

// deny answers a PUBLISH that may not be: with 0x87, or, in MQTT 3, which has no
// word for it, as ever.
func (c *conn) deny(dup bool, a answer, token session.Token) error {
	if err := c.refusePublish(); err != nil {
		return err
	}
	if c.version == packet.V5 {
		a.code = packet.CodeNotAuthorized
	}
	if dup && a.qos == 2 && c.durable && a.code.Failed() {
		// A former connection may have begun the exchange, when it was allowed. The
		// client takes it as ended, so its shard has to.
		c.link.Released(a.id, func(_ bool, err error) { c.published(a, token, err) })
		return nil
	}
	c.published(a, token, nil)
	return nil
}

// route gives a message to the Link: its shard decides the fate of a durable
// publisher's QoS 2 message once.
func (c *conn) route(dup bool, m *shoalpb.Message, a answer, token session.Token) {
	done := func(err error) { c.published(a, token, err) }
	if a.qos == 2 && c.durable {
		c.link.Received(a.id, dup, m, done)
	} else {
		c.link.Publish(m, done)
	}
}

// retain hands a message of QoS 0 to its register.
func (c *conn) retain(m *shoalpb.Message) {
	c.mu.Lock()
	if c.retaining++; c.retaining >= maxRetaining {
		c.paused |= pausePublish
	}
	c.mu.Unlock()
	c.link.Retain(m, func() {
		c.mu.Lock()
		defer c.unlock()
		c.retaining--
		c.publishOn()
		c.workLine()
	})
}

// pausePublisher stops reading a client while too much of what it published is
// unanswered. mu is held.
func (c *conn) pausePublisher() {
	if c.unfinishedTooMany() {
		c.paused |= pausePublish
	}
	if c.broker.memory.short(memoryPause) {
		c.broker.memory.pause(c)
	}
}

// publishOn reads a client again that was paused for what it published. mu is held.
func (c *conn) publishOn() {
	if c.paused&pausePublish != 0 && !c.unfinishedTooMany() {
		c.seen.Store(time.Now().UnixNano()) // it could not be heard
		c.resume(pausePublish)
	}
}

// unfinishedTooMany counts messages of QoS 1 and 2 for MQTT 3 clients only: the
// others are held to the Receive Maximum. mu is held.
func (c *conn) unfinishedTooMany() bool {
	if c.retaining >= maxRetaining {
		return true
	}
	in, config := c.incoming, &c.broker.config
	return in != nil && (in.bytes > config.MaxUnfinishedBytes || c.version != packet.V5 && in.unanswered() >= int(c.bounds.ReceiveMaximum))
}
