package listener

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
)

// listenUnix opens a Unix socket. One that a process has left behind makes room,
// one that somebody listens on does not.
func listenUnix(path string, mode os.FileMode) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if mode == 0 {
		mode = defaultMode
	}
	if err := os.Chmod(path, mode); err != nil {
		l.Close()
		return nil, fmt.Errorf("permissions of %s: %w", path, err)
	}
	return l, nil
}

func removeStale(path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is no socket; remove it or choose another path", path)
	}
	nc, err := net.DialTimeout("unix", path, probeTimeout)
	switch {
	case err == nil:
		nc.Close()
		return fmt.Errorf("%s: another process listens there", path)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s: whether a process listens there cannot be told: %w", path, err)
	}
	return os.Remove(path)
}
