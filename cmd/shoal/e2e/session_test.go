package e2e

import (
	"fmt"
	"slices"

	"github.com/shoalmq/shoal/broker/packet"
)

// session is a client's Session State (MQTT 5 §4.1): what it has sent and what
// is not answered, and which QoS 2 messages it has received and not released.
// It outlives connections and is pure but for the history it writes.
type session struct {
	name    string
	h       *history
	lowest  bool // take the lowest free Packet Identifier, not the next
	lastID  uint16
	unacked []*outgoing // PUBLISH without PUBACK or PUBREC, in order
	// released are identifiers with PUBREL and no PUBCOMP, in the order of PUBREC
	// [MQTT-4.6.0-4].
	released []uint16
	taken    map[uint16]bool   // identifiers of both
	received map[uint16]string // payloads of QoS 2 without PUBREL
	// subscription, nil for none, and the identifier of its SUBSCRIBE.
	subscription *subscriber
	subscribeID  uint16
	pongs        int
}

// outgoing is a PUBLISH.
type outgoing struct {
	message
	packet.Publish
}

func newSession(name string, h *history) *session {
	return &session{name: name, h: h, taken: map[uint16]bool{}, received: map[uint16]string{}}
}

// unfinished counts the exchanges under way towards the broker.
func (s *session) unfinished() int { return len(s.taken) }

// identifier takes a free one.
func (s *session) identifier() uint16 {
	id := s.lastID
	if s.lowest {
		id = 0
	}
	for {
		if id++; id != 0 && !s.taken[id] && id != s.subscribeID {
			s.lastID = id
			return id
		}
	}
}

// publish makes the PUBLISH of a message, to be sent at once.
func (s *session) publish(m message, st stream) *packet.Publish {
	o := &outgoing{message: m, Publish: packet.Publish{
		QoS: st.qos, Topic: []byte(st.topic), PacketID: s.identifier(), Payload: s.h.payload(m),
	}}
	s.unacked = append(s.unacked, o)
	s.taken[o.PacketID] = true
	s.h.sent(m)
	return &o.Publish
}

// resume returns what a new connection has to send first: all unacknowledged
// PUBLISH and PUBREL in their order, with their identifiers [MQTT-4.4.0-1]. If
// the broker has no session they are new messages, and what it had answered
// with PUBREC is its own.
func (s *session) resume(present bool) []packet.Packet {
	var again []packet.Packet
	if !present {
		for _, id := range s.released {
			delete(s.taken, id)
		}
		s.released, s.received = nil, map[uint16]string{}
	}
	for _, id := range s.released {
		again = append(again, &packet.Ack{Type: packet.TypePubrel, PacketID: id})
	}
	for _, o := range s.unacked {
		o.Dup = present
		again = append(again, &o.Publish)
	}
	return again
}

// receive takes a packet and returns the answer, nil for none. An error is what
// makes a client close its connection.
func (s *session) receive(p packet.Packet) (packet.Packet, error) {
	switch p := p.(type) {
	case *packet.Publish:
		return s.receivePublish(p), nil
	case *packet.Ack:
		return s.receiveAck(p), nil
	case *packet.Suback:
		s.receiveSuback(p)
	case *packet.Pingresp:
		s.pongs++
	case *packet.Disconnect:
		s.receiveDisconnect(p)
		return nil, fmt.Errorf("DISCONNECT: %s", p.Code)
	default:
		s.violate("got %T", p)
	}
	return nil, nil
}

func (s *session) violate(format string, args ...any) {
	s.h.violate("%s: "+format, append([]any{s.name}, args...)...)
}

func (s *session) receivePublish(p *packet.Publish) packet.Packet {
	if s.subscription == nil {
		s.violate("PUBLISH %q without a subscription", p.Payload)
		return nil
	}
	if p.QoS < packet.QoS2 {
		s.h.delivered(s.subscription, p)
		if p.QoS == packet.QoS0 {
			return nil
		}
		return &packet.Ack{Type: packet.TypePuback, PacketID: p.PacketID}
	}
	switch before, known := s.received[p.PacketID]; {
	case !known:
		s.received[p.PacketID] = string(p.Payload)
		s.h.delivered(s.subscription, p)
	case before != string(p.Payload):
		s.violate("identifier %d of unreleased %q carries %q", p.PacketID, before, p.Payload)
	case !p.Dup:
		s.violate("%q came again without DUP", p.Payload) // [MQTT-3.3.1-1]
	default:
		s.h.note("QoS 2 PUBLISH again before PUBREL")
	}
	return &packet.Ack{Type: packet.TypePubrec, PacketID: p.PacketID}
}

func (s *session) receiveAck(p *packet.Ack) packet.Packet {
	switch p.Type {
	case packet.TypePubrel:
		if _, known := s.received[p.PacketID]; !known {
			s.h.note("PUBREL again")
		}
		delete(s.received, p.PacketID)
		return &packet.Ack{Type: packet.TypePubcomp, PacketID: p.PacketID}
	case packet.TypePubcomp:
		s.receivePubcomp(p)
		return nil
	}
	if p.Type == packet.TypePubrec && slices.Contains(s.released, p.PacketID) {
		s.violate("PUBREC %d again after PUBREL", p.PacketID)
		return nil
	}
	return s.receiveAnswer(p)
}

// receiveAnswer takes PUBACK, or the first PUBREC.
func (s *session) receiveAnswer(p *packet.Ack) packet.Packet {
	i := slices.IndexFunc(s.unacked, func(o *outgoing) bool { return o.PacketID == p.PacketID })
	if i < 0 {
		s.violate("%s of unknown identifier %d", p.Type, p.PacketID)
		return nil
	}
	o := s.unacked[i]
	if (o.QoS == packet.QoS2) != (p.Type == packet.TypePubrec) {
		s.violate("%s of a PUBLISH of QoS %d", p.Type, o.QoS)
		return nil
	}
	s.unacked = slices.Delete(s.unacked, i, i+1)
	if p.Code.Failed() {
		delete(s.taken, p.PacketID)
		s.violate("%s of %q says %s", p.Type, o.Payload, p.Code)
		return nil
	}
	s.h.acked(o.message)
	if p.Type == packet.TypePuback {
		delete(s.taken, p.PacketID)
		return nil
	}
	s.released = append(s.released, p.PacketID)
	return &packet.Ack{Type: packet.TypePubrel, PacketID: p.PacketID}
}

func (s *session) receivePubcomp(p *packet.Ack) {
	i := slices.Index(s.released, p.PacketID)
	if i < 0 {
		s.violate("PUBCOMP of unknown identifier %d", p.PacketID)
		return
	}
	if p.Code.Failed() {
		// Allowed when an earlier PUBCOMP was lost on its way.
		s.h.note("PUBCOMP: " + p.Code.String())
	}
	s.released = slices.Delete(s.released, i, i+1)
	delete(s.taken, p.PacketID)
}

func (s *session) receiveSuback(p *packet.Suback) {
	if p.PacketID != s.subscribeID || len(p.Codes) != 1 || p.Codes[0] != packet.Code(s.subscription.qos) {
		s.violate("SUBACK %+v for SUBSCRIBE %d of QoS %d", p, s.subscribeID, s.subscription.qos)
		return
	}
	s.subscribeID = 0
	s.h.suback(s.subscription)
}

// subscribe returns the SUBSCRIBE that is due, nil if none is.
func (s *session) subscribe() packet.Packet {
	if s.subscription == nil || s.subscription.since > 0 {
		return nil
	}
	if s.subscribeID == 0 {
		s.subscribeID = s.identifier()
	}
	return &packet.Subscribe{PacketID: s.subscribeID, Subscriptions: []packet.Subscription{
		{Filter: s.subscription.filter, QoS: s.subscription.qos},
	}}
}

// receiveDisconnect judges the broker's reason.
func (s *session) receiveDisconnect(p *packet.Disconnect) {
	switch p.Code {
	case packet.CodeServerShuttingDown, packet.CodeServerBusy, packet.CodeServerUnavailable,
		packet.CodeUseAnotherServer, packet.CodeServerMoved, packet.CodeSessionTakenOver,
		packet.CodeAdministrativeAction, packet.CodeKeepAliveTimeout:
		s.h.note("DISCONNECT: " + p.Code.String())
	default:
		s.violate("DISCONNECT: %s (%s)", p.Code, p.ReasonString)
	}
}
