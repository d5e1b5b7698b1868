package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// do sends a request with headers, from loopback.
func do(t *testing.T, method, url, body string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// elsewhere is a Host that makes a request over loopback one from elsewhere.
const elsewhere = "shoal.example:18083"

func TestToken(t *testing.T) {
	const token = "0123456789abcdef"
	open := Node{Status: func() any { return 1 }}
	closed, asked := New(""), New(token)
	closed.Opened(open)
	asked.Opened(open)
	closedURL, askedURL := start(t, closed), start(t, asked)
	for _, c := range []struct {
		url, host, authorization string
		want                     int
	}{
		{closedURL, "", "", 200},
		{closedURL, elsewhere, "", 403},
		{closedURL, elsewhere, "Bearer ", 403},
		{closedURL, elsewhere, "Bearer " + token, 403},
		{askedURL, "", "", 200},
		{askedURL, "", "Bearer wrong", 401},
		{askedURL, elsewhere, "", 401},
		{askedURL, elsewhere, "Bearer ", 401},
		{askedURL, elsewhere, "Bearer " + token + "0", 401},
		{askedURL, elsewhere, "Basic " + token, 401},
		{askedURL, elsewhere, "Bearer " + token, 200},
	} {
		if code, body := do(t, http.MethodGet, c.url+"/api/v1/status", "", "Host", c.host, "Authorization", c.authorization); code != c.want {
			t.Errorf("Host %q, %q: %d %s, want %d", c.host, c.authorization, code, body, c.want)
		}
	}
}

func TestOperate(t *testing.T) {
	var got []string
	s := New("")
	url := start(t, s)
	if code, _ := do(t, http.MethodPost, url+"/api/v1/cluster/drain", `{"node":"b"}`); code != 503 {
		t.Errorf("while opening: %d", code)
	}
	s.Opened(Node{Operate: func(_ context.Context, command, node string, force bool) (string, error) {
		got = append(got, fmt.Sprint(command, " ", node, " ", force))
		if node == "x" {
			return "", errors.New("x is no member")
		}
		return "done", nil
	}})
	for _, c := range []struct {
		path, body string
		code       int
		text       string
	}{
		{"drain", `{"node":"b"}`, 200, "{\n  \"text\": \"done\"\n}\n"},
		{"remove", `{"node":"b","force":true}`, 200, "{\n  \"text\": \"done\"\n}\n"},
		{"rebalance", `{}`, 200, "{\n  \"text\": \"done\"\n}\n"},
		{"undrain", `{"node":"x"}`, 409, "x is no member\n"},
		{"recover", `{}`, 404, ""},
		{"drain", `{}`, 400, ""},
		{"rebalance", `{"node":"b"}`, 400, ""},
		{"drain", `{"nod":"b"}`, 400, ""},
		{"drain", ``, 400, ""},
	} {
		if code, text := do(t, http.MethodPost, url+"/api/v1/cluster/"+c.path, c.body); code != c.code || c.text != "" && text != c.text {
			t.Errorf("%s %s: %d %q, want %d %q", c.path, c.body, code, text, c.code, c.text)
		}
	}
	if want := "drain b false, remove b true, rebalance  false, undrain x false"; strings.Join(got, ", ") != want {
		t.Errorf("carried out: %q, want %q", got, want)
	}
	if code, _ := do(t, http.MethodGet, url+"/api/v1/cluster/drain", ""); code != 405 {
		t.Errorf("GET drain: %d", code)
	}
}

// TestNoOrdersOfWebPages: a page in the operator's browser can send requests to
// loopback, but not drain a node.
func TestNoOrdersOfWebPages(t *testing.T) {
	s := New("")
	s.Opened(Node{Operate: func(context.Context, string, string, bool) (string, error) {
		t.Error("carried out")
		return "", nil
	}})
	url := start(t, s)
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"}} {
		if code, body := do(t, http.MethodPost, url+"/api/v1/cluster/drain", `{"node":"b"}`, header...); code != 403 {
			t.Errorf("%q: %d %s", header, code, body)
		}
	}
}
