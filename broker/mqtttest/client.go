package mqtttest

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

// Timeout is how long a Client waits for what has to come: far longer than it
// takes, so that no test depends on speed.
const Timeout = 2 * time.Minute

// Client is a Conn that fails its test when something else happens than was
// expected. It must be used from the test's goroutine.
type Client struct {
	*Conn
	t  testing.TB
	id uint16
}

// Connect options change a CONNECT before it is sent.
type Option func(*packet.Connect)

// ID sets the Client Identifier.
func ID(id string) Option { return func(p *packet.Connect) { p.ClientID = id } }

// Resume clears Clean Start.
func Resume() Option { return func(p *packet.Connect) { p.CleanStart = false } }

// Expiry sets the Session Expiry Interval.
func Expiry(seconds uint32) Option {
	return func(p *packet.Connect) { p.HasSessionExpiry, p.SessionExpiry = true, seconds }
}

// ReceiveMaximum sets the client's Receive Maximum.
func ReceiveMaximum(n uint16) Option { return func(p *packet.Connect) { p.ReceiveMaximum = n } }

// KeepAlive sets the Keep Alive in seconds.
func KeepAlive(seconds uint16) Option { return func(p *packet.Connect) { p.KeepAlive = seconds } }

// New makes a Client of a Conn, which ends with the test.
func New(t testing.TB, c *Conn) *Client {
	t.Helper()
	t.Cleanup(func() { c.Close() })
	return &Client{Conn: c, t: t}
}

// DialTest connects to a TCP address.
func DialTest(t testing.TB, addr string, v packet.Version) *Client {
	t.Helper()
	c, err := Dial(addr, v, Timeout)
	if err != nil {
		t.Fatal(err)
	}
	return New(t, c)
}

// Over makes a Client of any connection.
func Over(t testing.TB, nc net.Conn, v packet.Version) *Client {
	t.Helper()
	return New(t, NewConn(nc, v))
}

// Connect sends CONNECT (Clean Start 1, unless an option says else) and returns
// the CONNACK, which must be a success.
func (c *Client) Connect(options ...Option) *packet.Connack {
	c.t.Helper()
	ack := c.TryConnect(options...)
	if ack.Code != packet.CodeSuccess {
		c.t.Fatalf("CONNACK %s (%s)", ack.Code, ack.ReasonString)
	}
	return ack
}

// TryConnect is Connect for which a refusal is fine.
func (c *Client) TryConnect(options ...Option) *packet.Connack {
	c.t.Helper()
	p := packet.Connect{CleanStart: true, RequestProblemInfo: true}
	for _, o := range options {
		o(&p)
	}
	ack, err := c.Conn.Connect(p, Timeout)
	if err != nil {
		c.t.Fatalf("connect: %v", err)
	}
	return ack
}

// Write sends packets.
func (c *Client) Write(packets ...packet.Packet) {
	c.t.Helper()
	if err := c.Send(packets...); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// WriteRaw sends bytes.
func (c *Client) WriteRaw(b ...byte) {
	c.t.Helper()
	if err := c.SendRaw(b); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// NextID returns a Packet Identifier that this client has not used lately.
func (c *Client) NextID() uint16 {
	c.id++
	if c.id == 0 {
		c.id = 1
	}
	return c.id
}

// Next returns the next packet.
func (c *Client) Next() packet.Packet {
	c.t.Helper()
	p, err := c.Receive(Timeout)
	if err != nil {
		c.t.Fatalf("receive: %v", err)
	}
	return p
}

// Expect returns the next packet, which must be a P.
func Expect[P packet.Packet](c *Client) P {
	c.t.Helper()
	got := c.Next()
	p, ok := got.(P)
	if !ok {
		c.t.Fatalf("got %s, want %T", Describe(got), p)
	}
	return p
}

// ExpectAck takes the next packet, which must be this acknowledgement.
func (c *Client) ExpectAck(t packet.Type, id uint16, code packet.Code) {
	c.t.Helper()
	p := Expect[*packet.Ack](c)
	if p.Type != t || p.PacketID != id || p.Code != code {
		c.t.Fatalf("got %s, want %s(id %d code 0x%02X)", Describe(p), t, id, byte(code))
	}
}

// ExpectPublish takes the next packet, which must be a PUBLISH with this Topic
// Name and payload.
func (c *Client) ExpectPublish(topic, payload string) *packet.Publish {
	c.t.Helper()
	p := Expect[*packet.Publish](c)
	if string(p.Topic) != topic || string(p.Payload) != payload {
		c.t.Fatalf("got %s, want %s %q", Describe(p), topic, payload)
	}
	return p
}

// ExpectDisconnect takes DISCONNECT with this code (MQTT 5), and the end of the
// connection. MQTT 3 servers just close.
func (c *Client) ExpectDisconnect(code packet.Code) {
	c.t.Helper()
	if c.Version == packet.V5 {
		if p := Expect[*packet.Disconnect](c); p.Code != code {
			c.t.Fatalf("got %s, want 0x%02X", Describe(p), byte(code))
		}
	}
	c.ExpectClosed()
}

// ExpectClosed takes the end of the connection, and closes it from this side.
func (c *Client) ExpectClosed() {
	c.t.Helper()
	p, err := c.Receive(Timeout)
	if err == nil {
		c.t.Fatalf("got %s, want the connection closed", Describe(p))
	}
	if errors.Is(err, ErrTimeout) {
		c.t.Fatal("the connection is still open")
	}
	c.Close()
}

// Subscribe subscribes and checks that all is granted.
func (c *Client) Subscribe(filter string, qos packet.QoS) {
	c.t.Helper()
	codes := c.SubscribeAll(packet.Subscription{Filter: filter, QoS: qos})
	if codes[0] != packet.Code(qos) {
		c.t.Fatalf("subscribe %q: %s", filter, codes[0])
	}
}

// SubscribeAll sends one SUBSCRIBE and returns the codes of its SUBACK.
func (c *Client) SubscribeAll(subs ...packet.Subscription) []packet.Code {
	c.t.Helper()
	return c.SubscribeWith(packet.Subscribe{Subscriptions: subs})
}

// SubscribeWith sends p with a new Packet Identifier.
func (c *Client) SubscribeWith(p packet.Subscribe) []packet.Code {
	c.t.Helper()
	p.PacketID = c.NextID()
	c.Write(&p)
	ack := Expect[*packet.Suback](c)
	if ack.PacketID != p.PacketID || len(ack.Codes) != len(p.Subscriptions) {
		c.t.Fatalf("SUBACK %+v for %+v", ack, p)
	}
	return ack.Codes
}

// Unsubscribe unsubscribes and returns the codes of UNSUBACK.
func (c *Client) Unsubscribe(filters ...string) []packet.Code {
	c.t.Helper()
	p := packet.Unsubscribe{PacketID: c.NextID(), Filters: filters}
	c.Write(&p)
	ack := Expect[*packet.Unsuback](c)
	if ack.PacketID != p.PacketID {
		c.t.Fatalf("UNSUBACK %+v for %+v", ack, p)
	}
	return ack.Codes
}

// Publish publishes and goes through the acknowledgements of the QoS.
func (c *Client) Publish(topic, payload string, qos packet.QoS) {
	c.t.Helper()
	p := packet.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: qos}
	if qos > 0 {
		p.PacketID = c.NextID()
	}
	c.Write(&p)
	switch qos {
	case packet.QoS1:
		c.ExpectAck(packet.TypePuback, p.PacketID, packet.CodeSuccess)
	case packet.QoS2:
		c.ExpectAck(packet.TypePubrec, p.PacketID, packet.CodeSuccess)
		if !c.AutoAck {
			c.Write(&packet.Ack{Type: packet.TypePubrel, PacketID: p.PacketID})
		}
		c.ExpectAck(packet.TypePubcomp, p.PacketID, packet.CodeSuccess)
	}
}

// Ping sends PINGREQ and returns the packets that came before PINGRESP: all that
// the server had sent by then.
func (c *Client) Ping() []packet.Packet {
	c.t.Helper()
	c.Write(&packet.Pingreq{})
	var before []packet.Packet
	for {
		p := c.Next()
		if _, ok := p.(*packet.Pingresp); ok {
			return before
		}
		before = append(before, p)
	}
}

// ExpectNothing checks that the server has sent nothing.
func (c *Client) ExpectNothing() {
	c.t.Helper()
	if ps := c.Ping(); len(ps) > 0 {
		c.t.Fatalf("got %s, want nothing", Describe(ps[0]))
	}
}

// Disconnect sends DISCONNECT with success and takes the end of the connection.
func (c *Client) Disconnect() {
	c.t.Helper()
	c.Write(&packet.Disconnect{})
	c.ExpectClosed()
}
