package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// These tests run the real program: the test binary is one when its first
// argument is a command.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		os.Exit(run(os.Args[1:]))
	}
	if len(os.Args) > 1 && os.Args[1] == aboutToExit {
		os.Exit(beAboutToExit())
	}
	os.Exit(m.Run())
}

// deadline is for what takes a moment on an idle machine.
const deadline = 90 * time.Second

// eventually polls until ok, or fails the test with what the program said.
func eventually(t *testing.T, what string, said *buffer, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v; the program said\n%s", what, deadline, said)
		}
	}
}

func program(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return self
}

// process is a node in a process of its own.
type process struct {
	*exec.Cmd
	said       buffer
	mqtt, http string
}

var readyLine = regexp.MustCompile(`msg=ready .*mqtt=127.0.0.1:(\d+) http=(\S+)`)

// startNode runs serve on free ports and waits until it is ready.
func startNode(t *testing.T, dir string, flags ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(program(t), append([]string{"serve", "--node-id=a", "--data-dir=" + dir, "--shards=2",
		"--mqtt-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0", "--gossip-addr=127.0.0.1:0", "--rpc-addr=127.0.0.1:0"}, flags...)...)}
	p.Stdout, p.Stderr = &p.said, &p.said
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Process.Kill(); p.Wait() })
	eventually(t, "ready", &p.said, func() bool {
		m := readyLine.FindStringSubmatch(p.said.String())
		if m != nil {
			p.mqtt, p.http = m[1], m[2]
		}
		return m != nil
	})
	return p
}

func (p *process) get(t *testing.T, path string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + p.http + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestServeFromStartToStop(t *testing.T) {
	p := startNode(t, t.TempDir())
	for path, want := range map[string]string{
		"/livez": "ok\n", "/startupz": "ok\n", "/readyz": "ok\n", "/metrics": "shoal_", "/api/v1/status": `"ready": true`,
	} {
		if code, body := p.get(t, path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	ctx := testContext(t)
	if out, err := shoal(ctx, nil, "cluster", "status", "--http-addr", p.http); err != nil || !strings.Contains(out, "\na     yes ") {
		t.Errorf("cluster status: %v\n%s", err, out)
	}
	// Two in a row are one, as timeout(1) sends it. A test that was held up between
	// them would send them too far apart.
	first := time.Now()
	for i := 0; i < 2 && time.Since(first) < sameSignal/2; i++ {
		if err := p.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, &p.said)
	}
}

// The second of two signals in a row may come when the process has done all and
// is about to exit. It must not be killed then.
func TestSignalsStayCaught(t *testing.T) {
	cmd := exec.Command(program(t), aboutToExit)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if _, err := io.ReadFull(stdout, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// aboutToExit is the argument of a process that has given up waiting for signals,
// says so, and exits when its standard input ends.
const aboutToExit = "about-to-exit"

func beAboutToExit() int {
	_, stop := untilSignal()
	stop()
	fmt.Print("x")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return exitFailed
	}
	return 0
}

// What a durable subscriber has not acknowledged is there the next time: also
// after kill -9, for every version of the protocol. At QoS 2 nothing comes
// twice; at QoS 1 what was acknowledged just before the kill may.
func TestDurableSessionsThroughKillMinus9(t *testing.T) {
	dir := t.TempDir()
	p := startNode(t, dir)
	ctx := testContext(t)
	sub := func(version, qos string, more ...string) []string {
		return append([]string{"sub", "-p", p.mqtt, "-V", version, "-i", "reader-" + version + "-" + qos, "-c", "-q", qos, "-t", "a/+", "-v"}, more...)
	}
	each := func(f func(version, qos string)) {
		var all sync.WaitGroup
		for _, version := range []string{"5", "311", "31"} {
			for _, qos := range []string{"1", "2"} {
				all.Go(func() { f(version, qos) })
			}
		}
		all.Wait()
	}
	each(func(version, qos string) {
		if _, err := shoal(ctx, nil, sub(version, qos, "-W", "1")...); !hasCode(err, exitTimeout) {
			t.Errorf("V%s QoS %s subscribes: %v\n%s", version, qos, err, &p.said)
		}
	})
	for _, m := range []string{"one\n", "\ntwo\nthree\n"} { // one of them empty
		if _, err := shoal(ctx, strings.NewReader(m), "pub", "-p", p.mqtt, "-q", "2", "-t", "a/b", "-l"); err != nil {
			t.Fatalf("publish: %v\n%s", err, &p.said)
		}
	}
	for round, want := range []string{"a/b one\na/b \n", "a/b two\na/b three\n"} {
		each(func(version, qos string) {
			got, err := shoal(ctx, nil, sub(version, qos, "-C", "2")...)
			again := qos == "1" && strings.Count(got, "\n") == 2 && strings.Contains("a/b one\na/b \na/b two\na/b three\n", got)
			if err != nil || got != want && !again {
				t.Errorf("round %d, V%s QoS %s: got %q, %v, want %q", round, version, qos, got, err, want)
			}
		})
		if err := p.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		p.Wait()
		p = startNode(t, dir)
	}
}

func TestWhatCannotBePrintedIsNotAcknowledged(t *testing.T) {
	p := startNode(t, t.TempDir())
	ctx := testContext(t)
	for _, version := range []string{"5", "311"} {
		args := []string{"sub", "-p", p.mqtt, "-V", version, "-i", "reader" + version, "-c", "-q", "1", "-t", "t/" + version}
		if _, err := shoal(ctx, nil, append(args, "-W", "1")...); !hasCode(err, exitTimeout) {
			t.Fatal(err)
		}
		if _, err := shoal(ctx, nil, "pub", "-p", p.mqtt, "-q", "1", "-t", "t/"+version, "-m", "kept"); err != nil {
			t.Fatal(err)
		}
		root := rootCommand()
		root.SetArgs(append(args, "-C", "1"))
		r, w := io.Pipe()
		r.Close()
		root.SetOut(w)
		if err := root.ExecuteContext(ctx); err == nil {
			t.Errorf("V%s: no error", version)
		}
		if got, err := shoal(ctx, nil, append(args, "-C", "1")...); got != "kept\n" {
			t.Errorf("V%s: got %q, %v", version, got, err)
		}
	}
}

func TestServeRefusesBadInputAndChangesNothing(t *testing.T) {
	dir := t.TempDir()
	busy := startNode(t, filepath.Join(dir, "busy"))
	for _, tc := range []struct {
		flags []string
		code  int
		want  string
	}{
		{[]string{"--shards=none"}, exitUsage, `shoal: --shards: "none": want a whole number`},
		{[]string{"--shard=1"}, exitUsage, "shoal: unknown flag: --shard; the nearest known one is --shards"},
		{[]string{"--mqtt-addr=127.0.0.1:" + busy.mqtt}, exitFailed, "shoal: open listener: listener mqtt: listen tcp 127.0.0.1:"},
		{[]string{"--http-addr=" + busy.http}, exitFailed, "shoal: open HTTP listener (http-addr): listen tcp 127.0.0.1:"},
	} {
		data := filepath.Join(dir, "untouched")
		args := append([]string{"serve", "--node-id=b", "--data-dir=" + data, "--mqtt-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0",
			"--gossip-addr=127.0.0.1:0", "--rpc-addr=127.0.0.1:0"}, tc.flags...)
		out, err := exec.CommandContext(testContext(t), program(t), args...).CombinedOutput()
		if e, ok := err.(*exec.ExitError); !ok || e.ExitCode() != tc.code || !strings.HasPrefix(string(out), tc.want) {
			t.Errorf("%q: %v\n%s", tc.flags, err, out)
		}
		if _, err := os.Stat(data); !os.IsNotExist(err) {
			t.Errorf("%q made the data directory: %v", tc.flags, err)
		}
	}
	// A directory in use: the other's lock.
	out, err := exec.CommandContext(testContext(t), program(t), "serve", "--node-id=a", "--data-dir="+filepath.Join(dir, "busy"),
		"--mqtt-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0", "--gossip-addr=127.0.0.1:0", "--rpc-addr=127.0.0.1:0").CombinedOutput()
	if e, ok := err.(*exec.ExitError); !ok || e.ExitCode() != exitFailed {
		t.Errorf("directory in use: %v\n%s", err, out)
	}
}

var devLine = regexp.MustCompile(`(?m)^node (\w)  mqtt 127\.0\.0\.1:(\d+)  http http://(\S+)  pid (\d+)$`)

// devReady returns the lines of ready nodes by name, the latest of each.
func devReady(said *buffer) (nodes map[string][]string, count int) {
	nodes = map[string][]string{}
	all := devLine.FindAllStringSubmatch(said.String(), -1)
	for _, m := range all {
		nodes[m[1]] = m[2:]
	}
	return nodes, len(all)
}

func TestDev(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	o := devOptions{program: program(t), dataDir: t.TempDir(), shards: "2", logLevel: "warn", restartAfter: time.Millisecond}
	var said buffer
	result := make(chan error, 1)
	go func() { result <- dev(ctx, o, &said) }()
	count := 0
	eventually(t, "three nodes", &said, func() bool { _, count = devReady(&said); return count == devNodes })
	nodes, _ := devReady(&said)

	sub := []string{"sub", "-p", nodes["b"][0], "-i", "reader", "-c", "-q", "1", "-t", "#"}
	if _, err := shoal(testContext(t), nil, append(sub, "-W", "1")...); !hasCode(err, exitTimeout) {
		t.Fatalf("subscribe: %v\n%s", err, &said)
	}
	victim, err := strconv.Atoi(nodes["c"][2])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "node c again", &said, func() bool { _, count = devReady(&said); return count == devNodes+1 })
	if want := fmt.Sprintf("node c  pid %d  signal: killed; starting it again in 1ms\n", victim); !strings.Contains(said.String(), want) {
		t.Errorf("no %q in\n%s", want, &said)
	}
	if _, err := shoal(testContext(t), nil, "pub", "-p", nodes["a"][0], "-q", "1", "-t", "t", "-m", "across"); err != nil {
		t.Fatalf("publish: %v\n%s", err, &said)
	}
	if got, err := shoal(testContext(t), nil, append(sub, "-C", "1")...); err != nil || got != "across\n" {
		t.Errorf("got %q, %v\n%s", got, err, &said)
	}

	stop()
	if err := <-result; err != nil {
		t.Errorf("after Ctrl-C: %v\n%s", err, &said)
	}
	nodes, _ = devReady(&said)
	for name, n := range nodes {
		if pid, _ := strconv.Atoi(n[2]); syscall.Kill(pid, 0) == nil {
			t.Errorf("node %s still runs", name)
		}
	}
}

func TestDevGivesUpWithANodeThatEndsByItself(t *testing.T) {
	var said buffer
	o := devOptions{program: program(t), dataDir: t.TempDir(), shards: "none", logLevel: "warn", restartAfter: time.Hour}
	err := dev(testContext(t), o, &said)
	if err == nil || !strings.Contains(err.Error(), "ended by itself: exit status 2") {
		t.Error(err)
	}
	if !strings.Contains(said.String(), ` | shoal: --shards: "none": want a whole number`) {
		t.Errorf("no reason in\n%s", &said)
	}
}

func TestDevPlan(t *testing.T) {
	nodes, err := planNodes(devOptions{basePort: 1883, dataDir: "d", shards: "6", logLevel: "warn"})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(nodes[1].args(devOptions{shards: "6", logLevel: "warn"}), " ")
	want := "serve --node-id=b --data-dir=d/b --mqtt-addr=127.0.0.1:1884 --http-addr=127.0.0.1:18084 " +
		"--gossip-addr=127.0.0.1:7948 --rpc-addr=127.0.0.1:7949 --join=127.0.0.1:7946,127.0.0.1:7950 " +
		"--bootstrap-expect=3 --shards=6 --log-level=warn --log-format=text"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if _, err := shoal(t.Context(), nil, "dev", "--base-port=60000"); !hasCode(err, exitUsage) {
		t.Errorf("ports beyond 65535: %v", err)
	}
}

func TestPrefixedLines(t *testing.T) {
	var out buffer
	w := (&lines{w: &out}).prefixed("a | ")
	for _, part := range []string{"one\ntw", "o\n", "\nthree", "\n"} {
		if n, err := io.WriteString(w, part); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	if got, want := out.String(), "a | one\na | two\na | \na | three\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	long := strings.Repeat("x", maxPartBytes+1)
	io.WriteString(w, long+"\n")
	if got := strings.Count(out.String(), "x"); got != len(long) {
		t.Errorf("%d of %d bytes came through", got, len(long))
	}
}
