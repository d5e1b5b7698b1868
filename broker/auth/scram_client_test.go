package auth

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/xdg-go/scram"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/brokertest"
	"github.com/shoalmq/shoal/broker/mqtttest"
)

// serve runs a broker over a cluster in memory, and returns its address.
func serve(t *testing.T, change func(*broker.Config)) string {
	t.Helper()
	config := broker.Config{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), NodeID: "n1"}
	change(&config)
	b := broker.New(config)
	cluster := brokertest.New(b)
	b.Attach(cluster)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- b.Serve(context.Background(), &broker.Listener{Listener: l}) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), mqtttest.Timeout)
		defer cancel()
		if err := b.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// scramClient is the client's side of SCRAM for Paho's Go client.
type scramClient struct {
	t      *testing.T
	client *scram.Client
	conv   *scram.ClientConversation
	passed atomic.Int32
}

// begin starts a conversation and returns its first message.
func (s *scramClient) begin() []byte {
	s.conv = s.client.NewConversation()
	first, err := s.conv.Step("")
	if err != nil {
		s.t.Error(err)
	}
	return []byte(first)
}

// Authenticate is part of paho.Auther.
func (s *scramClient) Authenticate(a *paho.Auth) *paho.Auth {
	answer, err := s.conv.Step(string(a.Properties.AuthData))
	if err != nil {
		s.t.Errorf("challenge %q: %v", a.Properties.AuthData, err)
	}
	return &paho.Auth{ReasonCode: 0x18, Properties: &paho.AuthProperties{AuthMethod: scramMethod, AuthData: []byte(answer)}}
}

// Authenticated is part of paho.Auther.
func (s *scramClient) Authenticated() { s.passed.Add(1) }

// TestSCRAMClient: Paho's client connects, publishes, and authenticates again
// while the file changes.
func TestSCRAMClient(t *testing.T) {
	users := newTestSCRAM(t, pencil)
	addr := serve(t, func(c *broker.Config) { c.Enhanced = users })
	ctx, cancel := context.WithTimeout(context.Background(), mqtttest.Timeout)
	defer cancel()

	connect := func(password string) (*paho.Client, *scramClient, *paho.Connack, error) {
		library, err := scram.SHA256.NewClient("user", password, "")
		if err != nil {
			t.Fatal(err)
		}
		auther := &scramClient{t: t, client: library}
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		c := paho.NewClient(paho.ClientConfig{Conn: nc, AuthHandler: auther, PacketTimeout: mqtttest.Timeout})
		ack, err := c.Connect(ctx, &paho.Connect{
			ClientID: "c", CleanStart: true, KeepAlive: 30,
			Properties: &paho.ConnectProperties{AuthMethod: scramMethod, AuthData: auther.begin()},
		})
		return c, auther, ack, err
	}
	if _, _, ack, err := connect("pen"); err == nil || ack == nil || ack.ReasonCode != 0x86 {
		t.Errorf("wrong password: %+v, %v", ack, err)
	}
	c, auther, ack, err := connect("pencil")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := auther.conv.Step(string(ack.Properties.AuthData)); err != nil || !auther.conv.Valid() {
		t.Errorf("the server has not proved itself: %v", err)
	}
	publish := func() {
		t.Helper()
		if _, err := c.Publish(ctx, &paho.Publish{Topic: "a", QoS: 1, Payload: []byte("x")}); err != nil {
			t.Fatalf("publish: %v", err)
		}
	}
	again := func() (*paho.AuthResponse, error) {
		return c.Authenticate(ctx, &paho.Auth{ReasonCode: 0x19, Properties: &paho.AuthProperties{AuthMethod: scramMethod, AuthData: auther.begin()}})
	}
	publish()
	if r, err := again(); err != nil || !r.Success {
		t.Fatalf("again: %+v, %v", r, err)
	}
	publish()
	if err := os.WriteFile(users.path, []byte("user:"+hashed(t, "scram-sha-256", "new")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := users.Load(); err != nil {
		t.Fatal(err)
	}
	publish() // who is connected stays so
	if r, err := again(); err == nil && r.Success {
		t.Errorf("again with the old password: %+v", r)
	}
	select {
	case <-c.Done():
	case <-time.After(mqtttest.Timeout):
		t.Error("the connection goes on")
	}
	if _, _, ack, err := connect("new"); err != nil {
		t.Errorf("the new password: %+v, %v", ack, err)
	}
}
