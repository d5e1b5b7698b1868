package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
)

// given has the ports that this process has handed out.
var given sync.Map

// freePort finds a port that nobody listens on, TCP or UDP. It lies outside
// the range from which the kernel takes the ports of outgoing connections:
// a node that is down keeps its ports, and a client that dials meanwhile must
// not get one of them.
func freePort(t testing.TB) int {
	t.Helper()
	low, high := 10000, 32768
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		var last int
		if _, err := fmt.Sscan(string(b), &high, &last); err == nil && high <= low {
			low, high = last+1, 65536
		}
	}
	for range 1000 {
		port := low + rand.IntN(high-low)
		if _, taken := given.LoadOrStore(port, true); !taken && isFree(port) {
			return port
		}
	}
	t.Fatalf("no free port from %d to %d", low, high-1)
	return 0
}

func isFree(port int) bool {
	addr := loopback(port)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	defer l.Close()
	u, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	u.Close()
	return true
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
