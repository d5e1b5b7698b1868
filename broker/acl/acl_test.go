package acl

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	memory "unsafe"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/packet"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newTestSet(t testing.TB, parse func(string, []byte) (*Rules, error), content string) *Set {
	t.Helper()
	path := filepath.Join(t.TempDir(), "acl")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	s := NewSet(path, parse, quiet())
	if err := s.Load(); err != nil {
		t.Fatal(err)
	}
	return s
}

func client(id, user string) *broker.Client {
	return &broker.Client{ID: id, Identity: &broker.Identity{Username: user}, Peer: &broker.Peer{Remote: &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3)}, Listener: "mqtts"}}
}

func permissionsOf(t testing.TB, s *Set, c *broker.Client) broker.Permissions {
	t.Helper()
	p, err := s.Permissions(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// rights writes what a client may do with a topic: p, s, or both.
func rights(p broker.Permissions, name string) (s string) {
	if p.Publish(name, 0, false) {
		s += "p"
	}
	if p.Receive(name) {
		s += "r"
	}
	return s
}

// TestMosquitto: the meaning of its lines.
func TestMosquitto(t *testing.T) {
	s := newTestSet(t, ParseMosquitto, `
# anonymous
topic read public/#
topic anonymous/rw

user alice
topic alice/#
topic read shared/+/in
topic write shared/out
topic deny alice/secret/#
topic read $SYS/broker/uptime
user bob the builder
topic readwrite blanks in the topic/#
topic literal/%c/%u
pattern write up/%c/%u
pattern deny %u/sealed
pattern read down/%u/#
pattern all/+
user alice
topic read later/too
`)
	for _, c := range []struct {
		id, user, topic, want string
	}{
		{"c", "", "public/a/b", "r"},
		{"c", "", "public", "r"},
		{"c", "", "anonymous/rw", "pr"},
		{"c", "", "alice/x", ""},
		{"c", "", "all/x", "pr"},
		{"c", "", "down//x", ""}, // a pattern with %u is not for clients without one
		{"c", "alice", "public/a", ""},
		{"c", "alice", "alice", "pr"},
		{"c", "alice", "alice/x", "pr"},
		{"c", "alice", "alice/secret", ""},
		{"c", "alice", "alice/secret/x", ""},
		{"c", "alice", "alice/sealed", "pr"}, // her own lines come first
		{"c", "alice", "shared/x/in", "r"},
		{"c", "alice", "shared/out", "p"},
		{"c", "alice", "$SYS/broker/uptime", "r"},
		{"c", "alice", "$SYS/broker/load", ""},
		{"c", "alice", "later/too", "r"},
		{"c", "alice", "up/c/alice", "p"},
		{"c", "alice", "up/d/alice", ""},
		{"c", "alice", "down/alice/x/y", "r"},
		{"c", "bob the builder", "blanks in the topic/x", "pr"},
		{"c", "bob the builder", "literal/%c/%u", "pr"},
		{"c", "bob the builder", "literal/c/bob the builder", ""},
		{"c", "bob the builder", "bob the builder/sealed", ""},
		{"c", "nobody", "all/x", "pr"},
		{"c", "nobody", "public/a", ""},
		{"c", "a/b", "down/a/b/x", "r"}, // Mosquitto takes / in names
		{"c", "+", "down/alice/x", ""},
		{"c", "+", "all/x", ""},
		{"#", "x", "all/x", ""},
		{"#", "alice", "alice/x", "pr"}, // before the patterns
	} {
		if got := rights(permissionsOf(t, s, client(c.id, c.user)), c.topic); got != c.want {
			t.Errorf("client %q, user %q, topic %q: %q, want %q", c.id, c.user, c.topic, got, c.want)
		}
	}
}

// TestMosquittoErrors: each with its line.
func TestMosquittoErrors(t *testing.T) {
	_, err := ParseMosquitto("f", []byte("topc a\n\nuser\ntopic\ntopic read\ntopic reed a\ntopic a/#/b\npattern read %u#\ntopic deny +a\n"))
	for _, want := range []string{`line 1: "topc": want user`, "line 3: user: want a name", "line 4: want a topic", `line 6: "reed": want read`, `line 7: topic "a/#/b"`, `line 8: topic "%u#"`, `line 9: topic "+a"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in\n%v", want, err)
		}
	}
}

const plant = `
rules:
- deny: [publish, subscribe]
  topics: [vault/#]
  users: ["*"]
- deny: [publish]
  topics: ["line/#"]
  retain: true
- allow: [publish]
  topics: ["line/%c/#"]
  users: ["plc-*"]
  qos: [0, 1]
- allow: [publish, subscribe]
  topics: ["%{site}/#"]
  claims: {role: operator}
- allow: [subscribe]
  topics: ["#"]
  groups: [watchers]
  addresses: [10.0.0.0/8, 192.168.1.1]
- allow: [publish, subscribe]
  topics: ["vault/#"]
  users: [root]
- allow: [subscribe]
  topics: [open]
  anonymous: true
  listeners: [mqtts]
- allow: [connect]
  clients: ["%u", "%u-*"]
- allow: [connect]
  anonymous: true
- deny: [connect]
`

// TestYAML: who is meant, by what, and the first rule that applies.
func TestYAML(t *testing.T) {
	s := newTestSet(t, ParseYAML, plant)
	with := func(c *broker.Client, change func(*broker.Client)) *broker.Client {
		change(c)
		return c
	}
	operator := func(site string) *broker.Client {
		return with(client("u", "u"), func(c *broker.Client) {
			c.Identity.Claims = map[string]string{"role": "operator", "site": site}
		})
	}
	watcher := func(ip string) *broker.Client {
		return with(client("w", "w"), func(c *broker.Client) {
			c.Identity.Groups = []string{"x", "watchers"}
			c.Peer.Remote = &net.TCPAddr{IP: net.ParseIP(ip)}
		})
	}
	for _, c := range []struct {
		who         *broker.Client
		topic, want string
	}{
		{client("plc-7", "plc-7"), "line/plc-7/temp", "p"},
		{client("plc-7-b", "plc-7"), "line/plc-7-b/temp", "p"},
		{client("plc-7", "plc-7"), "line/plc-8/temp", ""},
		{client("x", "x"), "line/x/temp", ""},
		{operator("north"), "north/a", "pr"},
		{operator("north"), "south/a", ""},
		{operator(""), "/a", ""},
		{operator("+"), "north/a", ""},
		{operator("north/line"), "north/line/a", ""},
		{operator("$SYS"), "$SYS/a", ""},
		{watcher("10.200.0.1"), "any/thing", "r"},
		{watcher("192.168.1.1"), "any/thing", "r"},
		{watcher("192.168.1.2"), "any/thing", ""},
		{watcher("10.200.0.1"), "vault/x", ""},
		{watcher("10.200.0.1"), "vault", ""},
		{watcher("10.200.0.1"), "$SYS/x", ""},
		{client("root", "root"), "vault/x", ""}, // denied first
		{client("any", ""), "open", "r"},
		{client("any", ""), "vault/x", ""},
	} {
		if got := rights(permissionsOf(t, s, c.who), c.topic); got != c.want {
			t.Errorf("%+v, topic %q: %q, want %q", c.who.Identity, c.topic, got, c.want)
		}
	}
	p := permissionsOf(t, s, client("plc-7", "plc-7"))
	if p.Publish("line/plc-7/x", packet.QoS2, false) || p.Publish("line/plc-7/x", packet.QoS1, true) || !p.Publish("line/plc-7/x", packet.QoS1, false) {
		t.Error("conditions of a publish")
	}
	for id, user := range map[string]string{"plc-8": "plc-7", "plc-7b": "plc-7", "": "plc-7", "*": "u"} {
		if _, err := s.Permissions(client(id, user)); !errors.Is(err, broker.ErrNotAuthorized) {
			t.Errorf("client %q, user %q: %v", id, user, err)
		}
	}
}

// TestYAMLErrors: what is refused, with its line.
func TestYAMLErrors(t *testing.T) {
	for text, want := range map[string]string{
		"rules:\n- allow: [publish]\n  topics: [a]\n  user: [x]\n": `line 2: unknown key "user"`,
		"rule: []\n":              "field rule not found",
		"default: yes please\n":   "default",
		"rules:\n- topics: [a]\n": "want either allow or deny",
		"rules:\n- {allow: [publish], deny: [publish], topics: [a]}\n":                "want either allow or deny",
		"rules:\n- {allow: [read], topics: [a]}\n":                                    `"read": want publish`,
		"rules:\n- {allow: [publish]}\n":                                              "topics: is missing",
		"rules:\n- {allow: [connect], topics: [a]}\n":                                 "has none",
		"rules:\n- {allow: [publish], topics: [a/#/b]}\n":                             "a/#/b",
		"rules:\n- {allow: [publish], topics: [a], users: []}\n":                      "users: is empty",
		"rules:\n- {allow: [publish], topics: [a], users: [\"\"]}\n":                  "users: is empty",
		"rules:\n- {allow: [publish], topics: [a], addresses: [10.0.0]}\n":            "10.0.0",
		"rules:\n- {allow: [subscribe], topics: [a], qos: [0]}\n":                     "conditions of a publish",
		"rules:\n- {allow: [publish], topics: [a], qos: [3]}\n":                       "qos 3",
		"rules:\n- allow: [publish]\n  topics: [a]\n  users:\n":                       "users: is empty",
		"rules:\n- {allow: [publish], topics: &t [*t]}\n":                             "cannot unmarshal",
		"rules:\n- {allow: [publish], topics: [a], qos: [~]}\n":                       "qos: is empty",
		"rules:\n- {allow: [publish], topics: [a], addresses: [\"::ffff:0:0/95\"]}\n": "want IPv4",
		"rules:\n- allow\n":     "want keys and values",
		"---\n---\nrules: []\n": "more than one",
	} {
		if _, err := ParseYAML("f", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: want %q, got %v", text, want, err)
		}
	}
}

// TestReload: connected clients are held to new rules; bad ones change nothing.
func TestReload(t *testing.T) {
	s := newTestSet(t, ParseYAML, "rules:\n- {allow: [publish], topics: [a]}\n")
	p := permissionsOf(t, s, client("c", "u"))
	write := func(text string) error {
		if err := os.WriteFile(s.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return s.Load()
	}
	check := func(what, a, b string) {
		t.Helper()
		if rights(p, "a") != a || rights(p, "b") != b {
			t.Errorf("%s: a %q, b %q", what, rights(p, "a"), rights(p, "b"))
		}
	}
	check("before", "p", "")
	if err := write("rules:\n- {allow: [subscribe], topics: [b]}\n"); err != nil {
		t.Fatal(err)
	}
	check("after", "", "r")
	if err := write("rules:\n- {allow: [all], topics: [b]}\n"); err == nil || !strings.Contains(err.Error(), s.path) {
		t.Errorf("bad rules: %v", err)
	}
	check("bad rules", "", "r")
	if err := write("rules:\n- {allow: [publish], topics: [a]}\n- {deny: [connect]}\n"); err != nil {
		t.Fatal(err)
	}
	check("may not connect any more", "", "")
}

// TestTopicOfCaller: topics come as parts of buffers, which are used again: an
// answer is for what the topic was.
func TestTopicOfCaller(t *testing.T) {
	p := permissionsOf(t, newTestSet(t, ParseMosquitto, "user u\ntopic readwrite mine\n"), client("c", "u"))
	buffer := []byte("mine")
	name := memory.String(&buffer[0], len(buffer))
	if !p.Receive(name) || !p.Publish(name, 0, false) {
		t.Fatal("denied")
	}
	copy(buffer, "ours")
	if p.Receive(name) || p.Publish(name, 0, false) {
		t.Error("another topic has the answer")
	}
}

// TestGrants: rights of the identity and rules have both to allow.
func TestGrants(t *testing.T) {
	free := NewSet("", nil, quiet())
	if p := permissionsOf(t, free, client("c", "u")); p != nil {
		t.Error("permissions without rules")
	}
	held := client("c", "u")
	held.Identity.Grants = []broker.Grant{{Filter: "a/x", Deny: true, Publish: true, Subscribe: true}, {Filter: "a/#", Publish: true, Subscribe: true}, {Filter: "b", Subscribe: true}}
	for s, want := range map[*Set][4]string{
		free: {"pr", "", "r", ""},
		newTestSet(t, ParseYAML, "rules:\n- {allow: [publish], topics: [\"#\"]}\n"): {"p", "", "", ""},
		newTestSet(t, ParseMosquitto, "user u\ntopic read #\n"):                     {"r", "", "r", ""},
	} {
		p := permissionsOf(t, s, held)
		for i, name := range []string{"a/y", "a/x", "b", "c"} {
			if got := rights(p, name); got != want[i] {
				t.Errorf("%s: %q, want %q", name, got, want[i])
			}
		}
	}
	held.Identity.Grants = []broker.Grant{}
	if rights(permissionsOf(t, free, held), "a") != "" {
		t.Error("no grants allow all")
	}
}
