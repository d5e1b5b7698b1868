package broker

import "net"

// stream is a wire whose operations wait: any net.Conn.
type stream struct{ net.Conn }

func (stream) blocks() bool { return true }

func (stream) arm(bool, bool) {}

func (s stream) closeWrite() bool {
	half, ok := s.Conn.(interface{ CloseWrite() error })
	return ok && half.CloseWrite() == nil
}

// interrupt closes the connection, which net.Conn allows at any time.
func (s stream) interrupt() { s.Conn.Close() }
