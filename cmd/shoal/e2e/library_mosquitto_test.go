package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
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
			t.Run("retained", func(t *testing.T) { mosquittoRetained(t, c, version) })
			t.Run("Will", func(t *testing.T) { mosquittoWill(t, c, version) })
			t.Run("shared", func(t *testing.T) { mosquittoShared(t, c, version) })
		})
	}
}

// tool runs a program to its end.
func tool(t *testing.T, input, program string, n *node, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, nodeArgs(t, n, args...)...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func nodeArgs(t *testing.T, n *node, args ...string) []string {
	t.Helper()
	host, port, err := net.SplitHostPort(n.mqtt)
	must(t, err)
	return append([]string{"-h", host, "-p", port}, args...)
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

// mosquittoRetained: kept for transient and durable sessions, and cleared.
func mosquittoRetained(t *testing.T, c *cluster, version string) {
	topic := "mosquitto/" + version + "/retained"
	pub := []string{"-V", version, "-q", "1", "-r", "-t", topic}
	tool(t, "", "mosquitto_pub", c.nodes[0], append(pub, "-m", "kept")...)
	transient := []string{"-V", version, "-q", "1", "-t", topic, "-F", "%r %q %p", "-C", "1"}
	for i, args := range [][]string{transient, append(durableArgs(version, "mosquitto-"+version+"-retained"), transient[2:]...)} {
		if got := tool(t, "", "mosquitto_sub", c.nodes[1+i], args...); got != "1 1 kept\n" {
			t.Errorf("got %q", got)
		}
	}
	tool(t, "", "mosquitto_pub", c.nodes[1], append(pub, "-n")...)
	tool(t, "", "mosquitto_pub", c.nodes[2], "-V", version, "-q", "1", "-r", "-t", topic+"/after", "-m", "after")
	sub := []string{"-V", version, "-q", "1", "-t", topic + "/#", "-F", "%r %q %p", "-C", "1"}
	if got := tool(t, "", "mosquitto_sub", c.nodes[0], sub...); got != "1 1 after\n" {
		t.Errorf("got %q", got)
	}
}

// mosquittoWill: of a mosquitto_sub that is killed.
func mosquittoWill(t *testing.T, c *cluster, version string) {
	topic := "mosquitto/" + version + "/will"
	watcher := append(durableArgs(version, "mosquitto-"+version+"-watcher"), "-q", "2", "-t", topic, "-F", "%q %p")
	tool(t, "", "mosquitto_sub", c.nodes[0], append(watcher, "-E")...)
	mortal := exec.Command("mosquitto_sub", nodeArgs(t, c.nodes[1], "-V", version, "-t", topic+"/alive", "-q", "1",
		"--will-topic", topic, "--will-payload", "gone", "--will-qos", "2")...)
	out, err := mortal.StdoutPipe()
	must(t, err)
	must(t, mortal.Start())
	alive := make(chan struct{})
	go func() {
		defer close(alive)
		bufio.NewReader(out).ReadString('\n')
	}()
	eventually(t, "mosquitto_sub to be connected", func() error {
		tool(t, "", "mosquitto_pub", c.nodes[2], "-V", version, "-q", "1", "-t", topic+"/alive", "-m", "?")
		select {
		case <-alive:
			return nil
		case <-time.After(100 * time.Millisecond):
			return errors.New("it is not")
		}
	})
	must(t, mortal.Process.Kill())
	mortal.Wait() // its error is the kill
	if got := tool(t, "", "mosquitto_sub", c.nodes[2], append(watcher, "-C", "1")...); got != "2 gone\n" {
		t.Errorf("got %q", got)
	}
}

// mosquittoShared: two durable members get each line once between them.
func mosquittoShared(t *testing.T, c *cluster, version string) {
	topic := "mosquitto/" + version + "/shared"
	member := func(i int) []string {
		return append(durableArgs(version, fmt.Sprintf("mosquitto-%s-member-%d", version, i)), "-q", "2", "-t", "$share/group/"+topic)
	}
	const messages = 40
	got := make(chan string, messages)
	for i := range 2 {
		tool(t, "", "mosquitto_sub", c.nodes[i], append(member(i), "-E")...)
	}
	for i := range 2 {
		cmd := exec.Command("mosquitto_sub", nodeArgs(t, c.nodes[i], member(i)...)...)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		go func() {
			for lines := bufio.NewScanner(out); lines.Scan(); {
				got <- lines.Text()
			}
		}()
	}
	var lines strings.Builder
	for i := range messages {
		fmt.Fprintln(&lines, i)
	}
	tool(t, lines.String(), "mosquitto_pub", c.nodes[2], "-V", version, "-q", "2", "-t", topic, "-l")
	seen := map[string]bool{}
	for range messages {
		select {
		case line := <-got:
			if seen[line] {
				t.Errorf("%s came twice", line)
			}
			seen[line] = true
		case <-time.After(patience):
			t.Fatalf("%d of %d came", len(seen), messages)
		}
	}
}
