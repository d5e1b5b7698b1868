package main

import (
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// freeAddr is an address on which nobody listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// launch runs serve with an MQTT port that nobody has, and returns at once.
func launch(t *testing.T, dir string, flags ...string) *process {
	t.Helper()
	p := &process{mqtt: freeAddr(t), http: freeAddr(t)}
	p.Cmd = exec.Command(program(t), append([]string{"serve", "--node-id=a", "--data-dir=" + dir,
		"--mqtt-addr=" + p.mqtt, "--http-addr=" + p.http, "--gossip-addr=127.0.0.1:0", "--rpc-addr=127.0.0.1:0"}, flags...)...)
	p.Stdout, p.Stderr = &p.said, &p.said
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Process.Kill(); p.Wait() })
	return p
}

// accepts reports whether the MQTT port takes connections.
func (p *process) accepts() bool {
	nc, err := net.Dial("tcp", p.mqtt)
	if err == nil {
		nc.Close()
	}
	return err == nil
}

// probe is the answer to a probe, 0 if there is none.
func (p *process) probe(path string) int {
	resp, err := http.Get("http://" + p.http + path)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// firstClients expects that those who come as soon as the port takes connections
// are served, and that what they publish arrives, whatever its QoS.
func firstClients(t *testing.T, p *process, resumed bool) {
	t.Helper()
	ready := false
	eventually(t, "the port opens", &p.said, func() bool {
		ready = p.probe("/readyz") == http.StatusOK
		return p.accepts() || ready
	})
	if ready && !p.accepts() {
		t.Fatalf("ready, and the port is closed; it said\n%s", &p.said)
	}
	kept := mqtttest.DialTest(t, p.mqtt, packet.V5)
	if ack := kept.Connect(mqtttest.ID("kept"), mqtttest.Resume(), mqtttest.Expiry(3600)); ack.SessionPresent != resumed {
		t.Errorf("session present %t", ack.SessionPresent)
	}
	if !resumed {
		kept.Subscribe("a/#", 1)
	}
	sub := mqtttest.DialTest(t, p.mqtt, packet.V311)
	sub.Connect(mqtttest.ID("sub"))
	sub.Subscribe("a/#", 2)
	pub := mqtttest.DialTest(t, p.mqtt, packet.V5)
	pub.Connect(mqtttest.ID("pub"))
	const messages = 12 // whatever shards the topics belong to
	for i := range messages {
		pub.Publish(fmt.Sprint("a/", i), "x", packet.QoS(i%2))
	}
	for _, c := range []*mqtttest.Client{sub, kept} {
		got := map[string]bool{}
		for end := time.Now().Add(deadline); len(got) < messages; {
			for _, x := range c.Ping() {
				if x, ok := x.(*packet.Publish); ok {
					got[string(x.Topic)] = true
					if x.QoS == 1 {
						c.Write(&packet.Ack{Type: packet.TypePuback, PacketID: x.PacketID})
					}
				}
			}
			if time.Now().After(end) {
				t.Fatalf("%d of %d messages came; it said\n%s", len(got), messages, &p.said)
			}
		}
		c.Disconnect()
	}
	pub.Disconnect()
	if p.probe("/readyz") != http.StatusOK {
		t.Error("served, and not ready")
	}
}

// TestFirstClients: a node lets clients in when it can serve them, at birth and
// when it comes back.
func TestFirstClients(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	dir := ""
	for i := range rounds {
		if i%4 == 0 {
			dir = t.TempDir()
		}
		p := launch(t, dir)
		firstClients(t, p, i%4 > 0)
		p.Process.Kill()
		p.Wait()
	}
}

// TestFirstClientsOfThree: so it is on each of three nodes, at birth and when one
// comes back.
func TestFirstClientsOfThree(t *testing.T) {
	names := []string{"a", "b", "c"}
	var dirs, gossip []string
	for range names {
		dirs, gossip = append(dirs, t.TempDir()), append(gossip, freeAddr(t))
	}
	start := func(i int) *process {
		return launch(t, dirs[i], "--node-id="+names[i], "--gossip-addr="+gossip[i], "--join="+strings.Join(gossip, ","), "--bootstrap-expect=3")
	}
	var nodes []*process
	for i := range names {
		nodes = append(nodes, start(i))
	}
	for i, p := range nodes {
		firstClients(t, p, i > 0)
	}
	for i, p := range nodes {
		p.Process.Kill()
		p.Wait()
		nodes[i] = start(i)
		firstClients(t, nodes[i], true)
	}
}

// TestMinorityLetsNobodyIn: a node that finds no majority when it starts refuses
// connections, says why, and lives.
func TestMinorityLetsNobodyIn(t *testing.T) {
	p := launch(t, t.TempDir(), "--bootstrap-expect=3", "--join=127.0.0.1:1")
	eventually(t, "says why it is not ready", &p.said, func() bool {
		return p.probe("/livez") == http.StatusOK && strings.Contains(p.said.String(), "waiting for 3 nodes")
	})
	if code := p.probe("/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("/readyz is %d", code)
	}
	if p.accepts() {
		t.Error("the port is open")
	}
	if l, err := net.Listen("tcp", p.mqtt); err == nil {
		l.Close()
		t.Error("somebody else can listen there")
	}
}
