package packet

import (
	"bytes"
	"reflect"
	"slices"
	"testing"

	paho5 "github.com/eclipse/paho.golang/packets"
	paho3 "github.com/eclipse/paho.mqtt.golang/packets"
	mochi "github.com/mochi-mqtt/server/v2/packets"
	"pgregory.net/rapid"
)

// What we write another codec reads and writes again, and reading that gives the
// same packet.
func TestOtherCodecAgrees(t *testing.T) {
	for _, v := range versions {
		for _, typ := range typesOf(v) {
			t.Run(v.String()+"/"+typ.String(), func(t *testing.T) {
				rapid.Check(t, func(t *rapid.T) {
					p := packetOf(t, typ, v)
					if v == V5 {
						withoutLoss(p)
					}
					wire := p.Append(nil, v)
					theirs := throughOther(t, wire, v)
					h, body, _, err := Next(theirs, 0)
					if err != nil {
						t.Fatalf("they made % x of % x: %v", theirs, wire, err)
					}
					got, err := Decode(h, body, v)
					if err != nil {
						t.Fatalf("they made % x of % x: %v", theirs, wire, err)
					}
					if !reflect.DeepEqual(plain(got), plain(p)) {
						t.Fatalf("wrote %+v\nthey   %+v", p, got)
					}
				})
			})
		}
	}
}

// throughOther decodes and encodes wire with the codecs of Paho's clients.
func throughOther(t *rapid.T, wire []byte, v Version) []byte {
	var out bytes.Buffer
	if v == V5 {
		p, err := paho5.ReadPacket(bytes.NewReader(wire))
		if err != nil {
			t.Fatalf("% x: %v", wire, err)
		}
		if _, err := p.WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	p, err := paho3.ReadPacket(bytes.NewReader(wire))
	if err != nil {
		t.Fatalf("% x: %v", wire, err)
	}
	if err := p.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// withoutLoss takes away what the other codec cannot hold: empty properties
// beside absent ones, more than one Subscription Identifier, and the DISCONNECT
// without a body, which it does not read.
func withoutLoss(p Packet) {
	switch p := p.(type) {
	case *Connect:
		p.AuthData = orNil(p.AuthData)
		p.HasAuthMethod = p.AuthMethod != ""
		if !p.HasAuthMethod {
			p.AuthData = nil
		}
		if p.Will != nil {
			p.Will.Forward = messageWithoutLoss(p.Will.Forward)
			// It writes Will Properties by the rules of CONNECT, so all but
			// these are lost.
			p.Will.HasExpiry, p.Will.MessageExpiry = false, 0
			m, _ := ParseForward(p.Will.Forward)
			p.Will.Forward = (&MessageProperties{UserProperties: m.UserProperties}).AppendForward(nil)
		}
	case *Connack:
		p.AuthData = orNil(p.AuthData)
	case *Disconnect:
		if len(p.Append(nil, V5)) == 2 {
			p.Code = CodeDisconnectWithWill
		}
	case *Auth:
		p.AuthData = orNil(p.AuthData)
		if p.AuthMethod == "" {
			p.AuthMethod = "method"
		}
	case *Publish:
		p.SubscriptionIDs = p.SubscriptionIDs[:min(1, len(p.SubscriptionIDs))]
		p.Forward = messageWithoutLoss(p.Forward)
	}
}

func messageWithoutLoss(forward []byte) []byte {
	m, _ := ParseForward(forward)
	m.HasContentType = m.ContentType != ""
	m.CorrelationData = orNil(m.CorrelationData)
	return m.AppendForward(nil)
}

func orNil(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// Fields that a symmetric mistake could swap.
func TestOtherCodecReadsFields(t *testing.T) {
	connect := &Connect{
		CleanStart: true, KeepAlive: 60, ClientID: "c", HasUsername: true, Username: "u", HasPassword: true,
		Password: []byte("p"), Will: &Will{Topic: "w", Payload: []byte("x"), QoS: QoS2, Retain: true},
		ReceiveMaximum: 5, TopicAliasMaximum: 6, MaximumPacketSize: 7, RequestProblemInfo: true,
	}
	cp, err := paho5.ReadPacket(bytes.NewReader(connect.Append(nil, V5)))
	if err != nil {
		t.Fatal(err)
	}
	c := cp.Content.(*paho5.Connect)
	if c.ProtocolVersion != 5 || !c.CleanStart || c.KeepAlive != 60 || c.ClientID != "c" || c.Username != "u" ||
		string(c.Password) != "p" || c.WillTopic != "w" || string(c.WillMessage) != "x" || c.WillQOS != 2 ||
		!c.WillRetain || *c.Properties.ReceiveMaximum != 5 || *c.Properties.TopicAliasMaximum != 6 ||
		*c.Properties.MaximumPacketSize != 7 {
		t.Errorf("they read %s", c)
	}
	subscribe := &Subscribe{PacketID: 9, SubscriptionID: 200, Subscriptions: []Subscription{
		{Filter: "a", QoS: QoS1, NoLocal: true, RetainHandling: 1}, {Filter: "b", RetainAsPublished: true},
	}}
	if cp, err = paho5.ReadPacket(bytes.NewReader(subscribe.Append(nil, V5))); err != nil {
		t.Fatal(err)
	}
	s := cp.Content.(*paho5.Subscribe)
	want := []paho5.SubOptions{{Topic: "a", QoS: 1, NoLocal: true, RetainHandling: 1}, {Topic: "b", RetainAsPublished: true}}
	if s.PacketID != 9 || *s.Properties.SubscriptionIdentifier != 200 || !reflect.DeepEqual(s.Subscriptions, want) {
		t.Errorf("they read %s", s)
	}
	publish := &Publish{Topic: []byte("t"), QoS: QoS1, PacketID: 258, Payload: []byte("x"), HasExpiry: true, MessageExpiry: 66051}
	if cp, err = paho5.ReadPacket(bytes.NewReader(publish.Append(nil, V5))); err != nil {
		t.Fatal(err)
	}
	if p := cp.Content.(*paho5.Publish); p.Topic != "t" || p.PacketID != 258 || *p.Properties.MessageExpiry != 66051 {
		t.Errorf("they read %s", p)
	}
}

// What Paho's codec loses, mochi's reads: Will Properties, several Subscription
// Identifiers.
func TestThirdCodecReadsMessages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		connect := anyConnect(t, V5)
		if connect.Will == nil {
			connect.Will = anyWill(t, V5)
		}
		_, body, _, _ := Next(connect.Append(nil, V5), 0)
		c := mochi.Packet{FixedHeader: mochi.FixedHeader{Type: mochi.Connect}, ProtocolVersion: 5}
		if err := c.ConnectDecode(body); err != nil {
			t.Fatalf("% x: %v", body, err)
		}
		w := connect.Will
		if c.Connect.WillProperties.WillDelayInterval != w.DelaySeconds || c.Connect.WillTopic != w.Topic ||
			c.Connect.WillProperties.MessageExpiryInterval != w.MessageExpiry || !bytes.Equal(c.Connect.WillPayload, w.Payload) {
			t.Fatalf("wrote %+v\nthey read %+v", w, c.Connect)
		}
		checkForward(t, w.Forward, c.Connect.WillProperties)

		publish := anyPublish(t, V5)
		h, body, _, _ := Next(publish.Append(nil, V5), 0)
		p := mochi.Packet{FixedHeader: mochi.FixedHeader{Type: mochi.Publish, Qos: h.Flags >> 1 & 3}, ProtocolVersion: 5}
		if err := p.PublishDecode(body); err != nil {
			t.Fatalf("% x: %v", body, err)
		}
		var ids []uint32
		for _, id := range p.Properties.SubscriptionIdentifier {
			ids = append(ids, uint32(id))
		}
		if p.TopicName != string(publish.Topic) || p.PacketID != publish.PacketID || !bytes.Equal(p.Payload, publish.Payload) ||
			p.Properties.TopicAlias != publish.TopicAlias || !slices.Equal(ids, publish.SubscriptionIDs) ||
			p.Properties.MessageExpiryInterval != publish.MessageExpiry {
			t.Fatalf("wrote %+v\nthey read %+v", publish, p)
		}
		checkForward(t, publish.Forward, p.Properties)
	})
}

func checkForward(t *rapid.T, forward []byte, theirs mochi.Properties) {
	m, err := ParseForward(forward)
	if err != nil {
		t.Fatal(err)
	}
	var user []UserProperty
	for _, u := range theirs.User {
		user = append(user, UserProperty{u.Key, u.Val})
	}
	if m.HasPayloadFormat != theirs.PayloadFormatFlag || m.PayloadFormat != theirs.PayloadFormat ||
		m.ContentType != theirs.ContentType || m.ResponseTopic != theirs.ResponseTopic ||
		!bytes.Equal(m.CorrelationData, theirs.CorrelationData) || !slices.Equal(user, m.UserProperties) {
		t.Fatalf("wrote %+v\nthey read %+v", m, theirs)
	}
}
