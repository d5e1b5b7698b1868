package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// These tests give Debian's Mosquitto and Shoal the same files, and ask both the
// same questions.

// mosquittoPrograms finds the broker and its mosquitto_passwd.
func mosquittoPrograms(t *testing.T) (server, passwd string) {
	t.Helper()
	find := func(name string) string {
		for _, path := range []string{name, "/usr/sbin/" + name} {
			if found, err := exec.LookPath(path); err == nil {
				return found
			}
		}
		if os.Getenv("CI") == "true" {
			t.Fatalf("no %s: apt-get install mosquitto", name)
		}
		t.Skipf("no %s: apt-get install mosquitto", name)
		return ""
	}
	return find("mosquitto"), find("mosquitto_passwd")
}

// passwordFileByMosquitto makes a file in every way that mosquitto_passwd has.
func passwordFileByMosquitto(t *testing.T, passwd, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "passwords")
	if err := os.WriteFile(file, []byte("plain:was plain\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"-U", file},
		{"-b", file, "ann", "secret"},
		{"-b", file, "bob", "first"},
		{"-b", file, "bob", "second: ü"},
		{"-b", file, "gone", "x"},
		{"-D", file, "gone"},
		{"-H", "sha512", "-b", file, "old", "secret"},
		{"-b", file, "with blank", "secret"},
	} {
		if out, err := exec.Command(passwd, args...).CombinedOutput(); err != nil {
			t.Fatalf("mosquitto_passwd %q: %v\n%s", args, err, out)
		}
	}
	// By hand: blanks, comments and line ends as they come.
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, hash, _ := strings.Cut(string(data), "ann:")
	hash, _, _ = strings.Cut(hash, "\n")
	data = append(data, "\n# comment\n \t\n blanks : "+hash+" \t\r\ndos:"+hash+"\r\nlast:"+hash...)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// startMosquitto runs Mosquitto with these lines of configuration, and returns
// its address.
func startMosquitto(t *testing.T, server, dir string, lines ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	l.Close()
	config := filepath.Join(dir, "mosquitto.conf")
	text := "user root\nlistener " + port + " 127.0.0.1\n" + strings.Join(lines, "\n") + "\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var said buffer
	cmd := exec.Command(server, "-c", config)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	eventually(t, "mosquitto", &said, func() bool {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
	return addr
}

// loginAnswer is what becomes of a CONNECT: its code, or the end of the
// connection.
func loginAnswer(t *testing.T, addr string, v packet.Version, p packet.Connect) string {
	t.Helper()
	c, err := mqtttest.Dial(addr, v, deadline)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p.CleanStart, p.RequestProblemInfo, p.ClientID = true, true, "compare"
	ack, err := c.Connect(p, deadline)
	switch {
	case err != nil:
		return "closed"
	case ack.Code == packet.CodeSuccess:
		return "let in"
	}
	return "refused"
}

// stricter are the logins that Mosquitto lets in and Shoal does not: it reads a
// password to its first zero byte, and takes an empty User Name, or a Password
// without one, for an anonymous client.
func stricter(user, password string) bool {
	return strings.Contains(password, "\x00") || user == "" || user == "-" && password != "-"
}

// TestMosquittoLogins: files of mosquitto_passwd let the same clients in.
// Mosquitto says "not authorized" to a wrong password, Shoal "bad user name or
// password", as the standard has it; what is compared is who comes in.
func TestMosquittoLogins(t *testing.T) {
	server, passwd := mosquittoPrograms(t)
	for _, anonymous := range []bool{false, true} {
		dir := t.TempDir()
		file := passwordFileByMosquitto(t, passwd, dir)
		other := startMosquitto(t, server, dir, "password_file "+file, fmt.Sprint("allow_anonymous ", anonymous))
		ours := startNode(t, filepath.Join(dir, "data"), "--password-file="+file, fmt.Sprint("--allow-anonymous=", anonymous))
		letIn := 0
		for _, c := range []struct{ user, password string }{
			{"ann", "secret"}, {"ann", "Secret"}, {"ann", "secret "}, {"ann", "secre"}, {"ann", ""}, {"ann", "-"},
			{"Ann", "secret"}, {"ann ", "secret"}, {"bob", "second: ü"}, {"bob", "first"}, {"gone", "x"}, {"plain", "was plain"},
			{"plain", ""}, {"old", "secret"}, {"old", "secreT"}, {"with blank", "secret"},
			{"blanks", "secret"}, {" blanks ", "secret"}, {"blanks", "x"}, {"dos", "secret"}, {"last", "secret"},
			{"nobody", "secret"}, {"nobody", ""}, {"nobody", "-"}, {"", "secret"}, {"", ""}, {"", "-"}, {"-", "-"}, {"-", "secret"},
			{"ann", strings.Repeat("x", 65535)}, {strings.Repeat("x", 65535), "secret"}, {"ann:secret", "secret"}, {"ann", "secret\x00"},
		} {
			for _, v := range []packet.Version{packet.V31, packet.V311, packet.V5} {
				p := packet.Connect{HasUsername: c.user != "-", HasPassword: c.password != "-"}
				if p.HasUsername {
					p.Username = c.user
				}
				if p.HasPassword {
					p.Password = []byte(c.password)
				}
				theirs, ours := loginAnswer(t, other, v, p), loginAnswer(t, "127.0.0.1:"+ours.mqtt, v, p)
				if ours == "let in" {
					letIn++
				}
				if theirs == "let in" && ours == "refused" && stricter(c.user, c.password) {
					continue
				}
				if (theirs == "let in") != (ours == "let in") {
					t.Errorf("anonymous %t, version %d, user %.20q, password %.20q: Mosquitto: %s, Shoal: %s", anonymous, v, c.user, c.password, theirs, ours)
				}
			}
		}
		if letIn < 15 {
			t.Errorf("only %d were let in", letIn)
		}
	}
}

// compareRules is in Mosquitto's own form, with what is easily misread in it.
const compareRules = `# for those without a name
topic read open/#
topic readwrite $SYS/none
topic end/anonymous

user root
topic readwrite #

user ann
topic readwrite plant/#
topic deny plant/secret/#
topic read bare
topic write out/+
topic end/ann

user bob
topic deny plant/+/b
topic read plant/+/+
topic both/#
topic end/bob

pattern read to/%u/#
pattern write from/%u
pattern readwrite client/%c/x
pattern deny shared/%u/no
pattern readwrite shared/%u/+
`

var compareTopics = []string{
	"open", "open/a", "open/a/b", "bare", "bare/a", "out", "out/a", "out/a/b", "both", "both/a", "plant", "plant/a", "plant/a/b", "plant/secret",
	"plant/secret/b", "plant/secret/b/c", "to/ann/x", "to/bob/x", "to/bob", "from/ann", "from/bob", "client/c-ann/x", "client/c-bob/x", "client/c-ann/y",
	"shared/ann/no", "shared/ann/yes", "shared/bob/no", "shared/bob/a", "to/%u/x", "Plant/a",
}

// throughBroker is what a client in fact gets through a broker: the topics that come
// from others, by filters of all kinds, and those that others get from it.
func throughBroker(t *testing.T, addr, user string, filters []string) (sends, receives []string) {
	t.Helper()
	root, c := mqtttest.DialTest(t, addr, packet.V5), mqtttest.DialTest(t, addr, packet.V5)
	login := func(name string) mqtttest.Option {
		return func(p *packet.Connect) {
			p.ClientID = "c-" + name
			if name == "anonymous" {
				return
			}
			p.HasUsername, p.Username, p.HasPassword, p.Password = true, name, true, []byte("secret")
		}
	}
	root.AutoAck, c.AutoAck = true, true
	root.Connect(login("root"))
	c.Connect(login(user))
	defer root.Close()
	defer c.Close()
	end := "end/" + user
	for _, f := range append(filters, end) {
		c.SubscribeAll(packet.Subscription{Filter: f, QoS: packet.QoS1}) // the answer does not count, what comes does
	}
	root.Subscribe("#", packet.QoS1)
	receives = through(t, root, c, end)
	sends = through(t, c, root, end)
	return sends, receives
}

// through publishes every topic from one client, and returns what comes to the
// other before the last one, which does.
func through(t *testing.T, from, to *mqtttest.Client, end string) (came []string) {
	t.Helper()
	for _, name := range append(slices.Clone(compareTopics), end) {
		p := &packet.Publish{Topic: []byte(name), Payload: []byte("from " + fmt.Sprintf("%p", from)), QoS: packet.QoS1, PacketID: from.NextID()}
		from.Write(p)
		for acked := false; !acked; { // what comes meanwhile is its own
			ack, ok := from.Next().(*packet.Ack)
			acked = ok && ack.Type == packet.TypePuback
		}
		if name != end {
			continue
		}
		for {
			got, ok := to.Next().(*packet.Publish)
			if !ok || string(got.Payload) != string(p.Payload) {
				continue
			}
			if string(got.Topic) == end {
				slices.Sort(came)
				return slices.Compact(came)
			}
			came = append(came, string(got.Topic))
		}
	}
	return nil
}

// TestMosquittoRights: an ACL file in Mosquitto's format allows the same.
func TestMosquittoRights(t *testing.T) {
	server, passwd := mosquittoPrograms(t)
	dir := t.TempDir()
	file, rules := filepath.Join(dir, "passwords"), filepath.Join(dir, "rules")
	for i, user := range []string{"root", "ann", "bob", "carl"} {
		args := []string{"-c", "-b", file, user, "secret"}
		if i > 0 {
			args = args[1:]
		}
		if out, err := exec.Command(passwd, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	text := compareRules + "\nuser carl\ntopic end/carl\n"
	if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	other := startMosquitto(t, server, dir, "password_file "+file, "acl_file "+rules, "allow_anonymous true")
	ours := startNode(t, filepath.Join(dir, "data"), "--password-file="+file, "--acl-file="+rules, "--allow-anonymous")
	sent, received := 0, 0
	for _, user := range []string{"ann", "bob", "carl", "anonymous"} { // root looks on
		for _, filters := range [][]string{
			{"#"}, {"+/+", "+"}, {"plant/#"}, {"plant/+/b"}, {"plant/secret/#", "plant/secret/+"}, {"open/#", "bare", "both/a"},
			{"to/" + user + "/#", "to/+/x", "shared/+/+", "client/+/x"}, compareTopics,
		} {
			sends, receives := throughBroker(t, other, user, filters)
			ourSends, ourReceives := throughBroker(t, "127.0.0.1:"+ours.mqtt, user, filters)
			sent, received = sent+len(ourSends), received+len(ourReceives)
			if !slices.Equal(sends, ourSends) {
				t.Errorf("%s may publish\n%q by Mosquitto,\n%q by Shoal", user, sends, ourSends)
			}
			if !slices.Equal(receives, ourReceives) {
				t.Errorf("%s with %.60q receives\n%q by Mosquitto,\n%q by Shoal", user, filters, receives, ourReceives)
			}
		}
	}
	if sent < 50 || received < 50 {
		t.Errorf("only %d topics sent, %d received: nothing was compared", sent, received)
	}
}
