package broker

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// haveSockets: TCP connections and those of Unix sockets are watched by the
// poller.
const haveSockets = true

// socket is a connection as a bare descriptor. Between two wake-ups it costs
// its place in the epoll set: no goroutine, no buffer, no net.Conn.
type socket struct {
	fd      int
	token   uint64
	poller  *poller
	watched bool // in the epoll set
}

// poller watches the sockets that have no goroutine.
type poller struct {
	fd int
	// file puts the epoll set itself into the runtime's poller, so that waiting
	// for events does not take a thread.
	file *os.File

	mu sync.Mutex
	// conns finds the connection of an event. Tokens are never used twice, so
	// an event that was taken from the kernel before its socket was closed
	// cannot reach another one with the same descriptor.
	conns map[uint64]*conn
	last  uint64
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll set: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("create epoll set: %w", err)
	}
	return &poller{fd: fd, file: os.NewFile(uintptr(fd), "epoll"), conns: make(map[uint64]*conn)}, nil
}

// adopt takes a connection over: its descriptor is duplicated and nc closed,
// which takes it out of the runtime's poller. of is nc.
func (p *poller) adopt(c *conn, nc net.Conn, of syscall.Conn) (wire, error) {
	raw, err := of.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("take over connection: %w", err)
	}
	fd := -1
	var dupErr error
	err = raw.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if err == nil {
		err = dupErr
	}
	if err != nil {
		return nil, fmt.Errorf("take over connection: %w", err)
	}
	nc.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	p.conns[p.last] = c
	return &socket{fd: fd, token: p.last, poller: p}, nil
}

func (p *poller) find(token uint64) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns[token]
}

func (p *poller) forget(token uint64) {
	p.mu.Lock()
	delete(p.conns, token)
	p.mu.Unlock()
}

// run hands events to their connections until close.
func (p *poller) run() {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return
	}
	events := make([]unix.EpollEvent, epollEvents)
	for err == nil {
		n := 0
		err = raw.Read(func(uintptr) bool {
			n, _ = unix.EpollWait(p.fd, events, 0) // EINTR: none now, and called again
			return n > 0
		})
		for i := range events[:max(n, 0)] {
			p.dispatch(&events[i])
		}
	}
}

func (p *poller) dispatch(e *unix.EpollEvent) {
	c := p.find(uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32)
	if c == nil {
		return
	}
	// An error or hang-up shows to whichever tries to go on.
	const broken = unix.EPOLLERR | unix.EPOLLHUP
	c.ready(e.Events&(unix.EPOLLIN|unix.EPOLLRDHUP|broken) != 0, e.Events&(unix.EPOLLOUT|broken) != 0)
}

// close ends run.
func (p *poller) close() { p.file.Close() }

func (s *socket) control(op int, events uint32) error {
	return unix.EpollCtl(s.poller.fd, op, s.fd, &unix.EpollEvent{
		Events: events | unix.EPOLLONESHOT,
		Fd:     int32(uint32(s.token)),
		Pad:    int32(uint32(s.token >> 32)),
	})
}

func (*socket) blocks() bool { return false }

// arm is called with conn.mu held. The first time it puts the socket into the
// set. Should that fail for want of memory the connection's deadline ends it.
func (s *socket) arm(read, write bool) {
	op := unix.EPOLL_CTL_MOD
	if !s.watched {
		op, s.watched = unix.EPOLL_CTL_ADD, true
	}
	var events uint32
	if read {
		events |= unix.EPOLLIN | unix.EPOLLRDHUP
	}
	if write {
		events |= unix.EPOLLOUT
	}
	_ = s.control(op, events)
}

func (s *socket) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(s.fd, p)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return 0, errNotReady
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (s *socket) Write(p []byte) (n int, err error) {
	for n < len(p) {
		m, err := unix.Write(s.fd, p[n:])
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return n, errNotReady
		case err != nil:
			return n, os.NewSyscallError("write", err)
		default:
			n += m
		}
	}
	return n, nil
}

func (s *socket) hungUp() bool { return hungUp(s.fd) }

// hungUp tells whether the other side of a socket has closed and nothing of it
// is unread.
func hungUp(fd int) bool {
	const gone = unix.POLLRDHUP | unix.POLLHUP | unix.POLLERR
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	if n, err := unix.Poll(fds, 0); err != nil || n == 0 || fds[0].Revents&gone == 0 {
		return false
	}
	unread, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	return err != nil || unread == 0
}

func (s *socket) closeWrite() bool { return unix.Shutdown(s.fd, unix.SHUT_WR) == nil }

func (s *socket) interrupt() { unix.Shutdown(s.fd, unix.SHUT_RDWR) }

// Close takes the socket out of the set before its descriptor can be reused.
func (s *socket) Close() error {
	s.poller.forget(s.token)
	if s.watched {
		_ = s.control(unix.EPOLL_CTL_DEL, 0)
	}
	return unix.Close(s.fd)
}

func (s *socket) RemoteAddr() net.Addr {
	sa, err := unix.Getpeername(s.fd)
	if err != nil {
		return &net.TCPAddr{}
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return &net.TCPAddr{IP: sa.Addr[:], Port: sa.Port}
	case *unix.SockaddrInet6:
		return &net.TCPAddr{IP: sa.Addr[:], Port: sa.Port}
	case *unix.SockaddrUnix:
		return s.path()
	}
	return &net.TCPAddr{}
}

// path is that of the listener: the clients of a Unix socket have none.
func (s *socket) path() net.Addr {
	addr := &net.UnixAddr{Net: "unix"}
	if sa, err := unix.Getsockname(s.fd); err == nil {
		if sa, ok := sa.(*unix.SockaddrUnix); ok {
			addr.Name = sa.Name
		}
	}
	return addr
}
