package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// lineClient is a library in a process of its own: a script reads verbs with
// their arguments, one line each with tabs between the words, and answers each
// with a line. "message" lines, and "lost" when the connection ends, come in
// between.
//
//	through SCHEME CA              ready, before connect
//	connect HOST PORT NAME CLEAN   connected PRESENT
//	subscribe FILTER QOS           subscribed QOS
//	will TOPIC QOS RETAIN PAYLOAD  ready, before connect
//	publish TOPIC QOS RETAIN PAYLOAD
//	                               published
//	disconnect                     disconnected
//	                               message TOPIC QOS RETAIN PAYLOAD
//	                               lost
//	                               error TEXT
type lineClient struct {
	process *exec.Cmd
	in      io.WriteCloser
	answers chan []string
	arrived chan received
	gone    chan struct{}
}

// arrivals bounds what a library may have received and the test not taken: more
// than any test sends.
const arrivals = 1000

// python is Debian's, which has Debian's packages.
const python = "/usr/bin/python3"

func openPython(t *testing.T, version string) library {
	t.Helper()
	if err := exec.Command(python, "-c", "import paho.mqtt.client").Run(); err != nil {
		unavailable(t, "no paho for %s: apt-get install python3-paho-mqtt", python)
	}
	return startLines(t, python, "testdata/client.py", version)
}

func openNode(t *testing.T, version string) library {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		unavailable(t, "no node: apt-get install nodejs npm")
	}
	if _, err := os.Stat("node/node_modules/mqtt"); err != nil {
		unavailable(t, "no mqtt.js: cd cmd/shoal/e2e/node && npm ci")
	}
	return startLines(t, "node", "node/client.js", version)
}

func startLines(t *testing.T, program string, args ...string) *lineClient {
	t.Helper()
	x := &lineClient{process: exec.Command(program, args...), answers: make(chan []string, arrivals),
		arrived: make(chan received, arrivals), gone: make(chan struct{})}
	x.process.Stderr = os.Stderr
	var err error
	if x.in, err = x.process.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := x.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := x.process.Start(); err != nil {
		t.Fatal(err)
	}
	go x.read(out)
	return x
}

func (x *lineClient) read(out io.Reader) {
	defer close(x.answers)
	lose := sync.OnceFunc(func() { close(x.gone) })
	for lines := bufio.NewScanner(out); lines.Scan(); {
		words := strings.Split(lines.Text(), "\t")
		switch {
		case words[0] == "lost":
			lose()
		case words[0] == "message" && len(words) == 5:
			qos, _ := strconv.Atoi(words[2])
			x.arrived <- received{words[1], words[4], byte(qos), words[3] == "1"}
		default:
			x.answers <- words
		}
	}
}

// ask sends a line and returns the words of the answer, of which the first must
// be want and is left out.
func (x *lineClient) ask(want string, words ...string) ([]string, error) {
	if _, err := fmt.Fprintln(x.in, strings.Join(words, "\t")); err != nil {
		return nil, err
	}
	select {
	case answer, ok := <-x.answers:
		if !ok {
			return nil, errors.New("the client's process has ended")
		}
		if answer[0] != want {
			return nil, fmt.Errorf("%s: %s", words[0], strings.Join(answer, " "))
		}
		return answer[1:], nil
	case <-time.After(patience):
		return nil, fmt.Errorf("%s: no answer", words[0])
	}
}

func (x *lineClient) connect(addr, name string, clean bool) (bool, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false, err
	}
	answer, err := x.ask("connected", "connect", host, port, name, flag(clean))
	return err == nil && answer[0] == "1", err
}

func (x *lineClient) subscribe(filter string, qos byte) (byte, error) {
	answer, err := x.ask("subscribed", "subscribe", filter, fmt.Sprint(qos))
	if err != nil {
		return 0, err
	}
	granted, err := strconv.Atoi(answer[0])
	return byte(granted), err
}

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

func (x *lineClient) through(d door) error {
	_, err := x.ask("ready", "through", d.scheme, d.ca)
	return err
}

func (x *lineClient) will(m received) error {
	_, err := x.ask("ready", "will", m.topic, fmt.Sprint(m.qos), flag(m.retain), m.payload)
	return err
}

func (x *lineClient) publish(m received) error {
	_, err := x.ask("published", "publish", m.topic, fmt.Sprint(m.qos), flag(m.retain), m.payload)
	return err
}

func (x *lineClient) cut() { x.process.Process.Kill() }

func (x *lineClient) disconnect() error {
	_, err := x.ask("disconnected", "disconnect")
	return err
}

func (x *lineClient) messages() <-chan received { return x.arrived }
func (x *lineClient) lost() <-chan struct{}     { return x.gone }

func (x *lineClient) close() {
	x.in.Close()
	x.process.Process.Kill()
	x.process.Wait()
}
