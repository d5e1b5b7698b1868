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
