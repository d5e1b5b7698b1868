package conformance

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/coder/websocket"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// socket opens a WebSocket, or says why not.
func (s *scene) socket(ctx context.Context, protocols ...string) (*websocket.Conn, *http.Response, error) {
	ws, answer, err := websocket.Dial(ctx, "ws://"+s.here.addrs[overWebSocket]+"/mqtt", &websocket.DialOptions{Subprotocols: protocols})
	if err == nil {
		s.Cleanup(func() { ws.CloseNow() })
	}
	return ws, answer, err
}

func TestWebSocket(t *testing.T) {
	within := func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), mqtttest.Timeout)
	}
	check(t, []rule{
		{"161 packets come in binary frames: others end the connection [MQTT-6.0.0-1]", allTransient, func(s *scene) {
			ctx, cancel := within()
			defer cancel()
			connect := []byte(raw(0x10, s.head(2), text(s.id("c"))))
			for _, first := range []bool{true, false} { // a text frame with CONNECT, and behind it
				ws, _, err := s.socket(ctx, "mqtt")
				if err != nil {
					s.Fatal(err)
				}
				if !first {
					ws.Write(ctx, websocket.MessageBinary, connect)
					if kind, b, err := ws.Read(ctx); err != nil || kind != websocket.MessageBinary || b[0] != 0x20 {
						s.Fatalf("got %v %x, %v, want CONNACK in a binary frame", kind, b, err)
					}
					connect = []byte{0xC0, 0}
				}
				ws.Write(ctx, websocket.MessageText, connect)
				_, b, err := ws.Read(ctx)
				if err == nil && !(len(b) > 0 && b[0] == 0xE0) { // DISCONNECT may say why
					s.Errorf("a text frame was answered with %x", b)
				} else if err == nil {
					_, _, err = ws.Read(ctx)
				}
				if err == nil || errors.Is(err, context.DeadlineExceeded) {
					s.Errorf("after a text frame: %v", err)
				}
			}
		}},
		{"162 frames cut packets anywhere, and hold several [MQTT-6.0.0-2]", allTransient, func(s *scene) {
			ctx, cancel := within()
			defer cancel()
			ws, _, err := s.socket(ctx, "mqtt")
			if err != nil {
				s.Fatal(err)
			}
			for _, b := range []byte(raw(0x10, s.head(2), text(s.id("c")))) {
				ws.Write(ctx, websocket.MessageBinary, nil) // no bytes are a frame too
				ws.Write(ctx, websocket.MessageBinary, []byte{b})
			}
			big := make([]byte, 100_000)
			all := (&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: s.topic("a")}}}).Append(nil, s.v)
			all = (&packet.Pingreq{}).Append(all, s.v)
			all = (&packet.Publish{Topic: []byte(s.topic("b")), QoS: 1, PacketID: 2, Payload: big}).Append(all, s.v)
			ws.Write(ctx, websocket.MessageBinary, append(all, 0xC0)) // and half a PINGREQ
			ws.Write(ctx, websocket.MessageBinary, []byte{0})
			ws.SetReadLimit(-1)
			var got []byte
			kinds := map[byte]int{}
			for kinds[0x20] < 1 || kinds[0x90] < 1 || kinds[0xD0] < 2 || kinds[0x40] < 1 {
				_, r, err := ws.Reader(ctx)
				if err != nil {
					s.Fatalf("after %v: %v", kinds, err)
				}
				b, _ := io.ReadAll(r)
				for got = append(got, b...); ; {
					h, _, n, err := packet.Next(got, 0)
					if err != nil {
						s.Fatal(err)
					}
					if n == 0 {
						break
					}
					kinds[byte(h.Type)<<4]++
					got = bytes.Clone(got[n:])
				}
			}
		}},
		{"163 the subprotocol is mqtt, asked for and named [MQTT-6.0.0-3] [MQTT-6.0.0-4]", transient5, func(s *scene) {
			ctx, cancel := within()
			defer cancel()
			for _, protocols := range [][]string{{"mqtt"}, {"other", "mqtt"}} {
				if ws, _, err := s.socket(ctx, protocols...); err != nil || ws.Subprotocol() != "mqtt" {
					s.Errorf("%v: %v", protocols, err)
				}
			}
			for _, protocols := range [][]string{nil, {"other"}} {
				if _, answer, err := s.socket(ctx, protocols...); err == nil || answer == nil || answer.StatusCode < 400 {
					s.Errorf("%v: accepted, or no answer: %v", protocols, err)
				}
			}
		}},
	})
}
