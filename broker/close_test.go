package broker_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// TestCloseLetsClientsGo: at a pace, and with the address of another server.
func TestCloseLetsClientsGo(t *testing.T) {
	n := start(t, func(c *broker.Config) {
		c.LetGoRate = 100
		c.Elsewhere = func() string { return "other:1883" }
	})
	var clients []*mqtttest.Client
	for i := range 30 {
		clients = append(clients, n.connect(packet.V5, fmt.Sprint("c", i)))
	}
	begin := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.broker.Close(ctx); err != nil {
		t.Fatal(err)
	}
	// One in ten milliseconds: thirty cannot be faster.
	if took := time.Since(begin); took < 200*time.Millisecond {
		t.Errorf("30 clients were let go within %v", took)
	}
	for _, c := range clients {
		d := mqtttest.Expect[*packet.Disconnect](c)
		if d.Code != packet.CodeUseAnotherServer || d.ServerReference != "other:1883" {
			t.Errorf("got DISCONNECT %s, server reference %q", d.Code, d.ServerReference)
		}
	}
}

// slowRules is an Authorizer that says when it is asked, and answers when it is
// told to.
type slowRules struct {
	asked  chan struct{}
	answer chan struct{}
}

func (r *slowRules) Permissions(*broker.Client) (broker.Permissions, error) {
	r.asked <- struct{}{}
	<-r.answer
	return nil, nil
}

// TestCloseWhileConnectIsDecided: what CONNECT sets belongs to those who decide
// about it, while the connection is ended by somebody else. The race detector
// tells.
func TestCloseWhileConnectIsDecided(t *testing.T) {
	const clients = 20
	rules := &slowRules{asked: make(chan struct{}, clients), answer: make(chan struct{})}
	n := start(t, func(c *broker.Config) {
		c.Authorizer = rules
		c.LetGoRate = 1000
	})
	for i := range clients {
		n.dial(packet.V5).Write(&packet.Connect{Version: packet.V5, CleanStart: true, ClientID: fmt.Sprint("c", i)})
		<-rules.asked
	}
	closed := make(chan error)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		closed <- n.broker.Close(ctx)
	}()
	close(rules.answer)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
}
