package listener

import (
	"crypto/tls"
	"net"

	"github.com/shoalmq/shoal/broker"
)

// conn is a connection with something around it. Open is called before Read and
// Write; NetConn and Close at any time.
type conn struct {
	// Conn is what reads and writes MQTT, set by Open.
	net.Conn
	raw      net.Conn // as the kernel gave it
	listener *Listener
	proxied  bool

	// Set by Open.
	remote net.Addr
	read   []byte // of raw, beyond the PROXY header; nil if something is around raw
	frames *frames
}

var _ broker.Bare = (*conn)(nil)

// Open is part of broker.Accepted.
func (c *conn) Open() (*broker.Peer, error) {
	peer := &broker.Peer{Remote: c.remote}
	if c.proxied {
		h, rest, err := readProxy(c.raw)
		if err != nil {
			return nil, &broker.OpenError{Kind: kindOf(err, broker.OpenProxy), Err: err}
		}
		if h.source != nil {
			c.remote, peer.Remote = h.source, h.source
		}
		peer.CommonName = h.commonName
		c.Conn, c.read = &prefixed{Conn: c.raw, prefix: rest}, rest
	}
	if k := c.listener.keys; k != nil {
		over := tls.Server(c.Conn, k.config())
		if err := over.Handshake(); err != nil {
			return nil, describeTLS(err)
		}
		state := over.ConnectionState()
		c.Conn, peer.TLS = over, &state
	}
	if ws := c.listener.config.WebSocket; ws != nil {
		f, err := ws.accept(c.Conn, peer.CommonName != "" || peer.TLS != nil && len(peer.TLS.VerifiedChains) > 0)
		if err != nil {
			return nil, &broker.OpenError{Kind: kindOf(err, broker.OpenWebSocket), Err: err}
		}
		c.Conn, c.frames = f, f
	}
	return peer, nil
}

// Bare is part of broker.Bare.
func (c *conn) Bare() (*net.TCPConn, []byte) {
	tcp, ok := c.raw.(*net.TCPConn)
	if !ok || c.listener.keys != nil || c.frames != nil {
		return nil, nil
	}
	return tcp, c.read
}

// NetConn is what carries the rest: closing it interrupts everything at once.
func (c *conn) NetConn() net.Conn { return c.raw }

// Close gives the connection up, without a word: what was to be said has been. It
// interrupts Open, Read and Write.
func (c *conn) Close() error { return c.raw.Close() }

// RemoteAddr is the client's address, as a trusted proxy tells it.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// CloseWrite tells the client that nothing more comes.
func (c *conn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return net.ErrClosed
	}
	return half.CloseWrite()
}

// prefixed is a connection of which something has been read.
type prefixed struct {
	net.Conn
	prefix []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.prefix) > 0 {
		n := copy(b, p.prefix)
		p.prefix = p.prefix[n:]
		return n, nil
	}
	p.prefix = nil
	return p.Conn.Read(b)
}

// CloseWrite is that of the connection.
func (p *prefixed) CloseWrite() error {
	half, ok := p.Conn.(interface{ CloseWrite() error })
	if !ok {
		return net.ErrClosed
	}
	return half.CloseWrite()
}
