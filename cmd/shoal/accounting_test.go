package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReasonsAreDocumented: every reason for which a message may be dropped has a
// row in docs/ACCOUNTING.md.
func TestReasonsAreDocumented(t *testing.T) {
	doc := string(read(t, "../../docs/ACCOUNTING.md"))
	reasons := map[string]bool{}
	add := func(file string, within, each *regexp.Regexp) {
		for _, m := range within.FindAllStringSubmatch(string(read(t, file)), -1) {
			for _, r := range each.FindAllStringSubmatch(m[1], -1) {
				reasons[r[1]] = true
			}
		}
	}
	word := regexp.MustCompile(`"([a-z_]+)"`)
	add("../../broker/metrics.go", regexp.MustCompile(`var dropNames = (.*)`), word)
	add("../../cluster/metrics.go", regexp.MustCompile(`(?s)for reason, v := range (.*?)counter\(descLost`), word)
	files, err := filepath.Glob("../../cluster/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		add(f, regexp.MustCompile(`dropped\.WithLabelValues\((.*?)\)`), word)
	}
	if len(reasons) < 20 {
		t.Fatalf("found only %v", reasons)
	}
	for r := range reasons {
		if !strings.Contains(doc, "`"+r+"`") {
			t.Errorf("docs/ACCOUNTING.md does not say what %q means", r)
		}
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
