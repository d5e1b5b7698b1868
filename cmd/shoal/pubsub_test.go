package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/spf13/cobra"
)

// These tests run pub and sub against somebody else's broker, so that a
// mistake of ours on both sides cannot cancel itself out.

// host lets everybody in and tells of each subscription.
type host struct {
	mochi.HookBase
	subscribed chan struct{}
}

func (*host) Provides(b byte) bool {
	return b == mochi.OnConnectAuthenticate || b == mochi.OnACLCheck || b == mochi.OnSubscribed
}
func (*host) OnConnectAuthenticate(*mochi.Client, packets.Packet) bool { return true }
func (*host) OnACLCheck(*mochi.Client, string, bool) bool              { return true }
func (h *host) OnSubscribed(*mochi.Client, packets.Packet, []byte)     { h.subscribed <- struct{}{} }

func startBroker(t *testing.T) (port string, subscribed <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{subscribed: make(chan struct{}, 10)}
	s := mochi.New(&mochi.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := errors.Join(s.AddHook(h, nil), s.AddListener(listeners.NewNet("test", l)), s.Serve()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port, h.subscribed
}

// buffer is a bytes.Buffer for a writer and a reader.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// shoal runs one command line to its end.
func shoal(ctx context.Context, in io.Reader, args ...string) (string, error) {
	var out buffer
	root := rootCommand()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(&out)
	err := root.ExecuteContext(ctx)
	return out.String(), err
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

type outcome struct {
	out string
	err error
}

// background runs one command line beside the test.
func background(ctx context.Context, args ...string) <-chan outcome {
	result := make(chan outcome, 1)
	go func() {
		out, err := shoal(ctx, nil, args...)
		result <- outcome{out, err}
	}()
	return result
}

func hasCode(err error, code int) bool {
	e := (*exitError)(nil)
	return errors.As(err, &e) && e.code == code
}

func TestPubAndSubAcrossVersions(t *testing.T) {
	for _, version := range []string{"5", "311", "mqttv31"} {
		for _, qos := range []string{"0", "1", "2"} {
			t.Run("V"+version+" QoS "+qos, func(t *testing.T) {
				t.Parallel()
				ctx := testContext(t)
				port, subscribed := startBroker(t)
				sub := background(ctx, "sub", "-p", port, "-V", version, "-q", qos, "-t", "a/+", "-t", "b", "-v", "-C", "4")
				<-subscribed
				for _, pub := range [][]string{{"-m", "one"}, {"-n"}, {"-l"}} {
					pub = append([]string{"pub", "-p", port, "-V", version, "-q", qos, "-t", "a/b"}, pub...)
					if _, err := shoal(ctx, strings.NewReader("two\nthree\n"), pub...); err != nil {
						t.Fatalf("%q: %v", pub, err)
					}
				}
				want := []string{"a/b one\n", "a/b \n", "a/b two\n", "a/b three\n"}
				got := <-sub
				lines := slices.Collect(strings.Lines(got.out))
				if qos == "0" { // not acknowledged, so each pub may overtake the one before
					slices.Sort(lines)
					slices.Sort(want)
				}
				if got.err != nil || !slices.Equal(lines, want) {
					t.Errorf("got %q, %v, want %q", lines, got.err, want)
				}
			})
		}
	}
}

// TestRetainedFlags: what -r keeps comes to a new subscriber, and what the flags
// of sub leave of it.
func TestRetainedFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "message")
	if err := os.WriteFile(file, []byte("from a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"5", "311"} {
		ctx := testContext(t)
		port, subscribed := startBroker(t)
		run := func(in string, words ...string) (string, error) {
			t.Helper()
			// At QoS 2 a message's live copies have left when pub ends.
			return shoal(ctx, strings.NewReader(in), append(words, "-p", port, "-V", version, "-q", "2")...)
		}
		for _, args := range [][]string{{"a", "-f", file}, {"b", "-s"}, {"c", "-m", "x"}, {"c", "-n"}} {
			if _, err := run("two\nlines", append([]string{"pub", "-r", "-t"}, args...)...); err != nil {
				t.Fatal(err)
			}
		}
		want := "a from a file\nb two\nlines\n"
		out, err := run("", "sub", "-t", "+", "-v", "-C", "2")
		<-subscribed
		if out != want && out != "b two\nlines\na from a file\n" || err != nil {
			t.Errorf("V%s: got %q, %v", version, out, err)
		}
		if out, err = run("", "sub", "-t", "+", "-E"); out != "" || err != nil {
			t.Errorf("V%s: -E: got %q, %v", version, out, err)
		}
		<-subscribed
		for flag, want := range map[string]string{"-R": "live\nlive\n", "--retained-only": "retained\n"} {
			if _, err := run("", "pub", "-r", "-t", "b", "-n"); err != nil {
				t.Fatal(err)
			}
			if _, err := run("", "pub", "-r", "-t", "a", "-m", "retained"); err != nil {
				t.Fatal(err)
			}
			sub := background(ctx, "sub", "-p", port, "-V", version, "-q", "1", "-t", "+", flag, "-C", "2")
			<-subscribed
			if _, err := run("", "pub", "-t", "d", "-m", "live", "--repeat", "3"); err != nil {
				t.Fatal(err)
			}
			if got := <-sub; got.out != want || got.err != nil {
				t.Errorf("V%s: %s: got %q, %v", version, flag, got.out, got.err)
			}
		}
	}
	ctx := testContext(t)
	port, subscribed := startBroker(t)
	// At QoS 2 its live copies have left when pub ends.
	if _, err := shoal(ctx, nil, "pub", "-p", port, "-q", "2", "-r", "-t", "a", "-m", "x"); err != nil {
		t.Fatal(err)
	}
	sub := background(ctx, "sub", "-p", port, "-t", "+", "--retain-handling", "never", "--retain-as-published", "-o", "json", "-C", "1")
	<-subscribed
	if _, err := shoal(ctx, nil, "pub", "-p", port, "-r", "-t", "b", "-m", "y"); err != nil {
		t.Fatal(err)
	}
	if got := <-sub; !strings.Contains(got.out, `"topic":"b","qos":0,"retain":true`) {
		t.Errorf("got %s, %v", got.out, got.err)
	}
}

// TestClearingFlags: --remove-retained leaves nothing, -T leaves out, -U ends what
// a session was subscribed to.
func TestClearingFlags(t *testing.T) {
	for _, version := range []string{"5", "311"} {
		ctx := testContext(t)
		port, subscribed := startBroker(t)
		run := func(words ...string) string {
			t.Helper()
			out, err := shoal(ctx, nil, append([]string{words[0], "-p", port, "-V", version, "-q", "1"}, words[1:]...)...)
			if err != nil {
				t.Fatalf("%q: %v", words, err)
			}
			if words[0] == "sub" {
				<-subscribed
			}
			return out
		}
		for _, topic := range []string{"a", "b", "c"} {
			run("pub", "-r", "-t", topic, "-m", topic, "-q", "2")
		}
		if got := run("sub", "-t", "+", "-T", "a", "-T", "c/#", "-C", "1"); got != "b\n" {
			t.Errorf("V%s: -T: got %q", version, got)
		}
		if got := run("sub", "-t", "+", "--remove-retained", "-C", "3"); strings.Count(got, "\n") != 3 {
			t.Errorf("V%s: --remove-retained: got %q", version, got)
		}
		run("sub", "-t", "x", "-c", "-i", "me", "-E")
		sub := background(ctx, "sub", "-p", port, "-V", version, "-q", "1", "-t", "y", "-c", "-i", "me", "-U", "x", "-C", "1")
		<-subscribed
		run("pub", "-t", "x", "-m", "x")
		run("pub", "-t", "y", "-m", "y")
		if got := <-sub; got.out != "y\n" || got.err != nil {
			t.Errorf("V%s: -U: got %q, %v", version, got.out, got.err)
		}
	}
}

// TestWillFlags: the Will of a client that is cut off.
func TestWillFlags(t *testing.T) {
	for _, version := range []string{"5", "311"} {
		ctx := testContext(t)
		port, subscribed := startBroker(t)
		watcher := background(ctx, "sub", "-p", port, "-t", "w", "-C", "1")
		<-subscribed
		f := subFlags{}
		cmd := &cobra.Command{}
		f.add(cmd)
		if err := cmd.ParseFlags([]string{"-p", port, "-V", version, "-t", "t", "--will-topic", "w", "--will-payload", "gone", "--will-qos", "1"}); err != nil {
			t.Fatal(err)
		}
		if err := f.check(); err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			t.Fatal(err)
		}
		dial := dialV5
		if version == "311" {
			dial = dialV3
		}
		if _, err := dial(ctx, &f.clientFlags, c, receiver{}); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if got := <-watcher; got.out != "gone\n" || got.err != nil {
			t.Errorf("V%s: got %q, %v", version, got.out, got.err)
		}
	}
}

func TestSubPrintsJSON(t *testing.T) {
	ctx := testContext(t)
	port, subscribed := startBroker(t)
	sub := background(ctx, "sub", "-p", port, "-q", "1", "-t", "t", "-C", "2", "-o", "json")
	<-subscribed
	for _, m := range []string{"<text>", "\xff\xfe"} {
		if _, err := shoal(ctx, nil, "pub", "-p", port, "-q", "1", "-t", "t", "-m", m); err != nil {
			t.Fatal(err)
		}
	}
	want := `{"topic":"t","qos":1,"retain":false,"dup":false,"payload":"<text>"}
{"topic":"t","qos":1,"retain":false,"dup":false,"payload_base64":"//4="}
`
	if got := <-sub; got.err != nil || got.out != want {
		t.Errorf("got %s, %v, want %s", got.out, got.err, want)
	}
}

func TestSubEndsWhenItCannotPrint(t *testing.T) {
	for _, version := range []string{"5", "311"} {
		ctx := testContext(t)
		port, subscribed := startBroker(t)
		root := rootCommand()
		root.SetArgs([]string{"sub", "-p", port, "-V", version, "-t", "t"})
		r, w := io.Pipe()
		r.Close()
		root.SetOut(w)
		result := make(chan error, 1)
		go func() { result <- root.ExecuteContext(ctx) }()
		<-subscribed
		if _, err := shoal(ctx, nil, "pub", "-p", port, "-t", "t", "-m", "x"); err != nil {
			t.Fatal(err)
		}
		if err := <-result; err == nil || err.Error() != "print message: io: read/write on closed pipe" {
			t.Errorf("V%s: %v", version, err)
		}
	}
}

func TestHowSubEnds(t *testing.T) {
	port, subscribed := startBroker(t)
	ctx, cancel := context.WithCancel(testContext(t))
	interrupted := background(ctx, "sub", "-p", port, "-t", "t")
	<-subscribed
	cancel()
	if got := <-interrupted; got.err != nil {
		t.Errorf("interrupted: %v", got.err)
	}
	if _, err := shoal(testContext(t), nil, "sub", "-p", port, "-t", "t", "-W", "1"); !hasCode(err, exitTimeout) {
		t.Errorf("out of time: %v", err)
	}
}

func TestPubAndSubUsage(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"pub -m x", "-t is missing: which topic?"},
		{"pub -t t", "want one of -m message, -n (empty message), -f file, -s (all of standard input) and -l (its lines)"},
		{"pub -t t -m x -l", "want one of -m message, -n (empty message), -f file, -s (all of standard input) and -l (its lines)"},
		{"pub -t a/# -m x", `-t "a/#": a message cannot be published to a wildcard`},
		{"pub -t a -t b -m x", "-t may be given once"},
		{"pub -t t -m x -q 3", "-q 3: want 0, 1 or 2"},
		{"pub -t t -m x -V 4", `-V "4": want 5, 311 or 31`},
		{"pub -t t -m x -p 70000", `invalid argument "70000" for "-p, --port" flag: strconv.ParseUint: parsing "70000": value out of range (see shoal pub --help)`},
		{"sub -t t -c", "-c wants -i: a session is resumed by its Client Identifier"},
		{"sub -t t -x 5 -V 311", "-x is known to MQTT 5 only"},
		{"sub -t t -x -2", "-x -2: want seconds from 0 to 4294967295"},
		{"sub -t t -P secret -V 311", "-P wants -u: before MQTT 5 there is no password without a user name"},
		{"sub -t t --retain-handling 1", `--retain-handling "1": want one of always, new, never`},
		{"sub -t t --no-local -V 311", "--retain-handling, --retain-as-published and --no-local are known to MQTT 5 only"},
		{"sub -t t -R --retained-only", "-R and --retained-only leave nothing"},
		{"sub -t t --will-payload x", "a Will wants --will-topic"},
		{"pub -t t -m x --will-topic a/+", `--will-topic "a/+": a message cannot be published to a wildcard`},
		{"pub -t t -l --repeat 2", "--repeat does not go with -l"},
		{"pub -t t -m x --message-expiry 2 -V 311", "--message-expiry is known to MQTT 5 only"},
		{"sub -t t -o yaml", `invalid argument "yaml" for "-o, --output" flag: want text or json (see shoal sub --help)`},
		{"sub -t t stray", `unknown command "stray" for "shoal sub"`},
	} {
		_, err := shoal(t.Context(), nil, strings.Fields(tc.args)...)
		if !hasCode(err, exitUsage) || err.Error() != tc.want {
			t.Errorf("shoal %s: %v\nwant %s", tc.args, err, tc.want)
		}
	}
}

// refuser answers CONNECT with a fixed CONNACK.
func refuser(t *testing.T, connack []byte) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 1024))
			c.Write(connack)
			c.Close()
		}
	}()
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestRefusedConnections(t *testing.T) {
	ctx := testContext(t)
	v5, v3 := refuser(t, []byte{0x20, 3, 0, 0x88, 0}), refuser(t, []byte{0x20, 2, 0, 3})
	for _, tc := range []struct{ port, version, want string }{
		{v5, "5", "connect: refused with 0x88: "},
		{v3, "311", "connect: server Unavailable"},
		{"1", "5", "connect: dial tcp 127.0.0.1:1: "},
	} {
		_, err := shoal(ctx, nil, "pub", "-p", tc.port, "-V", tc.version, "-t", "t", "-m", "x")
		if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%+v: %v", tc, err)
		}
	}
}
