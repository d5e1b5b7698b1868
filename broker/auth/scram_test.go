package auth

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/xdg-go/scram"

	"github.com/shoalmq/shoal/broker"
)

// pencil is the user of RFC 7677 §3, whose password is "pencil".
const pencil = "user:$scram-sha-256$4096$W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

func newTestSCRAM(t testing.TB, content string) *SCRAM {
	t.Helper()
	s := NewSCRAM(writeFile(t, "scram", content))
	if err := s.Load(); err != nil {
		t.Fatal(err)
	}
	return s
}

func begin(t testing.TB, s *SCRAM, c *broker.Credentials) broker.Exchange {
	t.Helper()
	if c == nil {
		c = &broker.Credentials{ClientID: "c"}
	}
	c.Method = scramMethod
	x, err := s.Begin(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// dance is all of an exchange with the library's client.
func dance(t testing.TB, s *SCRAM, c *broker.Credentials, user, password, authz string) (*broker.Identity, error) {
	t.Helper()
	client, err := scram.SHA256.NewClient(user, password, authz)
	if err != nil {
		t.Fatal(err)
	}
	conv, x := client.NewConversation(), begin(t, s, c)
	first, err := conv.Step("")
	if err != nil {
		t.Fatal(err)
	}
	challenge, who, err := x.Step(context.Background(), []byte(first))
	if err != nil || who != nil {
		return who, err
	}
	final, err := conv.Step(string(challenge))
	if err != nil {
		t.Fatal(err)
	}
	verifier, who, err := x.Step(context.Background(), []byte(final))
	if err == nil {
		if _, err := conv.Step(string(verifier)); err != nil || !conv.Valid() {
			t.Errorf("the server has not proved itself: %v", err)
		}
	}
	return who, err
}

// TestSCRAMVector: RFC 7677 §3.
func TestSCRAMVector(t *testing.T) {
	s := newTestSCRAM(t, pencil)
	s.nonce = func() string { return "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0" }
	for _, asked := range []bool{false, true} {
		x := begin(t, s, nil)
		if asked { // a client may leave the first message for later
			if reply, who, err := x.Step(context.Background(), nil); reply != nil || who != nil || err != nil {
				t.Fatalf("%q, %+v, %v", reply, who, err)
			}
		}
		reply, who, err := x.Step(context.Background(), []byte("n,,n=user,r=rOprNGfwEbeRWgbNEkqO"))
		if want := "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"; string(reply) != want || who != nil || err != nil {
			t.Fatalf("%q, %+v, %v", reply, who, err)
		}
		reply, who, err = x.Step(context.Background(), []byte("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="))
		if string(reply) != "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=" || err != nil || who == nil || who.Username != "user" {
			t.Fatalf("%q, %+v, %v", reply, who, err)
		}
		if _, who, err := x.Step(context.Background(), []byte("n,,n=user,r=x")); who != nil || err == nil {
			t.Error("the exchange goes on after its end")
		}
	}
}

// TestSCRAMHash: what is made is read, and verifies the password, also as it is.
func TestSCRAMHash(t *testing.T) {
	line := hashed(t, "scram-sha-256", "sécret ½")
	s, p := newTestSCRAM(t, "u:"+line+"\nother:"+hashed(t, "pbkdf2", "x")), newTestPasswords(t, "u:"+line)
	if who, err := dance(t, s, nil, "u", "sécret ½", ""); err != nil || who.Username != "u" || who.By != "SCRAM-SHA-256" {
		t.Errorf("%+v, %v", who, err)
	}
	if who, err := p.Authenticate(context.Background(), login("u", "sécret 1⁄2")); err != nil || who.Username != "u" { // prepared
		t.Errorf("%+v, %v", who, err)
	}
	if _, err := p.Authenticate(context.Background(), login("u", "\xFF\x01")); !errors.Is(err, broker.ErrBadCredentials) {
		t.Error(err)
	}
	if _, err := NewHash("scram-sha-256", []byte("bell\a")); err == nil || strings.Contains(err.Error(), "bell") {
		t.Error(err)
	}
	valid := strings.Split(strings.TrimPrefix(pencil, "user:$scram-sha-256$"), "$")
	for i, bad := range map[int]string{0: "4095", 1: "AAAA", 2: "AAAA", 3: "*"} {
		parts := append([]string(nil), valid...)
		parts[i] = bad
		if _, err := parsePasswords([]byte("u:$scram-sha-256$" + strings.Join(parts, "$"))); err == nil || !strings.Contains(err.Error(), "line 1: user \"u\": scram-sha-256: ") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestSCRAMRefused: who has not proved to know the password is not let in, and
// learns nothing; unknown users look like known ones.
func TestSCRAMRefused(t *testing.T) {
	s := newTestSCRAM(t, pencil+"\nother:"+hashed(t, "scram-sha-256", "x")+"\nplain:"+hashed(t, "pbkdf2", "x"))
	for user, password := range map[string]string{"user": "Pencil", "nobody": "pencil", "plain": "x", "User": "pencil"} {
		if who, err := dance(t, s, nil, user, password, ""); err != broker.ErrBadCredentials || who != nil {
			t.Errorf("%s: %+v, %v", user, who, err)
		}
	}
	if who, err := dance(t, s, nil, "user", "pencil", "other"); !errors.Is(err, broker.ErrNotAuthorized) || who != nil {
		t.Errorf("as another: %+v, %v", who, err)
	}
	if who, err := dance(t, s, nil, "user", "pencil", "user"); err != nil || who == nil {
		t.Errorf("as itself: %+v, %v", who, err)
	}
	named := func(name string) *broker.Credentials { return &broker.Credentials{HasUsername: true, Username: name} }
	if who, err := dance(t, s, named("other"), "user", "pencil", ""); !errors.Is(err, broker.ErrNotAuthorized) || who != nil {
		t.Errorf("User Name of another: %+v, %v", who, err)
	}
	if who, err := dance(t, s, named("user"), "user", "pencil", ""); err != nil || who == nil {
		t.Errorf("User Name: %+v, %v", who, err)
	}
	if _, err := s.Begin(context.Background(), &broker.Credentials{Method: "SCRAM-SHA-1"}); !errors.Is(err, broker.ErrUnknownMethod) {
		t.Error(err)
	}
}

// TestSCRAMMessages: messages that are cut, of another form, too long or in the
// wrong order end the exchange.
func TestSCRAMMessages(t *testing.T) {
	s := newTestSCRAM(t, pencil)
	first := "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
	for _, m := range []string{
		",", "n,,", "n,,n=user", "n,,r=abc,n=user", "x,,n=user,r=abc", "n,b=x,n=user,r=abc", "n,,m=x,n=user,r=abc", "n,,n==,r=abc", "n,,n=,r=abc",
		"n,,n=us\x07er,r=abc", "n,,n=us\xFFer,r=abc", "n,,n=" + strings.Repeat("u", 2000) + ",r=abc", "n,,n=user,r=" + strings.Repeat("n", 5000),
		"p=tls-unique,,n=user,r=abc", "p=tls-exporter,,n=user,r=abc", "p=,,n=user,r=abc",
		"c=biws,r=abc,p=AAAA",
	} {
		if reply, who, err := begin(t, s, nil).Step(context.Background(), []byte(m)); who != nil || !errors.Is(err, broker.ErrNotAuthorized) || reply != nil {
			t.Errorf("%.30q: %q, %+v, %v", m, reply, who, err)
		}
	}
	silent := begin(t, s, nil)
	for i := range 2 {
		if _, who, err := silent.Step(context.Background(), nil); who != nil || (err != nil) != (i > 0) {
			t.Errorf("nothing said, %d: %+v, %v", i, who, err)
		}
	}
	s.nonce = func() string { return "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0" }
	final := "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	refuse := func(what, first, final string) {
		t.Helper()
		x := begin(t, s, nil)
		if _, _, err := x.Step(context.Background(), []byte(first)); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for range 2 { // there is no second try
			if reply, who, err := x.Step(context.Background(), []byte(final)); who != nil || err == nil || reply != nil {
				t.Errorf("%s: %q, %+v, %v", what, reply, who, err)
			}
			final = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
		}
	}
	for i := range len(final) {
		refuse(fmt.Sprintf("cut at %d", i), first, final[:i])
	}
	refuse("y in place of n", "y,,n=user,r=rOprNGfwEbeRWgbNEkqO", final)
	refuse("first again", first, first)
	refuse("changed", first, strings.Replace(final, "p=dHzb", "p=dHzc", 1))
	refuse("a proof of zeros", first, final[:strings.Index(final, "p=")]+"p="+base64.StdEncoding.EncodeToString(make([]byte, 32)))
	refuse("no proof", first, final[:strings.Index(final, "p=")]+"p=")
	s.nonce = nil
	refuse("replayed", first, final)
}

// TestSCRAMUnknownUser: the salt of an unknown user is always the same, on every
// node, and of the form of known ones.
func TestSCRAMUnknownUser(t *testing.T) {
	challenge := func(s *SCRAM, user string) string {
		reply, _, err := begin(t, s, nil).Step(context.Background(), []byte("n,,n="+user+",r=abc"))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := bytes.Cut(reply, []byte(","))
		return string(rest)
	}
	a, b := newTestSCRAM(t, pencil), newTestSCRAM(t, pencil+"\nzz:"+strings.TrimPrefix(pencil, "user:"))
	one := challenge(a, "nobody")
	if one != challenge(a, "nobody") || one != challenge(b, "nobody") || one == challenge(a, "somebody") {
		t.Error("the salt tells that there is no user")
	}
	if known := challenge(a, "user"); len(known) != len(one) || known[len(known)-6:] != one[len(one)-6:] {
		t.Errorf("%q is not like %q", one, known)
	}
	empty := newTestSCRAM(t, "# nobody\n")
	if first := challenge(empty, "nobody"); first != challenge(empty, "nobody") {
		t.Error("without users")
	}
}

// TestSCRAMReload: a new file counts for exchanges that are under way, too.
func TestSCRAMReload(t *testing.T) {
	s := newTestSCRAM(t, pencil)
	client, err := scram.SHA256.NewClient("user", "pencil", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"", "user:" + hashed(t, "scram-sha-256", "pencil")} {
		conv, x := client.NewConversation(), begin(t, s, nil)
		first, _ := conv.Step("")
		challenge, _, err := x.Step(context.Background(), []byte(first))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Load(); err != nil {
			t.Fatal(err)
		}
		final, _ := conv.Step(string(challenge))
		if _, who, err := x.Step(context.Background(), []byte(final)); who != nil || err != broker.ErrBadCredentials {
			t.Errorf("%+v, %v", who, err)
		}
		if err := os.WriteFile(s.path, []byte(pencil), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Load(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.path, []byte(pencil+"\nuser2:$scram-sha-256$1$A$A$A\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Load(); err == nil || !strings.Contains(err.Error(), s.path+": line 2: user \"user2\"") {
		t.Error(err)
	}
	if who, err := dance(t, s, nil, "user", "pencil", ""); err != nil || who == nil {
		t.Errorf("a bad file let nobody in: %v", err)
	}
}

// FuzzSCRAM: no two messages of somebody without the password let anybody in.
func FuzzSCRAM(f *testing.F) {
	f.Add("n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
	f.Add("y,a=user,n=us=2Cer,r=a,x=y", "c=biws,r=a,x=y,p=")
	f.Add("p=tls-exporter,,n=user,r=a", "p=AAAA")
	s := newTestSCRAM(f, pencil)
	f.Fuzz(func(t *testing.T, first, final string) {
		x := begin(t, s, nil)
		if first == "" {
			return // it is asked for one
		}
		reply, who, err := x.Step(context.Background(), []byte(first))
		if who != nil || (err == nil) != (reply != nil) {
			t.Fatalf("%q: %q, %+v, %v", first, reply, who, err)
		}
		if err != nil {
			return
		}
		if reply, who, err := x.Step(context.Background(), []byte(final)); who != nil || err == nil || reply != nil {
			t.Fatalf("%q, %q: %q, %+v, %v", first, final, reply, who, err)
		}
	})
}
