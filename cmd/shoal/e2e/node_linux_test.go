package e2e

import "syscall"

// endWithParent has the kernel kill a child should this process end first.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
