package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/cluster"
)

var update = flag.Bool("update", false, "write docs/METRICS.md")

const metricsPage = "../../docs/METRICS.md"

// descriptions is a Registerer that notes what is registered.
type descriptions struct {
	mu   sync.Mutex
	rows []string
}

func (d *descriptions) Register(c prometheus.Collector) error {
	d.MustRegister(c)
	return nil
}

func (d *descriptions) Unregister(prometheus.Collector) bool { return false }

var descForm = regexp.MustCompile(`fqName: "([^"]*)", help: "((?:[^"\\]|\\.)*)".*variableLabels: \{([^}]*)\}`)

func (d *descriptions) MustRegister(all ...prometheus.Collector) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range all {
		ch := make(chan *prometheus.Desc)
		go func() {
			c.Describe(ch)
			close(ch)
		}()
		for desc := range ch {
			m := descForm.FindStringSubmatch(desc.String())
			if m == nil {
				panic("metric in another form: " + desc.String())
			}
			labels := ""
			if m[3] != "" {
				labels = "`" + strings.ReplaceAll(m[3], ",", "`, `") + "`"
			}
			d.rows = append(d.rows, fmt.Sprintf("| `%s` | %s | %s |", m[1], labels, strings.ReplaceAll(m[2], "|", "\\|")))
		}
	}
}

// TestMetricsPage: docs/METRICS.md lists every metric of a node, with what its
// help says.
func TestMetricsPage(t *testing.T) {
	d := &descriptions{}
	broker.New(broker.Config{Metrics: d, AllowAnonymous: true})
	n, err := cluster.Open(cluster.Config{
		NodeID: "a", DataDir: t.TempDir(), GossipAddr: "127.0.0.1:0", RPCAddr: "127.0.0.1:0", BootstrapExpect: 1, Shards: 1, Metrics: d,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close(context.Background())
	d.mu.Lock()
	defer d.mu.Unlock()
	slices.Sort(d.rows)
	page := "# Metrics\n\nWhat `/metrics` has besides those of the Go runtime and the process. Counters are of one process's life, unless they say that they are\n" +
		"part of the replicated state. `go test ./cmd/shoal -run MetricsPage -update` writes this page.\n\n" +
		"| metric | labels | |\n|---|---|---|\n" + strings.Join(slices.Compact(d.rows), "\n") + "\n"
	if *update {
		if err := os.WriteFile(metricsPage, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range d.rows {
		if !strings.Contains(string(have), row) {
			t.Errorf("docs/METRICS.md lacks or tells otherwise:\n%s", row)
		}
	}
	if strings.Count(string(have), "\n| `") != strings.Count(page, "\n| `") {
		t.Error("docs/METRICS.md has metrics that do not exist")
	}
}

// TestNamedMetricsExist: a page that names a metric names one of METRICS.md,
// which TestMetricsPage holds to the program.
func TestNamedMetricsExist(t *testing.T) {
	known := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(shoal_\\w+)`").FindAllStringSubmatch(string(read(t, metricsPage)), -1) {
		known[m[1]] = true
	}
	named := 0
	for _, page := range []string{"../../README.md", "../../docs/ACCOUNTING.md", "../../docs/ARCHITECTURE.md", "../../docs/OVERLOAD.md", "../../docs/TESTING.md"} {
		for _, name := range regexp.MustCompile(`\bshoal_\w+`).FindAllString(string(read(t, page)), -1) {
			if named++; !known[strings.TrimSuffix(name, "_bucket")] {
				t.Errorf("%s names %s, which does not exist", page, name)
			}
		}
	}
	if named < 30 {
		t.Errorf("only %d names found: does the pattern still fit?", named)
	}
}
