package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/acl"
	"github.com/shoalmq/shoal/broker/auth"
	"github.com/shoalmq/shoal/broker/watch"
	"github.com/shoalmq/shoal/cmd/shoal/config"
)

// guards decide who comes in and what they may do, with the files that they read
// watched. close ends them.
type guards struct {
	log     *slog.Logger
	watcher *watch.Watcher
	chain   auth.Chain
	scram   *auth.SCRAM // nil for none
	closers []func()
}

// openGuards makes the guards that are configured, and gives them to the broker.
func openGuards(c *config.Config, log *slog.Logger, w *watch.Watcher, b *broker.Config) (*guards, error) {
	g := &guards{log: log, watcher: w}
	if err := g.authentication(c); err != nil {
		g.close()
		return nil, err
	}
	if c.Authenticates() {
		b.Authenticator = g.chain
	}
	if g.scram != nil {
		b.Enhanced = g.scram
	}
	if err := g.authorization(c, b); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

func (g *guards) close() {
	for _, c := range g.closers {
		c()
	}
}

// authentication makes the chain.
func (g *guards) authentication(c *config.Config) error {
	parts := c.Authentication
	if c.PasswordFile != "" {
		parts = append([]config.Authentication{{PasswordFile: c.PasswordFile}}, parts...)
	}
	for i := range parts {
		if s := parts[i].SCRAM; s != nil { // not of the chain: the client asks for it
			g.scram = auth.NewSCRAM(s.File)
			if err := g.watcher.Add("passwords", []string{s.File}, g.scram.Load); err != nil {
				return fmt.Errorf("open authentication: scram: %w", err)
			}
			continue
		}
		part, err := g.part(&parts[i])
		if err != nil {
			return fmt.Errorf("open authentication: %w", err)
		}
		g.chain = append(g.chain, part)
	}
	return nil
}

// authorization gives the broker the rules that are configured. Without any there
// is still who holds clients to the rights of their tokens.
func (g *guards) authorization(c *config.Config, b *broker.Config) error {
	path, parse := c.ACLFile, acl.ParseMosquitto
	if c.ACLRules != "" {
		path, parse = c.ACLRules, acl.ParseYAML
	}
	if path == "" && !c.Authenticates() {
		return nil
	}
	s := acl.NewSet(path, parse, g.log)
	b.Authorizer = s
	if path == "" {
		return nil
	}
	if err := g.watcher.Add("rules", []string{path}, s.Load); err != nil {
		return fmt.Errorf("open authorization: %w", err)
	}
	return nil
}

func (g *guards) part(a *config.Authentication) (broker.Authenticator, error) {
	switch {
	case a.PasswordFile != "":
		p := auth.NewPasswords(a.PasswordFile)
		return p, g.watcher.Add("passwords", []string{a.PasswordFile}, p.Load)
	case a.Certificate != nil:
		return auth.NewCertificates(a.Certificate.Username, a.Certificate.ClientID)
	case a.JWT != nil:
		return g.tokens(a.JWT)
	}
	h := a.HTTP
	b, err := auth.NewCallback(auth.CallbackConfig{
		URL: h.URL, Client: httpClient(&h.Client), Timeout: time.Duration(h.Timeout),
		CacheAllowed: time.Duration(h.CacheAllowed), CacheDenied: time.Duration(h.CacheDenied),
	})
	if err != nil {
		return nil, err
	}
	g.closers = append(g.closers, b.Close)
	return b, nil
}

func (g *guards) tokens(t *config.JWT) (broker.Authenticator, error) {
	j, err := auth.NewJWT(auth.JWTConfig{
		Log: g.log, FromUsername: t.From == "username", Algorithms: t.Algorithms,
		Keys: auth.KeysConfig{
			SecretFile: t.SecretFile, KeyFiles: t.KeyFiles, JWKSFile: t.JWKSFile, JWKSURL: t.JWKSURL,
			Remote: auth.RemoteConfig{Client: httpClient(&t.Client), Refresh: time.Duration(t.Refresh), MaxAge: time.Duration(t.MaxAge)},
		},
		Issuer: t.Issuer, Audience: t.Audience, Leeway: time.Duration(t.Leeway), AllowEndless: t.AllowEndless, Required: t.Required,
		UsernameClaim: t.UsernameClaim, ClientIDClaim: t.ClientIDClaim, GroupsClaim: t.GroupsClaim, ACLClaim: t.PermissionClaim,
	})
	if err != nil {
		return nil, err
	}
	g.closers = append(g.closers, j.Close)
	if files := j.Files(); len(files) > 0 {
		return j, g.watcher.Add("keys of tokens", files, j.Load)
	}
	return j, nil
}

func httpClient(c *config.HTTPClient) auth.HTTPConfig {
	return auth.HTTPConfig{CAFile: c.CA, CertFile: c.Cert, KeyFile: c.Key, HeadersFile: c.Headers}
}
