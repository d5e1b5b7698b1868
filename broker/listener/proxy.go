package listener

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"

	"github.com/shoalmq/shoal/broker"
)

// header is what a PROXY header says.
type header struct {
	// source is the client's address; nil if the proxy speaks for itself, or does
	// not know.
	source net.Addr
	// commonName is the client certificate's that the proxy has verified.
	commonName string
}

// proxied tells whether connections from an address begin with a PROXY header.
func (l *Listener) proxied(from net.Addr) bool {
	tcp, ok := from.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip, _ := netip.AddrFromSlice(tcp.IP)
	for _, p := range l.config.ProxyFrom {
		if p.Contains(ip.Unmap()) {
			return true
		}
	}
	return false
}

// readProxy reads a header, which may come in pieces, and what came after it.
func readProxy(r io.Reader) (h header, rest []byte, err error) {
	var b []byte
	for {
		n, err := proxyLength(b)
		if err != nil {
			return h, nil, err
		}
		if n > 0 && n <= len(b) {
			h, err = parseProxy(b[:n])
			return h, b[n:], err
		}
		if len(b) == cap(b) {
			b = append(make([]byte, 0, max(256, min(2*cap(b), maxProxyBytes+256))), b...)
		}
		n, err = r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if n == 0 && err != nil {
			return h, nil, fmt.Errorf("PROXY header from a trusted address: %w after %d bytes", err, len(b))
		}
	}
}

var errNoProxy = errors.New("no PROXY header, which connections from this address must begin with (proxy-protocol-from)")

const (
	v1MaxBytes   = 107 // spec §2.1
	v2FixedBytes = 16  // spec §2.2
)

// proxyLength is how long the header is that b begins with, 0 if more of it has
// to come first.
func proxyLength(b []byte) (int, error) {
	switch {
	case begins(b, proxyproto.SIGV1):
		line := b[:min(len(b), v1MaxBytes)]
		if end := bytes.IndexByte(line, '\n'); end >= 0 {
			return end + 1, nil
		}
		if len(b) >= v1MaxBytes {
			return 0, errors.New("PROXY header of version 1 is longer than 107 bytes")
		}
	case begins(b, proxyproto.SIGV2):
		if len(b) < v2FixedBytes {
			return 0, nil
		}
		n := v2FixedBytes + int(binary.BigEndian.Uint16(b[14:]))
		if n > maxProxyBytes {
			return 0, fmt.Errorf("PROXY header of %d bytes; at most %d are taken", n, maxProxyBytes)
		}
		return n, nil
	default:
		return 0, errNoProxy
	}
	return 0, nil
}

// begins tells whether b begins with the signature, as far as both go.
func begins(b, signature []byte) bool {
	n := min(len(b), len(signature))
	return bytes.Equal(b[:n], signature[:n])
}

// parseProxy parses a whole header.
func parseProxy(b []byte) (h header, err error) {
	if len(b) >= v2FixedBytes && b[0] == proxyproto.SIGV2[0] && b[13] == byte(proxyproto.UNSPEC) {
		// A connection of unknown kind, whose addresses the spec lets us take from
		// where it comes: for the library only LOCAL may be unknown.
		b = bytes.Clone(b)
		b[12] = b[12]&0xF0 | b[12]&0x0F&^1
	}
	p, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(b)))
	if err != nil {
		return h, fmt.Errorf("PROXY header: %w", err)
	}
	if p.Command.IsLocal() {
		return h, nil
	}
	switch a := p.SourceAddr.(type) {
	case *net.TCPAddr:
		h.source = a
	case *net.UnixAddr:
		h.source = a
	}
	tlvs, err := p.TLVs()
	if err != nil {
		return h, fmt.Errorf("PROXY header: %w", err)
	}
	if ssl, ok := tlvparse.FindSSL(tlvs); ok && ssl.Verified() && (ssl.ClientCertConn() || ssl.ClientCertSess()) {
		h.commonName, _ = ssl.ClientCN()
	}
	return h, nil
}

// kindOf is the kind of a failure, unless the client just went away.
func kindOf(err error, kind string) string {
	var network net.Error
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network) || errors.Is(err, net.ErrClosed) {
		return broker.OpenLost
	}
	return kind
}
