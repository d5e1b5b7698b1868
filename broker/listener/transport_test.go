package listener_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/broker/listener"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// TestTransports: over every transport clients publish and receive small and
// large messages, are told of their mistakes, and part in peace.
func TestTransports(t *testing.T) {
	ca := newAuthority(t, "ca")
	f := newFiles(t)
	keys := &listener.TLS{}
	keys.CertFile, keys.KeyFile = f.keyPair(ca.issue("server"))
	trust := &tls.Config{RootCAs: ca.pool()}
	ws := &listener.WebSocket{Path: "/mqtt"}
	dialTLS := func(t *testing.T, addr string) net.Conn { return tls.Client(dial(t, "tcp", addr), trust12(trust)) }
	dialWS := func(scheme string) func(*testing.T, string) net.Conn {
		return func(t *testing.T, addr string) net.Conn {
			nc, err := mqtttest.WebSocket(scheme+"://"+addr+"/mqtt", trust, mqtttest.Timeout)
			if err != nil {
				t.Fatal(err)
			}
			return nc
		}
	}
	for name, w := range map[string]struct {
		config listener.Config
		dial   func(*testing.T, string) net.Conn
	}{
		"tcp":  {listener.Config{}, func(t *testing.T, addr string) net.Conn { return dial(t, "tcp", addr) }},
		"unix": {listener.Config{Network: "unix", Addr: filepath.Join(t.TempDir(), "s")}, func(t *testing.T, addr string) net.Conn { return dial(t, "unix", addr) }},
		"tls":  {listener.Config{TLS: keys}, dialTLS},
		"ws":   {listener.Config{WebSocket: ws}, dialWS("ws")},
		"wss":  {listener.Config{TLS: keys, WebSocket: ws}, dialWS("wss")},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t)
			w.config.Name = name
			addr := n.listen(w.config)
			connect := func(id string, v packet.Version) *mqtttest.Client {
				c := mqtttest.Over(t, w.dial(t, addr), v)
				c.Connect(mqtttest.ID(id))
				return c
			}
			a, b := connect("a", packet.V5), connect("b", packet.V311)
			if p := n.peers.of("a"); p.Listener != name || p.Remote == nil || (p.TLS != nil) != (w.config.TLS != nil) {
				t.Errorf("peer %+v", p)
			}
			a.AutoAck = true
			a.Subscribe("t", 2)
			long := strings.Repeat("x", 300<<10)
			for _, qos := range []packet.QoS{0, 1, 2} {
				for _, text := range []string{"short", long} {
					b.Publish("t", text, qos)
					if qos == 2 {
						mqtttest.Expect[*packet.Publish](a)
						mqtttest.Expect[*packet.Ack](a)
						continue
					}
					a.ExpectPublish("t", text)
				}
			}
			if got := n.metric("shoal_listener_connections", name); got != 2 {
				t.Errorf("%v connections", got)
			}
			a.WriteRaw(append([]byte{0x36, 0}, make([]byte, 100<<10)...)...)
			a.ExpectDisconnect(packet.CodeMalformedPacket)
			b.Disconnect()
			if got := n.metric("shoal_listener_connects_accepted_total", name); got != 2 {
				t.Errorf("%v accepted", got)
			}
		})
	}
}

func trust12(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.ServerName = "127.0.0.1"
	c.MaxVersion = tls.VersionTLS12
	return c
}

// TestManyInOneFrame: packets end where they end, whatever the frames
// ([MQTT-6.0.0-2]).
func TestManyInOneFrame(t *testing.T) {
	n := start(t)
	addr := n.listen(listener.Config{WebSocket: &listener.WebSocket{Path: "/mqtt"}})
	c := mqtttest.WebSocketTest(t, "ws://"+addr+"/mqtt", nil, packet.V5)
	c.AutoAck = true
	all := (&packet.Connect{ClientID: "c", CleanStart: true}).Append(nil, packet.V5)
	all = (&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "t", QoS: 1}}}).Append(all, packet.V5)
	for i := range 20 {
		all = (&packet.Publish{Topic: []byte("t"), Payload: fmt.Append(nil, i), QoS: 1, PacketID: uint16(i + 2)}).Append(all, packet.V5)
	}
	c.WriteRaw(all...)
	mqtttest.Expect[*packet.Connack](c)
	mqtttest.Expect[*packet.Suback](c)
	for acks, publishes := 0, 0; acks < 20 || publishes < 20; {
		switch p := c.Next().(type) {
		case *packet.Publish:
			if string(p.Payload) != fmt.Sprint(publishes) {
				t.Fatalf("got %s, want %d", p.Payload, publishes)
			}
			publishes++
		case *packet.Ack:
			acks++
		}
	}
	c.Disconnect()
}
