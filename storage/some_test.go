package storage

import (
	"flag"
	"os"
	"testing"
)

// long is set for the runs that take their time: what is tried at random is then
// tried more often.
var long = os.Getenv("SHOAL_CHAOS") == "long"

// some is how often to try what a long run tries often: under the race detector on
// two processors these tests are most of what make test waits for.
func some(often int) int {
	if long {
		return often
	}
	return max(often*2/5, 1)
}

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("rapid.checks"); f != nil && !long && f.Value.String() == f.DefValue {
		_ = f.Value.Set("40")
	}
	os.Exit(m.Run())
}
