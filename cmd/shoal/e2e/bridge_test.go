package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// TestMosquittoBridge: Debian's mosquitto bridges everything both ways, as what it
// is by the bit that no standard knows: messages go once in each direction and do
// not come back, and retained ones are retained on the other side.
func TestMosquittoBridge(t *testing.T) {
	c := startCluster(t, 6)
	for i, version := range []string{"mqttv31", "mqttv311", "mqttv50"} {
		t.Run(version, func(t *testing.T) {
			id, prefix := fmt.Sprint("bridge-", version), version+"/"
			there := startMosquitto(t, fmt.Sprintf("connection up\nremote_clientid %s\naddress %s\ntopic %s# both 1\nbridge_protocol_version %s\nrestart_timeout 1\n",
				id, c.nodes[i].mqtt, prefix, version))
			dial := func(addr, name string) *mqtttest.Client {
				client := mqtttest.DialTest(t, addr, packet.V5)
				client.AutoAck = true
				client.Connect(mqtttest.ID(id + name))
				return client
			}
			here, far := dial(c.nodes[(i+1)%3].mqtt, "-here"), dial(there, "-far")
			here.SubscribeAll(packet.Subscription{Filter: prefix + "#", QoS: 1, RetainAsPublished: true})
			far.SubscribeAll(packet.Subscription{Filter: prefix + "#", QoS: 1, RetainAsPublished: true})
			eventually(t, "bridge", func() error { // it connects and subscribes in its own time
				here.Publish(prefix+"probe", "", 0)
				if p, err := far.Receive(100 * time.Millisecond); err != nil {
					return err
				} else if p, is := p.(*packet.Publish); !is || string(p.Topic) != prefix+"probe" {
					return fmt.Errorf("got %s", mqtttest.Describe(p))
				}
				return nil
			})
			bridged(t, "here", here, far, prefix)
			bridged(t, "far", far, here, prefix)
		})
	}
}

// bridged publishes here: what is retained and what is not arrives at both ends,
// once.
func bridged(t *testing.T, name string, here, far *mqtttest.Client, prefix string) {
	t.Helper()
	for i, retain := range []bool{false, true, false} {
		text := fmt.Sprint(name, i)
		here.Write(&packet.Publish{Topic: []byte(prefix + name), Payload: []byte(text), QoS: 1, PacketID: uint16(100 + i), Retain: retain})
		for _, c := range []*mqtttest.Client{here, far} {
			for {
				p, is := c.Next().(*packet.Publish)
				if !is || string(p.Topic) == prefix+"probe" {
					continue
				}
				if string(p.Payload) != text || p.Retain != retain {
					t.Fatalf("got %s, want %q with RETAIN %t", mqtttest.Describe(p), text, retain)
				}
				break
			}
		}
	}
}

// startMosquitto runs Debian's broker with more configuration, until the test
// ends, and returns its address.
func startMosquitto(t *testing.T, more string) string {
	t.Helper()
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/mosquitto"); err != nil {
			unavailable(t, "no mosquitto: apt-get install mosquitto")
		}
	}
	port := freePort(t)
	file := filepath.Join(t.TempDir(), "mosquitto.conf")
	must(t, os.WriteFile(file, fmt.Appendf(nil, "listener %d 127.0.0.1\nallow_anonymous true\n%s", port, more), 0o600))
	cmd := exec.Command(program, "-c", file)
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	eventually(t, "mosquitto", func() error {
		nc, err := net.Dial("tcp", loopback(port))
		if err == nil {
			nc.Close()
		}
		return err
	})
	return loopback(port)
}
