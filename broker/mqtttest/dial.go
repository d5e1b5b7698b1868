package mqtttest

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/shoalmq/shoal/broker/packet"
)

// DialTLS connects to a TLS listener. config may be nil: then the server's
// certificate is not checked.
func DialTLS(addr string, config *tls.Config, v packet.Version, timeout time.Duration) (*Conn, error) {
	if config == nil {
		config = &tls.Config{InsecureSkipVerify: true}
	}
	nc, err := tls.DialWithDialer(&net.Dialer{Timeout: timeout}, "tcp", addr, config)
	if err != nil {
		return nil, err
	}
	return NewConn(nc, v), nil
}

// DialWebSocket connects to a WebSocket listener by a URL such as
// ws://127.0.0.1:8083/mqtt. config is for wss, as in DialTLS. Each Send is a frame.
func DialWebSocket(url string, config *tls.Config, v packet.Version, timeout time.Duration) (*Conn, error) {
	nc, err := WebSocket(url, config, timeout)
	if err != nil {
		return nil, err
	}
	return NewConn(nc, v), nil
}

// TLS is DialTest over TLS.
func TLS(t testing.TB, addr string, config *tls.Config, v packet.Version) *Client {
	t.Helper()
	c, err := DialTLS(addr, config, v, Timeout)
	if err != nil {
		t.Fatal(err)
	}
	return New(t, c)
}

// WebSocketTest is DialTest over WebSocket.
func WebSocketTest(t testing.TB, url string, config *tls.Config, v packet.Version) *Client {
	t.Helper()
	c, err := DialWebSocket(url, config, v, Timeout)
	if err != nil {
		t.Fatal(err)
	}
	return New(t, c)
}

// WebSocket is a WebSocket with the subprotocol mqtt as a net.Conn.
func WebSocket(url string, config *tls.Config, timeout time.Duration) (net.Conn, error) {
	if config == nil {
		config = &tls.Config{InsecureSkipVerify: true}
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		HTTPClient:   &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}},
		Subprotocols: []string{"mqtt"},
	})
	if err != nil {
		return nil, err
	}
	frames := websocket.NetConn(context.Background(), ws, websocket.MessageBinary)
	near, far := net.Pipe()
	go func() {
		_, _ = io.Copy(far, frames)
		far.Close()
		ws.CloseNow()
	}()
	return &webSocket{Conn: near, ws: ws, frames: frames}, nil
}

// webSocket reads through a pipe, since a deadline would end a WebSocket.
type webSocket struct {
	net.Conn
	ws     *websocket.Conn
	frames net.Conn
}

func (w *webSocket) Write(b []byte) (int, error) { return w.frames.Write(b) }

func (w *webSocket) Close() error {
	w.ws.CloseNow()
	return w.Conn.Close()
}
