package broker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/brokertest"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/broker/session"
)

// TestConnackProperties: CONNACK says what there is, and what not.
func TestConnackProperties(t *testing.T) {
	n := start(t, func(c *broker.Config) { c.MaxKeepAlive = 30 * time.Second; c.MaxSessionExpiry = time.Hour })
	ack := n.dial(packet.V5).Connect(mqtttest.ID("c"), mqtttest.KeepAlive(60), mqtttest.Expiry(7200))
	want := packet.Connack{
		ReceiveMaximum: 1024, MaximumPacketSize: 1 << 20, TopicAliasMaximum: 64,
		HasServerKeepAlive: true, ServerKeepAlive: 30,
		HasSessionExpiry: true, SessionExpiry: 3600,
	}
	if got := fmt.Sprintf("%+v", *ack); got != fmt.Sprintf("%+v", want) {
		t.Errorf("CONNACK %s\n want  %+v", got, want)
	}
	ack = n.dial(packet.V5).Connect(mqtttest.ID("c"), mqtttest.KeepAlive(20), mqtttest.Expiry(60))
	if ack.HasServerKeepAlive || ack.HasSessionExpiry { // [MQTT-3.2.2-22]
		t.Errorf("CONNACK %+v overrides what is within bounds", ack)
	}
	if ack = n.dial(packet.V5).Connect(mqtttest.ID("c2")); ack.ServerKeepAlive != 30 {
		t.Errorf("CONNACK %+v: keep alive 0 is beyond the cap", ack)
	}
}

// TestSessionPresent: [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.1.2-6]
// [MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT-3.1.2-23].
func TestSessionPresent(t *testing.T) {
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		t.Run(v.String(), func(t *testing.T) {
			n := start(t)
			present := func(want bool, options ...mqtttest.Option) {
				t.Helper()
				c, ack := n.durable(v, "c", options...)
				if ack.SessionPresent != want {
					t.Errorf("session present %t", ack.SessionPresent)
				}
				c.Disconnect()
				n.awaitConnections(0)
			}
			clean := func(p *packet.Connect) { p.CleanStart = true }
			present(false)
			present(true)
			present(v == packet.V311 && false, clean)
			if v == packet.V5 { // Clean Start with an expiry made a new one
				present(true)
			} else {
				present(false)
			}
		})
	}
}

// TestVersionsShareSessions: an MQTT 3 session can be resumed by MQTT 5, and
// the other way round.
func TestVersionsShareSessions(t *testing.T) {
	n := start(t)
	for i, v := range []packet.Version{packet.V311, packet.V5, packet.V311} {
		c, ack := n.durable(v, "c")
		if ack.SessionPresent != (i > 0) {
			t.Errorf("%d: session present %t", i, ack.SessionPresent)
		}
		c.Disconnect()
		n.awaitConnections(0)
	}
}

// TestEmptyClientID: [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.1.3-8]
// [MQTT-3.2.2-16].
func TestEmptyClientID(t *testing.T) {
	n := start(t)
	a, b := n.dial(packet.V5).Connect(), n.dial(packet.V5).Connect()
	if a.AssignedClientID == "" || a.AssignedClientID == b.AssignedClientID {
		t.Errorf("assigned %q and %q", a.AssignedClientID, b.AssignedClientID)
	}
	n.dial(packet.V311).Connect()
	refused := func(v packet.Version, options ...mqtttest.Option) {
		t.Helper()
		c := n.dial(v)
		if ack := c.TryConnect(options...); ack.Code != packet.CodeClientIdentifierNotValid {
			t.Errorf("%s: CONNACK %s", v, ack.Code)
		}
		c.ExpectClosed()
	}
	refused(packet.V311, mqtttest.Resume())
	refused(packet.V31)
	refused(packet.V5, mqtttest.ID(strings.Repeat("x", 2000)))
	if c := n.dial(packet.V5); c.Connect(mqtttest.ID("0123456789abcdefghijABC")).AssignedClientID != "" { // [MQTT-3.1.3-5]
		t.Error("identifier assigned to a client that has one")
	}
}

// TestTakeover: [MQTT-3.1.4-3].
func TestTakeover(t *testing.T) {
	versions(t, func(t *testing.T, n *node, v packet.Version) {
		old := n.connect(v, "c")
		old.Subscribe("a", 0)
		c := n.connect(v, "c")
		old.ExpectDisconnect(packet.CodeSessionTakenOver)
		n.awaitConnections(1)
		c.ExpectNothing()
		if n.cluster.Routes() != 0 {
			t.Error("the routes of the old connection remain")
		}
	})
}

// TestUndecided: an Open that may be applied still is not refused; the connection
// closes without CONNACK.
func TestUndecided(t *testing.T) {
	versions(t, func(t *testing.T, n *node, v packet.Version) {
		n.cluster.Fail(brokertest.Open, session.ErrUndecided)
		c := n.dial(v)
		c.Write(&packet.Connect{ClientID: "c", CleanStart: true}, &packet.Publish{Topic: []byte("a"), QoS: 1, PacketID: 7})
		c.ExpectClosed()
		if len(n.cluster.Messages()) > 0 {
			t.Fatal("a message was routed without CONNACK")
		}
	})
}

// TestClientWaits: whether a client still waits for its CONNACK is known while it
// is not read. One that has sent all it has to say and closed its side waits.
func TestClientWaits(t *testing.T) {
	n := start(t)
	n.cluster.Hold(brokertest.Open)
	open := func(more ...packet.Packet) (*mqtttest.Client, func() bool) {
		before := len(n.cluster.Requests())
		c := n.dial(packet.V5)
		c.Write(append([]packet.Packet{&packet.Connect{ClientID: "c", CleanStart: true}}, more...)...)
		await(t, "open", func() bool { return len(n.cluster.Requests()) == before+1 })
		return c, n.cluster.Requests()[before].Waits
	}
	gone, waits := open()
	if !waits() {
		t.Error("a client that is there does not wait")
	}
	gone.Close()
	await(t, "the client is gone", func() bool { return !waits() })
	said, waits := open(&packet.Publish{Topic: []byte("a"), QoS: 1, PacketID: 7}, &packet.Disconnect{})
	said.Close()
	for range 20 {
		if !waits() {
			t.Fatal("what a client has sent before it closed is lost")
		}
	}
	n.cluster.ReleaseAll(brokertest.Open)
}

// TestTakeoverWhileOpening: the loser has not had its CONNACK. It gets none, as
// its Open has been applied.
func TestTakeoverWhileOpening(t *testing.T) {
	n := start(t)
	n.cluster.Hold(brokertest.Open)
	first, second := n.dial(packet.V5), n.dial(packet.V5)
	connect := packet.Connect{CleanStart: true, ClientID: "c"}
	first.Write(&connect)
	await(t, "open", func() bool { return n.cluster.Held(brokertest.Open) == 1 })
	second.Write(&connect)
	await(t, "open", func() bool { return n.cluster.Held(brokertest.Open) == 2 })
	n.cluster.ReleaseOne(brokertest.Open, 1) // supersedes the first
	if ack := mqtttest.Expect[*packet.Connack](second); ack.Code != 0 {
		t.Fatalf("CONNACK %s", ack.Code)
	}
	first.ExpectClosed()
	n.cluster.ReleaseAll(brokertest.Open)
	second.ExpectNothing()
}

// TestNothingBeforeConnack: what follows CONNECT waits for CONNACK, and is not
// processed when it refuses ([MQTT-3.2.0-1], [MQTT-3.1.4-6]).
func TestNothingBeforeConnack(t *testing.T) {
	versions(t, func(t *testing.T, n *node, v packet.Version) {
		for _, refuse := range []bool{false, true} {
			n.cluster.Hold(brokertest.Open)
			if refuse {
				n.cluster.Fail(brokertest.Open, session.ErrUnavailable)
			}
			c := n.dial(v)
			c.Write(
				&packet.Connect{ClientID: "c", CleanStart: true},
				&packet.Publish{Topic: []byte("a"), QoS: 1, PacketID: 7},
				&packet.Pingreq{})
			await(t, "open", func() bool { return n.cluster.Held(brokertest.Open) == 1 })
			before := len(n.cluster.Messages())
			if !refuse && before > 0 {
				t.Fatal("a message was routed before CONNACK")
			}
			n.cluster.ReleaseAll(brokertest.Open)
			ack := mqtttest.Expect[*packet.Connack](c)
			if refuse {
				if ack.Code != packet.CodeServerUnavailable {
					t.Fatalf("CONNACK %s", ack.Code)
				}
				c.ExpectClosed()
				if len(n.cluster.Messages()) > before {
					t.Fatal("a message was routed after a refusal")
				}
				return
			}
			c.ExpectAck(packet.TypePuback, 7, 0)
			mqtttest.Expect[*packet.Pingresp](c)
		}
	})
}

// TestUnavailable: without a quorum CONNECT gets 0x88 (3.1.1: 0x03), at once
// when the node knows.
func TestUnavailable(t *testing.T) {
	versions(t, func(t *testing.T, n *node, v packet.Version) {
		n.cluster.SetReady(errors.New("no lease"))
		c := n.dial(v)
		if ack := c.TryConnect(mqtttest.ID("c")); ack.Code != packet.CodeServerUnavailable || ack.SessionPresent {
			t.Errorf("CONNACK %+v", ack)
		}
		c.ExpectClosed()
		n.cluster.SetReady(nil)
		n.connect(v, "c").ExpectNothing()
	})
}

// TestLost: a node that lost its lease closes its clients.
func TestLost(t *testing.T) {
	versions(t, func(t *testing.T, n *node, v packet.Version) {
		c := n.connect(v, "c")
		n.cluster.Lose(session.ErrUnavailable)
		c.ExpectDisconnect(packet.CodeServerBusy) // DISCONNECT cannot carry 0x88
	})
}

// TestEnhancedAuth: [MQTT-4.12.0-1].
func TestEnhancedAuth(t *testing.T) {
	n := start(t)
	c := n.dial(packet.V5)
	ack := c.TryConnect(mqtttest.ID("c"), func(p *packet.Connect) { p.HasAuthMethod, p.AuthMethod = true, "SCRAM" })
	if ack.Code != packet.CodeBadAuthenticationMethod {
		t.Errorf("CONNACK %s", ack.Code)
	}
	c.ExpectClosed()
	c = n.dial(packet.V5)
	ack = c.TryConnect(mqtttest.ID("c"), func(p *packet.Connect) { p.AuthData = []byte("x") })
	if ack.Code != packet.CodeProtocolError {
		t.Errorf("CONNACK %s", ack.Code)
	}
	c.ExpectClosed()
}

// TestWillTopic: [MQTT-3.1.3-11].
func TestWillTopic(t *testing.T) {
	n := start(t)
	for _, name := range []string{"a/#", "+"} {
		c := n.dial(packet.V5)
		ack := c.TryConnect(mqtttest.ID("c"), func(p *packet.Connect) { p.Will = &packet.Will{Topic: name} })
		if ack.Code != packet.CodeTopicNameInvalid {
			t.Errorf("will topic %q: CONNACK %s", name, ack.Code)
		}
		c.ExpectClosed()
	}
}

// TestWillIsStored: [MQTT-3.1.2-7] [MQTT-3.1.2-10] [MQTT-3.14.4-3]: all of the
// Will goes to the session, and DISCONNECT says what becomes of it.
func TestWillIsStored(t *testing.T) {
	n := start(t)
	properties := packet.MessageProperties{HasPayloadFormat: true, HasContentType: true, ContentType: "t", ResponseTopic: "r"}
	will := packet.Will{
		Topic: "w", Payload: []byte("gone"), QoS: 1, DelaySeconds: 5, HasExpiry: true, MessageExpiry: 9,
		Forward: properties.AppendForward(nil), Retain: true,
	}
	withWill := func(p *packet.Connect) { p.Will = &will }
	n.connect(packet.V5, "c", withWill).Disconnect()
	n.awaitConnections(0)
	c := n.connect(packet.V5, "c", withWill)
	c.Write(&packet.Disconnect{Code: packet.CodeDisconnectWithWill})
	c.ExpectClosed()
	n.awaitConnections(0)
	n.connect(packet.V311, "c", withWill).Close()
	n.awaitConnections(0)

	w := n.cluster.Wills()[0]
	m := w.Message
	if w.DelayS != 5 || m.Topic != "w" || string(m.Payload) != "gone" || m.Qos != 1 || !m.Retain || *m.ExpiryMs != 9000 ||
		string(m.Properties) != string(will.Forward) || m.Publisher != "c" {
		t.Errorf("will %v", w)
	}
	for i, discard := range []bool{true, false, false} {
		if got := n.cluster.Closes()[i].DiscardWill; got != discard {
			t.Errorf("close %d: discard will %t", i, got)
		}
	}
}

// TestDisconnectExpiry: Session Expiry of DISCONNECT overrides (rule 46), capped
// like that of CONNECT; absent means unchanged (rule 48).
func TestDisconnectExpiry(t *testing.T) {
	n := start(t, func(c *broker.Config) { c.MaxSessionExpiry = 50 * time.Second })
	for _, p := range []packet.Disconnect{{}, {HasSessionExpiry: true}, {HasSessionExpiry: true, SessionExpiry: 70}} {
		c, _ := n.durable(packet.V5, "c")
		c.Write(&p)
		c.ExpectClosed()
		n.awaitConnections(0)
	}
	closes := n.cluster.Closes()
	if closes[0].ExpirySeconds != nil || *closes[1].ExpirySeconds != 0 || *closes[2].ExpirySeconds != 50 {
		t.Errorf("%+v", closes)
	}
}

// authenticator admits one user.
type authenticator struct{}

func (authenticator) Authenticate(_ context.Context, c *broker.Credentials) (*broker.Identity, error) {
	switch {
	case !c.HasUsername:
		return nil, broker.ErrNotAuthorized
	case c.Username == "broken":
		return nil, errors.New("directory is down")
	case c.Username != "me" || string(c.Password) != "secret":
		return nil, fmt.Errorf("user %s: %w", c.Username, broker.ErrBadCredentials)
	}
	return nil, nil
}

// TestAuthentication: codes of both versions, and who is anonymous.
func TestAuthentication(t *testing.T) {
	login := func(user, password string) mqtttest.Option {
		return func(p *packet.Connect) {
			p.HasUsername, p.Username, p.HasPassword, p.Password = true, user, true, []byte(password)
		}
	}
	nobody := func(*packet.Connect) {}
	for _, c := range []struct {
		anonymous, open bool
		who             mqtttest.Option
		code            packet.Code
	}{
		{false, false, login("me", "secret"), packet.CodeSuccess},
		{false, false, login("me", "wrong"), packet.CodeBadUserNameOrPassword},
		{false, false, login("broken", ""), packet.CodeServerUnavailable},
		{false, false, nobody, packet.CodeNotAuthorized},
		{true, false, nobody, packet.CodeSuccess},
		{true, false, login("me", "wrong"), packet.CodeBadUserNameOrPassword},
		{false, true, nobody, packet.CodeNotAuthorized},
		{true, true, login("me", "wrong"), packet.CodeSuccess},
	} {
		n := start(t, func(config *broker.Config) {
			config.AllowAnonymous = c.anonymous
			if !c.open {
				config.Authenticator = authenticator{}
			}
		})
		for _, v := range []packet.Version{packet.V31, packet.V311, packet.V5} {
			cl := n.dial(v)
			if ack := cl.TryConnect(mqtttest.ID("c"), c.who); ack.Code != c.code {
				t.Errorf("%+v in %s: CONNACK %s", c, v, ack.Code)
			}
		}
		result := map[packet.Code]string{packet.CodeSuccess: "accepted", packet.CodeBadUserNameOrPassword: "bad_credentials", packet.CodeServerUnavailable: "unavailable", packet.CodeNotAuthorized: "not_authorized"}[c.code]
		want := 3.0
		if c.open || c.anonymous && c.code == 0 { // nobody was asked
			want = 0
		}
		if got := n.metric("shoal_authentications_total", result); got != want {
			t.Errorf("%+v: %v counted as %s", c, got, result)
		}
	}
}

// TestProblemInformation: [MQTT-3.1.2-29], and [MQTT-3.2.2-19]: a Reason String
// does not make a packet too large.
func TestProblemInformation(t *testing.T) {
	n := start(t)
	quiet := func(p *packet.Connect) { p.RequestProblemInfo = false }
	small := func(p *packet.Connect) { p.MaximumPacketSize = 10 }
	for _, o := range []mqtttest.Option{quiet, small} {
		c := n.dial(packet.V5)
		if ack := c.TryConnect(o, mqtttest.ID(strings.Repeat("x", 2000))); ack.Code == 0 || ack.ReasonString != "" {
			t.Errorf("CONNACK %+v", ack)
		}
	}
	if ack := n.dial(packet.V5).TryConnect(mqtttest.ID(strings.Repeat("x", 2000))); ack.ReasonString == "" {
		t.Error("no reason string in CONNACK")
	}
}

// TestMaxConnections: one more is closed at once.
func TestMaxConnections(t *testing.T) {
	n := start(t, func(c *broker.Config) { c.MaxConnections = 2 })
	n.connect(packet.V5, "a")
	b := n.connect(packet.V5, "b")
	n.dial(packet.V5).ExpectClosed()
	b.Disconnect()
	n.awaitConnections(1)
	n.connect(packet.V5, "c")
}

// TestClose: clients are told, and Close waits.
func TestClose(t *testing.T) {
	versions(t, func(t *testing.T, n *node, v packet.Version) {
		c := n.connect(v, "c")
		ended := make(chan error)
		go func() { ended <- n.broker.Close(context.Background()) }()
		c.ExpectDisconnect(packet.CodeServerShuttingDown)
		c.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n.cluster.Closes()[0].DiscardWill {
			t.Error("a server that shuts down discards the Will")
		}
		if err := n.broker.Serve(context.Background(), &broker.Listener{Listener: newPipeListener()}); !errors.Is(err, broker.ErrClosed) {
			t.Error("a closed broker serves")
		}
	})
}

// TestCloseCuts: clients that do not listen are cut when the time is up.
func TestCloseCuts(t *testing.T) {
	n := start(t)
	n.piped = true
	n.connect(packet.V5, "c") // a pipe takes nothing that is not read
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := n.broker.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("close: %v", err)
	}
}
