package listener_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/listener"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// v2 makes a header of version 2.
func v2(command, family byte, block ...byte) string {
	return "\r\n\r\n\x00\r\nQUIT\n" + string([]byte{0x20 | command, family, byte(len(block) >> 8), byte(len(block))}) + string(block)
}

var inet4 = []byte{203, 0, 113, 7, 10, 0, 0, 1, 0x1F, 0x90, 0x07, 0x5B}

// ssl is the TLV of a proxy that ended TLS.
func ssl(client byte, verify uint32, cn string) []byte {
	value := append([]byte{client, byte(verify >> 24), byte(verify >> 16), byte(verify >> 8), byte(verify), 0x21, 0, 3, '1', '.', '3', 0x22, 0, byte(len(cn))}, cn...)
	return append([]byte{0x20, 0, byte(len(value))}, value...)
}

// TestProxyHeaders: who is behind the proxy is known, however the header is cut;
// the bytes behind it are MQTT.
func TestProxyHeaders(t *testing.T) {
	n := start(t)
	addr := n.listen(listener.Config{ProxyFrom: loopback})
	inet6 := append(append(append([]byte{}, net.ParseIP("2001:db8::7")...), net.ParseIP("2001:db8::1")...), 0x1F, 0x90, 0x07, 0x5B)
	for name, tc := range map[string]struct{ header, remote, cn string }{
		"v1 4":          {"PROXY TCP4 203.0.113.7 10.0.0.1 8080 1883\r\n", "203.0.113.7:8080", ""},
		"v1 6":          {"PROXY TCP6 2001:db8::7 2001:db8::1 8080 1883\r\n", "[2001:db8::7]:8080", ""},
		"v1 unknown":    {"PROXY UNKNOWN\r\n", "", ""},
		"v2 4":          {v2(1, 0x11, inet4...), "203.0.113.7:8080", ""},
		"v2 6":          {v2(1, 0x21, inet6...), "[2001:db8::7]:8080", ""},
		"v2 local":      {v2(0, 0x00), "", ""},
		"v2 local long": {v2(0, 0x11, inet4...), "", ""},
		"v2 unspec":     {v2(1, 0x00, 1, 2, 3), "", ""},
		"v2 cn":         {v2(1, 0x11, append(inet4[:12:12], ssl(7, 0, "device")...)...), "203.0.113.7:8080", "device"},
		"v2 unverified": {v2(1, 0x11, append(inet4[:12:12], ssl(7, 1, "device")...)...), "203.0.113.7:8080", ""},
		"v2 no cert":    {v2(1, 0x11, append(inet4[:12:12], ssl(1, 0, "device")...)...), "203.0.113.7:8080", ""},
		"v2 other TLV":  {v2(1, 0x11, append(inet4[:12:12], 0x01, 0, 1, 'x')...), "203.0.113.7:8080", ""},
	} {
		t.Run(name, func(t *testing.T) {
			connect := (&packet.Connect{ClientID: name, CleanStart: true}).Append(nil, packet.V5)
			all := append([]byte(tc.header), connect...)
			step := max(len(all)/7, 1)
			for cut := 0; cut < len(all); cut += step {
				nc := dial(t, "tcp", addr)
				local := nc.LocalAddr().String()
				for _, part := range [][]byte{all[:cut], all[cut:]} {
					if _, err := nc.Write(part); err != nil {
						t.Fatal(err)
					}
				}
				c := mqtttest.Over(t, nc, packet.V5)
				mqtttest.Expect[*packet.Connack](c)
				p := n.peers.of(name)
				want := tc.remote
				if want == "" {
					want = local
				}
				if p.Remote.String() != want || p.CommonName != tc.cn {
					t.Fatalf("cut at %d: peer %v %q, want %s %q", cut, p.Remote, p.CommonName, want, tc.cn)
				}
				c.Disconnect()
			}
		})
	}
}

// TestProxyIsDemanded: from a trusted address only a good header opens, from
// others none is taken.
func TestProxyIsDemanded(t *testing.T) {
	connect := string((&packet.Connect{ClientID: "c", CleanStart: true}).Append(nil, packet.V5))
	n := start(t)
	trusted := n.listen(listener.Config{ProxyFrom: loopback})
	for i, bad := range []string{
		connect,
		"PROXY TCP4 203.0.113.7 10.0.0.1 8080\r\n" + connect,
		"PROXY TCP4 203.0.113.777 10.0.0.1 8080 1883\r\n" + connect,
		"PROXY TCP4 203.0.113.7 10.0.0.1 8080 1883\n" + connect,
		"PROXY " + strings.Repeat("x", 200) + "\r\n" + connect,
		"PROXYTCP4 203.0.113.7 10.0.0.1 8080 1883\r\n" + connect,
		v2(2, 0x11, inet4...) + connect,
		v2(1, 0x13, inet4...) + connect,
		v2(1, 0x11, inet4[:11]...) + connect,
		v2(1, 0x11, append(inet4[:12:12], 0x20, 0, 9)...) + connect,
		v2(1, 0x11, make([]byte, 5000)...) + connect,
	} {
		nc := dial(t, "tcp", trusted)
		if _, err := nc.Write([]byte(bad)); err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(nc); len(b) > 0 {
			t.Errorf("%q is answered with %x", bad, b)
		}
		n.failed(broker.OpenProxy, float64(i+1), "PROXY header")
	}
	for name, from := range map[string][]netip.Prefix{"none": nil, "others": {netip.MustParsePrefix("10.0.0.0/8")}} {
		addr := n.listen(listener.Config{Name: name, ProxyFrom: from})
		for _, header := range []string{"PROXY TCP4 203.0.113.7 10.0.0.1 8080 1883\r\n", v2(1, 0x11, inet4...)} {
			nc := dial(t, "tcp", addr)
			if _, err := nc.Write([]byte(header + connect)); err != nil {
				t.Fatal(err)
			}
			if b, _ := io.ReadAll(nc); len(b) > 0 {
				t.Errorf("a forged header is answered with %x", b)
			}
		}
	}
	if n.peers.of("c") != nil {
		t.Error("somebody has come in")
	}
}

// TestProxyInFrontOf: TLS and WebSocket come after the header.
func TestProxyInFrontOf(t *testing.T) {
	d := startTLS(t)
	ws := &listener.WebSocket{Path: "/mqtt"}
	for name, c := range map[string]listener.Config{
		"tls": {TLS: d.config}, "ws": {WebSocket: ws}, "wss": {TLS: d.config, WebSocket: ws},
	} {
		t.Run(name, func(t *testing.T) {
			c.Name, c.ProxyFrom = name, loopback
			nc := dial(t, "tcp", d.listen(c))
			if _, err := fmt.Fprint(nc, "PROXY TCP4 203.0.113.7 10.0.0.1 8080 1883\r\n"); err != nil {
				t.Fatal(err)
			}
			client := mqtttest.Over(t, upgrade(t, nc, &c, d), packet.V5)
			client.Connect(mqtttest.ID(name))
			if p := d.peers.of(name); p.Remote.String() != "203.0.113.7:8080" || p.Listener != name {
				t.Errorf("peer %+v", p)
			}
			client.Publish("t", "x", 1)
			client.Disconnect()
		})
	}
}
