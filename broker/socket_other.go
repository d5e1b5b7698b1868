//go:build !linux

package broker

import "net"

// poller is not needed where every connection has a goroutine that waits.
type poller struct{}

func newPoller() (*poller, error) { return &poller{}, nil }

func (*poller) run() {}

func (*poller) close() {}

func (*poller) adopt(*conn, net.Conn) (wire, error) { return nil, nil }
