package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// disk is a file system of its own, in an image, whose power can be cut: then
// what was not synced is gone, as with a machine's.
type disk struct {
	t          testing.TB
	image, dir string
}

const diskBytes = 1 << 30 // sparse

// newDisk mounts a new file system at dir. Without the right to mount it skips
// the test, or fails it where nothing may be missing.
func newDisk(t testing.TB, dir string) *disk {
	t.Helper()
	d := &disk{t: t, image: filepath.Join(t.TempDir(), "image"), dir: dir}
	for _, err := range []error{
		os.MkdirAll(dir, 0o755), os.WriteFile(d.image, nil, 0o600), os.Truncate(d.image, diskBytes),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", d.image).CombinedOutput(); err != nil {
		unavailable(t, "mkfs.ext4: %v %s", err, out)
	}
	d.mount()
	t.Cleanup(d.unmount)
	return d
}

// mount replays the file system's journal as after a power failure. The long
// commit interval keeps the kernel from syncing by itself what nobody asked
// for.
func (d *disk) mount() {
	d.t.Helper()
	if out, err := exec.Command("mount", "-t", "ext4", "-o", "loop,commit=300", d.image, d.dir).CombinedOutput(); err != nil {
		unavailable(d.t, "power cuts need the right to mount: %v %s", err, out)
	}
}

func (d *disk) unmount() {
	if out, err := exec.Command("umount", d.dir).CombinedOutput(); err != nil {
		d.t.Errorf("umount: %v %s", err, out)
	}
}

// cut stops the file system at once: no more writes, no flush, not even of its
// journal.
func (d *disk) cut() {
	d.t.Helper()
	// EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH, of the kernel's ext4.h.
	const shutdown, noLogFlush = 0x8004587d, 2
	f, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	flags := uint32(noLogFlush)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), shutdown, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		d.t.Fatalf("shut the file system down: %v", errno)
	}
}

// back mounts what the power cut has left.
func (d *disk) back() {
	d.t.Helper()
	d.unmount()
	d.mount()
}

// A cut that keeps what was not synced would let the other tests pass for
// nothing.
func TestPowerCutDropsWhatIsNotSynced(t *testing.T) {
	d := newDisk(t, t.TempDir())
	write := func(name string, sync bool) {
		f, err := os.Create(filepath.Join(d.dir, name))
		if err == nil {
			_, err = f.WriteString(name)
		}
		if err == nil && sync {
			err = f.Sync()
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	write("synced", true)
	write("not synced", false)
	d.cut()
	d.back()
	for name, want := range map[string]string{"synced": "synced", "not synced": ""} {
		if got, _ := os.ReadFile(filepath.Join(d.dir, name)); string(got) != want {
			t.Errorf("file %q has %q, want %q", name, got, want)
		}
	}
}

// TestAllLosePowerAtOnce: the same when everything that was not synced is gone.
func TestAllLosePowerAtOnce(t *testing.T) {
	eachShardCount(t, func(t *testing.T, shards int) {
		dir := t.TempDir()
		var disks []*disk
		for _, name := range []string{"a", "b", "c"} {
			disks = append(disks, newDisk(t, filepath.Join(dir, name)))
		}
		c := newCluster(t, shards, dir)
		for _, n := range c.nodes {
			n.dir = filepath.Join(n.dir, "data")
		}
		allEndAtOnce(t, c, func() {
			for _, d := range disks {
				d.cut()
			}
		}, func() {
			for _, d := range disks {
				d.back()
			}
		})
	})
}
