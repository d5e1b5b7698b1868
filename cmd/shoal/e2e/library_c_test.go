package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// compiled is a line client that is built once, by whoever wants it first.
type compiled struct {
	header  string // that says whether the library is there
	command []string
	once    sync.Once
	program string
	err     error
}

var (
	pahoC = compiled{header: "MQTTClient.h", command: []string{"cc", "-D_GNU_SOURCE", "testdata/client.c",
		"-lpaho-mqtt3cs", "-lpthread"}}
	pahoCpp = compiled{header: "mqtt/async_client.h", command: []string{"c++", "-std=c++17", "testdata/client.cpp",
		"-lpaho-mqttpp3", "-lpaho-mqtt3as", "-lpthread"}}
)

// native are Debian's libraries for C and C++.
var native = []libraryKind{
	{"libpaho-mqtt", openC, []string{"3.1.1", "5"}},
	{"libpaho-mqttpp", openCpp, []string{"3.1.1", "5"}},
}

func openC(t *testing.T, version string) library   { return pahoC.open(t, version) }
func openCpp(t *testing.T, version string) library { return pahoCpp.open(t, version) }

func (c *compiled) open(t *testing.T, version string) library {
	t.Helper()
	if _, err := os.Stat(filepath.Join("/usr/include", c.header)); err != nil {
		unavailable(t, "no %s: apt-get install g++ libpaho-mqtt-dev libpaho-mqttpp-dev", c.header)
	}
	c.once.Do(func() {
		dir, err := os.MkdirTemp("", "shoal-e2e-")
		if err != nil {
			c.err = err
			return
		}
		c.program = filepath.Join(dir, "client")
		if out, err := exec.Command(c.command[0], append(c.command[1:], "-o", c.program)...).CombinedOutput(); err != nil {
			c.err = fmt.Errorf("%v: %w\n%s", c.command, err, out)
		}
	})
	if c.err != nil {
		t.Fatal(c.err)
	}
	return startLines(t, c.program, version)
}

// remove removes what was built.
func (c *compiled) remove() {
	if c.program != "" {
		os.RemoveAll(filepath.Dir(c.program))
	}
}
