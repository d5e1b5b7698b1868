package listener_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/listener"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shoal.sock")
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()

	n := start(t, func(c *broker.Config) { // which is not for those who have no address
		c.Addresses = broker.Ban{Events: 1, Window: time.Hour, Time: time.Hour}
	})
	n.listen(listener.Config{Name: "unix", Network: "unix", Addr: path, Mode: 0o600})
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	c := mqtttest.Over(t, dial(t, "unix", path), packet.V5)
	c.Connect(mqtttest.ID("c"))
	if p := n.peers.of("c"); p.Remote.String() != path || p.Remote.Network() != "unix" {
		t.Errorf("peer %v", p.Remote)
	}
	c.Disconnect()
	for range 3 {
		c = mqtttest.Over(t, dial(t, "unix", path), packet.V5)
		c.Connect(mqtttest.ID("c"))
		c.Disconnect()
	}

	if _, err := listener.Listen(listener.Config{Name: "second", Network: "unix", Addr: path}); err == nil || !strings.Contains(err.Error(), "another process listens there") {
		t.Errorf("the socket of a running server: %v", err)
	}
	c = mqtttest.Over(t, dial(t, "unix", path), packet.V5)
	c.Connect(mqtttest.ID("c"))
	c.Disconnect()

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listener.Listen(listener.Config{Name: "third", Network: "unix", Addr: file}); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("a file: %v", err)
	}
	if b, _ := os.ReadFile(file); string(b) != "precious" {
		t.Error("the file is gone")
	}
}
