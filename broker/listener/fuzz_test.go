package listener

import (
	"bytes"
	"io"
	"net"
	"testing"
	"testing/iotest"
	"time"
)

func FuzzProxyHeader(f *testing.F) {
	for _, s := range []string{
		"PROXY TCP4 203.0.113.7 10.0.0.1 8080 1883\r\nrest", "PROXY UNKNOWN\r\n", "PROXY TCP6 ::1 ::2 1 2\r\n",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02rest",
		"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", "\r\n\r\n\x00\r\nQUIT\n\x21\x00\x00\x03abc",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x23\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02\x20\x00\x14\x07\x00\x00\x00\x00\x21\x00\x031.3\x22\x00\x06device",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		input := bytes.NewReader(b)
		whole, rest, err := readProxy(input)
		if n := len(b) - input.Len() - len(rest); err == nil && n > maxProxyBytes {
			t.Errorf("a header of %d bytes", n)
		}
		// However it is cut, it says the same, and takes as much.
		pieces, pieceRest, pieceErr := readProxy(iotest.OneByteReader(bytes.NewReader(b)))
		if (err == nil) != (pieceErr == nil) {
			t.Fatalf("whole: %v, in pieces: %v", err, pieceErr)
		}
		if err != nil {
			return
		}
		if len(pieceRest) != 0 { // one byte at a time reads nothing beyond
			t.Errorf("%d bytes were read beyond the header", len(pieceRest))
		}
		if (whole.source == nil) != (pieces.source == nil) || whole.source != nil && whole.source.String() != pieces.source.String() || whole.commonName != pieces.commonName {
			t.Errorf("%+v, in pieces %+v", whole, pieces)
		}
	})
}

// FuzzWebSocket: whatever comes, nothing panics, hangs, or grows.
func FuzzWebSocket(f *testing.F) {
	const hello = "GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
	f.Add([]byte(hello), []byte("\x82\x83\x00\x00\x00\x00abc"))
	f.Add([]byte(hello), []byte("\x02\x81\x00\x00\x00\x00a\x89\x80\x00\x00\x00\x00\x80\x82\x01\x02\x03\x04bc\x88\x82\x00\x00\x00\x00\x03\xe8"))
	f.Add([]byte(hello), []byte("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00"))
	f.Add([]byte(hello), []byte("\x81\x81\x00\x00\x00\x00a"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), []byte{})
	f.Fuzz(func(t *testing.T, request, frames []byte) {
		near, far := net.Pipe()
		go func() {
			_, _ = io.Copy(io.Discard, far)
		}()
		go func() {
			_, _ = far.Write(request)
			_, _ = far.Write(frames)
			far.Close()
		}()
		defer near.Close()
		late := time.AfterFunc(20*time.Second, func() { panic("it hangs") })
		defer late.Stop()
		ws, err := (&WebSocket{Path: "/mqtt"}).accept(near, false)
		if err != nil {
			return
		}
		n, _ := io.Copy(io.Discard, ws)
		if n > int64(len(request)+len(frames)) {
			t.Errorf("%d bytes of %d", n, len(frames))
		}
	})
}
