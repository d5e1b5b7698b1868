package broker_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// anyone is who it says it is.
type anyone struct{}

func (anyone) Authenticate(_ context.Context, c *broker.Credentials) (*broker.Identity, error) {
	if string(c.Password) == "wrong" {
		return nil, broker.ErrBadCredentials
	}
	return nil, nil
}

func as(user string) mqtttest.Option {
	return func(p *packet.Connect) { p.HasUsername, p.Username = true, user }
}

func (n *node) hits(limit string) float64 { return n.metric("shoal_limits_hit_total", limit) }

// TestPublishRate: what comes too fast is not read for a while, and nothing of it
// is lost; or ends the connection. The rate of a user is that of all its clients.
func TestPublishRate(t *testing.T) {
	const count = 200
	for _, c := range []struct {
		name string
		set  func(*broker.Config)
		size int
	}{
		{"messages", func(c *broker.Config) { c.Client.PublishRate = 10 }, 0},
		{"bytes", func(c *broker.Config) { c.Client.PublishBytesRate = 1010 }, 100},
		{"of a user", func(c *broker.Config) {
			c.Users = map[string]*broker.UserLimits{"u": {Quota: broker.Quota{PublishRate: 10}}}
		}, 0},
		{"of the user's clients, above the listener's", func(c *broker.Config) {
			c.Client.PublishRate = 1
			c.Users = map[string]*broker.UserLimits{"u": {Each: broker.Limits{PublishRate: 10}}}
		}, 0},
	} {
		for qos := packet.QoS0; qos <= packet.QoS2; qos++ {
			inFakeTime(t, func(t *testing.T, n *node) {
				sub := n.connect(packet.V5, "s", as("other"))
				sub.AutoAck = true
				sub.Subscribe("#", 0)
				pub := n.connect(packet.V311, "p", as("u"), mqtttest.KeepAlive(1))
				start := time.Now()
				go func() {
					for i := range count {
						p := packet.Publish{Topic: []byte("a"), Payload: fmt.Appendf(nil, "%0*d", c.size, i), QoS: qos}
						if qos > 0 {
							p.PacketID = uint16(i + 1)
						}
						pub.Send(&p)
					}
				}()
				go func() {
					for {
						if _, err := pub.Receive(time.Hour); err != nil {
							return
						}
					}
				}()
				for i := range count {
					sub.ExpectPublish("a", fmt.Sprintf("%0*d", c.size, i))
				}
				// A second's worth at once, the rest at the rate.
				if took := time.Since(start); took < (count-11)/10*time.Second || took > (count+20)/10*time.Second {
					t.Errorf("%s, QoS %d: took %s", c.name, qos, took)
				}
				if n.hits("publish_rate") == 0 {
					t.Errorf("%s: not counted", c.name)
				}
				pub.Close()
			}, c.set, func(c *broker.Config) { c.Authenticator = anyone{} })
		}
	}
	inFakeTime(t, func(t *testing.T, n *node) {
		c := n.connect(packet.V5, "c")
		for range 11 {
			c.Send(&packet.Publish{Topic: []byte("a")})
		}
		c.ExpectDisconnect(packet.CodeMessageRateTooHigh)
	}, func(c *broker.Config) { c.Client.PublishRate, c.Client.Disconnect = 10, true })
}

// TestRequestRate: PINGREQ, SUBSCRIBE and UNSUBSCRIBE.
func TestRequestRate(t *testing.T) {
	inFakeTime(t, func(t *testing.T, n *node) {
		c := n.connect(packet.V5, "c", mqtttest.KeepAlive(1))
		start := time.Now()
		for range 20 {
			c.Ping()
			c.Subscribe("a", 0)
			c.Unsubscribe("a")
		}
		if took := time.Since(start); took < 4*time.Second || took > 6*time.Second {
			t.Errorf("60 requests at 10/s took %s", took)
		}
	}, func(c *broker.Config) { c.Client.RequestRate = 10 })
}

// TestClientLimits: sizes and numbers, each with its code.
func TestClientLimits(t *testing.T) {
	n := start(t, func(c *broker.Config) {
		c.Authenticator = anyone{}
		c.Client = broker.Limits{MaxPacketBytes: 1000, MaxTopicBytes: 50, MaxTopicLevels: 3, MaxSubscriptions: 2, ReceiveMaximum: 7, MaxKeepAlive: 9 * time.Second, MaxSessionExpiry: 8 * time.Second}
		c.Users = map[string]*broker.UserLimits{"wide": {Each: broker.Limits{MaxPacketBytes: 2000, MaxTopicLevels: 5}}}
	})
	connect := func(user string) *mqtttest.Client {
		c := n.dial(packet.V5)
		ack := c.Connect(mqtttest.ID("c"), as(user), mqtttest.Expiry(100), mqtttest.KeepAlive(50))
		want := uint32(1000)
		if user == "wide" {
			want = 2000
		}
		if ack.MaximumPacketSize != want || ack.ReceiveMaximum != 7 || ack.ServerKeepAlive != 9 || ack.SessionExpiry != 8 {
			t.Errorf("user %q: %+v", user, ack)
		}
		return c
	}
	for _, c := range []struct {
		user, topic string
		size        int
		code        packet.Code
		limit       string
	}{
		{"u", "a/b/c", 900, 0, ""},
		{"u", "a/b/c", 1000, packet.CodePacketTooLarge, "packet_size"},
		{"u", "a/b/c/d", 0, packet.CodeTopicNameInvalid, "topic"},
		{"u", strings.Repeat("x", 51), 0, packet.CodeTopicNameInvalid, "topic"},
		{"wide", "a/b/c/d/e", 1900, 0, ""},
		{"wide", "a", 2000, packet.CodePacketTooLarge, "packet_size"},
	} {
		cl := connect(c.user)
		before := n.hits(c.limit)
		cl.Write(&packet.Publish{Topic: []byte(c.topic), Payload: make([]byte, c.size)})
		if c.code == 0 {
			cl.Ping()
			cl.Disconnect()
			continue
		}
		cl.ExpectDisconnect(c.code)
		if n.hits(c.limit) != before+1 {
			t.Errorf("%+v: not counted", c)
		}
	}
	for _, durable := range []uint32{0, 100} {
		cl := n.dial(packet.V5)
		cl.Connect(mqtttest.ID("s"), as("u"), mqtttest.Expiry(durable))
		codes := append(cl.SubscribeAll(packet.Subscription{Filter: "a/b/c/d"}), cl.SubscribeAll(packet.Subscription{Filter: "a"})...)
		codes = append(codes, cl.SubscribeAll(packet.Subscription{Filter: "b"})...)
		if durable == 0 { // a durable session's are bounded by its shard, which is not here
			codes = append(codes, cl.SubscribeAll(packet.Subscription{Filter: "c"})...)
			codes = append(codes, cl.SubscribeAll(packet.Subscription{Filter: "b", QoS: 1})...)
			if fmt.Sprint(codes) != fmt.Sprint([]packet.Code{packet.CodeTopicFilterInvalid, 0, 0, packet.CodeQuotaExceeded, 1}) {
				t.Errorf("%v", codes)
			}
		}
		cl.Disconnect()
	}
}

// TestUserConnections: of a user as many as it may, not counting one that takes
// over its own.
func TestUserConnections(t *testing.T) {
	n := start(t, func(c *broker.Config) {
		c.Authenticator = anyone{}
		c.Users = map[string]*broker.UserLimits{"u": {Quota: broker.Quota{MaxConnections: 2}}}
	})
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		one, two := n.connect(v, "1", as("u")), n.connect(v, "2", as("u"))
		n.connect(v, "3", as("other")).Disconnect()
		refused := n.dial(v)
		if ack := refused.TryConnect(mqtttest.ID("3"), as("u")); ack.Code != packet.CodeQuotaExceeded && ack.Code != packet.CodeServerUnavailable {
			t.Errorf("CONNACK %s", ack.Code)
		}
		again := n.connect(v, "1", as("u"))
		one.Close()
		two.Disconnect()
		n.awaitConnections(1)
		three := n.connect(v, "3", as("u"))
		again.Disconnect()
		three.Disconnect()
		n.awaitConnections(0)
	}
	if n.hits("user_connections") != 2 {
		t.Error("not counted")
	}
}

// TestFlapping: a client that comes too often is refused for a time, and nobody
// else is, whatever name they use.
func TestFlapping(t *testing.T) {
	inFakeTime(t, func(t *testing.T, n *node) {
		try := func(id, user string) packet.Code {
			c := n.dial(packet.V5)
			defer c.Close()
			return c.TryConnect(mqtttest.ID(id), as(user)).Code
		}
		for range 5 {
			if code := try("c", "u"); code != 0 {
				t.Fatal(code)
			}
		}
		if code := try("c", "u"); code != packet.CodeBanned {
			t.Errorf("the sixth: %s", code)
		}
		if a, b := try("c", "other"), try("d", "u"); a != 0 || b != 0 {
			t.Errorf("others: %s, %s", a, b)
		}
		time.Sleep(59 * time.Second)
		if code := try("c", "u"); code != packet.CodeBanned {
			t.Errorf("before the ban's end: %s", code)
		}
		time.Sleep(2 * time.Second)
		if code := try("c", "u"); code != 0 {
			t.Errorf("after the ban: %s", code)
		}
		if n.hits("flapping") != 2 {
			t.Errorf("counted %v", n.hits("flapping"))
		}
		n.awaitConnections(0)
	}, func(c *broker.Config) {
		c.Authenticator = anyone{}
		c.Flapping = broker.Ban{Events: 5, Window: time.Minute, Time: time.Minute}
	})
}

// TestFailedLogins and connections of one address.
func TestFailedLogins(t *testing.T) {
	for _, c := range []struct {
		set   func(*broker.Config, broker.Ban)
		wrong bool
		code  packet.Code
	}{
		{func(c *broker.Config, b broker.Ban) { c.FailedLogins = b }, true, packet.CodeBanned},
		{func(c *broker.Config, b broker.Ban) { c.Addresses = b }, false, packet.CodeConnectionRateExceeded},
	} {
		inFakeTime(t, func(t *testing.T, n *node) {
			try := func(password string) packet.Code {
				cl := n.dial(packet.V5)
				defer cl.Close()
				return cl.TryConnect(as("u"), func(p *packet.Connect) { p.HasPassword, p.Password = true, []byte(password) }).Code
			}
			password, code := "right", packet.CodeSuccess
			if c.wrong {
				password, code = "wrong", packet.CodeBadUserNameOrPassword
			}
			for i := range 5 {
				if got := try(password); got != code {
					t.Fatalf("%d: %s", i, got)
				}
			}
			try(password)
			if got := try("right"); got != c.code {
				t.Errorf("banned: %s", got)
			}
			time.Sleep(61 * time.Second)
			if got := try("right"); got != 0 {
				t.Errorf("after the ban: %s", got)
			}
			n.awaitConnections(0)
		}, func(config *broker.Config) {
			config.Authenticator, config.AllowAnonymous = anyone{}, false
			c.set(config, broker.Ban{Events: 5, Window: time.Minute, Time: time.Minute})
		})
	}
}

// TestSlowPacket: a packet that is begun and does not come to its end costs the
// connection, however busy the client is with its bytes.
func TestSlowPacket(t *testing.T) {
	inFakeTime(t, func(t *testing.T, n *node) {
		c := n.connect(packet.V5, "c", mqtttest.KeepAlive(5))
		c.WriteRaw(0x30, 100, 0, 1, 'a')
		start := time.Now()
		var code packet.Code
		for time.Since(start) < time.Hour {
			if err := c.SendRaw([]byte{'x'}); err != nil {
				break
			}
			if p, err := c.Receive(2 * time.Second); err == nil {
				code = p.(*packet.Disconnect).Code
				break
			}
		}
		if took := time.Since(start); took < 20*time.Second || took > 22*time.Second || code != packet.CodeUnspecifiedError {
			t.Errorf("closed after %s with %s", took, code)
		}
		if n.hits("packet_time") != 1 {
			t.Error("not counted")
		}
	}, func(c *broker.Config) { c.PacketTimeout = 20 * time.Second })
}

// TestDeaf: a client that sends PINGREQ and takes nothing of what it is sent.
func TestDeaf(t *testing.T) {
	inFakeTime(t, func(t *testing.T, n *node) {
		c := n.connect(packet.V5, "c", mqtttest.KeepAlive(5))
		start := time.Now()
		for time.Since(start) < time.Hour {
			if err := c.SendRaw([]byte{0xC0, 0}); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if took := time.Since(start); took < 20*time.Second || took > 23*time.Second {
			t.Errorf("closed after %s", took)
		}
		if n.hits("stalled") != 1 {
			t.Error("not counted")
		}
	}, func(c *broker.Config) { c.StallTimeout = 20 * time.Second })
}
