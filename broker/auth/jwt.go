package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/shoalmq/shoal/broker"
)

// JWTConfig says which tokens (RFC 7519) are believed, and what they say.
type JWTConfig struct {
	Log *slog.Logger
	// FromUsername takes the token from the User Name, not the Password.
	FromUsername bool
	// Algorithms are the signatures (RFC 7518 §3.1) that are accepted; there is no
	// default. A key is used with algorithms of its own type only.
	Algorithms []string
	// Keys have the public keys and secrets.
	Keys KeysConfig
	// Issuer and Audience have to be those of the token, if not empty; of several
	// audiences of a token one has to be this.
	Issuer, Audience string
	// Leeway is how far the clocks of the issuer and this node may be apart: 0 to
	// 5 minutes.
	Leeway time.Duration
	// AllowEndless accepts tokens without the claim exp.
	AllowEndless bool
	// Required are claims that have to be there with these values, in which %c is
	// the Client Identifier and %u the User Name of CONNECT.
	Required map[string]string
	// UsernameClaim has the user name: "sub" if empty.
	UsernameClaim string
	// ClientIDClaim has the Client Identifier, which takes the place of CONNECT's,
	// if not empty; a CONNECT with another one is refused.
	ClientIDClaim string
	// GroupsClaim has a list of groups, or one.
	GroupsClaim string
	// ACLClaim has what the client may do (grants.go), if not empty; a token
	// without it may do nothing.
	ACLClaim string
	// Now is the time; time.Now if nil.
	Now func() time.Time
}

// JWT is an Authenticator of signed tokens. What is no token at all is
// ErrNotMine; what is one and cannot be believed is refused, whatever else the
// client brings.
type JWT struct {
	config     JWTConfig
	algorithms []jose.SignatureAlgorithm
	keys       *keyring
}

// NewJWT checks the configuration and reads the files that it names. Close it
// after use.
func NewJWT(c JWTConfig) (*JWT, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.UsernameClaim == "" {
		c.UsernameClaim = "sub"
	}
	if c.Leeway < 0 || c.Leeway > maxLeeway {
		return nil, fmt.Errorf("jwt: leeway %s: want 0 to %s", c.Leeway, maxLeeway)
	}
	j := &JWT{config: c}
	if len(c.Algorithms) == 0 {
		return nil, fmt.Errorf("jwt: algorithms: name those that your issuer signs with, such as RS256; known are %s", strings.Join(algorithmNames(), ", "))
	}
	for _, name := range c.Algorithms {
		if _, ok := algorithms[jose.SignatureAlgorithm(name)]; !ok {
			return nil, fmt.Errorf("jwt: algorithms: %q: want some of %s", name, strings.Join(algorithmNames(), ", "))
		}
		j.algorithms = append(j.algorithms, jose.SignatureAlgorithm(name))
	}
	var err error
	if j.keys, err = newKeyring(c.Keys, c.Log, c.Now); err != nil {
		return nil, fmt.Errorf("jwt: %w", err)
	}
	return j, nil
}

// Files are those that the keys are in; Load reads them anew, and with an error
// leaves the keys as they are.
func (j *JWT) Files() []string { return j.config.Keys.Files() }

// Load reads the files.
func (j *JWT) Load() error { return j.keys.read() }

// Close ends what is being fetched.
func (j *JWT) Close() { j.keys.close() }

// Authenticate is part of broker.Authenticator.
func (j *JWT) Authenticate(ctx context.Context, c *broker.Credentials) (*broker.Identity, error) {
	text := string(c.Password)
	if j.config.FromUsername {
		text = c.Username
	}
	if !looksLikeToken(text) {
		return nil, ErrNotMine
	}
	if len(text) > maxTokenBytes {
		return nil, fmt.Errorf("%w: the token is longer than %d bytes", broker.ErrBadCredentials, maxTokenBytes)
	}
	token, err := jwt.ParseSigned(text, j.algorithms)
	if err != nil {
		return nil, j.refuse(c, err)
	}
	if len(token.Headers) != 1 {
		return nil, j.refuse(c, errors.New("the token has not one signature"))
	}
	keys, err := j.keys.find(ctx, token.Headers[0].KeyID, jose.SignatureAlgorithm(token.Headers[0].Algorithm))
	switch {
	case errors.Is(err, errNoKey):
		return nil, j.refuse(c, err)
	case err != nil:
		return nil, fmt.Errorf("jwt: %w", err)
	}
	claims, registered, err := verify(token, keys)
	if err != nil {
		return nil, j.refuse(c, err)
	}
	return j.believe(c, claims, registered)
}

// refuse is for a token that is wrong. Why is for the log: whoever tries need
// not know.
func (j *JWT) refuse(c *broker.Credentials, err error) error {
	j.config.Log.Info("token refused", "client", c.ClientID, "reason", err)
	return fmt.Errorf("%w: the token cannot be verified", broker.ErrBadCredentials)
}

// looksLikeToken tells a JWS in compact form (RFC 7515 §7.1) from a password:
// three parts, of which the first is a JSON object with an algorithm.
func looksLikeToken(text string) bool {
	head, rest, ok := strings.Cut(text, ".")
	if !ok || strings.Count(rest, ".") != 1 || len(head) > maxTokenBytes {
		return false
	}
	raw, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		return false
	}
	var header struct {
		Alg *string `json:"alg"`
	}
	return json.Unmarshal(raw, &header) == nil && header.Alg != nil
}

// verify tries the keys that the token may have been signed with.
func verify(token *jwt.JSONWebToken, keys []key) (map[string]any, *jwt.Claims, error) {
	err := error(errNoKey)
	for _, k := range keys {
		claims, registered := map[string]any{}, &jwt.Claims{}
		if err = token.Claims(k.material, &claims, registered); err == nil {
			return claims, registered, nil
		}
	}
	return nil, nil, err
}

// believe makes an Identity of the claims of a token that has been verified.
func (j *JWT) believe(c *broker.Credentials, claims map[string]any, registered *jwt.Claims) (*broker.Identity, error) {
	expected := jwt.Expected{Issuer: j.config.Issuer, Time: j.config.Now()}
	if j.config.Audience != "" {
		expected.AnyAudience = jwt.Audience{j.config.Audience}
	}
	if registered.Expiry == nil && !j.config.AllowEndless {
		return nil, fmt.Errorf("%w: the token has no end (claim exp)", broker.ErrNotAuthorized)
	}
	if err := registered.ValidateWithLeeway(expected, j.config.Leeway); err != nil {
		return nil, fmt.Errorf("%w: %s", broker.ErrNotAuthorized, strings.TrimPrefix(err.Error(), "go-jose/go-jose/jwt: "))
	}
	who := &broker.Identity{By: "jwt", Claims: textClaims(claims)}
	if registered.Expiry != nil {
		who.Expires = registered.Expiry.Time().Add(j.config.Leeway)
	}
	for _, step := range []func(*broker.Credentials, *broker.Identity, map[string]any) error{j.name, j.require, j.grant} {
		if err := step(c, who, claims); err != nil {
			return nil, err
		}
	}
	return who, nil
}

// name takes over user name, Client Identifier and groups.
func (j *JWT) name(c *broker.Credentials, who *broker.Identity, claims map[string]any) error {
	var ok bool
	if who.Username, ok = text(claim(claims, j.config.UsernameClaim)); !ok || who.Username == "" {
		return fmt.Errorf("%w: the token has no user name (claim %s)", broker.ErrNotAuthorized, j.config.UsernameClaim)
	}
	if j.config.ClientIDClaim != "" {
		who.ClientID, ok = text(claim(claims, j.config.ClientIDClaim))
		if !ok || who.ClientID == "" {
			return fmt.Errorf("%w: the token has no client identifier (claim %s)", broker.ErrNotAuthorized, j.config.ClientIDClaim)
		}
		if !c.Assigned && c.ClientID != who.ClientID {
			return fmt.Errorf("%w: the token is for another client identifier", broker.ErrNotAuthorized)
		}
	}
	if j.config.GroupsClaim != "" {
		if who.Groups, ok = texts(claim(claims, j.config.GroupsClaim)); !ok {
			return fmt.Errorf("%w: claim %s of the token is not a list of names", broker.ErrNotAuthorized, j.config.GroupsClaim)
		}
	}
	return validNames(who)
}

// require checks what has to be in the token.
func (j *JWT) require(c *broker.Credentials, _ *broker.Identity, claims map[string]any) error {
	for name, want := range j.config.Required {
		want = strings.NewReplacer("%c", c.ClientID, "%u", c.Username).Replace(want)
		if !holds(claim(claims, name), want) {
			return fmt.Errorf("%w: claim %s of the token is not as demanded", broker.ErrNotAuthorized, name)
		}
	}
	return nil
}

// grant takes over what the token allows.
func (j *JWT) grant(c *broker.Credentials, who *broker.Identity, claims map[string]any) (err error) {
	if j.config.ACLClaim == "" {
		return nil
	}
	id := who.ClientID
	if id == "" {
		id = c.ClientID
	}
	if who.Grants, err = readGrants(claim(claims, j.config.ACLClaim), id, who.Username); err != nil {
		return fmt.Errorf("%w: claim %s of the token: %w", broker.ErrNotAuthorized, j.config.ACLClaim, err)
	}
	return nil
}
