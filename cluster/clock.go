package cluster

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootTime is the boot-time clock: it goes on while the machine is suspended
// and while the process is stopped, and no one sets it.
func bootTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("read the boot-time clock: " + err.Error()) // every supported kernel has it
	}
	return time.Duration(t.Nano())
}
