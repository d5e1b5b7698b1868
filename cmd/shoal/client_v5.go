package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session"
	"github.com/eclipse/paho.golang/paho/session/state"
)

// clientV5 speaks MQTT 5.
type clientV5 struct {
	paho *paho.Client
	gone chan error
}

// takeThenAck is a session state that acknowledges only what was taken, and
// says when it has.
type takeThenAck struct {
	session.SessionManager
	receiver
	err        error // of the take that preceded Ack, on the same goroutine
	unfinished unfinished
}

func (s *takeThenAck) handle(r paho.PublishReceived) (bool, error) {
	p := r.Packet
	s.err = s.take(message{topic: p.Topic, payload: p.Payload, qos: p.QoS, retain: p.Retain, dup: p.Duplicate()})
	return true, s.err
}

func (s *takeThenAck) Ack(pb *packets.Publish) error {
	if s.err != nil {
		return s.err
	}
	if pb.QoS == 2 {
		s.unfinished.add(pb.PacketID)
		return s.SessionManager.Ack(pb)
	}
	err := s.SessionManager.Ack(pb)
	s.done()
	return err
}

// PacketReceived answers a PUBREL with PUBCOMP before it returns.
func (s *takeThenAck) PacketReceived(p *packets.ControlPacket, to chan<- *packets.Publish) error {
	err := s.SessionManager.PacketReceived(p, to)
	if r, ok := p.Content.(*packets.Pubrel); ok && s.unfinished.remove(r.PacketID) {
		s.done()
	}
	return err
}

func dialV5(ctx context.Context, f *clientFlags, conn net.Conn, r receiver) (client, error) {
	s := &takeThenAck{SessionManager: state.NewInMemory(), receiver: r}
	c := &clientV5{gone: make(chan error, 1)}
	config := paho.ClientConfig{
		ClientID:           f.id,
		Conn:               packets.NewThreadSafeConn(conn),
		Session:            s,
		PacketTimeout:      answerTimeout,
		OnPublishReceived:  []func(paho.PublishReceived) (bool, error){s.handle},
		OnClientError:      func(err error) { c.end(fmt.Errorf("connection lost: %w", err)) },
		OnServerDisconnect: func(d *paho.Disconnect) { c.end(disconnected(d)) },
	}
	expiry := f.expirySeconds()
	p := &paho.Connect{
		ClientID:     f.id,
		CleanStart:   !f.resume,
		KeepAlive:    f.alive,
		Username:     f.user,
		UsernameFlag: f.user != "",
		Password:     []byte(f.password),
		PasswordFlag: f.password != "",
		Properties:   &paho.ConnectProperties{SessionExpiryInterval: &expiry},
	}
	if w := f.will; w.topic != "" {
		p.WillMessage = &paho.WillMessage{Topic: w.topic, Payload: w.payload, QoS: w.qos, Retain: w.retain}
		p.WillProperties = &paho.WillProperties{WillDelayInterval: &f.delay}
	}
	var login *scramLogin
	if f.scram {
		var err error
		if login, err = newSCRAM(f.user, f.password, p); err != nil {
			return nil, err
		}
		config.AuthHandler = login
	}
	c.paho = paho.NewClient(config)
	if f.debug {
		c.paho.SetDebugLogger(log.New(os.Stderr, f.id+": ", log.Lmicroseconds))
	}
	ack, err := c.paho.Connect(ctx, p)
	if ack != nil && ack.ReasonCode >= 0x80 {
		return nil, fmt.Errorf("connect: refused with 0x%02X: %s", ack.ReasonCode, (&packets.Connack{ReasonCode: ack.ReasonCode}).Reason())
	}
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	if login != nil {
		if err := login.check(ack); err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
	}
	return c, nil
}

func disconnected(d *paho.Disconnect) error {
	return fmt.Errorf("disconnected by the server with 0x%02X: %s", d.ReasonCode, d.Packet().Reason())
}

// end keeps the first reason.
func (c *clientV5) end(err error) {
	select {
	case c.gone <- err:
	default:
	}
}

func (c *clientV5) lost() <-chan error { return c.gone }

func (c *clientV5) publish(ctx context.Context, m message) error {
	p := &paho.Publish{Topic: m.topic, Payload: m.payload, QoS: m.qos, Retain: m.retain}
	if m.expiry > 0 {
		p.Properties = &paho.PublishProperties{MessageExpiry: &m.expiry}
	}
	r, err := c.paho.Publish(ctx, p)
	if r != nil && r.ReasonCode >= 0x80 {
		return fmt.Errorf("publish: refused with 0x%02X: %s", r.ReasonCode, (&packets.Puback{ReasonCode: r.ReasonCode}).Reason())
	}
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

func (c *clientV5) subscribe(ctx context.Context, filters []string, o subscribeOptions) error {
	var s paho.Subscribe
	for _, f := range filters {
		s.Subscriptions = append(s.Subscriptions, paho.SubscribeOptions{
			Topic: f, QoS: o.qos, RetainHandling: o.retainHandling, RetainAsPublished: o.asPublished, NoLocal: o.noLocal,
		})
	}
	ack, err := c.paho.Subscribe(ctx, &s)
	if ack != nil {
		for i, code := range ack.Reasons {
			if code >= 0x80 && i < len(filters) {
				return fmt.Errorf("subscribe to %q: refused with 0x%02X: %s", filters[i], code, (&packets.Suback{Reasons: ack.Reasons}).Reason(i))
			}
		}
	}
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	return nil
}

func (c *clientV5) unsubscribe(ctx context.Context, filters []string) error {
	if _, err := c.paho.Unsubscribe(ctx, &paho.Unsubscribe{Topics: filters}); err != nil {
		return fmt.Errorf("unsubscribe: %w", err)
	}
	return nil
}

func (c *clientV5) disconnect() error {
	err := c.paho.Disconnect(&paho.Disconnect{})
	if errors.Is(err, net.ErrClosed) {
		return nil // the reason came through lost
	}
	return err
}
