//go:build !linux

package broker

import (
	"net"
	"syscall"
)

// haveSockets: TCP connections have a goroutine that waits, like all others.
const haveSockets = false

// poller has nothing to do.
type poller struct{}

func newPoller() (*poller, error) { return &poller{}, nil }

func (*poller) run() {}

func (*poller) close() {}

func (*poller) adopt(_ *conn, nc net.Conn, _ syscall.Conn) (wire, error) { return stream{nc}, nil }

// hungUp cannot be known without taking what may be unread.
func hungUp(int) bool { return false }
