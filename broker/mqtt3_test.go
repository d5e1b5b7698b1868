package broker_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/brokertest"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// TestBridge: a client of MQTT 3 whose protocol level has the bit of Mosquitto's
// bridges gets nothing back that it brought, and RETAIN as it was published; one
// without the bit is served as ever.
func TestBridge(t *testing.T) {
	for i := range 8 {
		v, durable, bridge := packet.V31+packet.Version(i&1), i&2 != 0, i&4 != 0
		n := start(t)
		pub, c := n.connect(packet.V311, "p"), n.dial(v)
		c.Connect(mqtttest.ID("b"), func(p *packet.Connect) { p.Bridge, p.CleanStart = bridge, !durable })
		c.AutoAck = true
		c.Subscribe("$share/g/shared", 1) // No Local is not for these
		c.Subscribe("#", 1)
		for qos := packet.QoS0; qos <= packet.QoS1; qos++ {
			c.Write(publish("out", "mine", qos, 1))
			copies := 0
			for _, p := range c.Ping() {
				if _, is := p.(*packet.Publish); is {
					copies++
				}
			}
			if want := map[bool]int{false: 1}[bridge]; copies != want {
				t.Errorf("%s, bridge %t: %d copies of its own message", v, bridge, copies)
			}
			p := publish("in", "theirs", qos, uint16(qos))
			p.Retain = true
			pub.Write(p)
			if got := c.ExpectPublish("in", "theirs"); got.Retain != bridge {
				t.Errorf("%s, bridge %t: %s", v, bridge, mqtttest.Describe(got))
			}
			pub.Ping()
		}
	}
}

// TestReturnCodes: MQTT 3 knows five refusals (3.1.1 §3.2.2.3). CONNACK carries
// the one that fits, with Session Present 0 although there is a session
// ([MQTT-3.2.2-4]), and the connection ends ([MQTT-3.2.2-5]). Where none fits
// there is no CONNACK ([MQTT-3.2.2-6]).
func TestReturnCodes(t *testing.T) {
	login := func(user, password string) mqtttest.Option {
		return func(p *packet.Connect) {
			p.HasUsername, p.Username, p.HasPassword, p.Password = true, user, true, []byte(password)
		}
	}
	me := login("me", "secret")
	for _, v := range []packet.Version{packet.V31, packet.V311} {
		n := start(t, func(c *broker.Config) { c.Authenticator, c.AllowAnonymous = authenticator{}, false })
		n.durable(v, "c", me)
		for name, c := range map[string]struct {
			options []mqtttest.Option
			ready   error
			code    byte // 0: the connection ends without CONNACK
		}{
			"identifier":        {[]mqtttest.Option{me, mqtttest.ID("")}, nil, 2},
			"identifier, long":  {[]mqtttest.Option{me, mqtttest.ID(strings.Repeat("x", 2000))}, nil, 2},
			"unavailable":       {[]mqtttest.Option{me}, errors.New("no lease"), 3},
			"directory is down": {[]mqtttest.Option{login("broken", "")}, nil, 3},
			"password":          {[]mqtttest.Option{login("me", "wrong")}, nil, 4},
			"anonymous":         {nil, nil, 5},
			"wildcard in will":  {[]mqtttest.Option{me, func(p *packet.Connect) { p.Will = &packet.Will{Topic: "#"} }}, nil, 0},
		} {
			n.cluster.SetReady(c.ready)
			p := packet.Connect{ClientID: "c"}
			for _, o := range c.options {
				o(&p)
			}
			nc, err := net.Dial("tcp", n.addr)
			if err != nil {
				t.Fatal(err)
			}
			nc.SetDeadline(time.Now().Add(mqtttest.Timeout))
			nc.Write(p.Append(nil, v))
			got, err := io.ReadAll(nc)
			nc.Close()
			want := []byte{0x20, 2, 0, c.code}
			if c.code == 0 {
				want = nil
			}
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s in %s: % x, %v; want % x", name, v, got, err, want)
			}
		}
		n.cluster.SetReady(nil)
		if _, ack := n.durable(v, "c", me); ack.SessionPresent != (v == packet.V311) {
			t.Errorf("%s: session present %t", v, ack.SessionPresent)
		}
	}
}

// heard is an Authenticator that passes on what it is told.
type heard chan broker.Credentials

func (h heard) Authenticate(_ context.Context, c *broker.Credentials) (*broker.Identity, error) {
	h <- *c
	return nil, nil
}

// TestConnectPayload: Client Identifier, Will Topic, Will Message, User Name and
// Password come in this order ([MQTT-3.1.3-1], [MQTT-3.1.3-3]), each if its flag
// says so ([MQTT-3.1.2-9], [MQTT-3.1.2-11], [MQTT-3.1.2-18] to [MQTT-3.1.2-21]),
// and go where they belong.
func TestConnectPayload(t *testing.T) {
	told := make(heard, 1)
	n := start(t, func(c *broker.Config) { c.Authenticator, c.AllowAnonymous = told, false })
	text := func(s string) string { return string([]byte{0, byte(len(s))}) + s }
	for flags, credentials := range map[byte]broker.Credentials{
		0x00: {},
		0x80: {HasUsername: true, Username: "user"},
		0xC0: {HasUsername: true, Username: "user", HasPassword: true, Password: []byte("pass")},
	} {
		for _, will := range []byte{0, 0x04, 0x0C, 0x14, 0x34} {
			body := text("MQTT") + string([]byte{4, flags | will | 2, 0, 0}) + text("id")
			if will != 0 {
				body += text("topic") + text("message")
			}
			if credentials.HasUsername {
				body += text("user")
			}
			if credentials.HasPassword {
				body += text("pass")
			}
			before := len(n.cluster.Wills())
			c := n.dial(packet.V311)
			c.WriteRaw(append([]byte{0x10, byte(len(body))}, body...)...)
			if ack := mqtttest.Expect[*packet.Connack](c); ack.Code != 0 {
				t.Fatalf("CONNACK %s", ack.Code)
			}
			got := <-told
			if got.ClientID != "id" || got.HasUsername != credentials.HasUsername || got.Username != credentials.Username ||
				got.HasPassword != credentials.HasPassword || !bytes.Equal(got.Password, credentials.Password) {
				t.Errorf("flags %#x: credentials %+v", flags|will, got)
			}
			wills := n.cluster.Wills()[before:]
			if len(wills) != int(min(will, 1)) {
				t.Fatalf("flags %#x: Wills %v", flags|will, wills)
			}
			if will != 0 {
				m := wills[0].Message
				if m.Topic != "topic" || string(m.Payload) != "message" || m.Qos != uint32(will>>3&3) || m.Retain != (will&0x20 != 0) {
					t.Errorf("flags %#x: Will %v", flags|will, m)
				}
			}
			c.Disconnect()
		}
	}
}

// TestIdentifierInUse: a client may not publish with the identifier of an
// exchange whose PUBCOMP it has not got ([MQTT-2.3.1-2]). MQTT 3 has no word for
// it, so the connection ends; nothing of it is published.
func TestIdentifierInUse(t *testing.T) {
	for _, v := range []packet.Version{packet.V31, packet.V311} {
		n := start(t)
		pub, _ := n.durable(v, "p")
		n.cluster.Hold(brokertest.Released)
		pub.Write(publish("a", "x", 2, 1))
		pub.ExpectAck(packet.TypePubrec, 1, 0)
		pub.Write(ack(packet.TypePubrel, 1), publish("a", "y", 2, 1))
		pub.ExpectClosed()
		n.cluster.ReleaseAll(brokertest.Released)
		if got := n.cluster.Messages(); len(got) != 1 {
			t.Errorf("%d messages", len(got))
		}
		pub, _ = n.durable(v, "p")
		pub.Publish("a", "z", 2)
	}
}
