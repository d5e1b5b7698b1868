package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the module's directory; packages have short names on the page.
const root = "../../.."

var packages = map[string]string{
	"broker": "broker", "packet": "broker/packet", "session": "broker/session",
	"e2e": "cmd/shoal/e2e", "config": "cmd/shoal/config", "main": "cmd/shoal", "": "cmd/shoal/conformance",
}

var (
	function = regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\) \{(?s:(.*?))\n\}`)
	row      = regexp.MustCompile(`\n\t\t\{"(\d{3}) `)
	named    = regexp.MustCompile("`(?:(\\w+)\\.)?(Test\\w+)(?:/(\\d{3}))?`")
	line     = regexp.MustCompile(`(?m)^\| (\d+) \|.*$`)
)

// tests returns the names of a package's tests, and of the rows of its tables.
func tests(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in %s: %v", dir, err)
	}
	for _, f := range files {
		source, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range function.FindAllStringSubmatch(string(source), -1) {
			names = append(names, m[1])
			for _, r := range row.FindAllStringSubmatch(m[2], -1) {
				names = append(names, m[1]+"/"+r[1])
			}
		}
	}
	return names
}

// TestPage: docs/conformance.md has the 126 rules, names only tests that there
// are, and every row of the tables here.
func TestPage(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "docs", "conformance.md"))
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	for i, m := range line.FindAllStringSubmatch(page, -1) {
		if m[1] != fmt.Sprint(i+1) {
			t.Fatalf("rule %s in place of %d", m[1], i+1)
		}
		if !strings.Contains(m[0], "Test") && !strings.Contains(m[0], "later: ") {
			t.Errorf("neither a test nor a reason: %s", m[0])
		}
		if i+1 == 126 {
			break
		}
	}
	if got := len(line.FindAllString(page, -1)); got != 126 {
		t.Errorf("%d rules", got)
	}
	known := map[string][]string{}
	for short, dir := range packages {
		known[short] = tests(t, dir)
	}
	var seen []string
	for _, m := range named.FindAllStringSubmatch(page, -1) {
		name := m[2]
		if m[3] != "" {
			name += "/" + m[3]
		}
		if !slices.Contains(known[m[1]], name) {
			t.Errorf("there is no %s", m[0])
		}
		if m[1] == "" {
			seen = append(seen, name)
		}
	}
	for _, name := range known[""] {
		if strings.Contains(name, "/") && !slices.Contains(seen, name) {
			t.Errorf("the page does not name %s", name)
		}
	}
}
