package broker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// script is a method of enhanced authentication, "SCRIPT", that does what the
// client asks for.
type script struct {
	mu    sync.Mutex
	began []*broker.Credentials
	// hold keeps the step "hold" until it is closed.
	hold    chan struct{}
	waiting atomic.Int32
	expires time.Time
}

func (s *script) Begin(_ context.Context, c *broker.Credentials) (broker.Exchange, error) {
	if c.Method != "SCRIPT" {
		return nil, fmt.Errorf("%w %q", broker.ErrUnknownMethod, c.Method)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began = append(s.began, c)
	return s, nil
}

func (s *script) Step(ctx context.Context, data []byte) ([]byte, *broker.Identity, error) {
	what, arg, _ := strings.Cut(string(data), " ")
	switch what {
	case "user":
		return []byte("welcome"), &broker.Identity{Username: arg, Expires: s.expires}, nil
	case "id":
		return nil, &broker.Identity{Username: "u", ClientID: arg}, nil
	case "wrong":
		return nil, nil, broker.ErrBadCredentials
	case "denied":
		return nil, nil, broker.ErrNotAuthorized
	case "down":
		return nil, nil, errors.New("no answer")
	case "hold":
		s.waiting.Add(1)
		defer s.waiting.Add(-1)
		select {
		case <-s.hold:
			return []byte("held"), &broker.Identity{Username: arg}, nil
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
	return []byte("more " + string(data)), nil, nil
}

// scripted starts a node with the method.
func scripted(t testing.TB, change ...func(*broker.Config)) (*node, *script) {
	s := &script{hold: make(chan struct{})}
	return start(t, append([]func(*broker.Config){func(c *broker.Config) { c.Enhanced = s }}, change...)...), s
}

// by sets Authentication Method and Data.
func by(data string) mqtttest.Option {
	return func(p *packet.Connect) {
		p.HasAuthMethod, p.AuthMethod, p.AuthData = true, "SCRIPT", []byte(data)
	}
}

func auth(code packet.Code, data string) *packet.Auth {
	return &packet.Auth{Code: code, AuthMethod: "SCRIPT", AuthData: []byte(data)}
}

func more(data string) *packet.Auth { return auth(packet.CodeContinueAuthentication, data) }

func again(data string) *packet.Auth { return auth(packet.CodeReauthenticate, data) }

// begin sends CONNECT with the method.
func (n *node) begin(id, data string, options ...mqtttest.Option) *mqtttest.Client {
	n.t.Helper()
	c := n.dial(packet.V5)
	p := packet.Connect{CleanStart: true, RequestProblemInfo: true, ClientID: id}
	for _, o := range append(options, by(data)) {
		o(&p)
	}
	c.Write(&p)
	return c
}

func expectAuth(t *testing.T, c *mqtttest.Client, code packet.Code, data string) {
	t.Helper()
	p := mqtttest.Expect[*packet.Auth](c)
	if p.Code != code || p.AuthMethod != "SCRIPT" || string(p.AuthData) != data {
		t.Fatalf("AUTH %+v, want %s %q", p, code, data)
	}
}

func expectConnack(t *testing.T, c *mqtttest.Client, code packet.Code) *packet.Connack {
	t.Helper()
	p := mqtttest.Expect[*packet.Connack](c)
	if p.Code != code {
		t.Fatalf("CONNACK %s (%s), want %s", p.Code, p.ReasonString, code)
	}
	return p
}

// TestAuthExchange: [MQTT-4.12.0-2] [MQTT-4.12.0-3] [MQTT-4.12.0-5].
func TestAuthExchange(t *testing.T) {
	for _, piped := range []bool{false, true} {
		n, s := scripted(t)
		n.piped = piped
		sub := n.connect(packet.V311, "sub")
		sub.Subscribe("#", 1)
		c := n.begin("c", "1", func(p *packet.Connect) {
			p.Will = &packet.Will{Topic: "will", Payload: []byte("gone")}
			p.HasUsername, p.Username = true, "name"
		})
		expectAuth(t, c, packet.CodeContinueAuthentication, "more 1")
		c.Write(more("2"))
		expectAuth(t, c, packet.CodeContinueAuthentication, "more 2")
		if n.metric("shoal_connections_half_open") != 1 {
			t.Error("the connection does not count as half open")
		}
		c.Write(more("user u"))
		ack := expectConnack(t, c, 0)
		if ack.AuthMethod != "SCRIPT" || string(ack.AuthData) != "welcome" {
			t.Errorf("CONNACK %+v", ack)
		}
		if n.metric("shoal_connections_half_open") != 0 {
			t.Error("the connection counts as half open")
		}
		c.Publish("a", "1", 1)
		sub.ExpectPublish("a", "1")
		if w := n.cluster.Wills(); len(w) != 1 || string(w[0].Message.Payload) != "gone" {
			t.Errorf("wills %v", w)
		}
		who := s.began[0]
		if who.ClientID != "c" || who.Username != "name" || who.Peer == nil || who.Peer.Remote == nil || who.Version != packet.V5 {
			t.Errorf("credentials %+v", who)
		}
	}
}

// TestAuthAtOnce: a method may need no AUTH packet; and may say who the client is.
func TestAuthAtOnce(t *testing.T) {
	n, _ := scripted(t, func(c *broker.Config) { c.AllowAnonymous = false })
	first := n.dial(packet.V5)
	if ack := first.Connect(mqtttest.ID("c"), by("user u")); string(ack.AuthData) != "welcome" {
		t.Errorf("CONNACK %+v", ack)
	}
	c := n.dial(packet.V5)
	if ack := c.Connect(mqtttest.ID("c2"), by("id c")); ack.AuthMethod != "SCRIPT" {
		t.Errorf("CONNACK %+v", ack)
	}
	first.ExpectDisconnect(packet.CodeSessionTakenOver)
	// What the client sends too early waits its turn.
	p := packet.Connect{ClientID: "c3", CleanStart: true, HasAuthMethod: true, AuthMethod: "SCRIPT", AuthData: []byte("1")}
	c = n.dial(packet.V5)
	c.Write(&p, more("2"), more("user u"), &packet.Pingreq{})
	expectAuth(t, c, packet.CodeContinueAuthentication, "more 1")
	expectAuth(t, c, packet.CodeContinueAuthentication, "more 2")
	expectConnack(t, c, 0)
	mqtttest.Expect[*packet.Pingresp](c)
}

// TestAuthRefused: [MQTT-4.12.0-1] [MQTT-4.12.0-4], on the first step and on a
// later one.
func TestAuthRefused(t *testing.T) {
	n, _ := scripted(t)
	for data, code := range map[string]packet.Code{
		"wrong":  packet.CodeBadUserNameOrPassword,
		"denied": packet.CodeNotAuthorized,
		"down":   packet.CodeServerUnavailable,
	} {
		c := n.begin("c", data)
		expectConnack(t, c, code)
		c.ExpectClosed()
		c = n.begin("c", "1")
		expectAuth(t, c, packet.CodeContinueAuthentication, "more 1")
		c.Write(more(data), &packet.Pingreq{})
		ack := expectConnack(t, c, code)
		if strings.Contains(ack.ReasonString, "no answer") {
			t.Errorf("the client is told %q", ack.ReasonString)
		}
		c.ExpectClosed()
	}
	other := func(p *packet.Connect) { p.HasAuthMethod, p.AuthMethod = true, "OTHER" }
	c := n.dial(packet.V5)
	if ack := c.TryConnect(mqtttest.ID("c"), other); ack.Code != packet.CodeBadAuthenticationMethod {
		t.Errorf("CONNACK %s", ack.Code)
	}
	c.ExpectClosed()
	// The method comes in place of User Name and Password.
	guarded, _ := scripted(t, func(c *broker.Config) { c.Authenticator = refuseAll{} })
	guarded.dial(packet.V5).Connect(mqtttest.ID("c"), by("user u"))
	plain := start(t)
	c = plain.dial(packet.V5)
	if ack := c.TryConnect(mqtttest.ID("c"), by("user u")); ack.Code != packet.CodeBadAuthenticationMethod {
		t.Errorf("CONNACK %s", ack.Code)
	}
	c.ExpectClosed()
	n.awaitConnections(0)
	if n.metric("shoal_connections_half_open") != 0 {
		t.Error("refused connections count as half open")
	}
}

type refuseAll struct{}

func (refuseAll) Authenticate(context.Context, *broker.Credentials) (*broker.Identity, error) {
	return nil, broker.ErrNotAuthorized
}

// TestAuthBeforeConnack: nothing but AUTH with the method of CONNECT, and
// DISCONNECT, may come ([MQTT-3.1.2-30]); the answer is CONNACK.
func TestAuthBeforeConnack(t *testing.T) {
	n, _ := scripted(t)
	for name, p := range map[string]packet.Packet{
		"PUBLISH":      &packet.Publish{Topic: []byte("a")},
		"PINGREQ":      &packet.Pingreq{},
		"CONNECT":      &packet.Connect{ClientID: "c"},
		"SUBSCRIBE":    &packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "a"}}},
		"PUBACK":       &packet.Ack{Type: packet.TypePuback, PacketID: 1},
		"other method": &packet.Auth{Code: packet.CodeContinueAuthentication, AuthMethod: "OTHER"},
		"again":        again("user u"),
		"success":      auth(packet.CodeSuccess, "user u"),
	} {
		c := n.begin("c", "1")
		expectAuth(t, c, packet.CodeContinueAuthentication, "more 1")
		c.Write(p, more("user u"))
		if ack := mqtttest.Expect[*packet.Connack](c); ack.Code != packet.CodeProtocolError {
			t.Errorf("%s: CONNACK %s", name, ack.Code)
		}
		c.ExpectClosed()
	}
	c := n.begin("c", "1")
	expectAuth(t, c, packet.CodeContinueAuthentication, "more 1")
	c.Write(&packet.Disconnect{})
	c.ExpectClosed()
	n.awaitConnections(0)
	if accepted := n.metric("shoal_connects_accepted_total"); accepted != 0 {
		t.Errorf("%v accepted", accepted)
	}
}

// TestAuthWithoutMethod: AUTH is not for clients that have chosen no method
// ([MQTT-4.12.0-6] [MQTT-4.12.0-7]).
func TestAuthWithoutMethod(t *testing.T) {
	n, _ := scripted(t)
	for _, p := range []*packet.Auth{more("user u"), again("user u")} {
		c := n.connect(packet.V5, "c")
		c.ExpectNothing()
		c.Write(p)
		c.ExpectDisconnect(packet.CodeProtocolError)
	}
	c := n.connect(packet.V311, "c")
	c.WriteRaw(0xF0, 0)
	c.ExpectClosed()
}

// TestAuthHalfOpen: exchanges that are not finished are bounded in number and in
// time.
func TestAuthHalfOpen(t *testing.T) {
	n, _ := scripted(t, func(c *broker.Config) { c.MaxHalfOpen = 3 })
	var clients []*mqtttest.Client
	for i := range 5 {
		c := n.begin(fmt.Sprint("c", i), "1")
		expectAuth(t, c, packet.CodeContinueAuthentication, "more 1")
		clients = append(clients, c)
	}
	clients[0].ExpectClosed()
	clients[1].ExpectClosed()
	n.awaitConnections(3)
	for _, c := range clients[2:] {
		c.Write(more("user u"))
		expectConnack(t, c, 0)
	}
	n.connect(packet.V5, "c").ExpectNothing() // and now there is room
	n.connect(packet.V5, "d").ExpectNothing()
}

// TestAuthTime: an exchange has until the connect timeout, whoever is slow;
// re-authentication has as long.
func TestAuthTime(t *testing.T) {
	s := new(script)
	inFakeTime(t, func(t *testing.T, n *node) {
		took := func(c *mqtttest.Client) {
			t.Helper()
			if took := closedAfter(c); took < 9*time.Second || took > 12*time.Second {
				t.Errorf("closed after %v", took)
			}
			c.Close()
		}
		c := n.begin("c", "1")
		expectAuth(t, c, packet.CodeContinueAuthentication, "more 1")
		took(c)
		took(n.begin("c", "hold"))
		for _, data := range []string{"1", "hold"} {
			c = n.begin("c", "user u")
			expectConnack(t, c, 0)
			time.Sleep(time.Hour)
			c.Write(again(data))
			took(c)
		}
		if s.waiting.Load() != 0 {
			t.Error("a step goes on")
		}
	}, func(c *broker.Config) { c.Enhanced = s })
}

// TestAuthStepEnds: a step ends with its connection, and with the broker.
func TestAuthStepEnds(t *testing.T) {
	n, s := scripted(t)
	for _, served := range []bool{true, false} {
		c := n.dial(packet.V5)
		if served {
			c.Connect(mqtttest.ID("c"), by("user u"))
			c.Write(again("hold u"))
		} else {
			p := packet.Connect{ClientID: "c", HasAuthMethod: true, AuthMethod: "SCRIPT", AuthData: []byte("hold u")}
			c.Write(&p)
		}
		await(t, "step", func() bool { return s.waiting.Load() == 1 })
		if served {
			c.Close()
			await(t, "end of the step", func() bool { return s.waiting.Load() == 0 })
			n.awaitConnections(0)
		}
	}
}

// TestAuthAgain: re-authentication leaves everything else going on
// (MQTT 5 §4.12.1), and may change what the client may do, and for how long.
func TestAuthAgain(t *testing.T) {
	r := new(rules)
	n, s := scripted(t, func(c *broker.Config) { c.Authorizer = r })
	c := n.begin("c", "user u")
	expectConnack(t, c, 0)
	c.Subscribe("a", 0)
	for range 3 {
		c.Write(again("1"))
		expectAuth(t, c, packet.CodeContinueAuthentication, "more 1")
		c.Publish("b", "", 2)
		c.Write(more("hold u"))
		await(t, "step", func() bool { return s.waiting.Load() == 1 })
		c.Publish("b", "", 1)
		c.Write(&packet.Publish{Topic: []byte("a"), Payload: []byte("x")})
		c.ExpectPublish("a", "x")
		c.ExpectNothing()
		s.hold <- struct{}{}
		expectAuth(t, c, packet.CodeSuccess, "held")
	}
	if got := s.began[1]; got.ClientID != "c" || got.Username != "u" || got.Method != "SCRIPT" {
		t.Errorf("credentials %+v", got)
	}
	if n.metric("shoal_connections_half_open") != 0 {
		t.Error("counts as half open")
	}
}

// TestAuthAgainUnderLoad: neither publishes nor deliveries wait, or are lost,
// while a client proves again and again who it is.
func TestAuthAgainUnderLoad(t *testing.T) {
	const publishes, rounds = 2000, 50
	for _, piped := range []bool{false, true} {
		n, _ := scripted(t, func(c *broker.Config) { c.Authorizer = new(rules) })
		n.piped = piped
		c := n.begin("c", "user u")
		expectConnack(t, c, 0)
		c.Subscribe("a", 0)
		window, failed := make(chan struct{}, 32), make(chan error, 1)
		go func() {
			for i := range publishes {
				window <- struct{}{}
				p := packet.Publish{Topic: []byte("a"), Payload: fmt.Append(nil, i), QoS: 1, PacketID: uint16(i + 1)}
				if err := c.Send(&p); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
		c.Write(again("1"))
		delivered, acked, proved := 0, 0, 0
		for delivered < publishes || acked < publishes || proved < rounds {
			switch p := c.Next().(type) {
			case *packet.Auth:
				switch {
				case p.Code == packet.CodeContinueAuthentication:
					c.Write(more("user u"))
				case proved+1 < rounds:
					c.Write(again("1"))
					fallthrough
				default:
					proved++
				}
			case *packet.Publish:
				if string(p.Payload) != fmt.Sprint(delivered) {
					t.Fatalf("got %s, want %d", mqtttest.Describe(p), delivered)
				}
				delivered++
			case *packet.Ack:
				if acked++; int(p.PacketID) != acked || p.Code != 0 {
					t.Fatalf("got %s, want %d", mqtttest.Describe(p), acked)
				}
				<-window
			default:
				t.Fatalf("got %s", mqtttest.Describe(p))
			}
		}
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
}

// TestAuthAgainRefused: the connection ends, its session goes on, its Will is
// published ([MQTT-4.12.1-2]).
func TestAuthAgainRefused(t *testing.T) {
	n, s := scripted(t)
	for i, p := range []struct {
		*packet.Auth
		code packet.Code
	}{
		{again("wrong"), packet.CodeNotAuthorized},
		{again("denied"), packet.CodeNotAuthorized},
		{again("down"), packet.CodeServerBusy},
		{again("user somebody"), packet.CodeNotAuthorized},
		{again("id other"), packet.CodeNotAuthorized},
		{more("user u"), packet.CodeProtocolError},
		{auth(packet.CodeSuccess, "user u"), packet.CodeProtocolError},
		{&packet.Auth{Code: packet.CodeReauthenticate, AuthMethod: "OTHER"}, packet.CodeProtocolError},
	} {
		c := n.dial(packet.V5)
		ack := c.Connect(mqtttest.ID("c"), mqtttest.Resume(), mqtttest.Expiry(100), by("user u"))
		if ack.SessionPresent != (i > 0) {
			t.Errorf("%d: session present %t", i, ack.SessionPresent)
		}
		c.Write(p)
		c.ExpectDisconnect(p.code)
		n.awaitConnections(0)
	}
	for i, r := range n.cluster.Closes() {
		if r.DiscardWill || r.ExpirySeconds != nil {
			t.Errorf("close %d: %+v", i, r)
		}
	}
	// Who has an exchange waits for its answers.
	for _, p := range []*packet.Auth{more("2"), again("2")} {
		c := n.begin("c", "user u")
		expectConnack(t, c, 0)
		c.Write(again("hold u"), p)
		c.ExpectDisconnect(packet.CodeProtocolError)
		n.awaitConnections(0)
	}
	c := n.begin("c", "user u")
	expectConnack(t, c, 0)
	c.Write(again("1"))
	expectAuth(t, c, packet.CodeContinueAuthentication, "more 1")
	c.Write(again("1"))
	c.ExpectDisconnect(packet.CodeProtocolError)
	if s.waiting.Load() != 0 {
		t.Error("a step goes on")
	}
}

// TestAuthAgainTakenOver: another connection has the session while a step goes on.
func TestAuthAgainTakenOver(t *testing.T) {
	n, s := scripted(t)
	old := n.begin("c", "user u")
	expectConnack(t, old, 0)
	old.Write(again("hold u"))
	await(t, "step", func() bool { return s.waiting.Load() == 1 })
	c := n.begin("c", "user u")
	expectConnack(t, c, 0)
	old.ExpectDisconnect(packet.CodeSessionTakenOver)
	await(t, "end of the step", func() bool { return s.waiting.Load() == 0 })
	n.awaitConnections(1)
	c.Write(again("user u"))
	expectAuth(t, c, packet.CodeSuccess, "welcome")
}

// TestAuthTooLarge: an answer that the client does not take ends the exchange
// ([MQTT-3.1.2-24]).
func TestAuthTooLarge(t *testing.T) {
	n, _ := scripted(t)
	c := n.begin("c", strings.Repeat("1", 100), func(p *packet.Connect) { p.MaximumPacketSize = 60 })
	expectConnack(t, c, packet.CodePacketTooLarge)
	c.ExpectClosed()
	c = n.begin("c", "user u", func(p *packet.Connect) { p.MaximumPacketSize = 60 })
	expectConnack(t, c, 0)
	c.Write(again(strings.Repeat("1", 100)))
	c.ExpectDisconnect(packet.CodePacketTooLarge)
}

// TestAuthExpires: the end of the proof follows re-authentication.
func TestAuthExpires(t *testing.T) {
	s := &script{}
	inFakeTime(t, func(t *testing.T, n *node) {
		s.expires = time.Now().Add(time.Hour)
		c := n.begin("c", "user u")
		expectConnack(t, c, 0)
		time.Sleep(50 * time.Minute)
		s.expires = time.Now().Add(time.Hour)
		c.Write(again("user u"))
		expectAuth(t, c, packet.CodeSuccess, "welcome")
		if took := closedAfter(c); took < 59*time.Minute || took > 61*time.Minute {
			t.Errorf("closed after %v", took)
		}
		c.Close()
		s.expires = time.Time{}
		c = n.begin("c", "user u")
		expectConnack(t, c, 0)
		c.Write(again("1"))
		expectAuth(t, c, packet.CodeContinueAuthentication, "more 1")
		time.Sleep(5 * time.Second)
		s.expires = time.Now().Add(2 * time.Second)
		c.Write(more("user u"))
		expectAuth(t, c, packet.CodeSuccess, "welcome")
		if took := closedAfter(c); took > 4*time.Second {
			t.Errorf("closed after %v", took)
		}
		c.Close()
	}, func(c *broker.Config) { c.Enhanced = s })
}
