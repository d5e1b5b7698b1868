package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/shoalmq/shoal/broker"
)

// backend is an HTTP server that behaves as it is told.
type backend struct {
	*httptest.Server
	asked  atomic.Int64
	mu     sync.Mutex
	handle http.HandlerFunc
}

func newBackend(t testing.TB) *backend {
	b := &backend{}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.asked.Add(1)
		b.mu.Lock()
		handle := b.handle
		b.mu.Unlock()
		handle(w, r)
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *backend) behave(h http.HandlerFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.handle = h
}

func say(status int, kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// misbehaviours are what back ends do when they are ill. None of it may let
// anybody in.
var misbehaviours = map[string]http.HandlerFunc{
	"500": say(500, "application/json", `{"result":"allow"}`),
	"404": say(404, "text/html", "<html>not found"),
	"201": say(201, "application/json", `{"result":"allow"}`),
	"204": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) },
	"redirect": func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	},
	"empty":          say(200, "application/json", ""),
	"HTML":           say(200, "text/html", `{"result":"allow"}`),
	"no JSON":        say(200, "application/json", "allow"),
	"cut":            say(200, "application/json", `{"result":"allow"`),
	"two values":     say(200, "application/json", `{"result":"allow"}{"result":"deny"}`),
	"unknown result": say(200, "application/json", `{"result":"yes"}`),
	"no result":      say(200, "application/json", `{}`),
	"null":           say(200, "application/json", `null`),
	"unknown keys":   say(200, "application/json", `{"result":"allow","only_topics":["a"]}`),
	"bad acl":        say(200, "application/json", `{"result":"allow","acl":"all"}`),
	"expired":        say(200, "application/json", `{"result":"allow","expire_at":1}`),
	"bad names":      say(200, "application/json", `{"result":"allow","username":"a\u0000b"}`),
	"endless": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"result":"allow"`+strings.Repeat(" ", 2<<20)+"}")
	},
	"connection cut": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	"length too long": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"result":"allow"}`)
	},
}

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func newTestCallback(t *testing.T, c CallbackConfig) *Callback {
	t.Helper()
	b, err := NewCallback(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// TestCallback: what is sent, and what an answer can say.
func TestCallback(t *testing.T) {
	server := newBackend(t)
	var got map[string]any
	var header http.Header
	server.behave(func(w http.ResponseWriter, r *http.Request) {
		got, header = nil, r.Header
		json.NewDecoder(r.Body).Decode(&got)
		say(200, "application/json; charset=utf-8", `{"result":"allow","username":"alias","groups":["g"],"expire_at":1800000100,"acl":{"pub":["x/%c"]}}`)(w, r)
	})
	b := newTestCallback(t, CallbackConfig{
		URL: server.URL, Now: (&clock{at: today}).now,
		Client: HTTPConfig{HeadersFile: writeFile(t, "headers", "Authorization: Bearer abc\nX-Site: north\n")},
	})
	c := bring("secret")
	c.Peer, c.Version = &broker.Peer{Listener: "mqtt", CommonName: "cn"}, 5
	who, err := b.Authenticate(context.Background(), c)
	if err != nil || who.Username != "alias" || who.Groups[0] != "g" || !who.Expires.Equal(today.Add(100*time.Second)) || who.Grants[0].Filter != "x/c" {
		t.Errorf("%+v, %v", who, err)
	}
	want := map[string]any{"clientid": "c", "username": "u", "password": "secret", "listener": "mqtt", "protocol": 5.0, "cert_common_name": "cn"}
	if fmt.Sprint(got) != fmt.Sprint(want) || header.Get("Authorization") != "Bearer abc" || header.Get("X-Site") != "north" {
		t.Errorf("sent %v with %v", got, header)
	}
	// Without the key rules know; with an empty one there are no rights, not all.
	for answer, restricted := range map[string]bool{`{"result":"allow"}`: false, `{"result":"allow","acl":null}`: true, `{"result":"allow","acl":[]}`: true} {
		server.behave(say(200, "application/json", answer))
		if who, err := b.Authenticate(context.Background(), c); err != nil || (who.Grants != nil) != restricted || len(who.Grants) > 0 {
			t.Errorf("%s: %+v, %v", answer, who, err)
		}
	}
	for answer, want := range map[string]error{
		`{"result":"deny"}`:   broker.ErrBadCredentials,
		`{"result":"ignore"}`: ErrNotMine,
	} {
		server.behave(say(200, "application/json", answer))
		if who, err := b.Authenticate(context.Background(), c); !errors.Is(err, want) {
			t.Errorf("%s: %+v, %v", answer, who, err)
		}
	}
}

// TestCallbackIll: an ill back end refuses, with an error that is neither a
// denial nor a pass to the next; and is left alone after a while.
func TestCallbackIll(t *testing.T) {
	server := newBackend(t)
	for name, behaviour := range misbehaviours {
		server.behave(behaviour)
		b := newTestCallback(t, CallbackConfig{URL: server.URL, CacheAllowed: time.Hour})
		for range 2 { // the second time there could be something in the cache
			who, err := b.Authenticate(context.Background(), bring("x"))
			if who != nil || err == nil || errors.Is(err, ErrNotMine) || errors.Is(err, broker.ErrBadCredentials) {
				t.Errorf("%s: %+v, %v", name, who, err)
			}
		}
	}
	down := httptest.NewServer(nil)
	down.Close()
	now := &clock{at: today}
	b := newTestCallback(t, CallbackConfig{URL: down.URL, Now: now.now})
	ask := func() string { _, err := b.Authenticate(context.Background(), bring("x")); return fmt.Sprint(err) }
	for range breakAfter {
		if err := ask(); !strings.Contains(err, "refused") {
			t.Errorf("back end down: %s", err)
		}
	}
	if err := ask(); !strings.Contains(err, "left alone") {
		t.Errorf("after %d failures: %s", breakAfter, err)
	}
	now.advance(breakFor)
	if err := ask(); !strings.Contains(err, "refused") {
		t.Errorf("no probe: %s", err)
	}
	if err := ask(); !strings.Contains(err, "left alone") {
		t.Errorf("after the probe: %s", err)
	}
}

// TestCallbackSlow: the time-out, and that of the client, refuse; a client that
// gives up does not count against the back end.
func TestCallbackSlow(t *testing.T) {
	server := newBackend(t)
	release := make(chan struct{})
	server.behave(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	b := newTestCallback(t, CallbackConfig{URL: server.URL, Timeout: 50 * time.Millisecond})
	if who, err := b.Authenticate(context.Background(), bring("x")); who != nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v, %v", who, err)
	}
	b = newTestCallback(t, CallbackConfig{URL: server.URL})
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if who, err := b.Authenticate(ctx, bring("x")); who != nil || err == nil || b.breaker.failed != 0 {
		t.Errorf("%+v, %v, %d failures", who, err, b.breaker.failed)
	}
}

// TestCallbackCache: an answer holds as long as it may, for exactly what was
// asked.
func TestCallbackCache(t *testing.T) {
	server := newBackend(t)
	now := &clock{at: today}
	b := newTestCallback(t, CallbackConfig{URL: server.URL, Now: now.now, CacheAllowed: time.Minute, CacheDenied: time.Second})
	ask := func(password string, allowed bool, requests int64) {
		t.Helper()
		before := server.asked.Load()
		_, err := b.Authenticate(context.Background(), bring(password))
		if (err == nil) != allowed || server.asked.Load()-before != requests {
			t.Errorf("%s: %v after %d requests", password, err, server.asked.Load()-before)
		}
	}
	server.behave(say(200, "application/json", `{"result":"allow","expire_at":1800000030}`))
	ask("a", true, 1)
	ask("a", true, 0)
	ask("b", true, 1)
	server.behave(say(200, "application/json", `{"result":"deny"}`))
	ask("c", false, 1)
	ask("c", false, 0)
	ask("a", true, 0)
	now.advance(time.Second)
	ask("c", false, 1)
	now.advance(30 * time.Second) // what was allowed has expired
	ask("a", false, 1)
}

func keySet(t testing.TB, keys ...jose.JSONWebKey) string {
	data, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestRemoteKeys: an issuer that is up, rotates, is ill and comes back.
func TestRemoteKeys(t *testing.T) {
	issuer := newBackend(t)
	now := &clock{at: today}
	rsaKey, ecKey := issuerKeys()[jose.RS256], issuerKeys()[jose.ES256]
	one := jose.JSONWebKey{Key: rsaKey.Public(), KeyID: "1", Use: "sig", Algorithm: "RS256"}
	two := jose.JSONWebKey{Key: ecKey.Public(), KeyID: "2"}
	claims := map[string]any{"sub": "d", "exp": in(1000 * time.Hour)}
	first := sign(t, jose.RS256, rsaKey, claims, map[string]any{"kid": "1"})
	second := sign(t, jose.ES256, ecKey, claims, map[string]any{"kid": "2"})
	j := newTestJWT(t, func(c *JWTConfig) {
		c.Algorithms, c.Now = []string{"RS256", "ES256", "HS256"}, now.now
		c.Keys = KeysConfig{JWKSURL: issuer.URL}
	})
	settle := func() { // a fetch in the background
		if flight := func() chan struct{} {
			j.keys.remote.mu.Lock()
			defer j.keys.remote.mu.Unlock()
			return j.keys.remote.flight
		}(); flight != nil {
			<-flight
		}
	}
	ask := func(what, token string, want error, requests int64) {
		t.Helper()
		before := issuer.asked.Load()
		who, err := j.Authenticate(context.Background(), bring(token))
		settle()
		switch {
		case want == errAny && err != nil && !errors.Is(err, ErrNotMine) && !errors.Is(err, broker.ErrBadCredentials):
		case want == nil && err != nil, want != nil && !errors.Is(err, want):
			t.Errorf("%s: %+v, %v", what, who, err)
		case err != nil && who != nil:
			t.Errorf("%s: both %+v and %v", what, who, err)
		}
		// net/http asks again when a connection that it kept is cut.
		if got := issuer.asked.Load() - before; got < requests || got > 2*requests {
			t.Errorf("%s: %d requests", what, got)
		}
	}
	for name, ill := range misbehaviours {
		issuer.behave(ill)
		ask("never had keys, "+name, first, errAny, 1)
		ask("never had keys, at once, "+name, first, errAny, 0)
		now.advance(refetchEvery)
	}
	good := say(200, "application/json", keySet(t, one))
	issuer.behave(good)
	ask("up", first, nil, 1)
	ask("up", first, nil, 0)
	now.advance(refetchEvery)
	ask("unknown key", second, broker.ErrBadCredentials, 1)
	ask("unknown key at once", second, broker.ErrBadCredentials, 0)
	issuer.behave(say(200, "application/json", keySet(t, one, two)))
	now.advance(refetchEvery)
	ask("rotated in", second, nil, 1)
	issuer.behave(say(200, "application/json", keySet(t, two)))
	now.advance(6 * time.Minute)
	ask("rotated out, not seen yet", first, nil, 1)
	ask("rotated out", first, broker.ErrBadCredentials, 0)
	issuer.behave(misbehaviours["500"])
	now.advance(6 * time.Minute)
	ask("down", second, nil, 1)
	now.advance(23 * time.Hour)
	ask("down for a day less an hour", second, nil, 1)
	now.advance(2 * time.Hour)
	ask("down for a day", second, errAny, 1)
	ask("down for a day", second, errAny, 0)
	issuer.behave(say(200, "application/json", keySet(t, two)))
	now.advance(refetchEvery)
	ask("back", second, nil, 1)
	// Secrets from a URL are no keys, and a key is used for its algorithm alone.
	issuer.behave(say(200, "application/json", keySet(t, two, jose.JSONWebKey{Key: []byte(strings.Repeat("s", 32)), KeyID: "3"})))
	now.advance(refetchEvery)
	ask("secret from a URL", sign(t, jose.HS256, []byte(strings.Repeat("s", 32)), claims, map[string]any{"kid": "3"}), broker.ErrBadCredentials, 1)
}

// errAny is any error that is neither a denial nor a pass to the next.
var errAny = anyError{}

type anyError struct{}

func (anyError) Error() string { return "any error" }

// TestTokenDevice is the OAuth 2 case: a device gets a token from an issuer that
// has a discovery document, and brings it.
func TestTokenDevice(t *testing.T) {
	mux := http.NewServeMux()
	issuer := httptest.NewServer(mux)
	t.Cleanup(issuer.Close)
	key := issuerKeys()[jose.ES256]
	mux.HandleFunc("/.well-known/openid-configuration", say(200, "application/json", fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q,"token_endpoint":%q}`, issuer.URL, issuer.URL+"/keys", issuer.URL+"/token")))
	mux.HandleFunc("/keys", say(200, "application/json", keySet(t, jose.JSONWebKey{Key: key.Public(), KeyID: "k", Use: "sig"})))
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("grant_type") != "client_credentials" || r.FormValue("client_secret") != "of-device-7" {
			say(401, "application/json", `{"error":"invalid_client"}`)(w, r)
			return
		}
		token := sign(t, jose.ES256, key, map[string]any{"iss": issuer.URL, "aud": "shoal", "sub": "device-7", "exp": time.Now().Add(time.Hour).Unix(), "scope": "mqtt"}, map[string]any{"kid": "k"})
		say(200, "application/json", fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer","expires_in":3600}`, token))(w, r)
	})
	fetch := func(r *http.Response, err error) (body map[string]any) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Fatal(err)
		}
		return body
	}
	discovered := fetch(http.Get(issuer.URL + "/.well-known/openid-configuration"))
	answer := fetch(http.PostForm(discovered["token_endpoint"].(string), map[string][]string{"grant_type": {"client_credentials"}, "client_secret": {"of-device-7"}}))
	j := newTestJWT(t, func(c *JWTConfig) {
		c.Now, c.Log = time.Now, slog.New(slog.DiscardHandler)
		c.Algorithms, c.Issuer, c.Audience = []string{"ES256"}, issuer.URL, "shoal"
		c.Keys = KeysConfig{JWKSURL: discovered["jwks_uri"].(string)}
		c.Required = map[string]string{"scope": "mqtt"}
	})
	who, err := j.Authenticate(context.Background(), bring(answer["access_token"].(string)))
	if err != nil || who.Username != "device-7" {
		t.Errorf("%+v, %v", who, err)
	}
}

// FuzzCallbackAnswer: whatever comes is an answer with a result, or an error.
func FuzzCallbackAnswer(f *testing.F) {
	b, err := NewCallback(CallbackConfig{URL: "http://127.0.0.1:1"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"result":"allow","username":"alias","groups":["g"],"expire_at":1800000100,"acl":{"pub":["x/%c"]}}`))
	f.Add([]byte(`{"result":"allow","acl":[{"permission":"deny","action":"all","topics":["a/+","b/#"]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := parseAnswer(data)
		if err != nil {
			return
		}
		who, err := b.identity(a, bring(""))
		if (who == nil) == (err == nil) {
			t.Fatalf("%+v, %v", who, err)
		}
		if who != nil && a.ACL != nil && who.Grants == nil {
			t.Fatal("rights were given and got lost")
		}
	})
}
