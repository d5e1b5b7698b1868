package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// patience bounds every wait for something that must happen: far longer than
// it takes, so that no test depends on speed.
const patience = 120 * time.Second

// program is the program under test.
var program string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

// run builds the program once for all tests.
func run(m *testing.M) int {
	if len(os.Args) > 1 && os.Args[1] == bareRaftCommand {
		return bareRaft(os.Args[2:])
	}
	if program = os.Getenv("SHOAL_BINARY"); program != "" {
		return m.Run()
	}
	defer pahoC.remove()
	defer pahoCpp.remove()
	dir, err := os.MkdirTemp("", "shoal-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "shoal")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/shoalmq/shoal/cmd/shoal").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build shoal: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// eventually polls until ok returns nil, and fails the test with its last
// answer when it does not.
func eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	within(t, patience, what, ok)
}

func within(t testing.TB, limit time.Duration, what string, ok func() error) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
	}
}
