package listener_test

import (
	"net"
	"runtime"
	"testing"

	"github.com/shoalmq/shoal/broker/listener"
)

// TestReserve: an address that is reserved is nobody else's, takes no connections
// until Listen, is given back by Close, and can be taken again at once although
// connections linger.
func TestReserve(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("an address can be reserved on Linux only")
	}
	for _, host := range []string{"127.0.0.1:0", ":0", "0.0.0.0:0", "[::]:0", "localhost:0", "[::1]:0"} {
		addr := host
		for range 3 {
			r, err := listener.Reserve(listener.Config{Name: "door", Network: "tcp", Addr: addr})
			if err != nil {
				if host == "[::1]:0" && addr == host {
					break // no IPv6 here
				}
				t.Fatal(err)
			}
			_, port, _ := net.SplitHostPort(r.Addr().String())
			to := "127.0.0.1:" + port
			if host == "[::1]:0" {
				to = "[::1]:" + port
			}
			if nc, err := net.Dial("tcp", to); err == nil {
				nc.Close()
				t.Errorf("%s: somebody accepts", host)
			}
			if addr == host { // where nothing lingers
				if l, err := net.Listen("tcp", to); err == nil {
					l.Close()
					t.Errorf("%s: somebody else can listen there", host)
				}
			}
			l, err := r.Listen()
			if err != nil {
				t.Fatal(err)
			}
			if l.Addr().String() != r.Addr().String() {
				t.Errorf("%s: listens on %s, not on %s", host, l.Addr(), r.Addr())
			}
			client, err := net.Dial("tcp", to)
			if err != nil {
				t.Fatal(err)
			}
			server, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			server.Close() // first, so that it lingers
			client.Close()
			r.Close()
			l.Close()
			addr = r.Addr().String()
		}
		r, err := listener.Reserve(listener.Config{Name: "door", Network: "tcp", Addr: addr})
		if err != nil {
			continue
		}
		r.Close()
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Errorf("%s: not given back: %v", host, err)
			continue
		}
		l.Close()
	}
}
