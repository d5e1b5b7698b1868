package acl

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	memory "unsafe"

	"pgregory.net/rapid"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/broker/topic"
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

// TestShared: clients that the same rules concern have them once, also after a
// change, and what nobody has any more goes.
func TestShared(t *testing.T) {
	const text = "user a\ntopic read x\nuser b\ntopic read y\npattern write out/%c\npattern read all\n"
	s := newTestSet(t, ParseMosquitto, text)
	list := func(p broker.Permissions) *list { return p.(*permissions).chosen.common }
	first, second := permissionsOf(t, s, client("1", "a")), permissionsOf(t, s, client("2", "a"))
	other := permissionsOf(t, s, client("3", "b"))
	check := func() {
		t.Helper()
		for want, p := range map[string]broker.Permissions{"x out/1": first, "x out/2": second, "y out/3": other} {
			got := ""
			for _, n := range []string{"x", "y", "out/1", "out/2", "out/3"} {
				if rights(p, n) != "" {
					got += " " + n
				}
			}
			if got != " "+want || rights(p, "all") != "r" {
				t.Errorf("%q, want %q", got, want)
			}
		}
		if list(first) != list(second) || list(first) == list(other) {
			t.Error("not one list for those whom the same rules concern")
		}
	}
	check()
	if err := s.Load(); err != nil {
		t.Fatal(err)
	}
	check()
	many := ""
	for i := range 1000 {
		many += fmt.Sprintf("user u%d\ntopic %d\n", i, i)
	}
	s = newTestSet(t, ParseMosquitto, many)
	for i := range 1000 {
		permissionsOf(t, s, client("c", fmt.Sprintf("u%d", i)))
		if i%100 == 0 {
			runtime.GC()
		}
	}
	if n := len(s.rules.Load().shared.lists); n > 500 {
		t.Errorf("%d lists of clients that have gone", n)
	}
}

// TestTogether: clients ask what they share while the rules are read anew; for the
// race detector.
func TestTogether(t *testing.T) {
	text := "user u\n"
	for i := range 2 * indexFrom {
		text += fmt.Sprintf("topic read a/%d\n", i)
	}
	s := newTestSet(t, ParseMosquitto, text+"pattern read out/%c\n")
	var wg sync.WaitGroup
	for i := range 4 {
		p := permissionsOf(t, s, client(fmt.Sprint(i), "u"))
		wg.Go(func() {
			for n := range 2000 {
				if !p.Receive(fmt.Sprintf("a/%d", n%(2*indexFrom))) || !p.Receive(fmt.Sprintf("out/%d", i)) || p.Receive(fmt.Sprintf("out/%d", i+1)) {
					t.Error("another answer while rules are read anew")
					return
				}
			}
		})
	}
	for range 20 {
		if err := s.Load(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
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

// TestReachAround: whatever rules there are and whatever a client subscribes to,
// what it gets is what a plain reading of the rules lets it receive; a subscription
// that could bring something is not refused; and a Shared Subscription that is
// granted has nothing that it may not receive. With few rules and with an index.
func TestReachAround(t *testing.T) {
	levels := []string{"a", "b", "", "$s"}
	var names []string
	for _, x := range levels {
		for _, y := range append([]string{"\x00"}, levels...) {
			if n := strings.TrimSuffix(x+"/"+y, "/\x00"); topic.ValidateName(n) == nil {
				names = append(names, n)
			}
		}
	}
	filter := rapid.Custom(func(t *rapid.T) string {
		level := rapid.SampledFrom([]string{"a", "b", "", "$s", "+", "#", "%c"})
		for {
			f := strings.Join(rapid.SliceOfN(level, 1, 3).Draw(t, "levels"), "/")
			if topic.ValidateFilter(f) == nil {
				return f
			}
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		type plain struct {
			deny, publish, receive bool
			filter                 string
		}
		var rules []plain
		text := "default: " + rapid.SampledFrom([]string{"allow", "deny"}).Draw(t, "default") + "\nrules:\n"
		for range rapid.IntRange(0, 40).Draw(t, "rules") {
			r := plain{rapid.Bool().Draw(t, "deny"), rapid.Bool().Draw(t, "publish"), rapid.Bool().Draw(t, "receive"), filter.Draw(t, "filter")}
			if !r.publish && !r.receive {
				continue
			}
			rules = append(rules, r)
			actions := strings.Trim(fmt.Sprintf("%s,%s", map[bool]string{true: "publish"}[r.publish], map[bool]string{true: "subscribe"}[r.receive]), ",")
			text += fmt.Sprintf("- {%s: [%s], topics: [%q]}\n", map[bool]string{true: "deny", false: "allow"}[r.deny], actions, r.filter)
		}
		parsed, err := ParseYAML("f", []byte(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		s := NewSet("f", ParseYAML, quiet())
		s.rules.Store(parsed)
		for _, id := range []string{"c", "b"} { // whose lists are the next one's too
			if _, err := s.Permissions(client(id, "u")); err != nil {
				t.Fatal(err)
			}
		}
		id := rapid.SampledFrom([]string{"a", "b", "$s", "+", "b/a"}).Draw(t, "client")
		p, err := s.Permissions(client(id, "u"))
		if err != nil {
			t.Fatal(err)
		}
		may := func(name string, about func(plain) bool) bool {
			for _, r := range rules {
				unsafe := strings.Contains(r.filter, "%c") && (strings.ContainsAny(id, "+/") || id == "$s" && strings.HasPrefix(r.filter, "%c"))
				if unsafe && r.deny {
					return false // whatever it is about
				}
				if !unsafe && about(r) && topic.MatchOne(strings.ReplaceAll(r.filter, "%c", id), name) {
					return !r.deny
				}
			}
			return parsed.allow
		}
		for range 2 { // the second time from memory
			for _, n := range names {
				if p.Receive(n) != may(n, func(r plain) bool { return r.receive }) || p.Publish(n, 0, false) != may(n, func(r plain) bool { return r.publish }) {
					t.Fatalf("%q: %q\n%s", n, rights(p, n), text)
				}
			}
		}
		f := filter.Draw(t, "subscription")
		some, all := false, true
		for _, n := range names {
			if topic.MatchOne(f, n) {
				ok := may(n, func(r plain) bool { return r.receive })
				some, all = some || ok, all && ok
			}
		}
		if some && !p.Subscribe(f, 0, false) {
			t.Fatalf("%q could bring something and is refused\n%s", f, text)
		}
		if !all && p.Subscribe(f, 0, true) {
			t.Fatalf("%q could bring what must not be received and is granted as a shared one\n%s", f, text)
		}
	})
}

// FuzzMosquitto and FuzzYAML: a file is refused, or can be asked.
func FuzzMosquitto(f *testing.F) {
	f.Add("user a\ntopic read b/#\npattern deny %u/%c\n", "c", "u")
	f.Fuzz(func(t *testing.T, text, id, user string) { askAll(t, ParseMosquitto, text, id, user) })
}

func FuzzYAML(f *testing.F) {
	f.Add(plant, "c", "u")
	f.Fuzz(func(t *testing.T, text, id, user string) { askAll(t, ParseYAML, text, id, user) })
}

func askAll(t *testing.T, parse func(string, []byte) (*Rules, error), text, id, user string) {
	r, err := parse("f", []byte(text))
	if err != nil {
		return
	}
	s := NewSet("f", parse, quiet())
	s.rules.Store(r)
	p, err := s.Permissions(client(id, user))
	if err != nil {
		return
	}
	for _, n := range []string{"a", "a/b", "/", "$SYS/x", "line/c/x"} {
		if p.Receive(n) && !p.Subscribe(n, 0, false) {
			t.Fatalf("%q may be received and not subscribed to", n)
		}
		p.Publish(n, 1, true)
		p.Subscribe(n+"/#", 0, true)
	}
}

// BenchmarkPublish: a client that goes on publishing to its topic, and one that
// publishes to ever new ones among 10,000 rules.
func BenchmarkPublish(b *testing.B) {
	text := ""
	for i := range 10_000 {
		text += fmt.Sprintf("topic write line/%d/#\n", i)
	}
	p := permissionsOf(b, newTestSet(b, ParseMosquitto, "user u\n"+text), client("c", "u"))
	names := make([]string, 64)
	for i := range names {
		names[i] = fmt.Sprintf("line/%d/temperature", i*100)
	}
	b.Run("same", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			p.Publish(names[0], 1, false)
		}
	})
	b.Run("other", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			p.Publish(names[i%len(names)], 1, false)
		}
	})
}
