package listener

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/coder/websocket"
)

// WebSocket says how WebSockets are taken.
type WebSocket struct {
	// Path of the URL, /mqtt.
	Path string
	// Origins are patterns of hosts whose pages may connect (path.Match), such as
	// *.example.com, beside those of the host itself; none: those of any. What guards
	// the broker is authentication: a browser sends no credentials of a user to it by
	// itself. Only certificates it does send, so a listener that asks for them takes
	// none for its own host alone.
	Origins []string
}

// subprotocols that clients may ask for: [MQTT-6.0.0-3], and what those of MQTT
// 3.1 send.
var subprotocols = []string{"mqtt", "mqttv3.1"}

// frames is a WebSocket as a stream of bytes: each Write is a binary frame.
type frames struct {
	net.Conn
	ws *websocket.Conn
}

// accept takes the request that a connection begins with; certified tells that the
// client has shown a certificate.
func (w *WebSocket) accept(nc net.Conn, certified bool) (*frames, error) {
	limited := &io.LimitedReader{R: nc, N: maxRequestBytes}
	in := bufio.NewReaderSize(limited, frameBytes)
	if first, err := in.Peek(1); err == nil && (first[0] < 'A' || first[0] > 'Z') {
		first, _ = in.Peek(min(in.Buffered(), 8))
		return nil, fmt.Errorf("%s on a WebSocket listener", guess(first))
	}
	r, err := http.ReadRequest(in)
	if err != nil {
		if limited.N <= 0 {
			err = fmt.Errorf("more than %d bytes", maxRequestBytes)
		}
		return nil, fmt.Errorf("read WebSocket request: %w", err)
	}
	a := &answer{nc: nc, in: in, header: make(http.Header)}
	if refused := w.check(a, r); refused != nil {
		return nil, errors.Join(refused, a.flush())
	}
	ws, err := websocket.Accept(a, r, &websocket.AcceptOptions{
		Subprotocols:       subprotocols,
		InsecureSkipVerify: len(w.Origins) == 0 && !certified,
		OriginPatterns:     w.Origins,
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		return nil, errors.Join(err, a.flush())
	}
	return &frames{websocket.NetConn(context.Background(), ws, websocket.MessageBinary), ws}, nil
}

// check refuses what the library would take.
func (w *WebSocket) check(a *answer, r *http.Request) error {
	if r.URL.Path != w.Path {
		http.Error(a, fmt.Sprintf("Nothing is here. MQTT over WebSocket is at %s.", w.Path), http.StatusNotFound)
		return fmt.Errorf("request for %q; WebSockets are at %s", r.URL.Path, w.Path)
	}
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for offered := range strings.SplitSeq(line, ",") {
			for _, known := range subprotocols {
				if strings.EqualFold(strings.TrimSpace(offered), known) {
					return nil
				}
			}
		}
	}
	if r.Header.Get("Upgrade") == "" {
		return nil // no WebSocket at all, which the library says better
	}
	http.Error(a, `The subprotocol "mqtt" is missing (Sec-WebSocket-Protocol: mqtt).`, http.StatusBadRequest)
	return errors.New("WebSocket request without the subprotocol mqtt")
}

// CloseWrite says goodbye and waits for the client to do so, for it cannot be
// read then. NetConn's Close interrupts it.
func (f *frames) CloseWrite() error {
	_ = f.ws.Close(websocket.StatusNormalClosure, "")
	return net.ErrClosed
}

// answer is the http.ResponseWriter of one request: the switch of protocols goes
// out with Hijack, anything else with flush.
type answer struct {
	nc     net.Conn
	in     *bufio.Reader
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// Hijack is part of http.Hijacker.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if err := a.write(); err != nil {
		return nil, nil, err
	}
	return a.nc, bufio.NewReadWriter(a.in, bufio.NewWriterSize(a.nc, frameBytes)), nil
}

// flush writes the whole answer, after which the connection is closed.
func (a *answer) flush() error {
	if a.status == http.StatusSwitchingProtocols {
		return nil
	}
	a.header.Set("Connection", "close")
	a.header.Set("Content-Length", fmt.Sprint(a.body.Len()))
	return a.write()
}

func (a *answer) write() error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", a.status, http.StatusText(a.status))
	_ = a.header.Write(&b) // bytes.Buffer takes all
	b.WriteString("\r\n")
	b.Write(a.body.Bytes())
	_, err := a.nc.Write(b.Bytes())
	return err
}
