package broker

import (
	"errors"
	"net"
)

// wire is how bytes reach and leave a connection. Read is called by one
// goroutine at a time, and so is Write.
type wire interface {
	// Read and Write are like those of net.Conn. On a wire that does not block
	// they return errNotReady, with what they did until then, instead of
	// waiting.
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	// blocks tells whether Read and Write wait.
	blocks() bool
	// arm asks for one call of conn.ready when the wire can be read or written.
	// It replaces an earlier request. Not called on a wire that blocks.
	arm(read, write bool)
	// closeWrite tells the client that nothing more comes, while it can still
	// be read. It returns false if the wire cannot do that.
	closeWrite() bool
	// hungUp tells whether the client has closed its side and nothing of it is
	// unread. False if that cannot be known.
	hungUp() bool
	// interrupt ends a Read and a Write that are waiting, or are to come.
	interrupt()
	// Close gives the wire up. It is called last and once.
	Close() error
	RemoteAddr() net.Addr
}

// errNotReady: the operation would have to wait.
var errNotReady = errors.New("wire is not ready")
