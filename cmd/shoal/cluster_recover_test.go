package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/cluster"
)

func TestClusterRecoverRefuses(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", "--data-dir is missing"},
		{"--data-dir " + filepath.Join(t.TempDir(), "none"), "say --force"},
		{"--force --data-dir " + filepath.Join(t.TempDir(), "none"), "no such file"},
	} {
		cmd := clusterRecoverCommand()
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		cmd.SetArgs(strings.Fields(c.args))
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.args, err, c.want)
		}
	}
}

func TestWriteRecovered(t *testing.T) {
	var out bytes.Buffer
	r := cluster.Recovered{Node: "n3", Former: "old", ClusterID: "new", Kept: []string{"shard-1", "shard-2"}, Lost: []string{"shard-3"}}
	if err := writeRecovered(&out, r); err != nil {
		t.Fatal(err)
	}
	want := `Cluster old is now cluster new, of node n3 alone.
Kept: shard-1, shard-2. Lost: shard-3 (they begin empty).
Start this node; then start the others with empty data directories.
`
	if out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
}
