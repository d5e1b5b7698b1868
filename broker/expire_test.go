package broker_test

import (
	"context"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// lasting proves identities that last for a time.
type lasting time.Duration

func (l lasting) Authenticate(context.Context, *broker.Credentials) (*broker.Identity, error) {
	return &broker.Identity{Username: "u", Expires: time.Now().Add(time.Duration(l))}, nil
}

// TestIdentityExpires: the end of the proof is the end of the connection, to the
// second, whatever the Keep Alive; and not a reason to forget the Will.
func TestIdentityExpires(t *testing.T) {
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		for _, keepAlive := range []uint16{0, 60_000} {
			for _, lasts := range []time.Duration{0, 20 * time.Second, 90 * time.Second, 3 * time.Hour} {
				inFakeTime(t, func(t *testing.T, n *node) {
					c := n.connect(v, "c", mqtttest.KeepAlive(keepAlive))
					start := time.Now()
					if v == packet.V5 {
						if p, err := c.Receive(4 * time.Hour); err != nil || p.(*packet.Disconnect).Code != packet.CodeNotAuthorized {
							t.Errorf("%v, %v", p, err)
						}
					} else if p, err := c.Receive(4 * time.Hour); err == nil {
						t.Errorf("got %v", p)
					}
					if took := time.Since(start); took < lasts || took > lasts+time.Second {
						t.Errorf("lasts %s, keep alive %d: closed after %s", lasts, keepAlive, took)
					}
					n.awaitConnections(0)
					if closes := n.cluster.Closes(); len(closes) != 1 || closes[0].DiscardWill {
						t.Errorf("closed with %+v", closes)
					}
					if got := n.metric("shoal_identities_expired_total"); got != 1 {
						t.Errorf("counted %v", got)
					}
				}, func(config *broker.Config) { config.Authenticator, config.AllowAnonymous = lasting(lasts), false })
			}
		}
	}
}
