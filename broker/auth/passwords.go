package auth

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/shoalmq/shoal/broker"
)

// Passwords is an Authenticator of the users in a password file, one "user:hash"
// in a line, as Mosquitto has it. Load reads it anew at any time.
//
// A hash is made to be slow, so no more are computed at a time than leave a
// processor to everything else, and a password that was right is remembered, as a digest with
// a key of this process: a fleet that comes back costs one hash for each device
// in all. Wrong passwords are not remembered.
type Passwords struct {
	path  string
	users atomic.Pointer[passwordFile]
	turns chan struct{}

	secret [32]byte
	mu     sync.Mutex
	known  map[[32]byte]struct{} // of the file in force
}

// passwordFile is a file that was read.
type passwordFile struct {
	users map[string]entry
	// hashes are those of all users, in the order of the file.
	hashes []hash
}

type entry struct {
	text string
	hash hash
}

// NewPasswords returns one that knows nobody until Load.
func NewPasswords(path string) *Passwords {
	p := &Passwords{path: path, turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)), known: make(map[[32]byte]struct{})}
	p.users.Store(&passwordFile{})
	rand.Read(p.secret[:])
	return p
}

// Load reads the file. With an error what was read before stays in force.
func (p *Passwords) Load() error {
	data, err := os.ReadFile(p.path)
	if err != nil {
		return fmt.Errorf("read password file: %w", err)
	}
	f, err := parsePasswords(data)
	if err != nil {
		return fmt.Errorf("password file %s: %w", p.path, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users.Store(f)
	clear(p.known)
	return nil
}

// parsePasswords reads lines "user:hash". Empty ones and those that begin with #
// are passed over. The error joins all that are wrong.
func parsePasswords(data []byte) (*passwordFile, error) {
	f := &passwordFile{users: make(map[string]entry)}
	var errs []error
	n := 0
	for line := range bytes.Lines(data) {
		n++
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		user, e, err := parseLine(text)
		if _, twice := f.users[user]; twice && err == nil {
			err = fmt.Errorf("user %q has a line already", user)
		}
		if err != nil {
			if len(errs) < 10 {
				errs = append(errs, fmt.Errorf("line %d: %w", n, err))
			}
			continue
		}
		f.users[user] = e
		f.hashes = append(f.hashes, e.hash)
	}
	return f, errors.Join(errs...)
}

func parseLine(text string) (string, entry, error) {
	user, sum, ok := strings.Cut(text, ":")
	user, sum = strings.TrimSpace(user), strings.TrimSpace(sum) // as Mosquitto does
	switch {
	case !ok:
		return "", entry{}, errors.New("want user:hash")
	case user == "":
		return "", entry{}, errors.New("the user has no name")
	case len(user) > maxNameBytes:
		return "", entry{}, fmt.Errorf("the user's name is longer than %d bytes", maxNameBytes)
	}
	h, err := parseHash(sum)
	if err != nil {
		return "", entry{}, fmt.Errorf("user %q: %w", user, err)
	}
	return user, entry{sum, h}, nil
}

// Authenticate is part of broker.Authenticator.
func (p *Passwords) Authenticate(ctx context.Context, c *broker.Credentials) (*broker.Identity, error) {
	if !c.HasUsername {
		return nil, ErrNotMine
	}
	if len(c.Password) > maxPasswordBytes {
		return nil, fmt.Errorf("%w: the password is longer than %d bytes", broker.ErrBadCredentials, maxPasswordBytes)
	}
	if bytes.IndexByte(c.Password, 0) >= 0 { // hashes take "x" and "x\0" for the same
		return nil, fmt.Errorf("%w: the password has a zero byte", broker.ErrBadCredentials)
	}
	f := p.users.Load()
	e, known := f.users[c.Username]
	sum := p.digest(c, e.text)
	if known && p.remembered(sum) {
		return p.identity(c), nil
	}
	h := e.hash
	if !known {
		h = p.standIn(f, c.Username)
	}
	ok, err := p.verify(ctx, h, c.Password)
	switch {
	case err != nil:
		return nil, err
	case !known:
		return nil, ErrNotMine
	case !ok || !c.HasPassword:
		return nil, broker.ErrBadCredentials
	}
	p.remember(f, sum)
	return p.identity(c), nil
}

// standIn is tried for an unknown user, so that the time does not tell: the hash of
// some user of the file, always the same for one name, for their kinds differ.
func (p *Passwords) standIn(f *passwordFile, name string) hash {
	if len(f.hashes) == 0 {
		return nil
	}
	sum := p.digest(&broker.Credentials{Username: name}, "")
	return f.hashes[binary.BigEndian.Uint64(sum[:])%uint64(len(f.hashes))]
}

func (p *Passwords) identity(c *broker.Credentials) *broker.Identity {
	return &broker.Identity{Username: c.Username, By: "password file"}
}

// verify computes a hash when it is its turn.
func (p *Passwords) verify(ctx context.Context, h hash, password []byte) (bool, error) {
	if h == nil {
		return false, nil
	}
	select {
	case p.turns <- struct{}{}:
		defer func() { <-p.turns }()
	case <-ctx.Done():
		return false, fmt.Errorf("check password: too many wait for it: %w", ctx.Err())
	}
	return h.verify(password), nil
}

func (p *Passwords) digest(c *broker.Credentials, line string) (sum [32]byte) {
	h := hmac.New(sha256.New, p.secret[:])
	for _, part := range [][]byte{[]byte(c.Username), []byte(line), c.Password} {
		fmt.Fprintf(h, "%d:", len(part))
		h.Write(part)
	}
	h.Sum(sum[:0])
	return sum
}

func (p *Passwords) remembered(sum [32]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.known[sum]
	return ok
}

// remember notes a right password, unless the file was read anew meanwhile.
func (p *Passwords) remember(f *passwordFile, sum [32]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users.Load() != f {
		return
	}
	if len(p.known) >= maxKnownPasswords {
		clear(p.known)
	}
	p.known[sum] = struct{}{}
}
