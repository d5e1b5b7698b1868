package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/shoalmq/shoal/broker"
)

// today is the time of all tokens here.
var today = time.Unix(1_800_000_000, 0)

// issuerKeys are made once: RSA keys take long.
var issuerKeys = sync.OnceValue(func() map[jose.SignatureAlgorithm]crypto.Signer {
	must := func(k crypto.Signer, err error) crypto.Signer {
		if err != nil {
			panic(err)
		}
		return k
	}
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	return map[jose.SignatureAlgorithm]crypto.Signer{
		jose.RS256: rsaKey, jose.PS256: rsaKey,
		jose.ES256: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		jose.ES384: must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		jose.EdDSA: must(ed, err),
	}
})

// sign makes a token. header has more of the header.
func sign(t testing.TB, algorithm jose.SignatureAlgorithm, key any, claims any, header map[string]any) string {
	t.Helper()
	o := &jose.SignerOptions{}
	for k, v := range header {
		o = o.WithHeader(jose.HeaderKey(k), v)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, o)
	if err != nil {
		t.Fatal(err)
	}
	data, ok := claims.(string)
	if !ok {
		raw, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		data = string(raw)
	}
	signed, err := s.Sign([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func publicPEM(t testing.TB, key crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func writeFile(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newTestJWT(t testing.TB, change func(*JWTConfig)) *JWT {
	t.Helper()
	c := JWTConfig{Now: func() time.Time { return today }, Log: slog.New(slog.DiscardHandler)}
	change(&c)
	j, err := NewJWT(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	return j
}

func bring(token string) *broker.Credentials {
	return &broker.Credentials{ClientID: "c", HasUsername: true, Username: "u", HasPassword: true, Password: []byte(token)}
}

func in(d time.Duration) int64 { return today.Add(d).Unix() }

// TestJWTAlgorithms: each algorithm lets its own key in, and no other.
func TestJWTAlgorithms(t *testing.T) {
	secret := strings.Repeat("s", 64)
	claims := map[string]any{"sub": "device", "exp": in(time.Hour)}
	tokens := map[jose.SignatureAlgorithm]string{
		jose.HS256: sign(t, jose.HS256, []byte(secret), claims, nil),
		jose.HS512: sign(t, jose.HS512, []byte(secret), claims, nil),
	}
	var files []string
	for a, k := range issuerKeys() {
		tokens[a] = sign(t, a, k, claims, nil)
		files = append(files, writeFile(t, string(a), publicPEM(t, k.Public())))
	}
	for configured := range tokens {
		j := newTestJWT(t, func(c *JWTConfig) {
			c.Algorithms = []string{string(configured)}
			c.Keys = KeysConfig{KeyFiles: files, SecretFile: writeFile(t, "secret", secret+"\n")}
		})
		for used, token := range tokens {
			who, err := j.Authenticate(context.Background(), bring(token))
			if used == configured && (err != nil || who.Username != "device" || !who.Expires.Equal(time.Unix(in(time.Hour), 0))) {
				t.Errorf("%s: %v, %+v", used, err, who)
			}
			if used != configured && !errors.Is(err, broker.ErrBadCredentials) {
				t.Errorf("%s where %s is configured: %v", used, configured, err)
			}
		}
	}
}

// TestJWTForged: everything by which a token may pretend to be signed.
func TestJWTForged(t *testing.T) {
	keys := issuerKeys()
	public := publicPEM(t, keys[jose.RS256].Public())
	j := newTestJWT(t, func(c *JWTConfig) {
		c.Algorithms = []string{"RS256", "HS256", "ES256"} // the worst configuration
		c.Keys = KeysConfig{KeyFiles: []string{writeFile(t, "rsa.pem", public), writeFile(t, "ec.pem", publicPEM(t, keys[jose.ES256].Public()))}}
	})
	claims := map[string]any{"sub": "device", "exp": in(time.Hour)}
	good := sign(t, jose.RS256, keys[jose.RS256], claims, nil)
	if _, err := j.Authenticate(context.Background(), bring(good)); err != nil {
		t.Fatal(err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	parts := strings.Split(good, ".")
	otherJWK := jose.JSONWebKey{Key: other.Public()}
	for name, token := range map[string]string{
		"none":                    encode(`{"alg":"none"}`) + "." + parts[1] + ".",
		"None":                    encode(`{"alg":"None"}`) + "." + parts[1] + ".",
		"empty algorithm":         encode(`{"alg":""}`) + "." + parts[1] + "." + parts[2],
		"no signature":            parts[0] + "." + parts[1] + ".",
		"other claims":            parts[0] + "." + encode(`{"sub":"admin","exp":9999999999}`) + "." + parts[2],
		"public key as a secret":  sign(t, jose.HS256, []byte(public), claims, nil),
		"another key":             sign(t, jose.RS256, other, claims, nil),
		"another key, key inside": sign(t, jose.RS256, other, claims, map[string]any{"jwk": otherJWK}),
		"another key, jku":        sign(t, jose.RS256, other, claims, map[string]any{"jku": "http://127.0.0.1:1/keys"}),
		"key name with a path":    sign(t, jose.RS256, other, claims, map[string]any{"kid": "../../dev/null"}),
		"critical extension":      sign(t, jose.RS256, keys[jose.RS256], claims, map[string]any{"crit": []string{"x"}, "x": 1}),
		"two signatures":          good + "." + parts[2],
		"trailing text":           good + "x",
		"header twice":            encode(`{"alg":"RS256","alg":"HS256"}`) + "." + parts[1] + "." + parts[2],
		"too long":                encode(`{"alg":"RS256"}`) + "." + strings.Repeat("A", maxTokenBytes) + "." + parts[2],
	} {
		who, err := j.Authenticate(context.Background(), bring(token))
		if who != nil || err == nil {
			t.Errorf("%s: let in as %+v", name, who)
		}
		if name != "two signatures" && !errors.Is(err, broker.ErrBadCredentials) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, password := range []string{"", "secret", "a.b.c", "..", "a.b.c.d", encode(`{"x":1}`) + ".e30.x", encode(`[]`) + ".e30.x"} {
		if _, err := j.Authenticate(context.Background(), bring(password)); !errors.Is(err, ErrNotMine) {
			t.Errorf("password %q: %v", password, err)
		}
	}
}

// TestJWTClaims: what a token must say, and what becomes of it.
func TestJWTClaims(t *testing.T) {
	secret := strings.Repeat("s", 32)
	j := newTestJWT(t, func(c *JWTConfig) {
		c.Algorithms = []string{"HS256"}
		c.Keys = KeysConfig{SecretFile: writeFile(t, "secret", secret)}
		c.Issuer, c.Audience, c.Leeway = "https://issuer", "mqtt", time.Minute
		c.UsernameClaim, c.ClientIDClaim, c.GroupsClaim, c.ACLClaim = "device.name", "cid", "groups", "acl"
		c.Required = map[string]string{"for": "%u/%c", "scope": "mqtt"}
	})
	base := func() map[string]any {
		return map[string]any{
			"iss": "https://issuer", "aud": []string{"other", "mqtt"}, "exp": in(time.Hour), "nbf": in(0),
			"device": map[string]any{"name": "d7"}, "cid": "c", "groups": []string{"g1", "g2"},
			"for": "u/c", "scope": []string{"mqtt", "x"}, "site": "north", "level": 3,
			"acl": map[string]any{"pub": []string{"out/%c/#"}, "sub": []string{"in/%u"}},
		}
	}
	ask := func(change func(map[string]any)) (*broker.Identity, error) {
		claims := base()
		change(claims)
		return j.Authenticate(context.Background(), bring(sign(t, jose.HS256, []byte(secret), claims, nil)))
	}
	who, err := ask(func(map[string]any) {})
	want := &broker.Identity{
		Username: "d7", ClientID: "c", Groups: []string{"g1", "g2"}, By: "jwt", Expires: time.Unix(in(time.Hour+time.Minute), 0),
		Grants: []broker.Grant{{Filter: "out/c/#", Publish: true}, {Filter: "in/d7", Subscribe: true}},
	}
	if err != nil || who.Claims["site"] != "north" || who.Claims["level"] != "3" {
		t.Fatalf("%+v, %v", who, err)
	}
	who.Claims = nil
	if fmt.Sprintf("%+v", who) != fmt.Sprintf("%+v", want) {
		t.Errorf("got %+v, want %+v", who, want)
	}
	for name, change := range map[string]func(map[string]any){
		"expired":                  func(c map[string]any) { c["exp"] = in(-2 * time.Minute) },
		"expired long ago":         func(c map[string]any) { c["exp"] = -1e300 },
		"absurd end":               func(c map[string]any) { c["exp"] = 1e300 },
		"end as text":              func(c map[string]any) { c["exp"] = "tomorrow" },
		"no end":                   func(c map[string]any) { delete(c, "exp") },
		"not yet":                  func(c map[string]any) { c["nbf"] = in(2 * time.Minute) },
		"issued in the future":     func(c map[string]any) { c["iat"] = in(2 * time.Minute) },
		"other issuer":             func(c map[string]any) { c["iss"] = "https://issuer/" },
		"no issuer":                func(c map[string]any) { delete(c, "iss") },
		"other audience":           func(c map[string]any) { c["aud"] = "mqtt2" },
		"no audience":              func(c map[string]any) { delete(c, "aud") },
		"no user name":             func(c map[string]any) { delete(c, "device") },
		"user name is no text":     func(c map[string]any) { c["device"] = map[string]any{"name": []string{"d7"}} },
		"empty user name":          func(c map[string]any) { c["device"] = map[string]any{"name": ""} },
		"U+0000 in user name":      func(c map[string]any) { c["device"] = map[string]any{"name": "a\x00b"} },
		"user by a large number":   func(c map[string]any) { c["device"] = map[string]any{"name": json.Number("9007199254740993")} },
		"client by a large number": func(c map[string]any) { c["cid"] = json.Number("-9007199254740993") },
		"groups by large numbers":  func(c map[string]any) { c["groups"] = []any{"g1", json.Number("9007199254740993")} },
		"other client":             func(c map[string]any) { c["cid"] = "c2" },
		"no client":                func(c map[string]any) { delete(c, "cid") },
		"claim not as wanted":      func(c map[string]any) { c["for"] = "u/c2" },
		"claim missing":            func(c map[string]any) { delete(c, "scope") },
		"groups are no list":       func(c map[string]any) { c["groups"] = map[string]any{"g": 1} },
		"acl is a word":            func(c map[string]any) { c["acl"] = "all" },
		"acl of unknown keys":      func(c map[string]any) { c["acl"] = map[string]any{"publish": []string{"#"}} },
		"acl with bad filter":      func(c map[string]any) { c["acl"] = map[string]any{"pub": []string{"a/#/b"}} },
		"rule of unknown kind": func(c map[string]any) {
			c["acl"] = []any{map[string]any{"permission": "allow", "action": "all", "topic": "#", "retain": false}}
		},
		"rule of unknown permission": func(c map[string]any) {
			c["acl"] = []any{map[string]any{"permission": "Deny", "action": "all", "topic": "#"}}
		},
	} {
		if who, err := ask(change); !errors.Is(err, broker.ErrNotAuthorized) && !errors.Is(err, broker.ErrBadCredentials) {
			t.Errorf("%s: %+v, %v", name, who, err)
		}
	}
	// Within the leeway, and a token without rights: none, not all.
	for name, change := range map[string]func(map[string]any){
		"just expired": func(c map[string]any) { c["exp"] = in(-30 * time.Second) },
		"no acl":       func(c map[string]any) { delete(c, "acl") },
	} {
		who, err := ask(change)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if name == "no acl" && (who.Grants == nil || len(who.Grants) != 0) {
			t.Errorf("no acl: %+v", who.Grants)
		}
	}
	// Names that would widen a filter.
	for _, id := range []string{"a/b", "+", "#", "a%u", "$x"} {
		token := sign(t, jose.HS256, []byte(secret), func() any { c := base(); c["cid"], c["for"] = id, "u/"+id; return c }(), nil)
		c := bring(token)
		c.ClientID = id
		if who, err := j.Authenticate(context.Background(), c); !errors.Is(err, broker.ErrNotAuthorized) {
			t.Errorf("client %q: %+v, %v", id, who, err)
		}
	}
	// Claims given twice: the signature is right, what is meant is not clear.
	twice := `{"iss":"https://issuer","aud":"mqtt","exp":` + fmt.Sprint(in(time.Hour)) + `,"device":{"name":"d7"},"device":{"name":"root"},"cid":"c","for":"u/c","scope":"mqtt"}`
	if who, err := j.Authenticate(context.Background(), bring(sign(t, jose.HS256, []byte(secret), twice, nil))); err == nil {
		t.Errorf("claim given twice: %+v", who)
	}
}

// TestJWTConfiguration: what is refused at the start, in words.
func TestJWTConfiguration(t *testing.T) {
	// A number of 1,024 bits is a weak key for whoever reads it.
	weak := &rsa.PublicKey{N: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 1023), big.NewInt(1)), E: 65537}
	private, err := x509.MarshalPKCS8PrivateKey(issuerKeys()[jose.ES256])
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*JWTConfig){
		"algorithms: name those": func(c *JWTConfig) { c.Algorithms = nil },
		`algorithms: "none"`:     func(c *JWTConfig) { c.Algorithms = []string{"none"} },
		"no keys":                func(c *JWTConfig) { c.Keys = KeysConfig{} },
		"secret of 5 bytes":      func(c *JWTConfig) { c.Keys.SecretFile = writeFile(t, "s", "short\n") },
		"RSA key of 1024 bits":   func(c *JWTConfig) { c.Keys.KeyFiles = []string{writeFile(t, "k", publicPEM(t, weak))} },
		"want a PUBLIC KEY": func(c *JWTConfig) {
			c.Keys.KeyFiles = []string{writeFile(t, "k", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))}
		},
		"no public key or":        func(c *JWTConfig) { c.Keys.KeyFiles = []string{writeFile(t, "k", "hello")} },
		"no such file":            func(c *JWTConfig) { c.Keys.JWKSFile = "/nowhere" },
		"no key in it can verify": func(c *JWTConfig) { c.Keys.JWKSFile = writeFile(t, "j", `{"keys":[{"kty":"XYZ"}]}`) },
		"read key set":            func(c *JWTConfig) { c.Keys.JWKSFile = writeFile(t, "j", `[`) },
		"want https":              func(c *JWTConfig) { c.Keys.JWKSURL = "http://issuer.example/keys" },
		"put it into a headers":   func(c *JWTConfig) { c.Keys.JWKSURL = "https://u:p@issuer.example/keys" },
		"leeway":                  func(c *JWTConfig) { c.Leeway = time.Hour },
	} {
		c := JWTConfig{Algorithms: []string{"ES256"}, Keys: KeysConfig{KeyFiles: []string{writeFile(t, "ok", publicPEM(t, issuerKeys()[jose.ES256].Public()))}}}
		change(&c)
		if _, err := NewJWT(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

// FuzzToken: nothing but a token that was signed lets in, and nothing panics.
func FuzzToken(f *testing.F) {
	secret := strings.Repeat("s", 32)
	j := newTestJWT(f, func(c *JWTConfig) {
		c.Algorithms = []string{"HS256", "ES256", "EdDSA"}
		c.Keys = KeysConfig{SecretFile: writeFile(f, "secret", secret), KeyFiles: []string{writeFile(f, "ec.pem", publicPEM(f, issuerKeys()[jose.ES256].Public()))}}
	})
	good := sign(f, jose.HS256, []byte(secret), map[string]any{"sub": "device", "exp": in(time.Hour)}, nil)
	f.Add(good)
	f.Add(sign(f, jose.ES256, issuerKeys()[jose.ES256], map[string]any{"sub": "d"}, nil))
	f.Add("a.b.c")
	signed := good[:strings.LastIndexByte(good, '.')]
	f.Fuzz(func(t *testing.T, token string) {
		who, err := j.Authenticate(context.Background(), bring(token))
		if err == nil && !strings.HasPrefix(token, signed+".") {
			t.Fatalf("%q let in as %+v", token, who)
		}
		if err != nil && who != nil {
			t.Fatalf("both %+v and %v", who, err)
		}
	})
}
