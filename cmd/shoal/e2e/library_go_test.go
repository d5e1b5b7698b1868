package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
	paho5 "github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"
)

// goClient is what both of Go's libraries share.
type goClient struct {
	arrived chan received
	gone    chan struct{}
	lose    func()
	last    *received // the Will
	conn    net.Conn
	door    door
}

func (x *goClient) through(d door) error {
	x.door = d
	return nil
}

func newGoClient() goClient {
	gone := make(chan struct{})
	return goClient{arrived: make(chan received, arrivals), gone: gone, lose: sync.OnceFunc(func() { close(gone) })}
}

func (x *goClient) messages() <-chan received { return x.arrived }
func (x *goClient) lost() <-chan struct{}     { return x.gone }
func (x *goClient) cut()                      { x.conn.Close() }

func (x *goClient) will(m received) error {
	x.last = &m
	return nil
}

// pahoV3 is github.com/eclipse/paho.mqtt.golang.
type pahoV3 struct {
	goClient
	client paho3.Client
}

func newPahoV3() *pahoV3 { return &pahoV3{goClient: newGoClient()} }

func (x *pahoV3) wait(what string, token paho3.Token) error {
	if !token.WaitTimeout(patience) {
		return fmt.Errorf("%s: no answer", what)
	}
	return token.Error()
}

func (x *pahoV3) connect(addr, name string, clean bool) (bool, error) {
	o := paho3.NewClientOptions().AddBroker("tcp://" + addr).SetClientID(name).SetCleanSession(clean).
		SetProtocolVersion(4).SetAutoReconnect(false).SetConnectRetry(false)
	o.SetDefaultPublishHandler(func(_ paho3.Client, m paho3.Message) {
		x.arrived <- received{m.Topic(), string(m.Payload()), m.Qos(), m.Retained()}
	})
	o.SetCustomOpenConnectionFn(func(*url.URL, paho3.ClientOptions) (net.Conn, error) {
		var err error
		switch x.door.scheme {
		case "ws", "wss":
			x.conn, err = paho3.NewWebsocket(x.door.url(addr), x.door.trust(), patience, nil, &paho3.WebsocketOptions{})
		default:
			x.conn, err = x.door.dial(addr)
		}
		return x.conn, err
	})
	if w := x.last; w != nil {
		o.SetWill(w.topic, w.payload, w.qos, w.retain)
	}
	o.SetConnectionLostHandler(func(paho3.Client, error) { x.lose() })
	x.client = paho3.NewClient(o)
	token := x.client.Connect().(*paho3.ConnectToken)
	err := x.wait("connect", token)
	return err == nil && token.SessionPresent(), err
}

func (x *pahoV3) subscribe(filter string, qos byte) (byte, error) {
	token := x.client.Subscribe(filter, qos, nil).(*paho3.SubscribeToken)
	if err := x.wait("subscribe", token); err != nil {
		return 0, err
	}
	for _, granted := range token.Result() { // of the one, which it calls by the filter behind $share/group/
		return granted, nil
	}
	return 0, errors.New("subscribe: SUBACK without a code")
}

func (x *pahoV3) publish(m received) error {
	return x.wait("publish", x.client.Publish(m.topic, m.qos, m.retain, m.payload))
}

func (x *pahoV3) disconnect() error {
	x.client.Disconnect(uint(time.Second.Milliseconds()))
	return nil
}

func (x *pahoV3) close() {
	if x.client != nil {
		x.client.Disconnect(0)
	}
}

// pahoV5 is github.com/eclipse/paho.golang.
type pahoV5 struct {
	goClient
	client *paho5.Client
}

func newPahoV5() *pahoV5 { return &pahoV5{goClient: newGoClient()} }

func bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

func (x *pahoV5) connect(addr, name string, clean bool) (bool, error) {
	ctx, cancel := bounded()
	defer cancel()
	conn, err := x.door.dial(addr)
	if err != nil {
		return false, err
	}
	x.conn = conn
	x.client = paho5.NewClient(paho5.ClientConfig{
		Conn: packets.NewThreadSafeConn(conn), // a packet is several writes where there is no writev
		OnPublishReceived: []func(paho5.PublishReceived) (bool, error){func(p paho5.PublishReceived) (bool, error) {
			x.arrived <- received{p.Packet.Topic, string(p.Packet.Payload), p.Packet.QoS, p.Packet.Retain}
			return true, nil
		}},
		OnServerDisconnect: func(*paho5.Disconnect) { x.lose() },
		OnClientError:      func(error) { x.lose() },
	})
	cp := &paho5.Connect{ClientID: name, CleanStart: clean, KeepAlive: 30}
	if expiry := uint32(3600); !clean {
		cp.Properties = &paho5.ConnectProperties{SessionExpiryInterval: &expiry}
	}
	if w := x.last; w != nil {
		cp.WillMessage = &paho5.WillMessage{Topic: w.topic, QoS: w.qos, Retain: w.retain, Payload: []byte(w.payload)}
	}
	ack, err := x.client.Connect(ctx, cp)
	return err == nil && ack.SessionPresent, err
}

func (x *pahoV5) subscribe(filter string, qos byte) (byte, error) {
	ctx, cancel := bounded()
	defer cancel()
	ack, err := x.client.Subscribe(ctx, &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{Topic: filter, QoS: qos}}})
	if err != nil {
		return 0, err
	}
	return ack.Reasons[0], nil
}

func (x *pahoV5) publish(m received) error {
	ctx, cancel := bounded()
	defer cancel()
	_, err := x.client.Publish(ctx, &paho5.Publish{Topic: m.topic, QoS: m.qos, Retain: m.retain, Payload: []byte(m.payload)})
	return err
}

func (x *pahoV5) disconnect() error { return x.client.Disconnect(&paho5.Disconnect{}) }

func (x *pahoV5) close() {
	if x.client != nil {
		x.client.Disconnect(&paho5.Disconnect{}) // may be disconnected already
	}
}
