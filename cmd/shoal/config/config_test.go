package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// load runs Load as a command line would.
func load(t *testing.T, environ []string, args ...string) (*Config, error) {
	t.Helper()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatalf("parse %q: %v", args, err)
	}
	return Load(fs, environ)
}

// write puts a file into the working directory of the test, so that errors
// name it by a short path.
func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDefaultsAreTheDocumentedOnes(t *testing.T) {
	c, err := load(t, nil, "--node-id=a")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"node-id": "a", "data-dir": "./data", "mqtt-addr": "127.0.0.1:1883", "allow-anonymous": "true", "password-file": "", "acl-file": "", "acl-rules": "",
		"mqtts-addr": "off", "ws-addr": "off", "wss-addr": "off", "ws-path": "/mqtt", "unix-socket": "", "unix-socket-mode": "0660",
		"tls-cert": "", "tls-key": "", "tls-client-ca": "", "tls-client-cert": "", "tls-crl": "", "tls-min-version": "1.2", "proxy-protocol-from": "",
		"http-addr": "127.0.0.1:18083", "http-token-file": "", "gossip-addr": "127.0.0.1:7946", "rpc-addr": "127.0.0.1:7947",
		"advertise-host": "127.0.0.1", "join": "", "bootstrap-expect": "1", "shards": "6",
		"cluster-ca": "", "cluster-cert": "", "cluster-key": "", "gossip-key-file": "",
		"max-queued-messages": "100000", "max-queued-bytes": "256MiB", "queue-overflow": "drop-oldest", "denied-publish": "drop", "shared-strategy": "round-robin", "queue-memory": "auto",
		"min-free-bytes": "256MiB", "memory-limit": "auto", "connect-rate": "0",
		"log-level": "info", "log-format": "text",
	}
	got := c.Values()
	for name, v := range want {
		if got[name] != v {
			t.Errorf("%s is %q, want %q", name, got[name], v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d keys, want %d", len(got), len(want))
	}
}

func TestSizes(t *testing.T) {
	for v, want := range map[string]string{
		"1GiB": "1GiB", "1024MiB": "1GiB", "1536KiB": "1536KiB", "100": "100", "2 MiB": "2MiB", "off": "off", "0": "off",
	} {
		c, err := load(t, nil, "--node-id=a", "--min-free-bytes="+v)
		if err != nil {
			t.Errorf("%q: %v", v, err)
		} else if got := c.Values()["min-free-bytes"]; got != want {
			t.Errorf("%q is %q, want %q", v, got, want)
		}
	}
	for _, v := range []string{"-1", "1.5GiB", "GiB", "1GB", "1Mi", "99999999TiB", "much"} {
		if _, err := load(t, nil, "--node-id=a", "--memory-limit="+v); err == nil {
			t.Errorf("%q was taken", v)
		}
	}
}

func TestFlagBeatsEnvironmentBeatsFileBeatsDefault(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "s.yaml", "# three of these are overridden\nnode-id: file\nshards: 2\nlog-level: debug\njoin: [b, 'c:7000']\n")
	env := []string{"SHOAL_CONFIG=s.yaml", "SHOAL_NODE_ID=env", "SHOAL_SHARDS=3", "SHOAL_LOG_FORMAT=", "HOME=/"}
	c, err := load(t, env, "--node-id=flag")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][2]string{
		"node-id":          {"flag", "--node-id"},
		"shards":           {"3", "SHOAL_SHARDS"},
		"log-level":        {"debug", "s.yaml:4: log-level"},
		"join":             {"b,c:7000", "s.yaml:5: join"},
		"bootstrap-expect": {"1", "default"},
		"log-format":       {"text", "default"},
	} {
		if v, from := c.Values()[name], c.Origin(name); v != want[0] || from != want[1] {
			t.Errorf("%s is %q from %q, want %q from %q", name, v, from, want[0], want[1])
		}
	}
}

func TestConfigFlagBeatsItsVariable(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "flag.yaml", "node-id: right\n")
	c, err := load(t, []string{"SHOAL_CONFIG=absent.yaml"}, "--config=flag.yaml")
	if err != nil || c.NodeID != "right" {
		t.Fatalf("got %+v, %v", c, err)
	}
}

func TestWhatIsPrintedIsReadBack(t *testing.T) {
	t.Chdir(t.TempDir())
	c, err := load(t, []string{"SHOAL_ADVERTISE_HOST=10.0.0.1"}, "--node-id=0123", "--http-addr=off", "--join=b:1,c", "--log-level=warn")
	if err != nil {
		t.Fatal(err)
	}
	c.Authentication = []Authentication{{JWT: &JWT{Algorithms: []string{"RS256"}, JWKSURL: "https://x", Leeway: Duration(time.Minute)}}}
	c.Limits.Users = map[string]UserLimits{"u": {Quota: Quota{MaxConnections: 3}, Client: ClientLimits{MaxPacketBytes: 64 << 10}}}
	var out bytes.Buffer
	if err := c.WriteYAML(&out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "advertise-host: 10.0.0.1 # SHOAL_ADVERTISE_HOST\n") {
		t.Errorf("no origin in\n%s", out.String())
	}
	write(t, "p.yaml", out.String())
	again, err := load(t, nil, "--config=p.yaml")
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !reflect.DeepEqual(again.Authentication, c.Authentication) || !reflect.DeepEqual(again.Limits, c.Limits) {
		t.Errorf("sections became\n%s", out.String())
	}
	for name, v := range c.Values() {
		if again.Values()[name] != v {
			t.Errorf("%s: %q became %q", name, v, again.Values()[name])
		}
	}
}

func TestDerivedValues(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args []string
		key  string
		want string
	}{
		{nil, "node-id", host},
		{[]string{"--node-id=a", "--rpc-addr=0.0.0.0:1"}, "advertise-host", "a"},
		{[]string{"--node-id=a", "--rpc-addr=:1"}, "advertise-host", "a"},
		{[]string{"--node-id=a", "--rpc-addr=[::]:1"}, "advertise-host", "a"},
		{[]string{"--node-id=a", "--rpc-addr=10.1.2.3:1"}, "advertise-host", "10.1.2.3"},
		{[]string{"--mqtt-addr=[::1]:1883"}, "allow-anonymous", "true"},
		{[]string{"--mqtt-addr=localhost:1883"}, "allow-anonymous", "true"},
		{[]string{"--mqtt-addr=:1883", "--allow-anonymous"}, "allow-anonymous", "true"},
	} {
		c, err := load(t, nil, tc.args...)
		if err != nil {
			t.Errorf("%q: %v", tc.args, err)
			continue
		}
		if got := c.Values()[tc.key]; got != tc.want {
			t.Errorf("%q: %s is %q, want %q", tc.args, tc.key, got, tc.want)
		}
	}
}

// Each bad input, with the whole message: where, what, what to do.
func TestBadInput(t *testing.T) {
	const number5 = "want a whole number from 1 to 5"
	for _, tc := range []struct {
		name string
		env  []string
		file string
		args []string
		want string
	}{
		{name: "flag", args: []string{"--bootstrap-expect=three"}, want: `--bootstrap-expect: "three": ` + number5},
		{name: "environment", env: []string{"SHOAL_BOOTSTRAP_EXPECT=0"}, want: `SHOAL_BOOTSTRAP_EXPECT: "0": ` + number5},
		{name: "file", file: "\nbootstrap-expect: 6\n", want: `bad.yaml:2: bootstrap-expect: "6": ` + number5},
		{name: "shards", args: []string{"--shards=129"}, want: `--shards: "129": want a whole number from 1 to 128`},
		{name: "unknown in file", file: "node-id: a\nmqtt-adr: x\n", want: `bad.yaml:2: unknown key "mqtt-adr"; the nearest known one is "mqtt-addr"`},
		{name: "unknown in environment", env: []string{"SHOAL_GOSSIP_KEY=x"}, want: `environment: unknown key "SHOAL_GOSSIP_KEY"; the nearest known one is "SHOAL_GOSSIP_ADDR"`},
		{name: "section", file: "mqtt:\n  addr: x\n", want: `bad.yaml:1: unknown key "mqtt"; the nearest known one is "join"`},
		{name: "nested value", file: "join:\n  a: b\n", want: `bad.yaml:1: join: want a plain value or a list of them`},
		{name: "nested list", file: "join: [[a]]\n", want: `bad.yaml:1: join: want a list of plain values`},
		{name: "twice", file: "shards: 1\nshards: 2\n", want: `bad.yaml:2: shards: given twice`},
		{name: "no value", file: "shards:\n", want: `bad.yaml:1: shards: has no value; leave the line out for the default`},
		{name: "empty number", file: "shards: ''\n", want: `bad.yaml:1: shards: "": want a whole number from 1 to 128`},
		{name: "no mapping", file: "- a\n", want: `bad.yaml:1: want lines of the form "key: value"`},
		{name: "two documents", file: "shards: 1\n---\nshards: 2\n", want: `read configuration: bad.yaml: more than one document`},
		{name: "no YAML", file: "a: b: c\n", want: `read configuration: bad.yaml: yaml: mapping values are not allowed in this context`},
		{name: "no file", args: []string{"--config=absent.yaml"}, want: `read configuration: open absent.yaml: no such file or directory`},
		{name: "node id", args: []string{"--node-id=a/b"}, want: `--node-id: "a/b": want 1 to 128 letters, digits, '.', '_' or '-', a letter or digit at both ends`},
		{name: "no port", args: []string{"--mqtt-addr=1883"}, want: `--mqtt-addr: "1883": want host:port, such as 127.0.0.1:1883`},
		{name: "port", args: []string{"--rpc-addr=127.0.0.1:65536"}, want: `--rpc-addr: "127.0.0.1:65536": port "65536": want a number from 0 to 65535`},
		{name: "host", args: []string{"--gossip-addr=a b:1"}, want: `--gossip-addr: "a b:1": host "a b": want a host name or an IP address, without a port`},
		{name: "advertise", args: []string{"--advertise-host=a:1"}, want: `--advertise-host: "a:1": want a host name or an IP address, without a port`},
		{name: "join", args: []string{"--join=a,,b"}, want: `--join: "a,,b": "": want a host name or host:port, such as node-1:7946`},
		{name: "level", env: []string{"SHOAL_LOG_LEVEL=loud"}, want: `SHOAL_LOG_LEVEL: "loud": want debug, info, warn or error`},
		{name: "format", args: []string{"--log-format=xml"}, want: `--log-format: "xml": want text or json`},
		{name: "bool", args: []string{"--allow-anonymous=yes"}, want: `--allow-anonymous: "yes": want true or false`},
		{name: "open to the network", args: []string{"--mqtt-addr=0.0.0.0:1883"}, want: `--mqtt-addr: "0.0.0.0:1883": this listener would let anyone in from beyond this host; bind to 127.0.0.1, configure authentication (password-file), or say that it is meant with --allow-anonymous`},
		{name: "nobody could connect", env: []string{"SHOAL_ALLOW_ANONYMOUS=false"}, want: `SHOAL_ALLOW_ANONYMOUS: "false": nobody could connect: configure authentication (password-file) too`},
		{name: "two files of rules", args: []string{"--acl-file=plain", "--acl-rules=plain"}, want: `--acl-rules: --acl-file is there too: which of them decides would not be clear; put all rules into one`},
		{name: "unknown key of a section", file: "limits:\n  client:\n    publish-rat: 3\n", want: `bad.yaml:3: unknown key "publish-rat"; the nearest known one is "publish-rate"`},
		{name: "bad duration", file: "limits:\n  flapping: {events: 3, for: soon}\n", want: `bad.yaml:2: limits: line 2: "soon": want a duration such as 30s or 5m`},
		{name: "bad limit", file: "limits:\n  users:\n    u: {client: {on-excess: explode}}\n", want: `limits: users: u: client: on-excess: "explode": want pause or disconnect`},
		{name: "two of SCRAM", file: "authentication:\n- scram: {file: a}\n- scram: {file: b}\n", want: `authentication: part 2: want one scram at most`},
		{name: "SCRAM without file", file: "authentication:\n- scram: {}\n", want: `authentication: part 1: scram: want a file`},
		{name: "two in one part", file: "authentication:\n- password-file: a\n  http: {url: b}\n", want: `authentication: part 1: want exactly one of password-file, certificate, jwt, http and scram`},
		{name: "data dir is a file", args: []string{"--data-dir=plain"}, want: `--data-dir: "plain": is a file; want a directory`},
		{name: "key file absent", args: []string{"--gossip-key-file=absent"}, want: `--gossip-key-file: "absent": stat absent: no such file or directory`},
		{name: "key file is a directory", args: []string{"--gossip-key-file=."}, want: `--gossip-key-file: ".": want a regular file`},
		{name: "half of TLS", args: []string{"--cluster-ca=plain", "--cluster-key=plain"}, want: `--cluster-key: --cluster-cert is missing: TLS between nodes wants cluster-ca, cluster-cert and cluster-key together`},
		{name: "same port twice", args: []string{"--rpc-addr=127.0.0.1:7946"}, want: `--rpc-addr: "127.0.0.1:7946": gossip-addr listens there already`},
		{name: "port of a listener", file: "listeners:\n- {name: x, addr: 127.0.0.1:1883}\n", want: `listeners: x: "127.0.0.1:1883": mqtt-addr listens there already`},
		{name: "open listener", file: "listeners:\n- {name: x, addr: \"0.0.0.0:1\"}\n", want: `listeners: x: "0.0.0.0:1": this listener would let anyone in from beyond this host; bind to 127.0.0.1, configure authentication (password-file), or say that it is meant with --allow-anonymous`},
		{name: "proxied loopback", args: []string{"--proxy-protocol-from=127.0.0.1"}, want: `mqtt-addr (default): "127.0.0.1:1883": this listener would let anyone in from beyond this host; bind to 127.0.0.1, configure authentication (password-file), or say that it is meant with --allow-anonymous`},
		{name: "name taken", file: "listeners:\n- {name: mqtt, addr: \"127.0.0.1:1\"}\n", want: `listeners: mqtt: another listener has this name`},
		{name: "TLS without certificate", args: []string{"--mqtts-addr=127.0.0.1:8883", "--tls-key=plain"}, want: `--mqtts-addr: TLS wants a certificate and its key (tls-cert and tls-key, or cert and key of tls)`},
		{name: "client certificates without authorities", args: []string{"--wss-addr=127.0.0.1:8883", "--tls-key=plain", "--tls-cert=plain", "--tls-client-cert=request"}, want: `--wss-addr: client certificates are asked for: client-ca must name the authorities that they are checked with`},
		{name: "revocation without certificates", file: "listeners:\n- {name: x, addr: \"127.0.0.1:1\", tls: {cert: plain, key: plain, crl: plain}}\n", want: `listeners: x: crl is for client certificates, which are not asked for`},
		{name: "protocol", file: "listeners:\n- {name: x, addr: \"127.0.0.1:1\", protocol: http}\n", want: `listeners: x: protocol: "http": want mqtt or ws`},
		{name: "path without WebSocket", file: "listeners:\n- {name: x, addr: \"127.0.0.1:1\", path: /a}\n", want: `listeners: x: path and origins are for protocol: ws`},
		{name: "network", args: []string{"--proxy-protocol-from=10.0.0.1/8"}, want: `--proxy-protocol-from: "10.0.0.1/8": "10.0.0.1/8": want an address or a range such as 10.0.0.0/8`},
		{name: "network of a listener", file: "listeners:\n- name: x\n  addr: unix:/s\n  proxy-protocol-from: [everywhere]\n", want: `bad.yaml:2: listeners: line 4: "everywhere": want an address or a range such as 10.0.0.0/8`},
		{name: "socket mode", args: []string{"--unix-socket-mode=9"}, want: `--unix-socket-mode: "9": want permissions in octal, such as 0660`},
		{name: "no listener", args: []string{"--mqtt-addr=off"}, want: `--mqtt-addr: "off": there is no listener at all`},
		{name: "negative limit", file: "listeners:\n- {name: x, addr: unix:/s, limits: {connect-rate: -1}}\n", want: `listeners: x: limits: connect-rate: is below 0; leave the line out for no bound`},
		{name: "everything at once", file: "shard: 1\n", args: []string{"--log-format=", "--shards=no"},
			want: "bad.yaml:1: unknown key \"shard\"; the nearest known one is \"shards\"\n" +
				"--shards: \"no\": want a whole number from 1 to 128\n--log-format: \"\": want text or json"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			write(t, "plain", "")
			if tc.file != "" {
				write(t, "bad.yaml", tc.file)
				tc.args = append(tc.args, "--config=bad.yaml")
			}
			if !slices.ContainsFunc(tc.args, func(a string) bool { return strings.HasPrefix(a, "--node-id") }) {
				tc.args = append(tc.args, "--node-id=a")
			}
			_, err := load(t, tc.env, tc.args...)
			if err == nil {
				t.Fatal("no error")
			}
			if err.Error() != tc.want {
				t.Errorf("got\n%v\nwant\n%s", err, tc.want)
			}
			left, err := filepath.Glob("*")
			if err != nil || len(left) > 2 {
				t.Errorf("the directory holds %q, %v", left, err)
			}
		})
	}
}

// TestListeners: those of keys and those of the file, complete, and who may be
// anonymous where.
func TestListeners(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "plain", "")
	write(t, "users", "")
	write(t, "c.yaml", `
mqtt-addr: "off"
mqtts-addr: 0.0.0.0:8883
tls-cert: plain
tls-key: plain
tls-client-ca: plain
unix-socket: /run/s
proxy-protocol-from: [10.0.0.0/8, "::1"]
listeners:
- name: web
  addr: 127.0.0.1:0
  protocol: ws
  origins: ["*.example.com"]
  limits: {max-connections: 5, client: {publish-rate: 2}}
- name: open
  addr: 0.0.0.0:1
  allow-anonymous: true
- {name: local, addr: "unix:/s", mode: 0600}
`)
	for _, authenticated := range []bool{false, true} {
		args := []string{"--node-id=a", "--config=c.yaml"}
		if authenticated {
			args = append(args, "--password-file=users")
		}
		c, err := load(t, nil, args...)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range c.AllListeners {
			network, addr := l.Endpoint()
			got = append(got, fmt.Sprint(l.Name, " ", network, " ", addr, " ", l.Protocol, l.Path, " ", l.TLS != nil, " ", *l.AllowAnonymous, " ", l.ProxyFrom))
		}
		// The first requires certificates, which is enough where nothing else is asked for.
		anonymous := fmt.Sprint(!authenticated)
		want := []string{
			"mqtts tcp 0.0.0.0:8883 mqtt true " + anonymous + " [10.0.0.0/8 ::1/128]",
			"unix unix /run/s mqtt false " + anonymous + " []",
			"web tcp 127.0.0.1:0 ws/mqtt false " + anonymous + " []",
			"open tcp 0.0.0.0:1 mqtt false true []",
			"local unix /s mqtt false " + anonymous + " []",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if tls := c.AllListeners[0].TLS; tls.ClientCert != "require" || tls.MinVersion != "1.2" {
			t.Errorf("%+v", tls)
		}
		if l := c.AllListeners[2].Limits; l.MaxConnections != 5 || l.Client.PublishRate != 2 {
			t.Errorf("%+v", l)
		}
		var out bytes.Buffer
		if err := c.WriteYAML(&out); err != nil {
			t.Fatal(err)
		}
		write(t, "again.yaml", out.String())
		again, err := load(t, nil, "--config=again.yaml")
		if err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
		if !reflect.DeepEqual(again.Listeners, c.Listeners) {
			t.Errorf("%+v became %+v", c.Listeners, again.Listeners)
		}
	}
}

func TestForeignVariablesAreLeftAlone(t *testing.T) {
	env := []string{
		"SHOAL_SERVICE_HOST=10.0.0.1", "SHOAL_SERVICE_PORT=1883", "SHOAL_SERVICE_PORT_MQTT=1883", "SHOAL_PORT=tcp://10.0.0.1:1883",
		"SHOAL_PORT_1883_TCP=tcp://10.0.0.1:1883", "SHOAL_PORT_1883_TCP_ADDR=10.0.0.1", "SHOAL_CHAOS=long",
	}
	if _, err := load(t, env, "--node-id=a"); err != nil {
		t.Error(err)
	}
}

func TestEnvName(t *testing.T) {
	for key, want := range map[string]string{"node-id": "SHOAL_NODE_ID", "limits.max-packet": "SHOAL_LIMITS__MAX_PACKET"} {
		if got := EnvName(key); got != want {
			t.Errorf("EnvName(%q) is %q, want %q", key, got, want)
		}
	}
}
