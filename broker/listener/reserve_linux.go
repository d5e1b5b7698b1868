package listener

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// backlog is how many connections may wait to be accepted: as many as the kernel
// allows, which lowers it.
const backlog = 65535

// reservedTCP is a socket that is bound and does not listen.
type reservedTCP struct {
	fd   int
	addr net.Addr
}

// reserveTCP binds a socket. Errors read like those of net.Listen.
func reserveTCP(addr string) (*reservedTCP, error) {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen tcp: %w", err)
	}
	everywhere := len(a.IP) == 0 || a.IP.IsUnspecified()
	if everywhere { // as net.Listen has it
		a.IP = net.IPv6unspecified
	}
	r, err := bind(a, !everywhere)
	if everywhere && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) { // no IPv6 here
		a.IP = net.IPv4zero
		r, err = bind(a, true)
	}
	if err != nil {
		return nil, fmt.Errorf("listen tcp %s: %w", addr, err)
	}
	return r, nil
}

// bind binds a socket to a. If a is of IPv6 and not alone, the socket takes
// connections of IPv4, too.
func bind(a *net.TCPAddr, alone bool) (*reservedTCP, error) {
	family, sa, err := sockaddr(a)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	r := &reservedTCP{fd: fd}
	if family == unix.AF_INET6 {
		only := 1
		if !alone {
			only = 0
		}
		err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only))
	}
	if err == nil {
		err = unix.Bind(fd, sa)
		if err == unix.EADDRINUSE && reuse(fd) == nil {
			// Connections of a former process may linger there. Only then: a port
			// that is bound like this can be bound by others, too.
			err = unix.Bind(fd, sa)
		}
		err = os.NewSyscallError("bind", err)
	}
	if err == nil {
		r.addr, err = boundTo(fd, a)
	}
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func sockaddr(a *net.TCPAddr) (family int, sa unix.Sockaddr, err error) {
	if ip := a.IP.To4(); ip != nil {
		return unix.AF_INET, &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(ip)}, nil
	}
	sa6 := &unix.SockaddrInet6{Port: a.Port}
	copy(sa6.Addr[:], a.IP)
	if a.Zone != "" {
		i, err := net.InterfaceByName(a.Zone)
		if err != nil {
			return 0, nil, err
		}
		sa6.ZoneId = uint32(i.Index)
	}
	return unix.AF_INET6, sa6, nil
}

// boundTo is a with the port that the socket has.
func boundTo(fd int, a *net.TCPAddr) (net.Addr, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	bound := &net.TCPAddr{IP: a.IP, Zone: a.Zone}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		bound.Port = sa.Port
	case *unix.SockaddrInet6:
		bound.Port = sa.Port
	}
	return bound, nil
}

// reuse lets a socket be bound where connections linger, and others where its own
// connections do.
func reuse(fd int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
}

// listen makes a listener of the socket, which is its own then.
func (r *reservedTCP) listen() (net.Listener, error) {
	err := reuse(r.fd)
	if err == nil {
		err = os.NewSyscallError("listen", unix.Listen(r.fd, backlog))
	}
	if err != nil {
		r.close()
		return nil, fmt.Errorf("listen tcp %s: %w", r.addr, err)
	}
	f := os.NewFile(uintptr(r.fd), "listener")
	defer f.Close() // FileListener has a copy
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	return tcpListener{l.(*net.TCPListener)}, nil
}

func (r *reservedTCP) close() { unix.Close(r.fd) }

// tcpListener sets keepAlive, which a listener made of a socket knows nothing of.
type tcpListener struct{ *net.TCPListener }

func (l tcpListener) Accept() (net.Conn, error) {
	nc, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	nc.SetKeepAliveConfig(keepAlive) // fails if the client is gone already
	return nc, nil
}
