package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalmq/shoal/cluster"
	"github.com/shoalmq/shoal/cmd/shoal/admin"
)

// scripted is an API that answers one overview after the other, the last for
// ever; nil is a connection that breaks. operated are the commands it got.
type scripted struct {
	t         *testing.T
	overviews []*cluster.Overview
	refuse    string
	operated  []string
}

func (s *scripted) start() (addr string) {
	h := httptest.NewServer(s)
	s.t.Cleanup(h.Close)
	return h.URL
}

func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	command, operation := strings.CutPrefix(r.URL.Path, "/api/v1/cluster/")
	var answer any
	switch {
	case operation && r.Method == http.MethodPost:
		var o admin.Operation
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
			s.t.Error(err)
		}
		if o.Force {
			command += " by force"
		}
		s.operated = append(s.operated, strings.TrimSpace(command+" "+o.Node))
		if s.refuse != "" {
			http.Error(w, s.refuse, http.StatusConflict)
			return
		}
		answer = admin.Operated{Text: "it will be done"}
	case r.URL.Path == "/api/v1/cluster":
		o := s.overviews[0]
		if len(s.overviews) > 1 {
			s.overviews = s.overviews[1:]
		}
		if o == nil {
			w.Header().Set("Content-Length", "100")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		answer = o
	default:
		s.t.Errorf("asked for %s %s", r.Method, r.URL)
	}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		s.t.Error(err)
	}
}

// overview is three nodes, c as given, nil if it is no member.
func overview(c *cluster.Member, waiting string) *cluster.Overview {
	o := &cluster.Overview{Waiting: waiting, Members: []cluster.Member{
		{Node: "a", Disk: "d1", Boot: 3, State: "up", Ready: true, Lease: true, DiskFree: 20 << 30, Leads: 2, Replicas: 2, Build: "v1", Version: 1, MQTT: "a:1883"},
		{Node: "b", Disk: "d2", State: "down"},
	}}
	if c != nil {
		c.Node, c.State = "c", "up"
		o.Members = append(o.Members, *c)
	}
	return o
}

func TestClusterMembersAndShards(t *testing.T) {
	o := overview(&cluster.Member{Wish: "drained", Reason: "no lease", DiskFree: 300 << 20}, "b is down")
	o.Shards = []cluster.Shard{
		{Shard: "shard-1", Leader: "a", Sessions: 3, Queued: 4, Retained: 5, Outbox: 6, Replicas: []cluster.Replica{
			{Node: "a", State: "leader"}, {Node: "b", State: "unknown"}, {Node: "c", State: "follower", Change: "joining", Behind: 5000}}},
		{Shard: "shard-2"},
	}
	s := &scripted{t: t, overviews: []*cluster.Overview{o}}
	addr := s.start()
	for command, want := range map[string]string{
		"members": `NODE  STATE        READY         LEADS  REPLICAS  DISK FREE  BUILD  VERSION  BOOT  DISK  MQTT    HTTP
a     up           yes           2      2         20 GiB     v1     1        3     d1    a:1883  -
b     down         no            0      0         -          -      0        0     d2    -       -
c     up, drained  no: no lease  0      0         300 MiB    -      0        0           -       -

waiting: b is down
`,
		"shards": `SHARD    LEADER  SESSIONS  QUEUED  RETAINED  OUTBOX  REPLICAS
shard-1  a       3         4       5         6       a, b (unknown), c (joining, 5000 behind)
shard-2  -       0         0       0         0       

waiting: b is down
`,
	} {
		if got, err := shoal(t.Context(), nil, "cluster", command, "--http-addr", addr); err != nil || got != want {
			t.Errorf("%s: %v\n%s\nwant\n%s", command, err, got, want)
		}
		got, err := shoal(t.Context(), nil, "cluster", command, "--http-addr", addr, "-o", "json")
		back := new(cluster.Overview)
		if err != nil || json.Unmarshal([]byte(got), back) != nil || back.Member("c").Wish != "drained" || back.Shards[0].Replicas[2].Behind != 5000 {
			t.Errorf("%s as JSON: %v\n%s", command, err, got)
		}
	}
}

func TestClusterOperations(t *testing.T) {
	s := &scripted{t: t}
	addr := s.start()
	for _, args := range []string{"drain c", "undrain c", "remove c", "remove --force c", "rebalance"} {
		got, err := shoal(t.Context(), nil, append(append([]string{"cluster"}, strings.Fields(args)...), "--http-addr="+addr)...)
		if err != nil || got != "it will be done\n" {
			t.Errorf("%s: %q, %v", args, got, err)
		}
	}
	if got, want := strings.Join(s.operated, ", "), "drain c, undrain c, remove c, remove by force c, rebalance"; got != want {
		t.Errorf("the API got %s; want %s", got, want)
	}
	s.refuse = "c serves: drain it first"
	if _, err := shoal(t.Context(), nil, "cluster", "remove", "c", "--http-addr", addr); err == nil || err.Error() != s.refuse {
		t.Errorf("refused: %v", err)
	}
	for _, args := range [][]string{{"drain"}, {"remove", "a", "b"}, {"rebalance", "a"}, {"drain", "a", "--force"}} {
		if _, err := shoal(t.Context(), nil, append([]string{"cluster"}, args...)...); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

// TestWait: --wait ends when nothing is left to do and not in the moment before
// anything has begun, and bears with a node that restarts.
func TestWait(t *testing.T) {
	idle, moved := overview(&cluster.Member{Replicas: 2}, ""), overview(&cluster.Member{}, "")
	busy := overview(&cluster.Member{Replicas: 1}, "")
	busy.Shards = []cluster.Shard{{Shard: "shard-1", Replicas: []cluster.Replica{{Node: "c", Change: "leaving"}}}}
	leads := overview(&cluster.Member{Leads: 1, Replicas: 2}, "b is down")
	gone := overview(nil, "")
	for _, c := range []struct {
		progress  progress
		overviews []*cluster.Overview
		want      string
	}{
		{drainProgress, []*cluster.Overview{leads, idle, busy, nil, busy, moved}, `1 leaderships and 2 replicas left; waiting: b is down
0 leaderships and 2 replicas left
0 leaderships and 1 replicas left
broke off
0 leaderships and 1 replicas left
0 leaderships and 0 replicas left
`},
		{drainProgress, []*cluster.Overview{idle}, "0 leaderships and 2 replicas left\n"},
		{removeProgress, []*cluster.Overview{idle, busy, gone}, "2 replicas left\n1 replicas left\nremoved\n"},
	} {
		s := &scripted{t: t, overviews: c.overviews}
		a := &api{addr: s.start(), every: time.Millisecond}
		var out buffer
		if err := a.await(t.Context(), &out, "c", c.progress); err != nil {
			t.Error(err)
		}
		lines := strings.SplitAfter(out.String(), "\n")
		for i, line := range lines {
			if strings.Contains(line, "broke off") {
				lines[i] = "broke off\n"
			}
		}
		if got := strings.Join(lines, ""); got != c.want {
			t.Errorf("got\n%s\nwant\n%s", got, c.want)
		}
	}
	s := &scripted{t: t, overviews: []*cluster.Overview{nil}}
	a := &api{addr: s.start(), every: time.Millisecond}
	if err := a.await(t.Context(), &buffer{}, "c", drainProgress); !errors.As(err, new(unreachable)) {
		t.Errorf("a node that is silent for good: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.await(ctx, &buffer{}, "c", drainProgress); err == nil {
		t.Error("interrupted: no error")
	}
}

func TestAPIErrors(t *testing.T) {
	h := httptest.NewServer(http.NotFoundHandler())
	addr := strings.TrimPrefix(h.URL, "http://")
	h.Close()
	short := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(short, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"--http-addr " + addr, "no answer from " + addr},
		{"--http-addr a%zz", "want host:port"},
		{"--http-addr " + addr + " --http-token-file " + short, "want at least 16"},
		{"--http-addr " + addr + " --http-token-file " + short + "x", "no such file"},
	} {
		_, err := shoal(t.Context(), nil, append([]string{"cluster", "members"}, strings.Fields(c.args)...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.args, err, c.want)
		}
	}
}
