package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/cluster"
)

func TestClusterStatus(t *testing.T) {
	answer := cluster.Status{
		Node: "a", Disk: "d1", ClusterID: "c0ffee", Version: 1, Build: "v0.1.0", Reason: "no lease",
		Nodes: []cluster.NodeStatus{
			{Node: "b", Disk: "d2", Boot: 1},
			{Node: "a", Disk: "d1", Boot: 12, Up: true, RPC: "a:7947", HTTP: "a:18083", MQTT: "a:1883"},
		},
		Groups: []cluster.GroupStatus{
			{Group: "directory", State: "Leader", Leader: "a", Term: 3, Applied: 42, Replicas: []string{"a (voter)", "b (voter)"}},
			{Group: "shard-1", State: "Follower", Term: 3, Applied: 7, Sessions: 2, Queued: 5, Outbox: 1, Replicas: []string{"a (voter)"}},
		},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/status" {
			t.Errorf("asked for %s", r.URL)
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	defer s.Close()

	got, err := shoal(t.Context(), nil, "cluster", "status", "--http-addr", s.URL)
	want := `node a (v0.1.0), not ready: no lease
cluster c0ffee, version 1

NODE  UP   BOOT  DISK  MQTT    HTTP     PEERS
a     yes  12    d1    a:1883  a:18083  a:7947
b     no   1     d2    -       -        -

GROUP      HERE      LEADER  TERM  APPLIED  SESSIONS  QUEUED  OUTBOX  REPLICAS
directory  leader    a       3     42       0         0       0       a (voter), b (voter)
shard-1    follower  -       3     7        2         5       1       a (voter)
`
	if err != nil || got != want {
		t.Errorf("got\n%s%v\nwant\n%s", got, err, want)
	}

	got, err = shoal(t.Context(), nil, "cluster", "status", "--http-addr", s.URL, "-o", "json")
	var back cluster.Status
	if err != nil || json.Unmarshal([]byte(got), &back) != nil || back.Groups[1].Queued != 5 {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestClusterStatusErrors(t *testing.T) {
	status, body := http.StatusServiceUnavailable, "opening the data directory\n"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		w.Write([]byte(body))
	}))
	defer s.Close()
	addr := strings.TrimPrefix(s.URL, "http://")
	expect := func(want string, args ...string) {
		t.Helper()
		_, err := shoal(t.Context(), nil, append([]string{"cluster", "status"}, args...)...)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	expect("ask for status: "+addr+" answers 503 Service Unavailable: opening the data directory", "--http-addr", addr)
	status, body = http.StatusOK, "<html>"
	expect("ask for status: read answer of "+addr+": ", "--http-addr", addr)
	expect(`--http-addr "a b": want host:port`, "--http-addr", "a b")
	expect("ask for status: no answer from 127.0.0.1:1: ", "--http-addr", "127.0.0.1:1")
}
