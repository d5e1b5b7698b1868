package acl

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/broker/topic"
)

// TestNames: what stands for whom in lists of names.
func TestNames(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"plc", "plc", true}, {"plc", "plc1", false}, {"plc", "PLC", false}, {"", "", true},
		{"*", "", true}, {"*", "x", true}, {"plc-*", "plc-", true}, {"plc-*", "plc", false},
		{"*-x", "a-x-x", true}, {"a*a", "a", false}, {"a*a", "aa", true}, {"a*b*c", "a-b-b-c", true}, {"a*b*c", "a-c-b", false}, {"**", "x", true},
		{"*ab*ab", "ab", false}, {"*ab*ab", "abab", true},
		{"%u", "%u", false}, {"%u", "us*r", true}, {"%u", "user", false}, {"%u-*", "us*r-1", true}, {"%u-%c", "us*r-%u", true}, {"*%u", "x-us*r", true}, {"%", "%", true},
	} {
		if got := glob(c.pattern, c.name, client("%u", "us*r")); got != c.want {
			t.Errorf("%q, %q: %t", c.pattern, c.name, got)
		}
	}
	if glob("%u*", "x", client("x", "")) || glob("*%c", "x", client("", "x")) {
		t.Error("a name that is missing stands for any")
	}
	// It ends: all ways to tell these apart are more than can be tried.
	glob("*-*-*-*-*-*-*-*-x", strings.Repeat("-", topic.MaxBytes), client("c", "u"))
}

// TestAddresses: IPv4 in the clothes of IPv6 is IPv4, on either side.
func TestAddresses(t *testing.T) {
	for _, network := range []string{"10.1.0.0/16", "10.1.2.3", "::ffff:10.1.0.0/112", "::ffff:10.1.2.3"} {
		s := newTestSet(t, ParseYAML, fmt.Sprintf("default: allow\nrules:\n- {deny: [publish], topics: [\"#\"], addresses: [%q]}\n", network))
		for _, ip := range []net.IP{net.ParseIP("10.1.2.3").To4(), net.ParseIP("10.1.2.3").To16()} {
			c := client("c", "u")
			c.Peer.Remote = &net.TCPAddr{IP: ip}
			if rights(permissionsOf(t, s, c), "a") != "r" {
				t.Errorf("%s is not held to %s", ip, network)
			}
		}
	}
}

// TestUnsayable: a denial that cannot be said with the client's name does not
// leave the topic to the rules below.
func TestUnsayable(t *testing.T) {
	long := strings.Repeat("x", topic.MaxBytes-2)
	deep := strings.Repeat("x/", topic.MaxLevels-2) + "x"
	for id, s := range map[string]*Set{
		long: newTestSet(t, ParseYAML, "default: allow\nrules:\n- {deny: [publish, subscribe], topics: [\"t/%c/#\"]}\n"),
		deep: newTestSet(t, ParseMosquitto, "pattern deny t/%c/#\npattern readwrite #\n"),
	} {
		name := "t/" + id
		if err := topic.ValidateName(name); err != nil {
			t.Fatal(err)
		}
		if got := rights(permissionsOf(t, s, client(id, "u")), name); got != "" {
			t.Errorf("name of %d bytes: %q", len(name), got)
		}
	}
}
