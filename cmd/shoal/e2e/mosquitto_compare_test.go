package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// TestMosquittoFiles asks Debian's mosquitto and Shoal the same questions, with
// the same password file, made by mosquitto_passwd, and the same acl_file: who is
// let in, what of theirs arrives, and what they get. The answers have to be the
// same.
func TestMosquittoFiles(t *testing.T) {
	for _, name := range []string{"mosquitto", "mosquitto_passwd"} {
		if _, err := exec.LookPath(name); err != nil {
			unavailable(t, "no %s: apt-get install mosquitto", name)
		}
	}
	seed := rand.Uint64()
	if s := os.Getenv("SHOAL_TEST_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		must(t, err)
	}
	t.Logf("SHOAL_TEST_SEED=%d", seed)
	f := &files{dir: t.TempDir(), random: rand.New(rand.NewPCG(seed, 0))}
	f.makePasswords(t)
	f.makeRules(t)
	theirs, ours := f.startMosquitto(t), f.startShoal(t)
	t.Run("logins", func(t *testing.T) { f.compareLogins(t, theirs, ours) })
	t.Run("rules", func(t *testing.T) { f.compareRules(t, theirs, ours) })
	if t.Failed() {
		rules, _ := os.ReadFile(f.rules)
		t.Logf("the rules:\n%s", rules)
	}
}

// files are what both servers are given.
type files struct {
	dir, passwords, rules string
	random                *rand.Rand
}

// fileUsers are the users and their passwords. Who is not in the file is in the
// questions.
var fileUsers = map[string]string{
	"root": "r", "ann": "secret", "bob": "pass word", "päul": "ünïcode", "old": "sha512 once", "upgraded": "was plain", "made/here": "by shoal user", "plus+": "x",
}

// makePasswords makes a file as people do: by and by, with tools of two ages, and
// the last line by shoal user.
func (f *files) makePasswords(t *testing.T) {
	f.passwords = filepath.Join(f.dir, "passwords")
	plain := filepath.Join(f.dir, "plain")
	must(t, os.WriteFile(plain, []byte("upgraded:was plain\n"), 0o600))
	run := func(input, program string, args ...string) {
		t.Helper()
		cmd := exec.Command(program, args...)
		cmd.Stdin = strings.NewReader(input)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
		}
	}
	run("", "mosquitto_passwd", "-c", "-b", f.passwords, "root", "r")
	for _, user := range []string{"ann", "bob", "päul", "plus+"} {
		run("", "mosquitto_passwd", "-b", f.passwords, user, fileUsers[user])
	}
	run("", "mosquitto_passwd", "-H", "sha512", "-b", f.passwords, "old", fileUsers["old"])
	run("", "mosquitto_passwd", "-U", plain)
	more, err := os.ReadFile(plain)
	must(t, err)
	all, err := os.ReadFile(f.passwords)
	must(t, err)
	must(t, os.WriteFile(f.passwords, append(all, more...), 0o644))
	run("by shoal user\n", program, "user", "add", "made/here", "--file", f.passwords, "--hash", "pbkdf2", "--stdin")
}

// end is a topic that every user of the questions may read: what comes before it
// has come.
const end = "end/of/questions"

// makeRules writes an acl_file: what people write, and random lines. Denials leave
// end alone.
func (f *files) makeRules(t *testing.T) {
	f.rules = filepath.Join(f.dir, "acl")
	text := "# without a user name\ntopic read " + end + "\ntopic read public/#\ntopic anonymous\n"
	for _, user := range slices.Sorted(maps.Keys(fileUsers)) {
		text += "user " + user + "\ntopic read " + end + "\n"
		if user == "root" {
			text += "topic readwrite #\ntopic readwrite $x/#\n"
			continue
		}
		for range f.random.IntN(4) {
			text += "topic " + f.line() + "\n"
		}
	}
	text += "user ann\ntopic deny a/b\ntopic a/#\ntopic write b/+\n\n#user bob\nuser bob\ntopic read +/b\ntopic deny c/#\ntopic #\n"
	text += "pattern read in/%u/%c\npattern write out/%c/#\npattern deny b/%u\n"
	for range 3 {
		text += "pattern " + f.line() + "\n"
	}
	must(t, os.WriteFile(f.rules, []byte(text), 0o644))
}

// line is an access and a filter.
func (f *files) line() string {
	pick := func(of ...string) string { return of[f.random.IntN(len(of))] }
	access := pick("", "read ", "write ", "readwrite ", "deny ")
	first := pick("a", "b", "c", "$x", "in", "out", "%u")
	if access != "deny " && f.random.IntN(4) == 0 {
		first = pick("+", "#")
	}
	if first == "#" {
		return access + first
	}
	filter := first
	for range f.random.IntN(3) {
		filter += "/" + pick("a", "b", "", "+", "%c", "%u")
	}
	if f.random.IntN(3) == 0 {
		filter += "/#"
	}
	return access + filter
}

// startMosquitto returns its address.
func (f *files) startMosquitto(t *testing.T) string {
	port := freePort(t)
	conf := filepath.Join(f.dir, "mosquitto.conf")
	must(t, os.WriteFile(conf, fmt.Appendf(nil, "user root\nlistener %d 127.0.0.1\nallow_anonymous true\npassword_file %s\nacl_file %s\n", port, f.passwords, f.rules), 0o644))
	cmd := exec.Command("mosquitto", "-c", conf)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("mosquitto:\n%s", log.String())
		}
	})
	addr := loopback(port)
	eventually(t, "mosquitto", func() error {
		nc, err := net.Dial("tcp", addr)
		if err == nil {
			nc.Close()
		}
		return err
	})
	return addr
}

func (f *files) startShoal(t *testing.T) string {
	c := newCluster(t, 1, t.TempDir())
	c.nodes = c.nodes[:1]
	c.nodes[0].flags = []string{"--allow-anonymous", "--password-file=" + f.passwords, "--acl-file=" + f.rules}
	c.start()
	c.awaitReady()
	return c.nodes[0].mqtt
}

// caller is who asks.
type caller struct {
	id, user, password string
	anonymous          bool
}

func (who caller) connect(t *testing.T, addr string, v packet.Version) (*mqtttest.Conn, packet.Code) {
	t.Helper()
	c, err := mqtttest.Dial(addr, v, patience)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	p := packet.Connect{ClientID: who.id, CleanStart: true, KeepAlive: 600, RequestProblemInfo: true}
	if !who.anonymous {
		p.HasUsername, p.Username = true, who.user
		p.HasPassword, p.Password = true, []byte(who.password)
	}
	ack, err := c.Connect(p, patience)
	if err != nil {
		t.Fatalf("%+v at %s: %v", who, addr, err)
	}
	return c, ack.Code
}

func (f *files) compareLogins(t *testing.T, theirs, ours string) {
	// Not asked: an empty user name, which mosquitto takes for none at all.
	asked := []caller{{anonymous: true}, {user: "nobody", password: "x"}, {user: "nobody"}}
	for user, password := range fileUsers {
		for _, p := range []string{password, "", password + "x", strings.ToUpper(password) + " ", "r"} {
			asked = append(asked, caller{user: user, password: p})
		}
		asked = append(asked, caller{user: user + " ", password: password}, caller{user: strings.ToUpper(user), password: password})
	}
	in := 0
	for i, who := range asked {
		who.id = fmt.Sprint("login", i)
		for _, v := range []packet.Version{packet.V311, packet.V5} {
			_, theirCode := who.connect(t, theirs, v)
			_, ourCode := who.connect(t, ours, v)
			if (theirCode == 0) != (ourCode == 0) {
				t.Errorf("%+v in %s: mosquitto says %s, Shoal %s", who, v, theirCode, ourCode)
			}
			if ourCode == 0 {
				in++
			}
		}
	}
	if want := 2 * (len(fileUsers) + 1); in < want {
		t.Errorf("%d logins of %d were let in, want %d at least", in, 2*len(asked), want)
	}
}

// compareRules has every caller publish to every topic, and then get what root
// publishes there.
func (f *files) compareRules(t *testing.T, theirs, ours string) {
	callers := []caller{{id: "x", anonymous: true}, {id: "#", user: "ann"}, {id: "a", user: "plus+"}}
	for _, user := range slices.Sorted(maps.Keys(fileUsers)) {
		callers = append(callers, caller{id: "a", user: user}, caller{id: "b/c", user: user})
	}
	names := f.names()
	questions, yes := 0, 0
	for i, who := range callers {
		who.password = fileUsers[who.user]
		their, our := f.ask(t, theirs, who, names), f.ask(t, ours, who, names)
		for _, name := range names {
			for what, at := range map[string]int{"publish to": 0, "receive": 1} {
				questions++
				if our[at][name] {
					yes++
				}
				if their[at][name] != our[at][name] {
					t.Errorf("caller %d %+v may %s %q: mosquitto says %t, Shoal %t", i, who, what, name, their[at][name], our[at][name])
				}
			}
		}
	}
	t.Logf("%d questions, %d answered with yes", questions, yes)
	if yes == 0 || yes == questions {
		t.Error("the questions tell nothing")
	}
}

func (f *files) names() []string {
	names := []string{"public", "public/x", "anonymous", "a", "a/", "/a", "in/ann/a", "in/bob/b", "out/a/x", "out/b/c/d", "b/ann", "b/bob", "$x/a", "$x/a/b", "made/here/a", "plus+/a"}
	for _, first := range []string{"a", "b", "c"} {
		for _, second := range []string{"a", "b", "ann", ""} {
			names = append(names, first+"/"+second, first+"/"+second+"/a")
		}
	}
	names = slices.DeleteFunc(names, func(n string) bool { return strings.ContainsAny(n, "+") })
	slices.Sort(names)
	return slices.Compact(names)
}

// ask returns what of a caller's arrives at root, and what of root's at it.
func (f *files) ask(t *testing.T, addr string, who caller, names []string) (answers [2]map[string]bool) {
	t.Helper()
	root, code := caller{id: "root-" + who.id, user: "root", password: "r"}.connect(t, addr, packet.V311)
	asker, askerCode := who.connect(t, addr, packet.V311)
	if code != 0 || askerCode != 0 {
		t.Fatalf("connect root and %+v at %s: %s, %s", who, addr, code, askerCode)
	}
	if who.user == "root" {
		return [2]map[string]bool{{}, {}}
	}
	filters := func(c *mqtttest.Conn) {
		must(t, c.Send(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "#"}, {Filter: "$x/#"}, {Filter: end}}}))
		f.until(t, c, func(p packet.Packet) bool { _, is := p.(*packet.Suback); return is })
	}
	filters(root)
	filters(asker)
	for at, c := range []struct{ from, to *mqtttest.Conn }{{asker, root}, {root, asker}} {
		answers[at] = map[string]bool{}
		for _, name := range names {
			must(t, c.from.Send(&packet.Publish{Topic: []byte(name), Payload: fmt.Append(nil, at)}))
		}
		if at == 0 { // root says when it is over: the asker's own have come by its answer
			must(t, asker.Send(&packet.Pingreq{}))
			f.until(t, asker, func(p packet.Packet) bool { _, is := p.(*packet.Pingresp); return is })
		}
		must(t, root.Send(&packet.Publish{Topic: []byte(end), Payload: fmt.Append(nil, at)}))
		f.until(t, c.to, func(p packet.Packet) bool {
			m, is := p.(*packet.Publish)
			if !is || string(m.Payload) != fmt.Sprint(at) {
				return false
			}
			answers[at][string(m.Topic)] = true
			return string(m.Topic) == end
		})
	}
	return answers
}

// until takes packets until one is it.
func (f *files) until(t *testing.T, c *mqtttest.Conn, is func(packet.Packet) bool) {
	t.Helper()
	for {
		p, err := c.Receive(patience)
		if err != nil {
			t.Fatalf("wait for an answer of %s: %v", c.LocalAddr(), err)
		}
		if is(p) {
			return
		}
	}
}
