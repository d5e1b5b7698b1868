package broker

import (
	"net"
	"testing"
)

// TestPollerForgets: a closed socket leaves nothing behind, and an event that is
// still on its way finds nobody.
func TestPollerForgets(t *testing.T) {
	p, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 3 {
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c := &conn{}
		w, err := p.adopt(c, server, server.(*net.TCPConn))
		if err != nil {
			t.Fatal(err)
		}
		w.arm(true, false)
		token := w.(*socket).token
		if p.find(token) != c {
			t.Error("the connection is not found")
		}
		w.Close()
		if p.find(token) != nil || len(p.conns) != 0 {
			t.Error("the connection is not forgotten")
		}
		client.Close()
	}
}
