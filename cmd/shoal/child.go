package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// childGrace is how long a node may take to drain and close before it is
// killed.
const childGrace = 40 * time.Second

// child is a running node of dev.
type child struct {
	cmd  *exec.Cmd
	done chan error // gets the outcome of Wait once
}

// startChild starts the program so that it ends with this process, and with
// nothing else: a Ctrl-C in the terminal reaches only this process, which
// passes it on once.
func startChild(program string, args []string, log io.Writer) (*child, error) {
	c := &child{cmd: exec.Command(program, args...), done: make(chan error, 1)}
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = childAttr()
	started := make(chan error)
	go func() {
		// Linux sends the parent-death signal when the *thread* that started
		// the child ends, so this one stays until the child has.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		started <- err
		if err == nil {
			c.done <- c.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// wait returns when the process has ended, which it makes it do when ctx ends.
// killed tells whether a signal ended it.
func (c *child) wait(ctx context.Context) (killed bool, err error) {
	select {
	case err = <-c.done:
	case <-ctx.Done():
		err = c.stop()
	}
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		status, ok := e.Sys().(syscall.WaitStatus)
		return ok && status.Signaled(), err
	}
	if err == nil {
		err = errors.New("exit status 0")
	}
	return false, err
}

func (c *child) stop() error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return <-c.done // it has ended already
	}
	// A stopped process would never see it.
	_ = c.cmd.Process.Signal(syscall.SIGCONT)
	select {
	case err := <-c.done:
		return err
	case <-time.After(childGrace):
	}
	if err := c.cmd.Process.Kill(); err != nil {
		return errors.Join(err, <-c.done)
	}
	return <-c.done
}

// freePorts finds ports that nobody listens on. Somebody may take one before
// the node does; the node then says so.
func freePorts() (ports [devNodes][4]int, err error) {
	for i := range ports {
		for k := range ports[i] {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return ports, err
			}
			defer l.Close()
			ports[i][k] = l.Addr().(*net.TCPAddr).Port
		}
	}
	return ports, nil
}
