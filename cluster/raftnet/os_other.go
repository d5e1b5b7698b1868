//go:build !linux

package raftnet

import (
	"syscall"
	"time"
)

var processStart = time.Now()

// Now is the time since the process started on the monotonic clock. Unlike on
// Linux it may stand still while the machine is suspended: use this for
// development only.
func Now() time.Duration { return time.Since(processStart) + 1 }

func setDeadAfter(_, _ string, _ syscall.RawConn) error { return nil }
