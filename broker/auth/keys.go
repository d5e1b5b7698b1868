package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// KeysConfig says where the keys of tokens are.
type KeysConfig struct {
	// SecretFile has the secret of HS256, HS384 and HS512: its bytes, without a
	// last line break.
	SecretFile string
	// KeyFiles are public keys or certificates in PEM, one or more in each.
	KeyFiles []string
	// JWKSFile is a set of keys (RFC 7517 §5).
	JWKSFile string
	// JWKSURL is where a set of public keys is fetched from.
	JWKSURL string
	// Remote says how.
	Remote RemoteConfig
}

// Files are the files with keys.
func (c *KeysConfig) Files() []string {
	var files []string
	for _, f := range append([]string{c.SecretFile, c.JWKSFile}, c.KeyFiles...) {
		if f != "" {
			files = append(files, f)
		}
	}
	return files
}

// family is what keys and algorithms have in common: a key verifies nothing of
// another family, whatever a token's header says.
type family int

const (
	secrets family = iota
	rsaKeys
	p256
	p384
	p521
	edwards
)

// algorithms are all that can be configured.
var algorithms = map[jose.SignatureAlgorithm]family{
	jose.HS256: secrets, jose.HS384: secrets, jose.HS512: secrets,
	jose.RS256: rsaKeys, jose.RS384: rsaKeys, jose.RS512: rsaKeys,
	jose.PS256: rsaKeys, jose.PS384: rsaKeys, jose.PS512: rsaKeys,
	jose.ES256: p256, jose.ES384: p384, jose.ES512: p521,
	jose.EdDSA: edwards,
}

func algorithmNames() []string {
	names := make([]string, 0, len(algorithms))
	for a := range algorithms {
		names = append(names, string(a))
	}
	slices.Sort(names)
	return names
}

// key is one that verifies tokens.
type key struct {
	id        string
	algorithm jose.SignatureAlgorithm // empty for all of its family
	family    family
	material  any // []byte or a public key
}

// newKey refuses what is too weak to prove anything.
func newKey(id string, material any) (key, error) {
	k := key{id: id, material: material}
	switch m := material.(type) {
	case []byte:
		if len(m) < minSecretBytes { // RFC 7518 §3.2
			return k, fmt.Errorf("secret of %d bytes: want %d at least", len(m), minSecretBytes)
		}
		k.family = secrets
	case *rsa.PublicKey:
		if m.N.BitLen() < minRSABits { // RFC 7518 §3.3
			return k, fmt.Errorf("RSA key of %d bits: want %d at least", m.N.BitLen(), minRSABits)
		}
		k.family = rsaKeys
	case *ecdsa.PublicKey:
		switch m.Curve {
		case elliptic.P256():
			k.family = p256
		case elliptic.P384():
			k.family = p384
		case elliptic.P521():
			k.family = p521
		default:
			return k, errors.New("unknown elliptic curve: want P-256, P-384 or P-521")
		}
	case ed25519.PublicKey:
		k.family = edwards
	default:
		return k, fmt.Errorf("a key of type %T: want RSA, ECDSA or Ed25519", material)
	}
	return k, nil
}

// fits tells whether a token with this header may be tried with the key.
func (k *key) fits(id string, algorithm jose.SignatureAlgorithm) bool {
	return (id == "" || k.id == "" || k.id == id) &&
		(k.algorithm == "" || k.algorithm == algorithm) && k.family == algorithms[algorithm]
}

// keyring is the keys of files and those of a URL. Safe for concurrent use.
type keyring struct {
	config KeysConfig
	files  atomic.Pointer[[]key]
	remote *remoteKeys // nil for none
}

func newKeyring(c KeysConfig, log *slog.Logger, now func() time.Time) (*keyring, error) {
	r := &keyring{config: c}
	if len(c.Files()) == 0 && c.JWKSURL == "" {
		return nil, errors.New("no keys: name secret-file, key-files, jwks-file or jwks-url")
	}
	if err := r.read(); err != nil {
		return nil, err
	}
	if c.JWKSURL != "" {
		var err error
		if r.remote, err = newRemoteKeys(c.JWKSURL, c.Remote, log, now); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *keyring) close() {
	if r.remote != nil {
		r.remote.close()
	}
}

// read reads the files anew. With an error the keys stay as they are.
func (r *keyring) read() error {
	var keys []key
	if f := r.config.SecretFile; f != "" {
		more, err := readSecret(f)
		if err != nil {
			return err
		}
		keys = append(keys, more)
	}
	for _, f := range r.config.KeyFiles {
		more, err := readPEM(f)
		if err != nil {
			return err
		}
		keys = append(keys, more...)
	}
	if f := r.config.JWKSFile; f != "" {
		data, err := readSmall(f)
		if err != nil {
			return err
		}
		more, err := parseJWKS(data, true)
		if err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		keys = append(keys, more...)
	}
	r.files.Store(&keys)
	return nil
}

// errNoKey: the token is of somebody else, or a forgery.
var errNoKey = errors.New("no key for the token")

// find returns the keys that a token with this header may have been signed with.
// An error other than errNoKey: they are not to be had.
func (r *keyring) find(ctx context.Context, id string, algorithm jose.SignatureAlgorithm) ([]key, error) {
	found := fitting(*r.files.Load(), id, algorithm)
	if r.remote != nil && len(found) == 0 {
		keys, err := r.remote.current(ctx)
		if found = fitting(keys, id, algorithm); len(found) == 0 && err == nil {
			keys, err = r.remote.renew(ctx)
			found = fitting(keys, id, algorithm)
		}
		if err != nil && len(found) == 0 {
			return nil, err
		}
	}
	if len(found) == 0 {
		return nil, errNoKey
	}
	return found, nil
}

func fitting(keys []key, id string, algorithm jose.SignatureAlgorithm) (found []key) {
	for i := range keys {
		if keys[i].fits(id, algorithm) {
			found = append(found, keys[i])
		}
	}
	return found
}

func readSecret(path string) (key, error) {
	data, err := readSmall(path)
	if err != nil {
		return key{}, err
	}
	for len(data) > 0 && (data[len(data)-1] == '\n' || data[len(data)-1] == '\r') {
		data = data[:len(data)-1]
	}
	k, err := newKey("", data)
	if err != nil {
		return k, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// readPEM reads public keys and certificates. A private key is refused: this is
// not where it belongs.
func readPEM(path string) (keys []key, err error) {
	data, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		k, err := pemKey(block)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: no public key or certificate in PEM", path)
	}
	return keys, nil
}

func pemKey(block *pem.Block) (key, error) {
	var material any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		material, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		material, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var c *x509.Certificate
		if c, err = x509.ParseCertificate(block.Bytes); err == nil {
			material = c.PublicKey
		}
	default:
		err = fmt.Errorf("a %s: want a PUBLIC KEY or a CERTIFICATE", block.Type)
	}
	if err != nil {
		return key{}, err
	}
	return newKey("", material)
}

// parseJWKS reads a set of keys (RFC 7517 §5). Keys for encryption, of unknown
// types and algorithms are passed over, as §5 wants; secrets are taken from files
// only.
func parseJWKS(data []byte, mayHaveSecrets bool) (keys []key, err error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("read key set: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("read key set: %d keys: want %d at most", len(set.Keys), maxKeys)
	}
	for _, raw := range set.Keys {
		if k, ok := jwk(raw, mayHaveSecrets); ok {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("read key set: no key in it can verify a token")
	}
	return keys, nil
}

func jwk(raw []byte, maySecret bool) (key, bool) {
	var j jose.JSONWebKey
	if j.UnmarshalJSON(raw) != nil || !j.Valid() || j.Use != "" && j.Use != "sig" {
		return key{}, false
	}
	material := j.Key
	if secret, ok := material.([]byte); !ok {
		if material = j.Public().Key; material == nil {
			return key{}, false
		}
	} else if !maySecret || len(secret) == 0 {
		return key{}, false
	}
	k, err := newKey(j.KeyID, material)
	k.algorithm = jose.SignatureAlgorithm(j.Algorithm)
	return k, err == nil
}

// readSmall reads a file of keys.
func readSmall(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxKeysBytes {
		return nil, fmt.Errorf("%s: larger than %d bytes; is it the right file?", path, maxKeysBytes)
	}
	return os.ReadFile(path)
}
