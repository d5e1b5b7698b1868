package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"unicode/utf8"

	"github.com/xdg-go/scram"
	"github.com/xdg-go/stringprep"

	"github.com/shoalmq/shoal/broker"
)

// scramMethod is the Authentication Method.
const scramMethod = "SCRAM-SHA-256"

// SCRAM is a broker.EnhancedAuthenticator of the method SCRAM-SHA-256 (RFC 5802,
// RFC 7677): client and server prove to each other that they know a password,
// or what was made of it, and neither shows it. Its users are the lines of a
// password file that have such a hash; there may be others. Load reads it anew at
// any time.
//
// There is no channel binding: a client that demands it ("p=") is refused.
//
// Who does not know the password cannot tell whether there is a user: the
// exchange with an unknown one goes on to its end, with a salt that is always the
// same, on all nodes that have the same first user, and is refused there. (That
// user could tell, for it knows what those salts are made of.)
type SCRAM struct {
	path  string
	users atomic.Pointer[scramFile]
	nonce scram.NonceGeneratorFcn // nil for the library's; tests have theirs
}

// scramFile is a file that was read.
type scramFile struct {
	users map[string]*scramHash
	// model is the hash of the first user, whose form those of unknown ones take;
	// secret is what they are made of.
	model  *scramHash
	secret []byte
}

var _ broker.EnhancedAuthenticator = (*SCRAM)(nil)

// NewSCRAM returns one that knows nobody until Load.
func NewSCRAM(path string) *SCRAM {
	s := &SCRAM{path: path}
	s.users.Store(newSCRAMFile(nil))
	return s
}

// Load reads the file. With an error what was read before stays in force.
func (s *SCRAM) Load() error {
	data, err := os.ReadFile(s.path)
	if err != nil {
		return fmt.Errorf("read password file: %w", err)
	}
	f, err := parsePasswords(data)
	if err != nil {
		return fmt.Errorf("password file %s: %w", s.path, err)
	}
	s.users.Store(newSCRAMFile(f))
	return nil
}

// newSCRAMFile picks the users with keys for SCRAM.
func newSCRAMFile(f *passwordFile) *scramFile {
	s := &scramFile{users: make(map[string]*scramHash)}
	first := ""
	if f != nil {
		for name, e := range f.users {
			h, ok := e.hash.(*scramHash)
			if !ok {
				continue
			}
			s.users[name] = h
			if first == "" || name < first {
				first, s.model = name, h
			}
		}
	}
	if s.model == nil {
		s.model = &scramHash{scram.StoredCredentials{KeyFactors: scram.KeyFactors{Salt: string(newSalt()), Iters: scramIterations}}}
		s.secret = []byte(rand.Text())
		return s
	}
	s.secret = s.model.ServerKey // nobody knows it but who has the file, and that user
	return s
}

// credentials returns those of a user, or plausible ones that no proof fits.
func (f *scramFile) credentials(name string) scram.StoredCredentials {
	made := func(what string) []byte {
		m := hmac.New(sha256.New, f.secret)
		fmt.Fprintf(m, "shoal SCRAM %s of %s", what, name)
		return m.Sum(nil)
	}
	size := len(f.model.Salt)
	salt := slices.Concat(made("salt"), made("more salt"))[:size]
	stored, server := made("stored key"), made("server key") // for a known user too: it takes time
	if h := f.users[name]; h != nil {
		return h.StoredCredentials
	}
	return scram.StoredCredentials{KeyFactors: scram.KeyFactors{Salt: string(salt), Iters: f.model.Iters}, StoredKey: stored, ServerKey: server}
}

// Begin is part of broker.EnhancedAuthenticator.
func (s *SCRAM) Begin(_ context.Context, c *broker.Credentials) (broker.Exchange, error) {
	if c.Method != scramMethod {
		return nil, fmt.Errorf("%w: want %s", broker.ErrUnknownMethod, scramMethod)
	}
	file := s.users.Load()
	x := &scramExchange{scram: s, credentials: c}
	server, err := scram.SHA256.NewServer(func(name string) (scram.StoredCredentials, error) {
		var err error
		if x.name, err = prepared(name); err != nil {
			return scram.StoredCredentials{}, err
		}
		x.keys = file.credentials(x.name)
		return x.keys, nil
	})
	if err != nil {
		return nil, fmt.Errorf("begin SCRAM: %w", err)
	}
	if s.nonce != nil {
		server.WithNonceGenerator(s.nonce)
	}
	x.conversation = server.NewConversation()
	return x, nil
}

// prepared is a name as SASLprep has it (RFC 5802 §5.1).
func prepared(name string) (string, error) {
	name, err := stringprep.SASLprep.Prepare(name)
	if err != nil || name == "" || len(name) > maxNameBytes {
		return "", errors.New("no user name")
	}
	return name, nil
}

// scramExchange is one exchange.
type scramExchange struct {
	scram        *SCRAM
	credentials  *broker.Credentials
	conversation *scram.ServerConversation
	asked        bool // for the first message
	answered     bool // the first message
	name         string
	keys         scram.StoredCredentials
}

// errSCRAM says as little about what is wrong as can be of use to an engineer.
var errSCRAM = fmt.Errorf("%w: not a message of %s, or one that asks for channel binding", broker.ErrNotAuthorized, scramMethod)

// Step is part of broker.Exchange.
func (x *scramExchange) Step(_ context.Context, data []byte) (reply []byte, who *broker.Identity, err error) {
	if len(data) == 0 && !x.asked && !x.answered { // the client wants to be asked
		x.asked = true
		return nil, nil, nil
	}
	if len(data) > maxSCRAMBytes || !utf8.Valid(data) {
		return nil, nil, errSCRAM
	}
	said, err := x.conversation.Step(string(data))
	switch {
	case err != nil && !x.answered:
		return nil, nil, errSCRAM
	case err != nil || x.answered && !x.conversation.Valid():
		return nil, nil, broker.ErrBadCredentials
	case x.answered:
		who, err = x.prove()
		if err != nil {
			return nil, nil, err
		}
	default:
		x.answered = true
	}
	return []byte(said), who, nil
}

// prove is called when the proof was right. The file may be another by now.
func (x *scramExchange) prove() (*broker.Identity, error) {
	h := x.scram.users.Load().users[x.name]
	if h == nil || !hmac.Equal(h.StoredKey, x.keys.StoredKey) {
		return nil, broker.ErrBadCredentials
	}
	if other := x.conversation.AuthzID(); other != "" && other != x.name {
		return nil, fmt.Errorf("%w to be another user", broker.ErrNotAuthorized)
	}
	if x.credentials.HasUsername && x.credentials.Username != x.name {
		return nil, fmt.Errorf("%w: the User Name is not that of %s", broker.ErrNotAuthorized, scramMethod)
	}
	return &broker.Identity{Username: x.name, By: scramMethod}, nil
}
