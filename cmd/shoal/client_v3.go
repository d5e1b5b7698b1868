package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"net"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// clientV3 speaks MQTT 3.1.1 and 3.1.
type clientV3 struct {
	paho mqtt.Client
	gone chan error
}

// pubcompConn tells of each PUBCOMP that is written: paho writes a packet at a
// time, and has no other way to hear of it.
type pubcompConn struct {
	net.Conn
	written func(id uint16)
}

func (c *pubcompConn) Write(b []byte) (int, error) {
	const pubcomp = 0x70
	n, err := c.Conn.Write(b)
	if err == nil && len(b) == 4 && b[0] == pubcomp {
		c.written(binary.BigEndian.Uint16(b[2:]))
	}
	return n, err
}

// disconnectMillis bounds the wait for DISCONNECT to be written.
const disconnectMillis = 5000

func dialV3(ctx context.Context, f *clientFlags, conn net.Conn, r receiver) (client, error) {
	if f.debug {
		mqtt.DEBUG = log.New(os.Stderr, f.id+": ", log.Lmicroseconds)
	}
	c := &clientV3{gone: make(chan error, 1)}
	var failed atomic.Bool // a message was not taken: acknowledge no more
	var open unfinished
	watched := &pubcompConn{conn, func(id uint16) {
		if open.remove(id) {
			r.done()
		}
	}}
	o := mqtt.NewClientOptions().
		AddBroker("tcp://" + conn.RemoteAddr().String()).
		SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) { return watched, nil }).
		SetClientID(f.id).SetUsername(f.user).SetPassword(f.password).
		SetCleanSession(!f.resume).SetKeepAlive(time.Duration(f.alive) * time.Second).
		SetProtocolVersion(uint(f.protocol())).
		SetAutoReconnect(false).SetConnectRetry(false).
		SetOrderMatters(true).SetAutoAckDisabled(true).
		SetConnectTimeout(answerTimeout).SetWriteTimeout(answerTimeout).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { c.gone <- fmt.Errorf("connection lost: %w", err) }).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
			if failed.Load() {
				return
			}
			if r.take(message{topic: m.Topic(), payload: m.Payload(), qos: m.Qos(), retain: m.Retained(), dup: m.Duplicate()}) != nil {
				failed.Store(true)
				return
			}
			if m.Qos() == 2 {
				open.add(m.MessageID())
				m.Ack()
				return
			}
			m.Ack()
			r.done()
		})
	if w := f.will; w.topic != "" {
		o.SetBinaryWill(w.topic, w.payload, w.qos, w.retain)
	}
	c.paho = mqtt.NewClient(o)
	if err := wait(ctx, c.paho.Connect()); err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect: %w", err)
	}
	return c, nil
}

func (c *clientV3) lost() <-chan error { return c.gone }

func (c *clientV3) publish(ctx context.Context, m message) error {
	if err := wait(ctx, c.paho.Publish(m.topic, m.qos, m.retain, m.payload)); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

func (c *clientV3) subscribe(ctx context.Context, filters []string, o subscribeOptions) error {
	wanted := map[string]byte{}
	for _, f := range filters {
		wanted[f] = o.qos
	}
	token := c.paho.SubscribeMultiple(wanted, nil)
	err := wait(ctx, token)
	if s, ok := token.(*mqtt.SubscribeToken); ok {
		for filter, code := range s.Result() {
			if code >= 0x80 {
				return fmt.Errorf("subscribe to %q: refused with 0x%02X", filter, code)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	return nil
}

func (c *clientV3) unsubscribe(ctx context.Context, filters []string) error {
	if err := wait(ctx, c.paho.Unsubscribe(filters...)); err != nil {
		return fmt.Errorf("unsubscribe: %w", err)
	}
	return nil
}

func (c *clientV3) disconnect() error {
	c.paho.Disconnect(disconnectMillis)
	return nil
}

// wait returns the outcome of a token.
func wait(ctx context.Context, t mqtt.Token) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	select {
	case <-t.Done():
		return t.Error()
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("no answer within %v", answerTimeout)
		}
		return ctx.Err()
	}
}
