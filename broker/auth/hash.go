package auth

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// A hash is what a password file keeps of a password.
type hash interface {
	// verify takes about as long for a wrong password as for the right one.
	verify(password []byte) bool
}

// hashKind is a form of hash.
type hashKind struct {
	name    string
	prefix  string
	example string
	parse   func(text string) (hash, error) // text is without the prefix
	// make hashes a password; nil for a kind that is only read.
	make func(password []byte) (string, error)
}

// hashKinds are the forms that password files may have: Mosquitto's, which
// mosquitto_passwd makes, bcrypt, which others do, and SCRAM's.
var hashKinds = []hashKind{
	{"argon2id", "$argon2id$", "$argon2id$v=19$m=19456,t=2,p=1$salt$hash", parseArgon2, makeArgon2},
	{"pbkdf2", "$7$", "$7$iterations$salt$hash", parsePBKDF2, makePBKDF2},
	{"sha512", "$6$", "$6$salt$hash", parseSHA512, nil},
	{"bcrypt", "$2a$", "", parseBcrypt("$2a$"), nil},
	{"bcrypt", "$2b$", "", parseBcrypt("$2b$"), makeBcrypt},
	{"bcrypt", "$2y$", "", parseBcrypt("$2y$"), nil},
	{"scram-sha-256", "$scram-sha-256$", "$scram-sha-256$iterations$salt$stored key$server key", parseSCRAM, makeSCRAM},
}

// HashNames are the kinds that NewHash makes, the best first.
func HashNames() (names []string) {
	for _, k := range hashKinds {
		if k.make != nil {
			names = append(names, k.name)
		}
	}
	return names
}

// NewHash hashes a password for a line of a password file.
func NewHash(kind string, password []byte) (string, error) {
	if len(password) == 0 || len(password) > maxPasswordBytes {
		return "", fmt.Errorf("password of %d bytes: want 1 to %d", len(password), maxPasswordBytes)
	}
	for _, k := range hashKinds {
		if k.name == kind && k.make != nil {
			return k.make(password)
		}
	}
	return "", fmt.Errorf("hash %q: want one of %s", kind, strings.Join(HashNames(), ", "))
}

// HashKind names the kind of a hash, empty if it is of none.
func HashKind(text string) string {
	for _, k := range hashKinds {
		if strings.HasPrefix(text, k.prefix) {
			return k.name
		}
	}
	return ""
}

func parseHash(text string) (hash, error) {
	for _, k := range hashKinds {
		if rest, ok := strings.CutPrefix(text, k.prefix); ok {
			h, err := k.parse(rest)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", k.name, err)
			}
			return h, nil
		}
	}
	return nil, errors.New("the password is not hashed in a known way; make the line with shoal user or mosquitto_passwd (-U hashes a plain file)")
}

// pbkdf2Hash is PBKDF2 with HMAC-SHA-512 (RFC 8018 §5.2).
type pbkdf2Hash struct {
	iterations int
	salt, sum  []byte
}

func (h *pbkdf2Hash) verify(password []byte) bool {
	sum, err := pbkdf2.Key(sha512.New, string(password), h.salt, h.iterations, len(h.sum))
	return err == nil && subtle.ConstantTimeCompare(sum, h.sum) == 1
}

func parsePBKDF2(text string) (hash, error) {
	iterations, rest, _ := strings.Cut(text, "$")
	n, err := strconv.Atoi(iterations)
	if err != nil || n < 1 || n > maxIterations {
		return nil, fmt.Errorf("iterations %.12q: want 1 to %d", iterations, maxIterations)
	}
	salt, sum, err := saltAndSum(rest, base64.StdEncoding)
	if err != nil {
		return nil, err
	}
	return &pbkdf2Hash{n, salt, sum}, nil
}

func makePBKDF2(password []byte) (string, error) {
	salt := newSalt()[:12] // Mosquitto takes no other length
	sum, err := pbkdf2.Key(sha512.New, string(password), salt, pbkdf2Iterations, sha512.Size)
	if err != nil {
		return "", err
	}
	b := base64.StdEncoding
	return fmt.Sprintf("$7$%d$%s$%s", pbkdf2Iterations, b.EncodeToString(salt), b.EncodeToString(sum)), nil
}

// sha512Hash is one SHA-512 of password and salt, as Mosquitto made them before
// 2.0. It is read, not made: it is too fast.
type sha512Hash struct{ salt, sum []byte }

func (h *sha512Hash) verify(password []byte) bool {
	sum := sha512.Sum512(append(bytes.Clone(password), h.salt...))
	return subtle.ConstantTimeCompare(sum[:], h.sum) == 1
}

func parseSHA512(text string) (hash, error) {
	salt, sum, err := saltAndSum(text, base64.StdEncoding)
	if err == nil && len(sum) != sha512.Size {
		err = fmt.Errorf("hash of %d bytes: want %d (crypt's $6$ is another one)", len(sum), sha512.Size)
	}
	if err != nil {
		return nil, err
	}
	return &sha512Hash{salt, sum}, nil
}

// argon2Hash is Argon2id (RFC 9106).
type argon2Hash struct {
	kib, passes uint32
	threads     uint8
	salt, sum   []byte
}

func (h *argon2Hash) verify(password []byte) bool {
	sum := argon2.IDKey(password, h.salt, h.passes, h.kib, h.threads, uint32(len(h.sum)))
	return subtle.ConstantTimeCompare(sum, h.sum) == 1
}

func parseArgon2(text string) (hash, error) {
	version, rest, _ := strings.Cut(text, "$")
	parameters, rest, _ := strings.Cut(rest, "$")
	h := &argon2Hash{}
	var threads uint32
	if _, err := fmt.Sscanf(version+" "+parameters, "v=19 m=%d,t=%d,p=%d", &h.kib, &h.passes, &threads); err != nil {
		return nil, fmt.Errorf("parameters %.40q: want v=19$m=…,t=…,p=…", version+"$"+parameters)
	}
	if h.kib > maxArgonKiB || h.passes < 1 || h.passes > maxArgonPasses || threads < 1 || threads > maxArgonThreads {
		return nil, fmt.Errorf("parameters %s: want m up to %d, t from 1 to %d, p from 1 to %d", parameters, maxArgonKiB, maxArgonPasses, maxArgonThreads)
	}
	h.threads = uint8(threads)
	var err error
	h.salt, h.sum, err = saltAndSum(rest, base64.RawStdEncoding)
	if err != nil {
		return nil, err
	}
	return h, nil
}

func makeArgon2(password []byte) (string, error) {
	salt := newSalt()
	sum := argon2.IDKey(password, salt, argonPasses, argonKiB, 1, 32)
	b := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=1$%s$%s", argonKiB, argonPasses, b.EncodeToString(salt), b.EncodeToString(sum)), nil
}

type bcryptHash []byte

func (h bcryptHash) verify(password []byte) bool {
	return bcrypt.CompareHashAndPassword(h, password) == nil
}

func parseBcrypt(prefix string) func(string) (hash, error) {
	return func(text string) (hash, error) {
		h := bcryptHash("$2a$" + text) // the same but for errors that others once made
		cost, err := bcrypt.Cost(h)
		if err == nil && cost > maxBcryptCost {
			err = fmt.Errorf("cost %d: want %d at most", cost, maxBcryptCost)
		}
		if err == nil && len(h) != 60 {
			err = fmt.Errorf("%d characters: want 60", len(prefix)+len(text))
		}
		if err != nil {
			return nil, err
		}
		return h, nil
	}
}

func makeBcrypt(password []byte) (string, error) {
	if len(password) > 72 {
		return "", errors.New("bcrypt looks at the first 72 bytes of a password only; choose another hash for longer ones")
	}
	h, err := bcrypt.GenerateFromPassword(password, bcryptCost)
	return string(h), err
}

// saltAndSum reads two parts in base64.
func saltAndSum(text string, encoding *base64.Encoding) (salt, sum []byte, err error) {
	a, b, ok := strings.Cut(text, "$")
	if !ok {
		return nil, nil, errors.New("want a salt, $ and a hash at the end")
	}
	if salt, err = encoding.Strict().DecodeString(a); err != nil {
		return nil, nil, fmt.Errorf("salt: %w", err)
	}
	if sum, err = encoding.Strict().DecodeString(b); err != nil {
		return nil, nil, fmt.Errorf("hash: %w", err)
	}
	if len(salt) == 0 || len(salt) > maxSumBytes || len(sum) < minSumBytes || len(sum) > maxSumBytes {
		return nil, nil, fmt.Errorf("salt of %d and hash of %d bytes: want a salt, and a hash of %d to %d", len(salt), len(sum), minSumBytes, maxSumBytes)
	}
	return salt, sum, nil
}

func newSalt() []byte {
	salt := make([]byte, 16)
	rand.Read(salt)
	return salt
}
