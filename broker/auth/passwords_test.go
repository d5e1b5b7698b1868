package auth

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker"
)

func login(user, password string) *broker.Credentials {
	return &broker.Credentials{ClientID: "c", HasUsername: true, Username: user, HasPassword: true, Password: []byte(password)}
}

func newTestPasswords(t testing.TB, content string) *Passwords {
	t.Helper()
	p := NewPasswords(writeFile(t, "passwords", content))
	if err := p.Load(); err != nil {
		t.Fatal(err)
	}
	return p
}

func hashed(t testing.TB, kind, password string) string {
	t.Helper()
	h, err := NewHash(kind, []byte(password))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestPasswords: every kind that is made is read, lets its own password in and
// no other.
func TestPasswords(t *testing.T) {
	file := "# users\n\n"
	for _, kind := range HashNames() {
		file += kind + ":" + hashed(t, kind, "secret") + "\r\n"
	}
	p := newTestPasswords(t, file)
	for _, kind := range HashNames() {
		if got := HashKind(hashed(t, kind, "x")); got != kind {
			t.Errorf("%s is taken for %s", kind, got)
		}
		for range 2 { // the second time from memory
			if who, err := p.Authenticate(context.Background(), login(kind, "secret")); err != nil || who.Username != kind {
				t.Errorf("%s: %+v, %v", kind, who, err)
			}
		}
		for _, wrong := range []string{"", "Secret", "secre", "secret ", "secret\x00", strings.Repeat("secret", 1000)} {
			if who, err := p.Authenticate(context.Background(), login(kind, wrong)); !errors.Is(err, broker.ErrBadCredentials) {
				t.Errorf("%s with %.20q: %+v, %v", kind, wrong, who, err)
			}
		}
	}
	if who, err := p.Authenticate(context.Background(), login("nobody", "secret")); !errors.Is(err, ErrNotMine) {
		t.Errorf("unknown user: %+v, %v", who, err)
	}
	if who, err := p.Authenticate(context.Background(), &broker.Credentials{ClientID: "c"}); !errors.Is(err, ErrNotMine) {
		t.Errorf("no user: %+v, %v", who, err)
	}
	if who, err := p.Authenticate(context.Background(), &broker.Credentials{HasUsername: true, Username: "bcrypt"}); !errors.Is(err, broker.ErrBadCredentials) {
		t.Errorf("no password: %+v, %v", who, err)
	}
	empty := newTestPasswords(t, "")
	if who, err := empty.Authenticate(context.Background(), login("u", "")); !errors.Is(err, ErrNotMine) {
		t.Errorf("empty file: %+v, %v", who, err)
	}
}

// TestPasswordsReload: a new file counts at once, what was remembered of the old
// one is forgotten, and a bad one leaves the old in force.
func TestPasswordsReload(t *testing.T) {
	old, new := hashed(t, "pbkdf2", "old"), hashed(t, "pbkdf2", "new")
	p := newTestPasswords(t, "u:"+old+"\nv:"+old+"\n")
	try := func(user, password string) bool {
		_, err := p.Authenticate(context.Background(), login(user, password))
		return err == nil
	}
	if !try("u", "old") || !try("v", "old") || try("u", "new") {
		t.Error("before")
	}
	write := func(content string) error {
		if err := os.WriteFile(p.path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return p.Load()
	}
	if err := write("u:" + new + "\n"); err != nil {
		t.Fatal(err)
	}
	if try("u", "old") || try("v", "old") || !try("u", "new") {
		t.Error("after")
	}
	err := write("u:" + new + "\nv:plain\nw\n:x\nu:" + new + "\n")
	if !try("u", "new") {
		t.Error("a bad file let nobody in")
	}
	for _, want := range []string{p.path, "line 2: user \"v\": the password is not hashed", "line 3: want user:hash", "line 4: the user has no name", "line 5: user \"u\" has a line already"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in %v", want, err)
		}
	}
}

// TestPasswordLines: lines that could stop the node, or that let in what they
// should not, are refused.
func TestPasswordLines(t *testing.T) {
	for line, want := range map[string]string{
		"$7$0$AAAA$" + strings.Repeat("A", 88):           "iterations",
		"$7$99999999999$AAAA$" + strings.Repeat("A", 88): "iterations",
		"$7$101$AAAA$": "hash of 0 bytes",
		"$7$101$$" + strings.Repeat("A", 86) + "==": "salt of 0",
		"$7$101$AAAA":        "want a salt",
		"$7$101$AA*A$AAAA":   "salt: illegal",
		"$6$AAAA$AAAA":       "hash of 3 bytes",
		"$6$rounds=5000$x$y": "salt",
		"$argon2id$v=19$m=999999999,t=1,p=1$AAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA": "want m up to",
		"$argon2id$v=19$m=8,t=0,p=1$AAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA":         "t from 1",
		"$argon2id$v=19$m=8,t=1,p=0$AAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA":         "p from 1",
		"$argon2id$v=16$m=8,t=1,p=1$AAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA":         "parameters",
		"$argon2i$v=19$m=8,t=1,p=1$AAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA":          "not hashed in a known way",
		"$2b$31$" + strings.Repeat("a", 53):                                  "cost 31",
		"$2b$10$short":                                                       "bcrypt",
		"plain":                                                              "not hashed in a known way",
		"":                                                                   "not hashed in a known way",
	} {
		if _, err := parsePasswords([]byte("u:" + line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: want %q, got %v", line, want, err)
		}
	}
}

// TestPasswordsUnknownUser: the time does not tell whether there is a user.
// Orders of magnitude count: a processor is not ours alone.
func TestPasswordsUnknownUser(t *testing.T) {
	p := newTestPasswords(t, "u:"+hashed(t, "argon2id", "x")+"\n")
	least := func(user string) time.Duration {
		best := time.Hour
		for i := range 5 {
			start := time.Now()
			_, _ = p.Authenticate(context.Background(), login(user, fmt.Sprint("wrong", i)))
			best = min(best, time.Since(start))
		}
		return best
	}
	if known, unknown := least("u"), least("v"); unknown < known/4 {
		t.Errorf("a known user takes %s, an unknown one %s", known, unknown)
	}
}

// TestPasswordsStandIn: an unknown user costs what some user does, and each time
// the same, whatever the password; the kinds of hashes differ much.
func TestPasswordsStandIn(t *testing.T) {
	file := ""
	for i, kind := range HashNames() {
		file += fmt.Sprint("u", i, ":", hashed(t, kind, "x"), "\n")
	}
	p := newTestPasswords(t, file)
	f := p.users.Load()
	seen := map[string]bool{}
	for i := range 100 {
		name := fmt.Sprint("nobody", i)
		h := p.standIn(f, name)
		if !reflect.DeepEqual(h, p.standIn(f, name)) {
			t.Fatalf("%s: not the same", name)
		}
		seen[fmt.Sprintf("%T", h)] = true
	}
	if len(seen) != len(HashNames()) {
		t.Errorf("only %v stand in", seen)
	}
}

// TestPasswordsTurns: no more hashes than processors, and who waits too long is
// refused by an error, not by a pass to the next of the chain.
func TestPasswordsTurns(t *testing.T) {
	p := newTestPasswords(t, "u:"+hashed(t, "pbkdf2", "x")+"\n")
	for range cap(p.turns) {
		p.turns <- struct{}{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, user := range []string{"u", "v"} {
		if who, err := p.Authenticate(ctx, login(user, "x")); who != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("%+v, %v", who, err)
		}
	}
}

// part is a scripted part of a chain.
type part struct {
	who *broker.Identity
	err error
}

func (p part) Authenticate(context.Context, *broker.Credentials) (*broker.Identity, error) {
	return p.who, p.err
}

// TestChain: the first that knows the client decides, an error ends it, and the
// end of the chain is no.
func TestChain(t *testing.T) {
	yes, mine := part{who: &broker.Identity{Username: "u"}}, part{err: ErrNotMine}
	no, down := part{err: broker.ErrBadCredentials}, part{err: errors.New("down")}
	for _, c := range []struct {
		chain Chain
		want  error
	}{
		{Chain{}, broker.ErrBadCredentials},
		{Chain{mine, mine}, broker.ErrBadCredentials},
		{Chain{mine, yes}, nil},
		{Chain{yes, no}, nil},
		{Chain{no, yes}, broker.ErrBadCredentials},
		{Chain{down, yes}, down.err},
		{Chain{mine, down, yes}, down.err},
		{Chain{part{}, yes}, errAny},
	} {
		who, err := c.chain.Authenticate(context.Background(), login("u", "p"))
		switch {
		case c.want == nil && (err != nil || who == nil), c.want != nil && (err == nil || who != nil):
			t.Errorf("%+v: %+v, %v", c.chain, who, err)
		case c.want != nil && c.want != errAny && !errors.Is(err, c.want):
			t.Errorf("%+v: %v, want %v", c.chain, err, c.want)
		}
	}
	if _, err := (Chain{mine}).Authenticate(context.Background(), &broker.Credentials{}); !errors.Is(err, broker.ErrNotAuthorized) {
		t.Errorf("who brought nothing: %v", err)
	}
}

// FuzzPasswordLine: a line is refused, or lets in nobody who does not know.
func FuzzPasswordLine(f *testing.F) {
	f.Add("u:$7$101$2Ik1y0VpL4BNhG8n$" + strings.Repeat("A", 86) + "==")
	f.Add("u:$6$AAAA$" + strings.Repeat("A", 86) + "==")
	f.Add("u:$argon2id$v=19$m=8,t=1,p=1$AAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA")
	f.Add("u:$2b$04$" + strings.Repeat("a", 53))
	f.Fuzz(func(t *testing.T, line string) {
		users, err := parsePasswords([]byte(line))
		if err != nil {
			return
		}
		for name, e := range users.users {
			if name == "" || e.hash == nil || strings.ContainsAny(name, ":\n") {
				t.Fatalf("%q: user %q", line, name)
			}
		}
	})
}
