package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/broker/packet"
)

// TestOrderOfPlainCommands: what people type into a shell, or write into a script of
// ten lines, with other people's clients, on one node and on three.
func TestOrderOfPlainCommands(t *testing.T) {
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d nodes", size), func(t *testing.T) {
			c := startClusterOf(t, size, orderShards)
			for _, p := range retaining {
				t.Run(p.name, func(t *testing.T) { p.try(t, c) })
			}
			for qos := range 2 {
				t.Run(fmt.Sprintf("a reply with QoS %d, paho for Python", qos), func(t *testing.T) { pythonReply(t, c, qos) })
			}
		})
	}
}

// retainingCommand leaves a retained message of QoS 0, as the last thing it does.
type retainingCommand struct {
	name    string
	payload string // what it leaves, empty for nothing
	// run publishes to one topic.
	run func(t *testing.T, n *node, topic string)
	// all, if not nil, publishes to those of all rounds in place of run.
	all func(t *testing.T, n *node, prefix string, rounds int)
}

var retaining = []retainingCommand{
	{name: "mosquitto_pub -r", payload: "new", run: func(t *testing.T, n *node, topic string) {
		tool(t, "", "mosquitto_pub", n, "-r", "-t", topic, "-m", "new")
	}},
	{name: "mosquitto_pub -r -n", run: func(t *testing.T, n *node, topic string) {
		tool(t, "", "mosquitto_pub", n, "-r", "-n", "-t", topic)
	}},
	{name: "mosquitto_pub -l -r", payload: "new", run: func(t *testing.T, n *node, topic string) {
		tool(t, "newer\nnew\n", "mosquitto_pub", n, "-l", "-r", "-t", topic)
	}},
	{name: "publish.single of Python", payload: "new", all: func(t *testing.T, n *node, prefix string, rounds int) {
		pythonOrder(t, "retain", n, prefix, fmt.Sprint(rounds))
	}},
	{name: "mqtt pub -r of MQTT.js", payload: "new", run: func(t *testing.T, n *node, topic string) {
		if _, err := os.Stat("node/node_modules/mqtt"); err != nil {
			unavailable(t, "no mqtt.js: cd cmd/shoal/e2e/node && npm ci")
		}
		host, port, err := net.SplitHostPort(n.mqtt)
		must(t, err)
		out, err := exec.Command("node", "node/node_modules/mqtt/build/bin/mqtt.js", "pub", "-h", host, "-p", port, "-r", "-t", topic, "-m", "new").CombinedOutput()
		if err != nil {
			t.Fatalf("mqtt pub: %v\n%s", err, out)
		}
	}},
}

// try publishes over older messages, on one node, and looks on all.
func (p *retainingCommand) try(t *testing.T, c *cluster) {
	if program := strings.Fields(p.name)[0]; strings.HasPrefix(program, "mosquitto") {
		if _, err := exec.LookPath(program); err != nil {
			unavailable(t, "no %s: apt-get install mosquitto-clients", program)
		}
	}
	prefix := "plain/" + strings.NewReplacer(" ", "-", ".", "-").Replace(p.name)
	from, to := c.nodes[0], c.nodes[len(c.nodes)-1]
	x := &orderScene{t: t, v: packet.V5, prefix: prefix}
	retainLast(t, to, prefix)
	rounds, want := orderRounds(), make(map[string]string)
	for i := range rounds {
		topic := fmt.Sprintf("%s/%d", prefix, i)
		must(t, x.publish(to, topic, "old", true))
		if p.payload != "" {
			want[topic] = p.payload
		}
	}
	if p.all != nil {
		p.all(t, from, prefix, rounds)
	} else {
		for i := range rounds {
			p.run(t, from, fmt.Sprintf("%s/%d", prefix, i))
		}
	}
	expectRetained(t, c, prefix, want)
}

// pythonOrder runs testdata/order.py and returns what it says.
func pythonOrder(t *testing.T, verb string, n *node, args ...string) string {
	t.Helper()
	if err := exec.Command(python, "-c", "import paho.mqtt.client").Run(); err != nil {
		unavailable(t, "no paho for %s: apt-get install python3-paho-mqtt", python)
	}
	host, port, err := net.SplitHostPort(n.mqtt)
	must(t, err)
	out, err := exec.Command(python, append([]string{"testdata/order.py", verb, host, port}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", verb, err, out)
	}
	return strings.TrimSpace(string(out))
}

// pythonReply: each client subscribes to the reply and publishes the request
// without waiting. A responder answers, on another node if there is one.
func pythonReply(t *testing.T, c *cluster, qos int) {
	prefix := fmt.Sprintf("plain/reply-%d", qos)
	responder := newPahoV3()
	t.Cleanup(responder.close)
	connected(t, responder, c.nodes[len(c.nodes)-1].mqtt, prefix, true, false)
	subscribed(t, responder, prefix+"/request/+", 1)
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		for {
			select {
			case m := <-responder.messages():
				responder.publish(received{topic: strings.Replace(m.topic, "/request/", "/reply/", 1), payload: "hi", qos: byte(qos)})
			case <-done:
				return
			}
		}
	}()
	rounds := orderRounds()
	if rounds > 100 {
		rounds = 100 // connections at a time
	}
	for range max(1, orderRounds()/rounds) {
		if got := pythonOrder(t, "reply", c.nodes[0], prefix, fmt.Sprint(rounds), fmt.Sprint(qos)); got != fmt.Sprint(rounds) {
			t.Fatalf("%s of %d requests were answered", got, rounds)
		}
	}
}
