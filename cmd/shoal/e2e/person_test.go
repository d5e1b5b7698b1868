package e2e

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// person is a client that does one thing at a time and, when its connection
// dies, does it again on another node. It is for one goroutine.
type person struct {
	nodes   []string
	at      int // of nodes, where it is or will try next
	connect packet.Connect
	conn    *mqtttest.Conn
	// present is Session Present of the last CONNACK.
	present bool
	id      uint16
}

// present are the persons that are online. The collector would close the
// connections of those that a test holds no more, while they are still meant to be
// there.
var present sync.Map

// errNoNode: no node took the client.
var errNoNode = errors.New("no node takes the client")

func newPerson(nodes []string, at int, c packet.Connect) *person {
	c.RequestProblemInfo = true
	return &person{nodes: nodes, at: at, connect: c}
}

// online connects, unless it is.
func (p *person) online() error {
	for end := time.Now().Add(patience); p.conn == nil; {
		c, ack, err := p.dial()
		switch {
		case err == nil && ack.Code == packet.CodeSuccess:
			p.conn, p.present = c, ack.SessionPresent
			present.Store(p, nil)
			return nil
		case err == nil:
			c.Close()
			err = fmt.Errorf("CONNACK: %s %s", ack.Code, ack.ReasonString)
		}
		if time.Now().After(end) {
			return fmt.Errorf("%w: %w", errNoNode, err)
		}
		p.at++
		time.Sleep(backoffLeast)
	}
	return nil
}

// dial makes one try.
func (p *person) dial() (*mqtttest.Conn, *packet.Connack, error) {
	c, err := mqtttest.Dial(p.nodes[p.at%len(p.nodes)], packet.V5, dialTimeout)
	if err != nil {
		return nil, nil, err
	}
	c.AutoAck = true
	ack, err := c.Connect(p.connect, connackTimeout)
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c, ack, nil
}

// offline cuts the connection.
func (p *person) offline() {
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
		present.Delete(p)
	}
}

// leave ends the connection with DISCONNECT.
func (p *person) leave() {
	if p.conn != nil {
		p.conn.Send(&packet.Disconnect{})
		p.offline()
	}
}

func (p *person) next() uint16 {
	p.id = p.id%60000 + 1
	return p.id
}

// publish publishes until it is acknowledged, over as many connections as that
// takes. What it received meanwhile goes to got, which may be nil.
func (p *person) publish(m packet.Publish, got func(*packet.Publish)) error {
	m.PacketID = p.next()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if err := p.online(); err != nil {
			return err
		}
		p.conn.Send(&m)
		code, err := p.answer(m.PacketID, got)
		if err == nil && code.Failed() {
			return fmt.Errorf("%s", code)
		}
		if err == nil || errors.Is(err, mqtttest.ErrTimeout) {
			return err
		}
		p.offline()
	}
	return errors.New("no answer to PUBLISH")
}

// answer waits for PUBACK or PUBREC of an identifier.
func (p *person) answer(id uint16, got func(*packet.Publish)) (packet.Code, error) {
	for end := time.Now().Add(patience); ; {
		x, err := p.conn.Receive(time.Until(end))
		if err != nil {
			return 0, err
		}
		switch x := x.(type) {
		case *packet.Publish:
			if got != nil {
				got(x)
			}
		case *packet.Ack:
			if x.PacketID == id && (x.Type == packet.TypePuback || x.Type == packet.TypePubrec) {
				return x.Code, nil
			}
		}
	}
}

// subscribe makes one try on the connection there is; messages that come before
// SUBACK go to got.
func (p *person) subscribe(got func(*packet.Publish), subs ...packet.Subscription) error {
	id := p.next()
	if err := p.conn.Send(&packet.Subscribe{PacketID: id, Subscriptions: subs}); err != nil {
		return err
	}
	for end := time.Now().Add(patience); ; {
		x, err := p.conn.Receive(time.Until(end))
		if err != nil {
			return err
		}
		switch x := x.(type) {
		case *packet.Publish:
			got(x)
		case *packet.Suback:
			if x.Codes[0].Failed() {
				return fmt.Errorf("SUBACK: %s", x.Codes[0])
			}
			return nil
		}
	}
}
