package e2e

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
)

// mosquitto runs Debian's mosquitto_pub and mosquitto_sub.
func mosquitto(t *testing.T, c *cluster) {
	for _, name := range []string{"mosquitto_pub", "mosquitto_sub"} {
		if _, err := exec.LookPath(name); err != nil {
			unavailable(t, "no %s: apt-get install mosquitto-clients", name)
		}
	}
	for _, version := range []string{"mqttv31", "mqttv311", "mqttv5"} {
		t.Run(version, func(t *testing.T) {
			for qos := range 3 {
				t.Run(fmt.Sprintf("QoS%d", qos), func(t *testing.T) { mosquittoLive(t, c, version, qos) })
			}
			t.Run("offline", func(t *testing.T) { mosquittoOffline(t, c, version) })
		})
	}
}

// tool runs a program to its end.
func tool(t *testing.T, input, program string, n *node, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	host, port, err := net.SplitHostPort(n.mqtt)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, program, append([]string{"-h", host, "-p", port}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// session arguments of a durable session, which mosquitto makes last with -x.
func durableArgs(version, id string) []string {
	args := []string{"-V", version, "-c", "-i", id}
	if version == "mqttv5" {
		args = append(args, "-x", "3600")
	}
	return args
}

// mosquittoLive: a subscriber on one node gets what is published on another.
// The session is durable only so that the test knows when the subscription
// stands: it is made, left (-E) and taken up again.
func mosquittoLive(t *testing.T, c *cluster, version string, qos int) {
	id, topic, q := fmt.Sprintf("mosquitto-%s-%d", version, qos), fmt.Sprintf("mosquitto/%s/%d", version, qos), fmt.Sprint(qos)
	sub := append(durableArgs(version, id), "-q", q, "-t", topic, "-F", "%t %q %p")
	tool(t, "", "mosquitto_sub", c.nodes[0], append(sub, "-E")...)
	got := make(chan string, 1)
	go func() { got <- tool(t, "", "mosquitto_sub", c.nodes[1], append(sub, "-C", "1")...) }()
	eventually(t, "message", func() error {
		tool(t, "", "mosquitto_pub", c.nodes[2], "-V", version, "-q", q, "-t", topic, "-m", "hello")
		select {
		case s := <-got:
			if want := fmt.Sprintf("%s %d hello\n", topic, qos); s != want {
				t.Errorf("got %q, want %q", s, want)
			}
			return nil
		default:
			return fmt.Errorf("it has not come") // QoS 0 while the subscriber connects goes nowhere
		}
	})
}

func mosquittoOffline(t *testing.T, c *cluster, version string) {
	id, topic := "mosquitto-"+version+"-offline", "mosquitto/"+version+"/offline"
	sub := append(durableArgs(version, id), "-q", "2", "-t", topic, "-F", "%q %p")
	tool(t, "", "mosquitto_sub", c.nodes[0], append(sub, "-E")...)
	var want strings.Builder
	for i := range 20 {
		fmt.Fprintf(&want, "2 line %d\n", i)
	}
	lines := strings.ReplaceAll(want.String(), "2 line", "line")
	tool(t, lines, "mosquitto_pub", c.nodes[1], "-V", version, "-q", "2", "-t", topic, "-l")
	if got := tool(t, "", "mosquitto_sub", c.nodes[2], append(sub, "-C", "20")...); got != want.String() {
		t.Errorf("got %q, want %q", got, want.String())
	}
}
