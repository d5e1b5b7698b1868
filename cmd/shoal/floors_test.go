package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/shoalmq/shoal/"

// floor says what the packages whose path begins with prefix may import: of
// this module only what begins with one of ours (and themselves), of others
// nothing that begins with one of not. The first floor that fits counts.
type floor struct {
	prefix string
	ours   []string
	not    []string
}

// The floors of docs/ARCHITECTURE.md. Imports point down only, and broker and
// cluster never see each other: cmd/shoal joins them.
var floors = []floor{
	{"proto", nil, []string{"net", "time"}},
	{"broker/packet", nil, []string{"net", "time", "log", "google.golang.org"}},
	{"broker/topic", nil, []string{"net", "time", "log", "google.golang.org"}},
	// time is for durations: session asks no clock.
	{"broker/session", []string{"broker/packet", "broker/topic", "proto"}, []string{"net", "log", "sync"}},
	{"storage", []string{"proto"}, []string{"net", "google.golang.org/grpc", "github.com/hashicorp/memberlist"}},
	{"broker/watch", nil, nil},
	{"broker/listener", []string{"broker", "broker/watch"}, []string{"github.com/hashicorp", "go.etcd.io", "google.golang.org/grpc"}},
	{"broker", []string{"broker", "proto"}, []string{"github.com/hashicorp", "go.etcd.io", "google.golang.org/grpc"}},
	{"cluster", []string{"cluster", "storage", "broker/session", "broker/topic", "proto"}, []string{"net/http"}},
	{"cmd", []string{"broker", "cluster", "storage", "proto", "cmd"}, nil},
}

// listed is what go list says of a package.
type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func TestImportFloors(t *testing.T) {
	out, err := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := 0
	for dec := json.NewDecoder(bytes.NewReader(out)); ; seen++ {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, problem := range p.check() {
			t.Error(problem)
		}
	}
	if seen < len(floors) {
		t.Errorf("go list knows only %d packages", seen)
	}
}

// check returns what the package imports against the floors. Tests may also
// use what is made for tests, and any library.
func (p *listed) check() (problems []string) {
	name := strings.TrimPrefix(p.ImportPath, module)
	i := slices.IndexFunc(floors, func(f floor) bool { return within(name, f.prefix) })
	if i < 0 {
		return []string{name + " is on no floor: give it one in floors_test.go"}
	}
	f := floors[i]
	for _, imported := range p.Imports {
		short, ours := strings.CutPrefix(imported, module)
		switch {
		case ours && forTests(short) && !forTests(name):
			problems = append(problems, name+" imports "+short+", which is for tests only")
		case ours && !within(short, append(f.ours, f.prefix)...) && !forTests(name),
			!ours && within(imported, f.not...):
			problems = append(problems, name+" must not import "+short)
		}
	}
	for _, imported := range append(p.TestImports, p.XTestImports...) {
		short, ours := strings.CutPrefix(imported, module)
		if ours && !forTests(short) && !within(short, append(f.ours, f.prefix)...) {
			problems = append(problems, name+"'s tests must not import "+short)
		}
	}
	return problems
}

// forTests: packages that tests share end in "test".
func forTests(name string) bool { return strings.HasSuffix(name, "test") }

func within(path string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool {
		return path == p || strings.HasPrefix(path, p+"/")
	})
}

func TestImportFloorsCanFail(t *testing.T) {
	for _, tc := range []struct {
		p    listed
		want string
	}{
		{listed{ImportPath: module + "broker", Imports: []string{module + "cluster"}}, "broker must not import cluster"},
		{listed{ImportPath: module + "cluster/shard", Imports: []string{module + "broker"}}, "cluster/shard must not import broker"},
		{listed{ImportPath: module + "cluster", Imports: []string{module + "broker/packet"}}, "cluster must not import broker/packet"},
		{listed{ImportPath: module + "broker/topic", Imports: []string{module + "proto"}}, "broker/topic must not import proto"},
		{listed{ImportPath: module + "broker/session", Imports: []string{"sync/atomic"}}, "broker/session must not import sync/atomic"},
		{listed{ImportPath: module + "broker", Imports: []string{"go.etcd.io/bbolt"}}, "broker must not import go.etcd.io/bbolt"},
		{listed{ImportPath: module + "storage", Imports: []string{module + "cmd/shoal/admin"}}, "storage must not import cmd/shoal/admin"},
		{listed{ImportPath: module + "broker", Imports: []string{module + "broker/brokertest"}}, "broker imports broker/brokertest, which is for tests only"},
		{listed{ImportPath: module + "cluster", XTestImports: []string{module + "broker"}}, "cluster's tests must not import broker"},
		{listed{ImportPath: module + "utils"}, "utils is on no floor: give it one in floors_test.go"},
		{listed{ImportPath: module + "cmd/shoal", Imports: []string{module + "broker", module + "cluster", "net/http"}}, ""},
	} {
		if got := strings.Join(tc.p.check(), "\n"); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.p, got, tc.want)
		}
	}
}
