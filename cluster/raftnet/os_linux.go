package raftnet

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Now is the time since boot, suspended time included (CLOCK_BOOTTIME). It is
// what Confirmed returns; only differences on one machine mean anything.
func Now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("read CLOCK_BOOTTIME: " + err.Error()) // every Linux since 2.6.39 has it
	}
	return time.Duration(t.Nano())
}

// setDeadAfter makes the kernel give up a connection whose sent bytes stay
// unacknowledged for deadAfter.
func setDeadAfter(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return failed
}
