package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// node is one place of a cluster: name, ports and data directory stay, the
// process comes and goes. Its methods are for the test's goroutine; mqtt and
// dir are fixed and may be read by any.
type node struct {
	t           testing.TB
	name, dir   string
	mqtt, http  string
	gossip, rpc string
	flags       []string // that all nodes share
	program     string   // in place of the one that was built, if not empty
	under       []string // a command that runs the program, none if empty
	surface     *http.Client
	log         *os.File // of all processes in turn
	process     *exec.Cmd
	ended       chan error // of process, gets the outcome of Wait
	frozen      bool
}

var httpClient = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// start runs the program. The kernel ends it with the test.
func (n *node) start() {
	n.t.Helper()
	args := append([]string{"serve", "--node-id=" + n.name, "--data-dir=" + n.dir, "--mqtt-addr=" + n.mqtt,
		"--http-addr=" + n.http, "--gossip-addr=" + n.gossip, "--rpc-addr=" + n.rpc}, n.flags...)
	binary := program
	if n.program != "" {
		binary = n.program
	}
	args = append(append(slices.Clone(n.under), binary), args...)
	fmt.Fprintf(n.log, "--- %s start %s\n", time.Now().Format(time.RFC3339Nano), strings.Join(args, " "))
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = n.log, n.log
	cmd.SysProcAttr = endWithParent()
	cmd.Env = environment()
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		// Linux sends the parent-death signal when the thread that started the
		// child ends, so this one stays until the child has.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		n.t.Fatalf("start node %s: %v", n.name, err)
	}
	n.process, n.ended, n.frozen = cmd, ended, false
}

// environment is ours without what configures these tests, of which the program
// would say that it does not know the keys.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "SHOAL_") })
}

func (n *node) running() bool { return n.process != nil }

func (n *node) pid() int { return n.process.Process.Pid }

// kill is kill -9; it returns when the process is gone.
func (n *node) kill() {
	n.t.Helper()
	n.signal(syscall.SIGKILL)
	n.wait()
}

// signal does not wait.
func (n *node) signal(s syscall.Signal) {
	n.t.Helper()
	n.ifEnded(func(err error) { n.t.Errorf("node %s has ended by itself: %v", n.name, err) })
	fmt.Fprintf(n.log, "--- %s %v\n", time.Now().Format(time.RFC3339Nano), s)
	n.process.Process.Signal(s)
	n.frozen = s == syscall.SIGSTOP
}

// ifEnded calls f if the process has ended. It can be asked again.
func (n *node) ifEnded(f func(error)) {
	select {
	case err := <-n.ended:
		n.ended <- err
		f(err)
	default:
	}
}

// wait returns when the process is gone, and how it ended.
func (n *node) wait() error {
	n.t.Helper()
	select {
	case err := <-n.ended:
		n.process = nil
		return err
	case <-time.After(patience):
		n.t.Fatalf("node %s does not end", n.name)
		return nil
	}
}

func (n *node) freeze() { n.signal(syscall.SIGSTOP) }
func (n *node) thaw()   { n.signal(syscall.SIGCONT) }

// ask gets a path of the HTTP surface.
func (n *node) ask(path string) (code int, body string, err error) {
	r, err := n.surface.Get("http://" + n.http + path)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.StatusCode, string(b), err
}

// ready is nil if /readyz says 200, else what it says.
func (n *node) ready() error {
	code, body, err := n.ask("/readyz")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("node %s: %d %s", n.name, code, strings.TrimSpace(body))
	}
	return err
}

// status is what these tests read of /api/v1/status.
type status struct {
	ClusterID string `json:"cluster_id"`
	Version   uint32 `json:"version"`
	Ready     bool   `json:"ready"`
	Nodes     []struct {
		Node string `json:"node"`
		Disk string `json:"disk"`
		Up   bool   `json:"up"`
	} `json:"nodes"`
	Groups    []groupStatus `json:"groups"`
	Placement []struct {
		Group    string   `json:"group"`
		Replicas []string `json:"replicas"`
		Joining  string   `json:"joining"`
		Leaving  string   `json:"leaving"`
	} `json:"placement"`
}

type groupStatus struct {
	Group    string `json:"group"`
	State    string `json:"state"`
	Term     uint64 `json:"term"`
	Applied  uint64 `json:"applied"`
	Leader   string `json:"leader"`
	Sessions int    `json:"sessions"`
	Queued   int    `json:"queued"`
	Outbox   int    `json:"outbox"`
	// Replicas are in the order of placement, as "node (voter)".
	Replicas []string `json:"replicas"`
}

func (n *node) status() (status, error) {
	var s status
	code, body, err := n.ask("/api/v1/status")
	if err != nil {
		return s, err
	}
	if code != http.StatusOK {
		return s, fmt.Errorf("status of node %s: %d %s", n.name, code, body)
	}
	return s, json.Unmarshal([]byte(body), &s)
}

// metric sums a metric of the node over all its labels.
func (n *node) metric(name string) (sum float64) {
	n.t.Helper()
	_, body, err := n.ask("/metrics")
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(body) {
		labels := strings.TrimPrefix(line, name)
		if labels == line || (labels[0] != '{' && labels[0] != ' ') {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(strings.TrimSpace(line), ' '):]), 64)
		if err != nil {
			n.t.Fatalf("metric %q: %v", line, err)
		}
		sum += value
	}
	return sum
}

// tail returns the last lines of the node's log.
func (n *node) tail(bytesMost int64) string {
	f, err := os.Open(n.log.Name())
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > bytesMost {
		f.Seek(-bytesMost, io.SeekEnd)
	}
	b, _ := io.ReadAll(f)
	if int64(len(b)) == bytesMost {
		b = b[bytes.IndexByte(b, '\n')+1:]
	}
	return string(b)
}

// keepLog moves the log to where it survives the test, and returns its name.
func (n *node) keepLog(dir string) string {
	to := filepath.Join(dir, filepath.Base(n.log.Name()))
	if err := os.Rename(n.log.Name(), to); err != nil {
		return err.Error()
	}
	return to
}
