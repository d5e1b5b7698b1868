package e2e

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"
)

// clockTick is the unit of CPU time in /proc, 1/100 s on every Linux there is.
const clockTick = 10 * time.Millisecond

// cpuTime is what the nodes' processes have used, user and system.
func (c *cluster) cpuTime() time.Duration {
	var sum time.Duration
	for _, n := range c.nodes {
		sum += cpuOf(c.t, n.pid())
	}
	return sum
}

func cpuOf(t testing.TB, pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// The second field, in brackets, may hold anything; utime and stime are the
	// 14th and 15th.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	var utime, stime int64
	if _, err := fmt.Sscan(string(f[11])+" "+string(f[12]), &utime, &stime); err != nil {
		t.Fatal(err)
	}
	return time.Duration(utime+stime) * clockTick
}

// rssBytes is a process's resident memory.
func rssBytes(t testing.TB, pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * int64(os.Getpagesize())
}
