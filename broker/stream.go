package broker

import (
	"net"
	"syscall"
)

// stream is a wire whose operations wait: any net.Conn.
type stream struct{ net.Conn }

func (stream) blocks() bool { return true }

func (stream) arm(bool, bool) {}

// hungUp asks what carries the connection, if that is a socket.
func (s stream) hungUp() bool {
	under := s.Conn
	for {
		over, ok := under.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		under = over.NetConn()
	}
	socket, ok := under.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	return raw.Control(func(fd uintptr) { gone = hungUp(int(fd)) }) == nil && gone
}

func (s stream) closeWrite() bool {
	half, ok := s.Conn.(interface{ CloseWrite() error })
	return ok && half.CloseWrite() == nil
}

// interrupt closes the connection, which net.Conn allows at any time; under TLS
// what carries it, since the caller must not wait for a last word to be written.
func (s stream) interrupt() {
	if over, ok := s.Conn.(interface{ NetConn() net.Conn }); ok {
		over.NetConn().Close()
		return
	}
	s.Conn.Close()
}
