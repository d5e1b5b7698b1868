package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// freeze makes writes to the file system wait, without an error, until thaw:
// what a stalled volume looks like.
func (d *disk) freeze() { d.ioctl(0xc0045877) } // FIFREEZE, of the kernel's fs.h
func (d *disk) thaw()   { d.ioctl(0xc0045878) } // FITHAW

func (d *disk) ioctl(request uintptr) {
	d.t.Helper()
	f, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, 0); errno != 0 {
		d.t.Fatalf("ioctl %#x: %v", request, errno)
	}
}

// TestDiskHangs: the disk of a node that leads hangs while its heartbeats go on.
// The others take over, nothing is lost, and the node comes back with its disk,
// without having been restarted.
func TestDiskHangs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := newDisk(t, filepath.Join(dir, "a"))
	c := newCluster(t, 3, dir)
	a := c.byName("a")
	a.dir = filepath.Join(a.dir, "data")
	c.start()
	c.awaitReady()
	terms(c) // each node leads a shard then
	l := startLoad(t, c, loadConfig{seed: 3, window: 30, pace: 5 * time.Millisecond})
	awaitAcked(l, 500)
	pid := a.pid()

	begin := time.Now()
	d.freeze()
	thawed := false
	defer func() {
		if !thawed {
			d.thaw()
		}
	}()
	eventually(t, "a is unready", func() error { return unready(a) })
	t.Logf("unready after %v", time.Since(begin).Round(10*time.Millisecond))
	eventually(t, "others lead", func() error {
		s, err := c.byName("b").status()
		if err != nil {
			return err
		}
		for _, g := range s.Groups {
			if g.Leader == "a" || g.Leader == "" {
				return errors.New(g.Group + " is led by " + g.Leader)
			}
		}
		return nil
	})
	t.Logf("led by others after %v", time.Since(begin).Round(10*time.Millisecond))
	awaitAcked(l, l.ackedNow()+1000)
	d.thaw()
	thawed = true
	c.awaitReady()
	t.Logf("all ready after %v", time.Since(begin).Round(10*time.Millisecond))
	awaitAcked(l, l.ackedNow()+500)
	l.finish()
	if a.pid() != pid {
		t.Error("the node was restarted")
	}
}

// TestLowSpace: a disk fills up. Its node says so, leads nothing and refuses
// before anything fails, and comes back when there is space.
func TestLowSpace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := newDisk(t, filepath.Join(dir, "a"))
	c := newCluster(t, 3, dir)
	a := c.byName("a")
	a.dir = filepath.Join(a.dir, "data")
	a.flags = append(a.flags, "--min-free-bytes=500MiB")
	c.start()
	c.awaitReady()
	terms(c)
	l := startLoad(t, c, loadConfig{seed: 4, window: 30, pace: 5 * time.Millisecond})
	awaitAcked(l, 500)

	filler, err := os.Create(filepath.Join(d.dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	if err := unix.Fallocate(int(filler.Fd()), 0, 0, diskBytes*6/10); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a is unready", func() error { return unready(a) })
	eventually(t, "a leads nothing", func() error {
		s, err := a.status()
		if err != nil {
			return err
		}
		for _, g := range s.Groups {
			if g.State == "Leader" {
				return errors.New("it leads " + g.Group)
			}
		}
		return nil
	})
	awaitAcked(l, l.ackedNow()+500)
	if err := os.Remove(filler.Name()); err != nil {
		t.Fatal(err)
	}
	filler.Close()
	c.awaitReady()
	awaitAcked(l, l.ackedNow()+500)
	l.finish()
}
