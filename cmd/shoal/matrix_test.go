package main

import (
	"context"
	"crypto/pbkdf2"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/xdg-go/scram"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/brokertest"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/broker/watch"
)

// The matrix: every way to prove who one is, with every way in which that can
// fail, and every form of rules. What is asked for goes through the configuration
// and the guards of the program.

// matrixNode is a broker behind guards, as a configuration has them.
type matrixNode struct {
	t       *testing.T
	dir     string
	addr    string
	watcher *watch.Watcher
	name    atomic.Value // in the certificate of who connects, as a proxy tells it
}

func startMatrix(t *testing.T, dir, file string) *matrixNode {
	t.Helper()
	m := &matrixNode{t: t, dir: dir, watcher: watch.New(slog.New(slog.DiscardHandler))}
	m.name.Store("")
	m.write("shoal.yaml", file)
	c := loadConfig(t, "--config="+filepath.Join(dir, "shoal.yaml"))
	config := broker.Config{Log: slog.New(slog.DiscardHandler), NodeID: "a", AllowAnonymous: c.AllowAnonymous}
	g, err := openGuards(c, config.Log, m.watcher, &config)
	if err != nil {
		t.Fatal(err)
	}
	b := broker.New(config)
	b.Attach(brokertest.New(b))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- b.Serve(context.Background(), &broker.Listener{Listener: &certified{l, &m.name}}) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), mqtttest.Timeout)
		defer cancel()
		if err := b.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		g.close()
	})
	return m
}

// certified is a listener behind a proxy that verifies certificates.
type certified struct {
	net.Listener
	name *atomic.Value
}

type certifiedConn struct {
	net.Conn
	name string
}

func (l *certified) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &certifiedConn{c, l.name.Load().(string)}, nil
}

func (c *certifiedConn) Open() (*broker.Peer, error) {
	return &broker.Peer{Remote: c.RemoteAddr(), CommonName: c.name}, nil
}

func (m *matrixNode) write(name, content string) {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		m.t.Fatal(err)
	}
	m.watcher.Look()
}

// proof is what a client brings.
type proof struct {
	user, password string
	certificate    string
	scram          bool
}

// connect brings a proof. c is nil if it was refused.
func (m *matrixNode) connect(p proof) (c *mqtttest.Client, code packet.Code) {
	m.t.Helper()
	m.name.Store(p.certificate)
	c = mqtttest.DialTest(m.t, m.addr, packet.V5)
	connect := packet.Connect{ClientID: "c-" + p.user + p.certificate, CleanStart: true}
	if p.scram {
		code = m.scram(c, connect, p)
	} else {
		if p.user != "" {
			connect.HasUsername, connect.Username = true, p.user
		}
		if p.password != "" {
			connect.HasPassword, connect.Password = true, []byte(p.password)
		}
		c.Write(&connect)
		code = mqtttest.Expect[*packet.Connack](c).Code
	}
	if code.Failed() {
		c.ExpectClosed()
		return nil, code
	}
	return c, code
}

func (m *matrixNode) scram(c *mqtttest.Client, connect packet.Connect, p proof) packet.Code {
	m.t.Helper()
	client, err := scram.SHA256.NewClient(p.user, p.password, "")
	if err != nil {
		m.t.Fatal(err)
	}
	conversation := client.NewConversation()
	first, err := conversation.Step("")
	if err != nil {
		m.t.Fatal(err)
	}
	connect.HasAuthMethod, connect.AuthMethod, connect.AuthData = true, "SCRAM-SHA-256", []byte(first)
	c.Write(&connect)
	got := c.Next()
	if ack, ok := got.(*packet.Connack); ok {
		return ack.Code
	}
	final, err := conversation.Step(string(got.(*packet.Auth).AuthData))
	if err != nil {
		m.t.Fatal(err)
	}
	c.Write(&packet.Auth{Code: packet.CodeContinueAuthentication, AuthMethod: "SCRAM-SHA-256", AuthData: []byte(final)})
	return mqtttest.Expect[*packet.Connack](c).Code
}

// way is one way to prove who one is.
type way struct {
	name string
	// part is for the section authentication; %s is the directory.
	part string
	// setup makes what it needs.
	setup func(m *testing.T, dir string)
	right func(t *testing.T) proof // ann's
	// refused are proofs that are none, by what is wrong.
	refused map[string]func(t *testing.T) proof
	codes   map[string]packet.Code // 0x86 where none stands
	// change has ann prove herself in another way from now on; nil if only the
	// client can.
	change  func(m *matrixNode)
	changed func(t *testing.T) proof
}

const matrixSecret, otherSecret = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"

func matrixToken(t *testing.T, secret, user string, left time.Duration) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(secret)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	claims, err := json.Marshal(map[string]any{"sub": user, "exp": time.Now().Add(left).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// matrixHash makes hashes that take little time.
func matrixHash(t *testing.T, kind, password string) string {
	t.Helper()
	b, salt := base64.StdEncoding, []byte("salt and pepper ")
	if kind == "pbkdf2" {
		const iterations = 101 // Mosquitto's
		sum, err := pbkdf2.Key(sha512.New, password, salt, iterations, sha512.Size)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("$7$%d$%s$%s", iterations, b.EncodeToString(salt), b.EncodeToString(sum))
	}
	client, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt), Iters: 4096})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("$scram-sha-256$%d$%s$%s$%s", keys.Iters, b.EncodeToString(salt), b.EncodeToString(keys.StoredKey), b.EncodeToString(keys.ServerKey))
}

// matrixBackend knows ann, and falls ill when it is told to.
func matrixBackend(t *testing.T) (url string, password *atomic.Value) {
	password = new(atomic.Value)
	password.Store("pencil")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Username, Password string }
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		result := "deny"
		switch {
		case q.Username == "ill":
			w.WriteHeader(http.StatusInternalServerError)
			result = "allow"
		case q.Username == "mad":
			result = "perhaps"
		case q.Username == "ann" && q.Password == password.Load():
			result = "allow"
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"result":%q}`, result)
	}))
	t.Cleanup(s.Close)
	return s.URL, password
}

func bring(p proof) func(*testing.T) proof { return func(*testing.T) proof { return p } }

func token(secret, user string, left time.Duration) func(*testing.T) proof {
	return func(t *testing.T) proof {
		return proof{user: user, password: matrixToken(t, secret, user, left)}
	}
}

func ways(t *testing.T) []way {
	url, password := matrixBackend(t)
	down := httptest.NewServer(nil)
	down.Close()
	passwords := func(kind, password string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			line := "ann:" + matrixHash(t, kind, password) + "\n"
			if err := os.WriteFile(filepath.Join(dir, "passwords"), []byte(line), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	rewrite := func(kind string) func(*matrixNode) {
		return func(m *matrixNode) { m.write("passwords", "ann:"+matrixHash(m.t, kind, "brush")+"\n") }
	}
	secret := func(t *testing.T, dir string) {
		if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(matrixSecret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	nobody := map[string]func(*testing.T) proof{
		"wrong":         bring(proof{user: "ann", password: "pen"}),
		"unknown":       bring(proof{user: "bob", password: "pencil"}),
		"no password":   bring(proof{user: "ann"}),
		"nothing":       bring(proof{}),
		"unknown SCRAM": bring(proof{user: "ann", password: "pencil", scram: true}),
	}
	codes := map[string]packet.Code{"nothing": packet.CodeNotAuthorized, "unknown SCRAM": packet.CodeBadAuthenticationMethod}
	return []way{
		{
			name: "password file", part: "password-file: %s/passwords", setup: passwords("pbkdf2", "pencil"),
			right: bring(proof{user: "ann", password: "pencil"}), refused: nobody, codes: codes,
			change: rewrite("pbkdf2"), changed: bring(proof{user: "ann", password: "brush"}),
		},
		{
			name: "SCRAM", part: "scram: {file: %s/passwords}", setup: passwords("scram-sha-256", "pencil"),
			right: bring(proof{user: "ann", password: "pencil", scram: true}),
			refused: map[string]func(*testing.T) proof{
				"wrong":    bring(proof{user: "ann", password: "pen", scram: true}),
				"unknown":  bring(proof{user: "bob", password: "pencil", scram: true}),
				"as it is": bring(proof{user: "ann", password: "pencil"}), // there is no other part
				"nothing":  bring(proof{}),
			},
			codes:  codes,
			change: rewrite("scram-sha-256"), changed: bring(proof{user: "ann", password: "brush", scram: true}),
		},
		{
			name: "token", part: "jwt: {algorithms: [HS256], secret-file: %s/secret}", setup: secret,
			right: token(matrixSecret, "ann", time.Hour),
			refused: map[string]func(*testing.T) proof{
				"another's":  token(otherSecret, "ann", time.Hour),
				"expired":    token(matrixSecret, "ann", -time.Hour),
				"a password": bring(proof{user: "ann", password: "pencil"}),
				"nothing":    bring(proof{}),
			},
			codes:  codes,
			change: func(m *matrixNode) { m.write("secret", otherSecret) }, changed: token(otherSecret, "ann", time.Hour),
		},
		{
			name: "keys that cannot be had", part: "jwt: {algorithms: [RS256], jwks-url: " + down.URL + "}",
			refused: map[string]func(*testing.T) proof{"down": token(matrixSecret, "ann", time.Hour)},
		},
		{
			name: "HTTP", part: "http: {url: " + url + "}", setup: func(*testing.T, string) { password.Store("pencil") },
			right: bring(proof{user: "ann", password: "pencil"}),
			refused: map[string]func(*testing.T) proof{
				"wrong":   bring(proof{user: "ann", password: "pen"}),
				"unknown": bring(proof{user: "bob", password: "pencil"}),
				"down":    bring(proof{user: "ill", password: "pencil"}),
				"mad":     bring(proof{user: "mad", password: "pencil"}),
			},
			codes:   map[string]packet.Code{"down": packet.CodeServerUnavailable, "mad": packet.CodeServerUnavailable},
			change:  func(*matrixNode) { password.Store("brush") },
			changed: bring(proof{user: "ann", password: "brush"}),
		},
		{
			// A back end that fails does not leave its clients to the next part.
			name: "HTTP that is down, before a password file", part: "http: {url: " + down.URL + "}\n- password-file: %s/passwords", setup: passwords("pbkdf2", "pencil"),
			refused: map[string]func(*testing.T) proof{"down": bring(proof{user: "ann", password: "pencil"})},
			codes:   map[string]packet.Code{"down": packet.CodeServerUnavailable},
		},
		{
			name: "certificate", part: "certificate: {username: cn}",
			right: bring(proof{certificate: "ann"}),
			refused: map[string]func(*testing.T) proof{
				"none":       bring(proof{}),
				"a password": bring(proof{user: "ann", password: "pencil"}),
			},
			codes: map[string]packet.Code{"none": packet.CodeNotAuthorized},
		},
	}
}

// TestMatrix: who may come in, with what, and what they may do then.
func TestMatrix(t *testing.T) {
	forms := map[string]struct{ key, open, closed, broken string }{
		"Mosquitto's rules": {
			"acl-file", "user ann\ntopic readwrite ann/#\n", "user ann\ntopic read other\n", "user ann\ntopic everything x\n",
		},
		"YAML rules": {
			"acl-rules",
			"rules:\n- allow: [publish, subscribe]\n  users: [ann]\n  topics: [ann/#]\n",
			"rules:\n- allow: [subscribe]\n  users: [ann]\n  topics: [other]\n",
			"rules:\n- allow: [publish]\n  user: ann\n",
		},
	}
	for _, w := range ways(t) {
		for name, f := range forms {
			t.Run(w.name+"/"+name, func(t *testing.T) {
				dir := t.TempDir()
				if w.setup != nil {
					w.setup(t, dir)
				}
				rules := filepath.Join(dir, "rules")
				if err := os.WriteFile(rules, []byte(f.open), 0o600); err != nil {
					t.Fatal(err)
				}
				part := strings.ReplaceAll(w.part, "%s", dir)
				m := startMatrix(t, dir, f.key+": "+rules+"\nauthentication:\n- "+part+"\n")
				for what, brings := range w.refused {
					want := w.codes[what]
					if _, got := m.connect(brings(t)); want != 0 && got != want || !got.Failed() {
						t.Errorf("%s: CONNACK %s, want %s", what, got, want)
					}
				}
				if w.right == nil {
					return
				}
				c, code := m.connect(w.right(t))
				if code.Failed() {
					t.Fatalf("right: CONNACK %s", code)
				}
				rights(t, c, true)
				m.write("rules", f.closed)
				rights(t, c, false)
				m.write("rules", f.broken) // what was in force stays
				rights(t, c, false)
				m.write("rules", f.open)
				rights(t, c, true)
				if w.change == nil {
					return
				}
				w.change(m)
				rights(t, c, true) // who is in stays
				if _, code := m.connect(w.right(t)); !code.Failed() {
					t.Error("what was right before lets in")
				}
				c, code = m.connect(w.changed(t))
				if code.Failed() {
					t.Fatalf("after the change: CONNACK %s", code)
				}
				rights(t, c, true)
			})
		}
	}
}

// rights checks what ann may do.
func rights(t *testing.T, c *mqtttest.Client, own bool) {
	t.Helper()
	publish := func(topic string) bool {
		p := packet.Publish{Topic: []byte(topic), QoS: 1, PacketID: c.NextID()}
		c.Write(&p)
		for {
			switch got := c.Next().(type) {
			case *packet.Ack:
				if got.Code.Failed() && got.Code != packet.CodeNotAuthorized {
					t.Errorf("publish to %s: %s", topic, got.Code)
				}
				return !got.Code.Failed()
			case *packet.Publish: // what was delivered
				if !own {
					t.Errorf("got %s", mqtttest.Describe(got))
				}
			}
		}
	}
	if publish("ann/x") != own || publish("bob/x") {
		t.Error("publish: not as the rules say")
	}
	codes := c.SubscribeAll(packet.Subscription{Filter: "ann/x"}, packet.Subscription{Filter: "bob/#"})
	if (codes[0] == 0) != own || codes[1] != packet.CodeNotAuthorized {
		t.Errorf("subscribe: %v", codes)
	}
}

// TestMatrixTokenEnds: the end of the token is the end of the connection.
func TestMatrixTokenEnds(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(matrixSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	m := startMatrix(t, dir, "authentication:\n- jwt: {algorithms: [HS256], secret-file: "+dir+"/secret}\n")
	for left := 2 * time.Second; left < mqtttest.Timeout; left *= 2 { // a slow machine needs longer to connect
		if c, code := m.connect(token(matrixSecret, "ann", left)(t)); !code.Failed() {
			c.ExpectDisconnect(packet.CodeNotAuthorized)
			return
		}
	}
	t.Fatal("no token lets in")
}
