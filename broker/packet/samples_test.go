package packet

import (
	"bytes"
	"testing"
)

var versions = []Version{V31, V311, V5}

// forwardBlock builds a Forward block of all its properties.
func forwardBlock() []byte {
	m := MessageProperties{
		HasPayloadFormat: true, PayloadFormat: 1,
		HasContentType: true, ContentType: "text/plain",
		ResponseTopic:   "answers/7",
		CorrelationData: []byte{0, 1, 2},
		UserProperties:  []UserProperty{{"a", "1"}, {"a", "2"}, {"", ""}},
	}
	return m.AppendForward(nil)
}

// samples are packets of every type with every field that version v can carry.
func samples(v Version) []Packet {
	some := []Packet{
		&Connect{Version: v, ClientID: "c", RequestProblemInfo: true},
		&Connack{Code: CodeBadUserNameOrPassword},
		&Publish{Topic: []byte("t"), Payload: []byte{}},
		&Publish{Topic: []byte("a/b"), QoS: QoS1, Dup: true, PacketID: 1, Payload: []byte("hello")},
		&Publish{Topic: []byte("a/ü"), QoS: QoS2, Retain: true, PacketID: 65535, Payload: bytes.Repeat([]byte("x"), 200)},
		&Ack{Type: TypePuback, PacketID: 1}, &Ack{Type: TypePubrec, PacketID: 2},
		&Ack{Type: TypePubrel, PacketID: 3}, &Ack{Type: TypePubcomp, PacketID: 4},
		&Subscribe{PacketID: 5, Subscriptions: []Subscription{{Filter: "a/#", QoS: QoS2}, {Filter: "+"}}},
		&Suback{PacketID: 5, Codes: []Code{CodeGrantedQoS2, CodeGrantedQoS0, CodeUnspecifiedError}},
		&Unsubscribe{PacketID: 6, Filters: []string{"a/#", "+"}},
		&Pingreq{}, &Pingresp{}, &Disconnect{},
	}
	will := &Will{Topic: "w", Payload: []byte("gone"), QoS: QoS1, Retain: true}
	full := &Connect{
		Version: v, CleanStart: true, KeepAlive: 60, ClientID: "client", Will: will, RequestProblemInfo: true,
		HasUsername: true, Username: "user", HasPassword: true, Password: []byte("secret"),
	}
	if v != V5 {
		return append(some, full, &Connack{SessionPresent: v == V311}, &Unsuback{PacketID: 6})
	}
	user := []UserProperty{{"k", "v"}, {"k", "w"}}
	will.DelaySeconds, will.HasExpiry, will.MessageExpiry, will.Forward = 9, true, 10, forwardBlock()
	full.HasSessionExpiry, full.SessionExpiry, full.ReceiveMaximum = true, 0xFFFFFFFF, 20
	full.MaximumPacketSize, full.TopicAliasMaximum, full.RequestProblemInfo = 1<<20, 7, false
	full.RequestResponseInfo, full.HasAuthMethod, full.AuthMethod = true, true, "SCRAM"
	full.AuthData, full.UserProperties = []byte{1}, user
	return append(some, full,
		&Connack{
			SessionPresent: true, HasSessionExpiry: true, SessionExpiry: 1, ReceiveMaximum: 2, HasMaximumQoS: true,
			MaximumQoS: QoS1, MaximumPacketSize: 3, AssignedClientID: "id", TopicAliasMaximum: 4, ReasonString: "fine",
			UserProperties: user, RetainUnavailable: true, WildcardUnavailable: true, SubscriptionIDsUnavailable: true,
			SharedUnavailable: true, HasServerKeepAlive: true, ServerKeepAlive: 5, ResponseInfo: "r",
			ServerReference: "other:1883", AuthMethod: "SCRAM", AuthData: []byte{},
		},
		&Publish{
			Topic: []byte{}, Payload: []byte("p"), HasExpiry: true, MessageExpiry: 60, HasAlias: true, TopicAlias: 3,
			SubscriptionIDs: []uint32{1, MaxVarint, 1}, Forward: forwardBlock(),
		},
		&Ack{Type: TypePuback, PacketID: 1, Code: CodeNoMatchingSubscribers},
		&Ack{Type: TypePubrec, PacketID: 1, Code: CodeQuotaExceeded, ReasonString: "full"},
		&Ack{Type: TypePubrel, PacketID: 1, Code: CodePacketIdentifierNotFound, UserProperties: user},
		&Subscribe{
			PacketID: 5, SubscriptionID: 300, UserProperties: user,
			Subscriptions: []Subscription{{Filter: "a", NoLocal: true, RetainHandling: 2}, {Filter: "b", QoS: QoS1, RetainAsPublished: true}},
		},
		&Suback{PacketID: 5, Codes: []Code{CodeGrantedQoS1, CodeTopicFilterInvalid}, ReasonString: "no", UserProperties: user},
		&Unsubscribe{PacketID: 6, Filters: []string{"a"}, UserProperties: user},
		&Unsuback{PacketID: 6, Codes: []Code{CodeSuccess, CodeNoSubscriptionExisted}, ReasonString: "no", UserProperties: user},
		&Disconnect{Code: CodeSessionTakenOver},
		&Disconnect{
			Code: CodeServerMoved, HasSessionExpiry: true, SessionExpiry: 0, ReasonString: "moved",
			UserProperties: user, ServerReference: "other",
		},
		&Auth{}, &Auth{Code: CodeContinueAuthentication, AuthMethod: "SCRAM", AuthData: []byte{1, 2}, ReasonString: "go on", UserProperties: user},
	)
}

// next is Next for a buffer that has to hold one whole packet.
func next(t testing.TB, wire []byte) (Header, []byte) {
	t.Helper()
	h, body, n, err := Next(wire, 0)
	if err != nil || n != len(wire) {
		t.Fatalf("Next(% x) = %d of %d bytes, %v", wire, n, len(wire), err)
	}
	return h, body
}

// wireOf frames a body.
func wireOf(first byte, body []byte) []byte {
	return append(appendVarint([]byte{first}, uint32(len(body))), body...)
}

// plain returns a packet without what a Publish keeps for its next Decode, so
// that packets can be compared.
func plain(p Packet) Packet {
	pub, ok := p.(*Publish)
	if !ok {
		return p
	}
	q := *pub
	q.ids, q.scratch = nil, nil
	if len(q.SubscriptionIDs) == 0 {
		q.SubscriptionIDs = nil
	}
	if len(q.Forward) == 0 {
		q.Forward = nil
	}
	return &q
}
