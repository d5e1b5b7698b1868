package config

import (
	"errors"
	"fmt"
)

// Authentication is one part of the chain: exactly one of its fields is set.
type Authentication struct {
	PasswordFile string       `yaml:"password-file,omitempty"`
	Certificate  *Certificate `yaml:"certificate,omitempty"`
	JWT          *JWT         `yaml:"jwt,omitempty"`
	HTTP         *HTTP        `yaml:"http,omitempty"`
	SCRAM        *SCRAM       `yaml:"scram,omitempty"`
}

// SCRAM is the method SCRAM-SHA-256 of enhanced authentication, by those lines of
// a password file that have its hashes.
type SCRAM struct {
	File string `yaml:"file"`
}

// Certificate takes names from the client's certificate (docs/SECURITY.md).
type Certificate struct {
	Username string `yaml:"username"`
	ClientID string `yaml:"client-id,omitempty"`
}

// JWT believes signed tokens.
type JWT struct {
	From            string            `yaml:"from,omitempty"` // password (the default) or username
	Algorithms      []string          `yaml:"algorithms"`
	SecretFile      string            `yaml:"secret-file,omitempty"`
	KeyFiles        []string          `yaml:"key-files,omitempty"`
	JWKSFile        string            `yaml:"jwks-file,omitempty"`
	JWKSURL         string            `yaml:"jwks-url,omitempty"`
	Refresh         Duration          `yaml:"refresh,omitempty"`
	MaxAge          Duration          `yaml:"max-age,omitempty"`
	Client          HTTPClient        `yaml:",inline"`
	Issuer          string            `yaml:"issuer,omitempty"`
	Audience        string            `yaml:"audience,omitempty"`
	Leeway          Duration          `yaml:"leeway,omitempty"`
	AllowEndless    bool              `yaml:"allow-endless,omitempty"`
	Required        map[string]string `yaml:"required,omitempty"`
	UsernameClaim   string            `yaml:"username-claim,omitempty"`
	ClientIDClaim   string            `yaml:"client-id-claim,omitempty"`
	GroupsClaim     string            `yaml:"groups-claim,omitempty"`
	PermissionClaim string            `yaml:"acl-claim,omitempty"`
}

// HTTP asks a back end.
type HTTP struct {
	URL          string     `yaml:"url"`
	Timeout      Duration   `yaml:"timeout,omitempty"`
	CacheAllowed Duration   `yaml:"cache-allowed,omitempty"`
	CacheDenied  Duration   `yaml:"cache-denied,omitempty"`
	Client       HTTPClient `yaml:",inline"`
}

// HTTPClient is how a back end is spoken to.
type HTTPClient struct {
	CA      string `yaml:"ca,omitempty"`
	Cert    string `yaml:"cert,omitempty"`
	Key     string `yaml:"key,omitempty"`
	Headers string `yaml:"headers-file,omitempty"`
}

// Authenticates tells whether there is anybody to ask about clients.
func (c *Config) Authenticates() bool { return c.PasswordFile != "" || len(c.Authentication) > 0 }

func (c *Config) checkAuthentication() error {
	var errs []error
	methods := 0
	if c.ACLFile != "" && c.ACLRules != "" {
		errs = append(errs, fmt.Errorf("%s: %s is there too: which of them decides would not be clear; put all rules into one", c.origin["acl-rules"].where, c.origin["acl-file"].where))
	}
	for i, a := range c.Authentication {
		n := 0
		for _, set := range []bool{a.PasswordFile != "", a.Certificate != nil, a.JWT != nil, a.HTTP != nil, a.SCRAM != nil} {
			if set {
				n++
			}
		}
		if n != 1 {
			errs = append(errs, fmt.Errorf("authentication: part %d: want exactly one of password-file, certificate, jwt, http and scram", i+1))
		}
		if a.SCRAM != nil {
			if methods++; methods > 1 {
				errs = append(errs, fmt.Errorf("authentication: part %d: want one scram at most", i+1))
			}
			if a.SCRAM.File == "" {
				errs = append(errs, fmt.Errorf("authentication: part %d: scram: want a file", i+1))
			}
		}
		if a.JWT != nil && a.JWT.From != "" && a.JWT.From != "password" && a.JWT.From != "username" {
			errs = append(errs, fmt.Errorf("authentication: part %d: jwt: from: %q: want password or username", i+1, a.JWT.From))
		}
	}
	return errors.Join(errs...)
}
