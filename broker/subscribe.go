package broker

import (
	"errors"
	"sync/atomic"

	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/broker/topic"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// handleSubscribe is SUBSCRIBE. SUBACK has one code for each Topic Filter, in
// order ([MQTT-3.8.4-6]), and leaves when the subscriptions that it grants are
// visible on every node.
func (c *conn) handleSubscribe(p *packet.Subscribe) error {
	if err := c.meterRequest(packet.TypeSubscribe); err != nil {
		return err
	}
	codes := make([]packet.Code, len(p.Subscriptions))
	var granted []*shoalpb.Subscription
	var places []int // of granted in codes
	for i, s := range p.Subscriptions {
		code, err := c.checkSubscription(s)
		if err != nil {
			return err
		}
		codes[i] = code
		if code.Failed() {
			continue
		}
		places = append(places, i)
		if c.bridge {
			s = bridged(s)
		}
		granted = append(granted, &shoalpb.Subscription{
			Filter: s.Filter, Qos: uint32(s.QoS), NoLocal: s.NoLocal, RetainAsPublished: s.RetainAsPublished,
			RetainHandling: uint32(s.RetainHandling), Identifier: p.SubscriptionID,
		})
	}
	switch {
	case len(granted) == 0:
		c.subscribed(p.PacketID, codes, nil)
	case c.durable:
		weight := filtersWeight(p.Subscriptions, subscribedFilter)
		c.asking(weight)
		c.changeSubscriptions(&c.subscribing)
		c.link.Subscribe(granted, func(_ []bool, err error) {
			c.mu.Lock()
			c.subscribedLocked(p.PacketID, codes, err)
			c.subscribeAnswered()
			c.unlock()
			c.answered(weight)
		})
	default:
		c.subscribeHere(p.PacketID, codes, places, granted)
	}
	return nil
}

// bridged gives a subscription of a bridge that speaks MQTT 3 what one of MQTT 5
// would ask for: nothing comes back that it brought, and RETAIN stays as it was.
func bridged(s packet.Subscription) packet.Subscription {
	s.NoLocal = !isShared(s.Filter)
	s.RetainAsPublished = true
	return s
}

func subscribedFilter(s packet.Subscription) string { return s.Filter }

// checkForm returns an error for what is no Topic Filter if the client speaks
// MQTT 3: a violation of the protocol ends the connection ([MQTT-4.8.0-1],
// [MQTT-4.7.1-2], [MQTT-4.7.1-3]), for which 3.1.1 has no code and 3.1 none for any
// failure. MQTT 5 has one for each filter (0x8F in SUBACK and UNSUBACK). A Shared
// Subscription without a Share Name is a filter like others in MQTT 3, and one with
// more levels than we keep breaks no rule.
func (c *conn) checkForm(t packet.Type, filter string) error {
	if c.version == packet.V5 {
		return nil
	}
	err := topic.ValidateFilter(filter)
	if err == nil || errors.Is(err, topic.ErrTooManyLevels) {
		return nil
	}
	return &packet.Error{Code: packet.CodeTopicFilterInvalid, Packet: t, Reason: err.Error()}
}

// checkSubscription returns the code to grant, or why not.
func (c *conn) checkSubscription(s packet.Subscription) (packet.Code, error) {
	if err := c.checkForm(packet.TypeSubscribe, s.Filter); err != nil {
		return 0, err
	}
	_, filter, shared, err := topic.ParseShare(s.Filter)
	switch {
	case err != nil:
		return packet.CodeTopicFilterInvalid, nil
	case shared && s.NoLocal: // [MQTT-3.8.3-4]
		return 0, &packet.Error{Code: packet.CodeProtocolError, Packet: packet.TypeSubscribe, Reason: "no local on a shared subscription"}
	case c.bounds.tooLong(filter):
		c.broker.metrics.limits[limitTopic].Add(1)
		return packet.CodeTopicFilterInvalid, nil
	case !c.maySubscribe(filter, s.QoS, shared):
		return packet.CodeNotAuthorized, nil
	}
	return packet.Code(s.QoS), nil
}

// subscribeHere subscribes for a transient session: first in the trie, then the
// routes that bring messages here.
func (c *conn) subscribeHere(id uint16, codes []packet.Code, places []int, granted []*shoalpb.Subscription) {
	// One more than the routes, so that the answer waits for all to be asked.
	var waiting atomic.Int32
	waiting.Store(int32(len(granted)) + 1)
	var failed atomic.Pointer[error]
	var owed []*replay
	weight := filtersWeight(granted, (*shoalpb.Subscription).GetFilter)
	c.asking(weight)
	c.changeSubscriptions(&c.subscribing)
	answered := func(err error) {
		if err != nil {
			failed.Store(&err)
		}
		if waiting.Add(-1) > 0 {
			return
		}
		if e := failed.Load(); e != nil {
			err = *e
		}
		finish := func() {
			c.mu.Lock()
			c.subscribedLocked(id, codes, err)
			c.startReplays(owed, err == nil)
			c.subscriptionsChanged(&c.subscribing)
			c.unlock()
			c.answered(weight)
		}
		if err != nil || !c.prefetch(owed, finish) {
			finish()
		}
	}
	for i, s := range granted {
		_, _, shared, _ := topic.ParseShare(s.Filter)
		replays := s.RetainHandling != 2 && !shared // MQTT 5 §3.3.1.3, §4.8.2
		var r *replay
		if replays {
			r = c.announce(s.Filter)
		}
		former, ok := c.broker.subs.add(c, s)
		if replays { // [MQTT-3.3.1-9] to [MQTT-3.3.1-11]
			sub, stands := c.broker.subs.lookup(c, s.Filter)
			if c.owe(r, sub.born, ok && stands && (s.RetainHandling == 0 || former == noRoute)) {
				owed = append(owed, r)
			}
		}
		if !ok {
			codes[places[i]] = packet.CodeQuotaExceeded
			c.broker.metrics.limits[limitSubscriptions].Add(1)
			answered(nil)
			continue
		}
		c.broker.cluster.AddRoute(s.Filter, uint8(s.Qos), func(err error) {
			if former != noRoute { // the new route stands: no message is missed between
				c.broker.cluster.RemoveRoute(s.Filter, uint8(former))
			}
			answered(err)
		})
		if !c.broker.subs.routed(c, s.Filter) {
			c.broker.cluster.RemoveRoute(s.Filter, uint8(s.Qos))
		}
	}
	answered(nil)
}

// subscribed answers SUBSCRIBE.
func (c *conn) subscribed(id uint16, codes []packet.Code, err error) {
	c.mu.Lock()
	c.subscribedLocked(id, codes, err)
	c.unlock()
}

// subscribedLocked is subscribed with mu held.
func (c *conn) subscribedLocked(id uint16, codes []packet.Code, err error) {
	if c.phase.Load() != serving {
		return
	}
	if err != nil {
		code, ok := errorCode(err)
		if !ok {
			c.fail(err)
			return
		}
		if code == packet.CodeQuotaExceeded {
			c.broker.metrics.limits[limitSubscriptions].Add(1)
		}
		for i := range codes {
			if !codes[i].Failed() {
				codes[i] = code
			}
		}
	}
	p := packet.Suback{PacketID: id, Codes: codes}
	c.append(packet.TypeSuback, func(dst []byte) []byte { return p.AppendLimit(dst, c.version, c.maxPacket) })
}

// handleUnsubscribe is UNSUBSCRIBE. UNSUBACK comes also when nothing was deleted
// ([MQTT-3.10.4-5]), with 0x11 for the filter concerned ([MQTT-3.11.3-2]).
func (c *conn) handleUnsubscribe(p *packet.Unsubscribe) error {
	if err := c.meterRequest(packet.TypeUnsubscribe); err != nil {
		return err
	}
	codes := make([]packet.Code, len(p.Filters))
	var valid []string
	for i, filter := range p.Filters {
		if err := c.checkForm(packet.TypeUnsubscribe, filter); err != nil {
			return err
		}
		if _, _, _, err := topic.ParseShare(filter); err != nil {
			codes[i] = packet.CodeTopicFilterInvalid
		} else {
			valid = append(valid, filter)
		}
	}
	switch {
	case len(valid) == 0:
		c.unsubscribed(p.PacketID, codes, nil, nil)
	case c.durable:
		weight := filtersWeight(valid, func(f string) string { return f })
		c.asking(weight)
		c.changeSubscriptions(&c.unsubscribing)
		c.link.Unsubscribe(valid, func(existed []bool, err error) {
			c.unsubscribed(p.PacketID, codes, existed, err)
			c.mu.Lock()
			c.subscriptionsChanged(&c.unsubscribing)
			c.unlock()
			c.answered(weight)
		})
	default:
		c.unsubscribed(p.PacketID, codes, c.unsubscribeHere(valid), nil)
	}
	return nil
}

func (c *conn) unsubscribeHere(filters []string) (existed []bool) {
	for _, filter := range filters {
		qos := c.broker.subs.remove(c, filter)
		c.endReplay(filter)
		if qos >= 0 {
			c.broker.cluster.RemoveRoute(filter, uint8(qos))
			if isShared(filter) {
				c.passOn(filter)
			}
		}
		existed = append(existed, qos >= 0)
	}
	return existed
}

// unsubscribed answers UNSUBSCRIBE; existed is for the filters whose code is
// not a failure.
func (c *conn) unsubscribed(id uint16, codes []packet.Code, existed []bool, err error) {
	c.mu.Lock()
	defer c.unlock()
	if c.phase.Load() != serving {
		return
	}
	if err != nil {
		c.fail(err)
		return
	}
	n := 0
	for i := range codes {
		if codes[i].Failed() {
			continue
		}
		if n < len(existed) && !existed[n] {
			codes[i] = packet.CodeNoSubscriptionExisted
		}
		n++
	}
	p := packet.Unsuback{PacketID: id, Codes: codes}
	c.append(packet.TypeUnsuback, func(dst []byte) []byte { return p.AppendLimit(dst, c.version, c.maxPacket) })
}
