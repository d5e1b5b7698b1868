package listener

import "time"

const (
	// maxFileBytes: authorities and revocation lists of large fleets are some MiB.
	maxFileBytes = 64 << 20

	// maxProxyBytes bounds a PROXY header: addresses, a name, a certificate of 2
	// KiB.
	maxProxyBytes = 4 << 10
	// maxRequestBytes bounds the request that asks for a WebSocket: browsers send
	// cookies.
	maxRequestBytes = 16 << 10
	// frameBytes is the buffer for either direction of a WebSocket. Frames may be
	// larger, they are only not in it.
	frameBytes = 2 << 10

	// keepAliveIdle is when the kernel asks a silent client whether it is there,
	// keepAliveInterval when again, and keepAliveCount how often. MQTT's Keep Alive
	// finds dead clients earlier; this is for those that have none, and must not
	// wake devices that run on batteries.
	keepAliveIdle     = 2 * time.Minute
	keepAliveInterval = 30 * time.Second
	keepAliveCount    = 4

	// probeTimeout is how long the answer to "does anybody listen on this socket"
	// may take.
	probeTimeout = 2 * time.Second
	// defaultMode lets the owner and group of a Unix socket connect.
	defaultMode = 0o660
)
