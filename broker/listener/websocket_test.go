package listener_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/listener"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// upgrade does what a client of the listener does on a connection before MQTT.
func upgrade(t *testing.T, nc net.Conn, c *listener.Config, d *tlsDoor) net.Conn {
	t.Helper()
	if c.TLS != nil {
		nc = tls.Client(nc, d.client())
	}
	if c.WebSocket == nil {
		return nc
	}
	used := false
	once := func(context.Context, string, string) (net.Conn, error) {
		if used {
			return nil, errors.New("one connection only")
		}
		used = true
		return nc, nil
	}
	ws, _, err := websocket.Dial(context.Background(), "ws://127.0.0.1/mqtt", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: &http.Transport{DialContext: once}}, Subprotocols: []string{"mqtt"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return websocket.NetConn(context.Background(), ws, websocket.MessageBinary)
}

// request sends an HTTP request as it stands and returns the answer.
func request(t *testing.T, addr, text string) (*http.Response, string, net.Conn) {
	t.Helper()
	nc := dial(t, "tcp", addr)
	if _, err := nc.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	nc.SetReadDeadline(time.Now().Add(mqtttest.Timeout))
	resp, err := http.ReadResponse(bufio.NewReaderSize(nc, 16), nil)
	if err != nil {
		t.Fatal(err)
	}
	var body []byte
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ = io.ReadAll(resp.Body)
	}
	return resp, string(body), nc
}

const hello = "Host: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

func TestWebSocketRequests(t *testing.T) {
	n := start(t)
	addr := n.listen(listener.Config{WebSocket: &listener.WebSocket{Path: "/mqtt"}})
	picky := n.listen(listener.Config{Name: "picky", WebSocket: &listener.WebSocket{Path: "/x", Origins: []string{"*.example.com"}}})
	const mqtt = "Sec-WebSocket-Protocol: mqtt\r\n"
	for name, tc := range map[string]struct {
		addr, request string
		status        int
		want          string // in the body, or the subprotocol
	}{
		"mqtt":              {addr, "GET /mqtt HTTP/1.1\r\n" + hello + mqtt + "\r\n", 101, "mqtt"},
		"3.1":               {addr, "GET /mqtt HTTP/1.1\r\n" + hello + "Sec-WebSocket-Protocol: mqttv3.1\r\n\r\n", 101, "mqttv3.1"},
		"several":           {addr, "GET /mqtt?token=1 HTTP/1.1\r\n" + hello + "Sec-WebSocket-Protocol: chat, mqttv3.1\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n", 101, "mqtt"},
		"any origin":        {addr, "GET /mqtt HTTP/1.1\r\nOrigin: https://evil.example\r\n" + hello + mqtt + "\r\n", 101, "mqtt"},
		"compression":       {addr, "GET /mqtt HTTP/1.1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n" + hello + mqtt + "\r\n", 101, "mqtt"},
		"good origin":       {picky, "GET /x HTTP/1.1\r\nOrigin: https://a.example.com\r\n" + hello + mqtt + "\r\n", 101, "mqtt"},
		"no origin":         {picky, "GET /x HTTP/1.1\r\n" + hello + mqtt + "\r\n", 101, "mqtt"},
		"bad origin":        {picky, "GET /x HTTP/1.1\r\nOrigin: https://evil.example\r\n" + hello + mqtt + "\r\n", 403, "not authorized"},
		"elsewhere":         {addr, "GET / HTTP/1.1\r\n" + hello + mqtt + "\r\n", 404, "at /mqtt"},
		"below":             {addr, "GET /mqtt/x HTTP/1.1\r\n" + hello + mqtt + "\r\n", 404, "at /mqtt"},
		"no subprotocol":    {addr, "GET /mqtt HTTP/1.1\r\n" + hello + "\r\n", 400, "subprotocol"},
		"other subprotocol": {addr, "GET /mqtt HTTP/1.1\r\n" + hello + "Sec-WebSocket-Protocol: mqtt5, chat\r\n\r\n", 400, "subprotocol"},
		"no upgrade":        {addr, "GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n", 426, "Upgrade"},
		"post":              {addr, "POST /mqtt HTTP/1.1\r\n" + hello + mqtt + "\r\n", 405, "GET"},
		"bad key":           {addr, "GET /mqtt HTTP/1.1\r\n" + strings.Replace(hello, "dGhl", "", 1) + mqtt + "\r\n", 400, "Key"},
		"version 8":         {addr, "GET /mqtt HTTP/1.1\r\n" + strings.Replace(hello, ": 13", ": 8", 1) + mqtt + "\r\n", 400, "version"},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body, _ := request(t, tc.addr, tc.request)
			if resp.StatusCode != tc.status {
				t.Fatalf("%s, want %d", resp.Status, tc.status)
			}
			if tc.status == 101 {
				body = resp.Header.Get("Sec-WebSocket-Protocol")
				if resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || resp.Header.Get("Sec-WebSocket-Extensions") != "" {
					t.Errorf("headers %v", resp.Header)
				}
				if body != tc.want {
					t.Errorf("subprotocol %q, want %q", body, tc.want)
				}
			} else if !strings.Contains(body, tc.want) {
				t.Errorf("body %q, want %q", body, tc.want)
			}
		})
	}
	for text, why := range map[string]string{
		"\x10\x0d\x00\x04MQTT": "MQTT without TLS on a WebSocket listener",
		"GET /mqtt HTTP/1.1\r\nX: " + strings.Repeat("x", 20<<10): "more than 16384 bytes",
		"NONSENSE\r\n\r\n": "malformed HTTP request",
	} {
		before := n.metric("shoal_listener_handshakes_failed_total", "door", broker.OpenWebSocket)
		nc := dial(t, "tcp", addr)
		nc.Write([]byte(text))
		n.failed(broker.OpenWebSocket, before+1, why)
	}
}

func wsDial(t *testing.T, addr string) (*websocket.Conn, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), mqtttest.Timeout)
	t.Cleanup(cancel)
	ws, _, err := websocket.Dial(ctx, "ws://"+addr+"/mqtt", &websocket.DialOptions{Subprotocols: []string{"mqtt"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.CloseNow() })
	return ws, ctx
}

// TestFrames: what is no binary frame ends the connection ([MQTT-6.0.0-1]), empty
// frames and pings are nothing, and both sides part with a Close frame.
func TestFrames(t *testing.T) {
	n := start(t)
	addr := n.listen(listener.Config{WebSocket: &listener.WebSocket{Path: "/mqtt"}})
	connect := (&packet.Connect{ClientID: "c", CleanStart: true}).Append(nil, packet.V5)

	ws, ctx := wsDial(t, addr)
	if err := ws.Write(ctx, websocket.MessageText, connect); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.Read(ctx); websocket.CloseStatus(err) != websocket.StatusUnsupportedData {
		t.Errorf("text frame: %v", err)
	}

	ws, ctx = wsDial(t, addr)
	for _, frame := range [][]byte{{}, connect[:3], {}, connect[3:]} {
		if err := ws.Write(ctx, websocket.MessageBinary, frame); err != nil {
			t.Fatal(err)
		}
	}
	kind, b, err := ws.Read(ctx)
	if err != nil || kind != websocket.MessageBinary || b[0] != 0x20 {
		t.Fatalf("%v %x, %v", kind, b, err)
	}
	read := ws.CloseRead(ctx)
	if err := ws.Ping(ctx); err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("close: %v", err)
	}
	<-read.Done()

	ws, ctx = wsDial(t, addr)
	all := append(connect, (&packet.Disconnect{}).Append(nil, packet.V5)...)
	if err := ws.Write(ctx, websocket.MessageBinary, all); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.Read(ctx); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.Read(ctx); err == nil {
		t.Error("the connection is open after DISCONNECT")
	}

	// The server's own goodbye.
	ws, ctx = wsDial(t, addr)
	bad := append(connect, 0x36, 0)
	if err := ws.Write(ctx, websocket.MessageBinary, bad); err != nil {
		t.Fatal(err)
	}
	for {
		_, _, err := ws.Read(ctx)
		if err == nil {
			continue
		}
		if websocket.CloseStatus(err) != websocket.StatusNormalClosure {
			t.Errorf("end: %v", err)
		}
		break
	}
}

// TestCutAnywhere: frames cut packets at every place, and at random ones.
func TestCutAnywhere(t *testing.T) {
	n := start(t)
	addr := n.listen(listener.Config{WebSocket: &listener.WebSocket{Path: "/mqtt"}})
	all := (&packet.Connect{ClientID: "c", CleanStart: true}).Append(nil, packet.V5)
	all = (&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "t", QoS: 0}}}).Append(all, packet.V5)
	all = (&packet.Publish{Topic: []byte("t"), Payload: []byte(strings.Repeat("x", 300)), QoS: 1, PacketID: 2}).Append(all, packet.V5)
	all = (&packet.Pingreq{}).Append(all, packet.V5)
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		nc, err := mqtttest.WebSocket("ws://"+addr+"/mqtt", nil, mqtttest.Timeout)
		if err != nil {
			t.Fatal(err)
		}
		c := mqtttest.Over(t, nc, packet.V5)
		for rest := all; len(rest) > 0; {
			size := round*7 + 1
			if round%2 == 1 {
				size = 1 + r.IntN(50)
			}
			size = min(size, len(rest))
			c.WriteRaw(rest[:size]...)
			rest = rest[size:]
		}
		mqtttest.Expect[*packet.Connack](c)
		mqtttest.Expect[*packet.Suback](c)
		for seen := 0; seen < 3; seen++ {
			switch p := c.Next().(type) {
			case *packet.Publish:
				if len(p.Payload) != 300 {
					t.Fatalf("%d bytes", len(p.Payload))
				}
			case *packet.Ack, *packet.Pingresp:
			default:
				t.Fatalf("got %s", mqtttest.Describe(p))
			}
		}
		c.Disconnect()
	}
}

// TestForeignPages: a browser shows its user's certificate for whatever page asks
// it to connect, so only pages of the listener's own host, and those that are
// named, may use it.
func TestForeignPages(t *testing.T) {
	for name, tc := range map[string]struct {
		origin  string
		origins []string
		bare    bool // without a certificate
		status  int
	}{
		"a client without pages": {"", nil, false, 101},
		"own page":               {"https://broker.example", nil, false, 101},
		"foreign page":           {"https://evil.example", nil, false, 403},
		"named page":             {"https://app.example", []string{"app.example"}, false, 101},
		"not named page":         {"https://evil.example", []string{"app.example"}, false, 403},
		"nothing to borrow":      {"https://evil.example", nil, true, 101},
	} {
		t.Run(name, func(t *testing.T) {
			d := startTLS(t, mutual(listener.RequestClientCert))
			addr := d.listen(listener.Config{Name: "ws", TLS: d.config, WebSocket: &listener.WebSocket{Path: "/mqtt", Origins: tc.origins}})
			c := d.client(d.ca.issue("ann"))
			if tc.bare {
				c = d.client()
			}
			nc := tls.Client(dial(t, "tcp", addr), c)
			header := strings.Replace(hello, "Host: x", "Host: broker.example", 1) + "Sec-WebSocket-Protocol: mqtt\r\n"
			if tc.origin != "" {
				header += "Origin: " + tc.origin + "\r\n"
			}
			if _, err := nc.Write([]byte("GET /mqtt HTTP/1.1\r\n" + header + "\r\n")); err != nil {
				t.Fatal(err)
			}
			nc.SetReadDeadline(time.Now().Add(mqtttest.Timeout))
			resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
			if err != nil || resp.StatusCode != tc.status {
				t.Fatalf("%v, %v; want %d", resp, err, tc.status)
			}
		})
	}
}
