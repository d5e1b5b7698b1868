package listener_test

import (
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/listener"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// TestComeAndGo: connections that end at any moment on their way to MQTT, by
// either side, while others come through; run it with -race.
func TestComeAndGo(t *testing.T) {
	d := startTLS(t)
	small := start(t, func(c *broker.Config) { c.MaxHalfOpen, c.ConnectTimeout = 3, 500*time.Millisecond })
	ws := &listener.WebSocket{Path: "/mqtt"}
	doors := []listener.Config{
		{Name: "proxy", ProxyFrom: loopback},
		{Name: "tls", TLS: d.config, ProxyFrom: loopback},
		{Name: "wss", TLS: d.config, WebSocket: ws, ProxyFrom: loopback},
		{Name: "ws", WebSocket: ws, ProxyFrom: loopback},
	}
	// What a client sends until it is answered, from a recording for each door.
	connect := string((&packet.Connect{ClientID: "x", CleanStart: true}).Append(nil, packet.V5))
	const proxy = "PROXY TCP4 203.0.113.7 10.0.0.1 8080 1883\r\n"
	begins := map[string]string{
		"proxy": proxy + connect,
		"tls":   proxy + "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03",
		"wss":   proxy + "\x16\x03\x01\x02\x00\x01",
		"ws":    proxy + "GET /mqtt HTTP/1.1\r\n" + hello + "Sec-WebSocket-Protocol: mqtt\r\n\r\n\x82\x80\x01\x02\x03\x04\x82\x81",
	}
	var clients sync.WaitGroup
	for _, n := range []*node{d.node, small} {
		for i, c := range doors {
			addr := n.listen(c)
			clients.Go(func() {
				r := rand.New(rand.NewPCG(7, uint64(i)))
				for range 60 {
					nc, err := net.Dial("tcp", addr)
					if err != nil {
						t.Error(err)
						return
					}
					text := begins[c.Name]
					cut := r.IntN(len(text) + 1)
					nc.Write([]byte(text[:cut]))
					if r.IntN(2) == 0 {
						nc.Write([]byte(text[cut:]))
					}
					if r.IntN(4) == 0 {
						nc.(*net.TCPConn).SetLinger(0)
					}
					if r.IntN(8) == 0 {
						defer nc.Close() // stays until all have gone
						continue
					}
					nc.Close()
				}
			})
		}
	}
	clients.Wait()
	c := mqtttest.TLS(t, d.listen(listener.Config{Name: "last", TLS: d.config}), nil, packet.V5)
	c.Connect(mqtttest.ID("last"))
	c.Publish("t", "x", 1)
	c.Disconnect()
	await(t, func() error {
		if small.metric("shoal_connections") > 0 {
			return errors.New("connections are left that never came to MQTT")
		}
		return nil
	})
}
