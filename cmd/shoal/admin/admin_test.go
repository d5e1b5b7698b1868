package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// start serves s on loopback and returns its base URL.
func start(t *testing.T, s *Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(s.Close(ctx), <-done); err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

func get(t *testing.T, url, host string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		r.Host = host
	}
	resp, err := http.DefaultClient.Do(r)
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

func TestProbesOverALife(t *testing.T) {
	s := New("")
	url := start(t, s)
	expect := func(when, path string, code int, body string) {
		t.Helper()
		if c, b := get(t, url+path, ""); c != code || b != body+"\n" {
			t.Errorf("%s: %s is %d %q, want %d %q", when, path, c, b, code, body)
		}
	}

	expect("opening", "/livez", 200, "ok")
	expect("opening", "/startupz", 503, "opening the data directory")
	expect("opening", "/readyz", 503, "opening the data directory")
	expect("opening", "/api/v1/status", 503, "opening the data directory")

	ready, live := errors.New("no quorum:\nshard 3"), error(nil)
	s.Opened(Node{
		Ready:  func() error { return ready },
		Live:   func() error { return live },
		Status: func() any { return map[string]string{"node": "a"} },
	})
	expect("unready", "/livez", 200, "ok")
	expect("unready", "/startupz", 200, "ok")
	expect("unready", "/readyz", 503, "no quorum:; shard 3")
	expect("unready", "/api/v1/status", 200, "{\n  \"node\": \"a\"\n}")

	ready = nil
	expect("ready", "/readyz", 200, "ok")

	s.Draining()
	expect("draining", "/readyz", 503, "draining: the node is stopping")
	expect("draining", "/livez", 200, "ok")

	live = errors.New("disk failed")
	expect("failed", "/livez", 503, "disk failed")
}

func TestMetricsHaveTheProcess(t *testing.T) {
	url := start(t, New(""))
	code, body := get(t, url+"/metrics", "")
	for _, name := range []string{"go_goroutines", "process_cpu_seconds_total"} {
		if code != 200 || !strings.Contains(body, "\n"+name+" ") {
			t.Errorf("%d, no %s", code, name)
		}
	}
}

func TestTheAPIIsForLoopback(t *testing.T) {
	s := New("")
	s.Opened(Node{Status: func() any { return json.RawMessage(`{}`) }})
	url := start(t, s)
	for host, want := range map[string]int{"": 200, "localhost:1": 200, "[::1]": 200, "evil.example:18083": 403} {
		if code, body := get(t, url+"/api/v1/status", host); code != want {
			t.Errorf("Host %q: %d %s", host, code, body)
		}
	}
	for _, addr := range []string{"10.0.0.1:5", "0.0.0.0:5", "[::]:5", "example.org", ""} {
		if loopback(addr) {
			t.Errorf("%q counts as loopback", addr)
		}
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	url := start(t, New(""))
	if code, _ := get(t, url+"/", ""); code != 404 {
		t.Errorf("/ is %d", code)
	}
	resp, err := http.Post(url+"/readyz", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 405 {
		t.Errorf("POST /readyz is %d", resp.StatusCode)
	}
}
