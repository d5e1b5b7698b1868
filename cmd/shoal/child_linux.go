package main

import "syscall"

// childAttr puts a child into a process group of its own, out of reach of the
// terminal's Ctrl-C, and has the kernel end it should this process be killed.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
