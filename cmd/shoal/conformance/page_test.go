package conformance

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// root is the module's directory. Packages go by their last name on the page,
// but for two.
const root = "../../.."

var renamed = map[string]string{"shoal": "main", "conformance": ""}

// standards are the sections of the page, and the lists of their identifiers.
var standards = []struct {
	heading, list string
	// gaps are identifiers that the standard itself leaves out.
	gaps []string
}{
	{"MQTT 5", "testdata/mqtt5.txt", []string{"MQTT-2.2.1-1"}},
	{"MQTT 3.1.1", "testdata/mqtt3.1.1.txt", nil},
}

// beyond is the heading, in each section, of the statements that bind no server
// or none like this one.
const beyond = "### No matter of this server"

var (
	function   = regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\) \{(?s:(.*?))\n\}`)
	row        = regexp.MustCompile(`\n\t\t\{"(\d{3}) `)
	named      = regexp.MustCompile("`(?:(\\w+)\\.)?(Test\\w+)(?:/(\\d{3}))?`")
	identifier = regexp.MustCompile(`\[(MQTT-[\d.]+-\d+)\]`)
	// line is a row of one of the page's tables: its first cell, and the others.
	line = regexp.MustCompile(`(?m)^\| ([^|\n]*) \|(.*)$`)
)

// TestPage: docs/conformance.md has every statement of the standards once, with
// tests that there are, or says why it is no matter of this server; and names
// every row of the tables here.
func TestPage(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "docs", "conformance.md"))
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	for _, s := range standards {
		checkList(t, s.list, s.gaps)
		_, section, found := strings.Cut(page, "\n## "+s.heading+"\n")
		if !found {
			t.Fatalf("no section %q", s.heading)
		}
		section, _, _ = strings.Cut(section, "\n## ")
		checkStatements(t, section, identifiers(t, s.list))
	}
	checkNames(t, page)
}

// identifiers reads a list.
func identifiers(t *testing.T, list string) []string {
	t.Helper()
	b, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b))
}

// checkList: numbers of a list begin with 1 in each section, and none is left
// out that the standard has.
func checkList(t *testing.T, list string, gaps []string) {
	t.Helper()
	section, last := "", 0
	for _, id := range identifiers(t, list) {
		i := strings.LastIndexByte(id, '-')
		n, err := strconv.Atoi(id[i+1:])
		if err != nil {
			t.Fatalf("%s: %q", list, id)
		}
		if id[:i] != section {
			section, last = id[:i], 0
		}
		for last++; slices.Contains(gaps, fmt.Sprintf("%s-%d", section, last)); {
			last++
		}
		if n != last {
			t.Errorf("%s: %s in place of %s-%d", list, id, section, last)
		}
		last = n
	}
}

// checkStatements: a section of the page has each identifier in the first cell of
// one row, and each row has tests, or stands under the heading beyond.
func checkStatements(t *testing.T, section string, all []string) {
	t.Helper()
	seen := map[string]int{}
	binding, rest, found := strings.Cut(section, "\n"+beyond+"\n")
	if !found {
		t.Errorf("no heading %q", beyond)
	}
	for _, part := range []string{binding, rest} {
		for _, m := range line.FindAllStringSubmatch(part, -1) {
			if strings.HasPrefix(m[1], "statement") || strings.HasPrefix(m[1], "--") {
				continue
			}
			ids := identifier.FindAllStringSubmatch(m[1], -1)
			if len(ids) == 0 && !strings.Contains(m[1], "§") {
				t.Errorf("neither an identifier nor a section: %s", m[0])
			}
			for _, id := range ids {
				seen[id[1]]++
			}
			if part == binding && !named.MatchString(m[2]) {
				t.Errorf("no test: %s", m[0])
			}
		}
	}
	for _, id := range all {
		if seen[id] != 1 {
			t.Errorf("%s is on %d rows", id, seen[id])
		}
		delete(seen, id)
	}
	for id := range seen {
		t.Errorf("%s: the standard has no such statement", id)
	}
}

// checkNames: every test that the page names exists, and it names every row of
// the tables here.
func checkNames(t *testing.T, page string) {
	t.Helper()
	known := tests(t)
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
	for _, name := range crossSection {
		if !slices.Contains(known[""], name) {
			t.Errorf("cross-section: there is no %s", name)
		}
	}
	for _, name := range known[""] {
		if strings.Contains(name, "/") && !slices.Contains(seen, name) {
			t.Errorf("the page does not name %s", name)
		}
	}
}

// tests returns the names of each package's tests, and of the rows of the tables
// here.
func tests(t *testing.T) map[string][]string {
	t.Helper()
	known := map[string][]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		dir, err := filepath.Abs(filepath.Dir(path))
		if err != nil {
			return err
		}
		short := filepath.Base(dir)
		if other, differs := renamed[short]; differs {
			short = other
		}
		for _, m := range function.FindAllStringSubmatch(string(source), -1) {
			known[short] = append(known[short], m[1])
			if short != "" {
				continue
			}
			for _, r := range row.FindAllStringSubmatch(m[2], -1) {
				known[short] = append(known[short], m[1]+"/"+r[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return known
}
